package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// BenchmarkWholePath is frame → event → disk → state → NATS → subscriber: captured
// calls over a real WebSocket into the daemon's parts as they are configured by
// default, the sender on the same machine. One operation is 50 calls, as fast as
// they go.
func BenchmarkWholePath(b *testing.B) {
	const calls = 50
	watcher := "9000@" + demoDomain
	pbx := webiteltest.New(webiteltest.Options{
		Accounts: append(webiteltest.Agents(demoDomain, 1001, 200, demoSecret),
			webiteltest.Account{Login: watcher, Secret: demoSecret}),
	})
	defer pbx.Close()
	cfg := defaultConfig()
	cfg.Data, cfg.Listen = b.TempDir(), "127.0.0.1:-1"
	cfg.Webitel = []webitel.Config{{
		ConnectionString: pbx.URL(), Mode: webitel.ModeDomain, Users: []webitel.User{{Login: watcher, Password: demoSecret}},
	}}
	a, err := openApp(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer a.close()
	settled := make(chan struct{})
	a.links.clients[0].OnSettled(func(context.Context) { close(settled) })

	var delivered atomic.Uint64
	nc, err := nats.Connect(a.server.URL())
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Subscribe(cfg.Prefix+".>", func(*nats.Msg) { delivered.Add(1) }); err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithTimeout(b.Context(), time.Minute)
	done := make(chan error, 1)
	go func() { done <- a.run(ctx) }()
	select {
	case <-settled:
	case err := <-done:
		b.Fatal(err)
	}

	ready := a.store.Frames().Received
	sent := uint64(0)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		c, err := pbx.Generate(ctx, webiteltest.GenerateOptions{
			Agents: webiteltest.Numbers(1001, 200), Domain: demoDomain, Calls: calls,
		})
		if err != nil {
			b.Fatal(err)
		}
		sent += c.Frames()
		// The counters are renewed every second and the checkpoint ten times: the
		// operation ends when the subscriber has what the log gives.
		for a.store.Frames().Received < ready+sent || a.bus.Confirmed() < a.store.Last() {
			if ctx.Err() != nil {
				b.Fatal(ctx.Err())
			}
			time.Sleep(time.Millisecond) // a benchmark may wait so; the figure is of thousands of frames
		}
	}
	b.StopTimer()
	seconds := b.Elapsed().Seconds()
	b.ReportMetric(float64(sent)/seconds, "frames/s")
	b.ReportMetric(float64(delivered.Load())/seconds, "cti-events/s")
	stop()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// benchEvents are the events of a captured call, as stored.
func benchEvents(b *testing.B) []events.Event {
	b.Helper()
	rec := readCapture(b, "freeswitch/07-attended-transfer-webitel.jsonl")
	p := play(b, rec, rec.Inputs())
	evs := make([]events.Event, len(p.steps))
	for i := range p.steps {
		evs[i] = p.steps[i].Event
	}
	return evs
}

// BenchmarkFold is one stored event folded into call, line and CTI events, with
// their JSON: a captured call with a consultation and a transfer, again and again.
func BenchmarkFold(b *testing.B) {
	evs := benchEvents(b)
	p := engine.NewProjection("bench")
	position := uint64(0)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i == len(evs) {
			i, p = 0, engine.NewProjection("bench") // the calls have ended
		}
		position++
		ev := evs[i]
		ev.Position = position
		p.Apply(&ev)
		i++
	}
}

// BenchmarkCorrelate is one observed frame turned into facts: every frame of the
// burst of 200 calls.
func BenchmarkCorrelate(b *testing.B) {
	rec := readCapture(b, "freeswitch/16-burst-200.jsonl")
	ins := rec.Inputs()
	rules := engine.Rules{Domains: rec.Domains}
	o := engine.NewOffline(rules, engine.Policies{}, "bench")
	b.ReportAllocs()
	b.ResetTimer()
	i, facts := 0, 0
	for b.Loop() {
		if i == len(ins) {
			b.StopTimer()
			i, o = 0, engine.NewOffline(rules, engine.Policies{}, "bench")
			b.StartTimer()
		}
		steps, err := o.Observe(*ins[i])
		if err != nil {
			b.Fatal(err)
		}
		facts += len(steps)
		i++
	}
	b.ReportMetric(float64(facts)/float64(b.N), "events/frame")
}
