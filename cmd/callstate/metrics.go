package main

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store/bolt"
)

// tally counts what the engine shows it, once a batch, so that the metrics cost
// the engine a map of its own and nothing of Prometheus but two observations a
// batch.
type tally struct {
	appendTime prometheus.Histogram
	batch      prometheus.Histogram

	mu          sync.Mutex // guards what follows
	events      map[eventKind]uint64
	connects    map[string]uint64 // by domain
	losses      map[string]uint64
	resyncs     map[string]uint64
	corrections map[[2]string]uint64 // by domain and kind
	requests    map[string]uint64    // by method
	outcomes    map[string]uint64    // by result
}

type eventKind struct {
	name   events.Type
	origin events.Origin
}

var _ engine.Observer = (*tally)(nil)

func newTally() *tally {
	return &tally{
		appendTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "callstate_append_seconds", Help: "Time until a batch of events was durable.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "callstate_append_events", Help: "Events of a batch, which share one sync.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 7),
		}),
		events: map[eventKind]uint64{}, connects: map[string]uint64{}, losses: map[string]uint64{}, resyncs: map[string]uint64{},
		corrections: map[[2]string]uint64{}, requests: map[string]uint64{}, outcomes: map[string]uint64{},
	}
}

// Appended implements engine.Observer.
func (t *tally) Appended(events int, took time.Duration) {
	t.appendTime.Observe(took.Seconds())
	t.batch.Observe(float64(events))
}

// Folded implements engine.Observer.
func (t *tally) Folded(evs []events.Event, _ []engine.Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range evs {
		ev := &evs[i]
		t.events[eventKind{ev.Type(), ev.Origin}]++
		switch p := ev.Payload.(type) {
		case *events.LinkConnected:
			t.connects[ev.Domain]++
		case *events.LinkDisconnected:
			t.losses[ev.Domain]++
		case *events.LinkResynced:
			t.resyncs[ev.Domain]++
			t.corrections[[2]string{ev.Domain, "opened"}] += uint64(p.Opened)
			t.corrections[[2]string{ev.Domain, "closed"}] += uint64(p.Closed)
		case *events.CommandRequested:
			t.requests[p.Method]++
		case *events.CommandCompleted:
			t.outcomes[p.Result]++
		}
	}
}

// metric is one family that is made when it is asked for.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func counter(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("callstate_"+name+"_total", help, labels, nil), prometheus.CounterValue}
}

func gauge(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("callstate_"+name, help, labels, nil), prometheus.GaugeValue}
}

var (
	mFramesReceived = counter("frames_received", "Frames of the PBX, of the whole log.")
	mFrames         = counter("frames", "What became of frames, of the whole log; the sum is what was received, but for those that wait for their leg.", "became")
	mQuarantined    = counter("frames_quarantined", "Frames that could not be understood, since the start.", "reason")
	mEvents         = counter("events", "Events stored since the start.", "type", "origin")
	mPosition       = gauge("log_position", "Position of the last durable event.")
	mFolded         = gauge("folded_position", "Position of the last event in the views.")
	mConfirmed      = gauge("confirmed_position", "Position of the last event whose CTI events NATS has confirmed.")
	mLag            = gauge("bus_lag_events", "Durable events that NATS has not confirmed yet.")
	mLive           = gauge("calls_live", "Calls that have not ended.")
	mDoubtful       = gauge("calls_doubtful", "Live calls that may be over.")
	mLines          = gauge("lines", "Accounts that were heard of.")
	mBytes          = gauge("log_bytes", "Size of the log on disk.")
	mSegments       = gauge("log_segments", "Files of the log, with the one that is appended to.")
	mSnapshot       = gauge("snapshot_position", "Position of the last snapshot of the state, 0 for none.")
	mSnapshotTime   = gauge("snapshot_timestamp_seconds", "When it was kept, since the start.")
	mLinks          = gauge("links", "Connections to PBXs, web phones included.", "adapter", "domain", "mode", "state")
	mUnanswered     = gauge("links_unanswered", "Links whose PBX does not say what channels it has.", "domain")
	mConnects       = counter("link_connects", "Connections that signed in.", "domain")
	mLosses         = counter("link_losses", "Connections lost or closed.", "domain")
	mResyncs        = counter("resyncs", "Comparisons with the PBX that were noted: after connects, and those that found a difference.", "domain")
	mCorrections    = counter("resync_corrections", "Legs that a comparison found or ended.", "domain", "kind")
	mRequests       = counter("requests", "Requests to command the PBX.", "method")
	mOutcomes       = counter("request_outcomes", "Outcomes of requests.", "result")
	mBusReady       = gauge("bus_ready", "1 while NATS can be published to.")
	mBusFailures    = counter("bus_failures", "Times that NATS could not be published to any more.")
	mSent           = counter("bus_messages_sent", "Messages sent to NATS, repeats included.")
	mAcked          = counter("bus_messages_confirmed", "Messages that JetStream confirmed.")
	mDuplicates     = counter("bus_messages_duplicate", "Of those, repeats that JetStream recognised.")
	mSkipped        = counter("bus_messages_skipped", "Repeats that were found in the stream and not sent.")
	mRejected       = counter("bus_messages_rejected", "Messages too large for the server, left out.")
	mViews          = counter("views_written", "Views written to the buckets.")
	mTraces         = counter("traces_dropped", "Calls whose trace was dropped, since too many waited.")
	mBuild          = gauge("build_info", "1.", "version")
)

// appCollector reads the parts' own figures when it is asked.
type appCollector struct{ a *app }

// Describe implements prometheus.Collector: what there is shows when it is collected.
func (appCollector) Describe(chan<- *prometheus.Desc) {}

// scrapeTime bounds how long the engine is waited for.
const scrapeTime = 2 * time.Second

// Collect implements prometheus.Collector.
func (c appCollector) Collect(ch chan<- prometheus.Metric) {
	send := func(m metric, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	c.engine(ctx, send)
	c.links(send)
	c.bus(send)
	if log, ok := c.a.store.(*bolt.Store); ok {
		if n, err := log.Bytes(); err == nil {
			send(mBytes, float64(n))
		}
		if segs, err := log.Segments(); err == nil {
			send(mSegments, float64(len(segs)+1))
		}
	}
	if c.a.tracer != nil {
		send(mTraces, float64(c.a.tracer.Dropped()))
	}
	send(mBuild, 1, version())
}

func (c appCollector) engine(ctx context.Context, send func(metric, float64, ...string)) {
	s, err := c.a.engine.Status(ctx)
	if err != nil {
		return
	}
	f := s.Frames
	send(mFramesReceived, float64(f.Received))
	send(mFrames, float64(f.Recorded), "recorded")
	send(mFrames, float64(f.NoOps), "no-op")
	send(mFrames, float64(f.Duplicates), "duplicate")
	send(mFrames, float64(f.Quarantined), "quarantined")
	for reason, n := range s.Quarantined {
		send(mQuarantined, float64(n), reason)
	}
	send(mPosition, float64(s.Position))
	send(mFolded, float64(s.Folded))
	send(mConfirmed, float64(s.Published))
	send(mLag, float64(s.Position-min(s.Published, s.Position)))
	send(mLive, float64(s.LiveCalls))
	send(mLines, float64(s.Lines))
	send(mSnapshot, float64(s.Snapshot))
	if !s.SnapshotAt.IsZero() {
		send(mSnapshotTime, float64(s.SnapshotAt.UnixMilli())/1000)
	}
	if ds, err := c.a.engine.Doubtful(ctx, engine.DoubtFilter{}); err == nil {
		send(mDoubtful, float64(len(ds)))
	}
	t := c.a.tally
	t.mu.Lock()
	kinds := maps.Clone(t.events)
	corrections := maps.Clone(t.corrections)
	byLabel := map[*metric]map[string]uint64{
		&mConnects: maps.Clone(t.connects), &mLosses: maps.Clone(t.losses), &mResyncs: maps.Clone(t.resyncs),
		&mRequests: maps.Clone(t.requests), &mOutcomes: maps.Clone(t.outcomes),
	}
	t.mu.Unlock()
	for k, n := range kinds {
		send(mEvents, float64(n), string(k.name), k.origin.String())
	}
	for k, n := range corrections {
		send(mCorrections, float64(n), k[0], k[1])
	}
	for m, counts := range byLabel {
		for label, n := range counts {
			send(*m, float64(n), label)
		}
	}
}

// links counts links by domain: a login may be an agent's number.
func (c appCollector) links(send func(metric, float64, ...string)) {
	type group struct{ adapter, domain, mode, state string }
	groups, unanswered := map[group]int{}, map[string]int{}
	for _, l := range connections(c.a.links, c.a.phones) {
		for _, state := range []string{"connected", "refused", "retried"} {
			groups[group{l.Adapter, l.Domain, l.Mode, state}] += 0
		}
		unanswered[l.Domain] += 0
		if l.UnansweredSince != 0 {
			unanswered[l.Domain]++
		}
		state := "retried"
		switch {
		case l.Refused:
			state = "refused"
		case l.Connected:
			state = "connected"
		}
		groups[group{l.Adapter, l.Domain, l.Mode, state}]++
	}
	for g, n := range groups {
		send(mLinks, float64(n), g.adapter, g.domain, g.mode, g.state)
	}
	for domain, n := range unanswered {
		send(mUnanswered, float64(n), domain)
	}
}

func (c appCollector) bus(send func(metric, float64, ...string)) {
	ready := 0.0
	if c.a.bus.Err() == nil {
		ready = 1
	}
	s := c.a.bus.Stats()
	send(mBusReady, ready)
	send(mBusFailures, float64(s.Failures))
	send(mSent, float64(s.Sent))
	send(mAcked, float64(s.Confirmed))
	send(mDuplicates, float64(s.Duplicates))
	send(mSkipped, float64(s.Skipped))
	send(mRejected, float64(s.Rejected))
	send(mViews, float64(s.ViewWrites))
}

// metrics is what /metrics shows.
func (a *app) metrics() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		appCollector{a}, a.tally.appendTime, a.tally.batch,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

// observers shows the engine's work to several.
type observers []engine.Observer

// Appended implements engine.Observer.
func (os observers) Appended(events int, took time.Duration) {
	for _, o := range os {
		o.Appended(events, took)
	}
}

// Folded implements engine.Observer.
func (os observers) Folded(evs []events.Event, results []engine.Result) {
	for _, o := range os {
		o.Folded(evs, results)
	}
}
