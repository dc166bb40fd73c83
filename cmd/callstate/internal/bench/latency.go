package bench

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// latency is P6: from the write of a frame to the subscriber's callback, at 1,000
// frames a second. The peer is a one-Put transaction of bbolt on the same disk, in
// turn with it. The note says where the time goes, and what a transaction and a
// message take alone at the same pace.
func (b *Bench) latency(ctx context.Context) ([]Row, error) {
	w := &stopwatch{}
	p, err := b.newPath(ctx, DaemonOptions{Observer: w})
	if err != nil {
		return nil, err
	}
	defer p.close()
	peer, donePeer, err := b.plainIn()
	if err != nil {
		return nil, err
	}
	defer donePeer()
	load, err := mixed()
	if err != nil {
		return nil, err
	}
	half, tail := &latencyQuantile{q: 0.5}, &latencyQuantile{q: 0.99}
	for range pick(b, 2, 7) {
		way, err := p.paced(ctx, w, pick(b, 4, 40), time.Millisecond)
		if err != nil {
			return nil, err
		}
		theirs, err := commits(peer, load, pick(b, 300, 2000), 0)
		if err != nil {
			return nil, err
		}
		alone, err := commits(peer, load, pick(b, 200, 2000), betweenCommits)
		if err != nil {
			return nil, err
		}
		message, err := p.throughNATS(ctx, pick(b, 200, 2000), betweenCommits)
		if err != nil {
			return nil, err
		}
		for _, q := range []*latencyQuantile{half, tail} {
			q.add(way, theirs, alone, message)
		}
	}
	return append(
		half.row("P6a", "frame to subscriber at 1,000 frames/s, p50 / one-Put bbolt transaction p50"),
		tail.row("P6b", "frame to subscriber at 1,000 frames/s, p99 / one-Put bbolt transaction p99")...,
	), nil
}

// way are the times of the messages of a pass: from the frame's write to the
// subscriber, and the stages of that. Each is sorted by itself.
type way struct {
	all, toLog, inLog, toSubscriber []time.Duration
}

// latencyQuantile is one quantile of P6, in microseconds, and of what explains it.
type latencyQuantile struct {
	q     float64
	pairs []pair
	parts [5][]time.Duration // in the order of the row's note
}

func (l *latencyQuantile) add(w *way, theirs, alone, message []time.Duration) {
	v, r := micros(quantile(w.all, l.q)), micros(quantile(theirs, l.q))
	l.pairs = append(l.pairs, pair{v, r, v / r})
	for i, part := range [...][]time.Duration{w.toLog, w.inLog, w.toSubscriber, alone, message} {
		l.parts[i] = append(l.parts[i], quantile(part, l.q))
	}
}

func (l *latencyQuantile) row(id, name string) []Row {
	var mid [len(l.parts)]any
	for i, part := range l.parts {
		slices.Sort(part)
		mid[i] = micros(quantile(part, 0.5))
	}
	note := fmt.Sprintf("until the log begins %.0f us, in the log %.0f, from there to the subscriber %.0f; at that pace a one-Put transaction alone %.0f, a message through NATS alone %.0f", mid[:]...)
	return median(l.pairs).row(id, name, "us", 2, true, note)
}

// stopwatch notes when events were durable and how many messages followed.
type stopwatch struct {
	mu      sync.Mutex
	commits []commit // by event, in order of position
	events  []int    // of each message, in order, the index of its event in commits
	folded  int
}

// commit is when an event's batch was durable, and how long that took.
type commit struct {
	at   time.Time
	took time.Duration
}

// Appended implements engine.Observer.
func (w *stopwatch) Appended(n int, took time.Duration) {
	c := commit{time.Now(), took}
	w.mu.Lock()
	defer w.mu.Unlock()
	for range n {
		w.commits = append(w.commits, c)
	}
}

// Folded implements engine.Observer.
func (w *stopwatch) Folded(evs []events.Event, results []engine.Result) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range results {
		// A result is of the event with its position; each event has one.
		for range results[i].Messages {
			w.events = append(w.events, w.folded+int(results[i].Position-evs[0].Position))
		}
	}
	w.folded += len(evs)
}

// reset forgets what was noted. Nothing may be under way.
func (w *stopwatch) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.commits, w.events, w.folded = nil, nil, 0
}

// stages are the times of messages that were sent and came at the given times.
func (w *stopwatch) stages(sent, came []time.Time) (*way, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.events) != len(came) {
		return nil, fmt.Errorf("%d messages came, the engine made %d", len(came), len(w.events))
	}
	var s way
	for i := range came {
		c := w.commits[w.events[i]]
		s.all = append(s.all, came[i].Sub(sent[i]))
		s.toLog = append(s.toLog, c.at.Add(-c.took).Sub(sent[i]))
		s.inLog = append(s.inLog, c.took)
		s.toSubscriber = append(s.toSubscriber, came[i].Sub(c.at))
	}
	for _, d := range [][]time.Duration{s.all, s.toLog, s.inLog, s.toSubscriber} {
		slices.Sort(d)
	}
	return &s, nil
}

// betweenCommits is the mean time between the batches of a path that gets 1,000
// frames a second.
const betweenCommits = 2 * time.Millisecond

// commits are the sorted times of one-Put transactions, with a pause before each.
func commits(peer *plain, load *eventLoad, n int, pause time.Duration) ([]time.Duration, error) {
	took := make([]time.Duration, n)
	for i := range took {
		ev, err := load.next()
		if err != nil {
			return nil, err
		}
		rec, err := events.AppendBinary(nil, &ev)
		if err != nil {
			return nil, err
		}
		time.Sleep(pause)
		began := time.Now()
		if err := peer.put(rec); err != nil {
			return nil, err
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took, nil
}

// throughNATS are the sorted times of messages to a subscriber of the daemon's
// server, with a pause before each. No stream has their subject.
func (p *path) throughNATS(ctx context.Context, n int, pause time.Duration) ([]time.Duration, error) {
	nc, err := nats.Connect(p.daemon.NATS)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	came := make(chan time.Time, 1)
	sub, err := p.nc.Subscribe("bench.message.*", func(*nats.Msg) { came <- time.Now() })
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe() //nolint:errcheck // the connection goes soon
	if err := p.nc.Flush(); err != nil {
		return nil, err
	}
	message := make([]byte, 1500) // as a CTI event with its headers
	took := make([]time.Duration, n)
	for i := range took {
		time.Sleep(pause)
		subject := "bench.message." + strconv.Itoa(i) // of its own, as a call's
		began := time.Now()
		if err := nc.Publish(subject, message); err != nil {
			return nil, err
		}
		select {
		case t := <-came:
			took[i] = t.Sub(began)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	slices.Sort(took)
	return took, nil
}

// fewCalls are under way at a time when frames are paced.
const fewCalls = 20

// paced sends a load with a frame an interval and returns the times of the
// messages that follow. w watches the daemon.
func (p *path) paced(ctx context.Context, w *stopwatch, megabytes int, interval time.Duration) (*way, error) {
	load, messages, err := p.render(megabytes, fewCalls)
	if err != nil {
		return nil, err
	}
	// Messages come in the order of what they follow from, so that the number of a
	// message tells its frame.
	var cause []int
	for frame, n := range messages {
		for range n {
			cause = append(cause, frame)
		}
	}
	p.quiet()
	w.reset()
	written := make([]time.Time, load.Len()) // read when all is there
	came := make([]time.Time, len(cause))
	before := p.received.Load()
	p.onMsg = func(n int64) {
		if i := n - before - 1; i < int64(len(came)) {
			came[i] = time.Now()
		}
	}
	p.want.Store(before + int64(len(cause)))
	start := time.Now()
	err = p.pbx.Send(watcher, load, 0, load.Len(), func(i int) {
		if wait := time.Until(start.Add(time.Duration(i) * interval)); wait > 0 {
			time.Sleep(wait)
		}
		written[i] = time.Now()
	})
	if err != nil {
		return nil, err
	}
	if _, err := p.wait(ctx); err != nil {
		return nil, err
	}
	p.onMsg = nil
	sent := make([]time.Time, len(cause))
	for i, frame := range cause {
		sent[i] = written[frame]
	}
	p.quiet() // the last messages may be here before the engine's observer was told
	return w.stages(sent, came)
}
