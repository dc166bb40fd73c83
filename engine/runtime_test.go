package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/memory"
)

// fakeBus takes results and confirms them at once, unless it is away.
type fakeBus struct {
	log *spyLog

	mu        sync.Mutex // guards what follows
	away      bool
	back      chan struct{} // closed when it is back
	got       []string      // message ids, in order
	confirmed uint64
	refused   int
	early     []uint64 // positions seen before they were durable (I1)
	moved     chan struct{}
}

func newFakeBus(log *spyLog) *fakeBus { return &fakeBus{log: log, moved: make(chan struct{}, 1)} }

var errAway = errors.New("bus is away")

func (b *fakeBus) Publish(_ context.Context, rs []engine.Result) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away {
		b.refused++
		return errAway
	}
	for i := range rs {
		if rs[i].Position > b.log.Last() {
			b.early = append(b.early, rs[i].Position)
		}
		for _, m := range rs[i].Messages {
			b.got = append(b.got, m.ID)
		}
		b.confirmed = rs[i].Position
	}
	select {
	case b.moved <- struct{}{}:
	default:
	}
	return nil
}

func (b *fakeBus) Confirmed() uint64 { b.mu.Lock(); defer b.mu.Unlock(); return b.confirmed }

func (b *fakeBus) Flush(context.Context) error { return nil }

// Resume waits until the bus is back and trusts the checkpoint.
func (b *fakeBus) Resume(ctx context.Context, checkpoint uint64) (uint64, error) {
	b.mu.Lock()
	back := b.back
	b.mu.Unlock()
	if back != nil {
		select {
		case <-back:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.confirmed = max(b.confirmed, checkpoint)
	return b.confirmed + 1, nil
}

func (b *fakeBus) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.away, b.back = true, make(chan struct{})
}

func (b *fakeBus) comeBack() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.away = false
	close(b.back)
}

// until waits until the bus has confirmed a position.
func (b *fakeBus) until(t *testing.T, position uint64) {
	t.Helper()
	for b.Confirmed() < position {
		select {
		case <-b.moved:
		case <-t.Context().Done():
			t.Fatal("the bus did not get there")
		}
	}
}

// spyLog is a log that can be full or broken.
type spyLog struct {
	store.Store
	mu   sync.Mutex    // guards what follows
	errs []error       // returned by the next appends
	seen chan struct{} // gets one for each
}

func newSpyLog() *spyLog { return &spyLog{Store: memory.New(), seen: make(chan struct{}, 16)} }

func (l *spyLog) Append(ctx context.Context, b *events.Batch) error {
	l.mu.Lock()
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		l.mu.Unlock()
		l.seen <- struct{}{}
		return err
	}
	l.mu.Unlock()
	return l.Store.Append(ctx, b)
}

// commands collects what the policies commanded.
type commands struct {
	mu   sync.Mutex // guards got
	got  []engine.Command
	sent chan struct{} // gets one for each; nil if nobody waits
}

func (c *commands) Check(engine.Command) error { return nil }

func (c *commands) Command(_ context.Context, cmd engine.Command) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, cmd)
	if c.sent != nil {
		c.sent <- struct{}{}
	}
	return "", nil
}

// running is an engine under test.
type running struct {
	*engine.Engine
	seq  uint64
	stop func() error
}

func start(t *testing.T, log engine.Log, bus engine.Bus, cmd engine.Commander, p engine.Policies) *running {
	t.Helper()
	e := engine.New(log, bus, cmd, engine.Config{
		Rules: engine.Rules{Domains: []string{"acme.example"}}, Policies: p, Shards: 3, Drain: time.Hour, // as long as the machine takes
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	r := &running{Engine: e, stop: sync.OnceValue(func() error { cancel(); return <-done })}
	t.Cleanup(func() { _ = r.stop() })
	if err := e.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// call submits an answered incoming call, without its end.
func (r *running) call(t *testing.T, account, id string) {
	t.Helper()
	for _, kind := range []engine.LegKind{engine.LegCreated, engine.LegAnswered} {
		r.submit(t, engine.LegObservation{
			Kind: kind, Leg: "leg-" + id, Presence: account, Vars: true, ChannelCall: id, OtherLeg: id, CallerNumber: "380", CalleeNumber: "1004",
		})
	}
}

func (r *running) end(t *testing.T, id string) {
	t.Helper()
	r.submit(t, engine.LegObservation{Kind: engine.LegHungup, Leg: "leg-" + id, Vars: true, Ending: true, Cause: "NORMAL_CLEARING"})
}

func (r *running) submit(t *testing.T, o engine.LegObservation) {
	t.Helper()
	r.seq++
	o.At, o.Clock, o.Profiled = events.Time(1_700_000_000_000_000+r.seq*1_000_000), events.TimeOfEvent, true
	in := engine.Input{ReceivedAt: o.At, Leg: &o, Source: events.Source{Core: "core", Switch: "pbx", Sequence: r.seq, Path: events.PathServer}}
	if err := r.Submit(t.Context(), in); err != nil {
		t.Fatal(err)
	}
}

// expected are the message ids that a log gives.
func expected(t *testing.T, log engine.Log) []string {
	t.Helper()
	var ids []string
	p := engine.NewProjection(log.ID())
	err := log.Read(t.Context(), 1, func(ev *events.Event) error {
		for _, m := range p.Apply(ev).Messages {
			ids = append(ids, m.ID)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func account(i int) string { return fmt.Sprintf("%d@acme.example", 1000+i) }

// TestDurableBeforeVisible (I1), in order, and all of it after a stop.
func TestDurableBeforeVisible(t *testing.T) {
	log := newSpyLog()
	bus := newFakeBus(log)
	e := start(t, log, bus, nil, engine.Policies{})
	for i := range 200 {
		e.call(t, account(i%20), fmt.Sprintf("call-%d", i))
		e.end(t, fmt.Sprintf("call-%d", i))
	}
	if err := e.stop(); err != nil {
		t.Fatal(err)
	}
	if len(bus.early) > 0 {
		t.Errorf("positions %v were visible before they were durable", bus.early)
	}
	if want := expected(t, log); !slices.Equal(bus.got, want) {
		t.Errorf("%d messages on the bus, the log gives %d, or in another order", len(bus.got), len(want))
	}
	if err := e.Submit(t.Context(), engine.Input{}); !errors.Is(err, engine.ErrStopped) {
		t.Errorf("Submit after the stop: %v", err)
	}
	if f := log.Frames(); !f.Reconciles() || f.Received != 600 {
		t.Errorf("frames: %+v", f)
	}
}

// TestBusAway: ingest goes on, nothing piles up without bound, and what was not
// published is read from the log when the bus is back, each message once.
func TestBusAway(t *testing.T) {
	log := newSpyLog()
	bus := newFakeBus(log)
	e := start(t, log, bus, nil, engine.Policies{})
	e.call(t, account(0), "before")
	bus.leave()
	const calls = 8000 // more than the outbox holds
	for i := range calls {
		e.call(t, account(i%50), fmt.Sprintf("call-%d", i))
		e.end(t, fmt.Sprintf("call-%d", i))
	}
	s, err := e.Status(t.Context())
	if err != nil || s.Published >= s.Position {
		t.Errorf("published %d of %d while the bus was away, %v", s.Published, s.Position, err)
	}
	bus.comeBack()
	e.call(t, account(1), "after")
	if err := e.stop(); err != nil {
		t.Fatal(err)
	}
	if want := expected(t, log); !slices.Equal(bus.got, want) {
		t.Errorf("%d messages on the bus, the log gives %d, or in another order", len(bus.got), len(want))
	}
}

// passedLog drops its first events while it is read for the first time: what is
// read then begins later.
type passedLog struct {
	*spyLog
	reads atomic.Int32
}

func (l *passedLog) Read(ctx context.Context, from uint64, fn func(*events.Event) error) error {
	if from == 1 && l.reads.Add(1) == 2 { // the first was the start's
		from = 4
	}
	return l.spyLog.Read(ctx, from, fn)
}

// TestRetentionMeetsTheOutbox: what is dropped while the outbox reads the log to
// catch up makes it read again, and neither ends the engine nor changes what is
// published.
func TestRetentionMeetsTheOutbox(t *testing.T) {
	log := &passedLog{spyLog: newSpyLog()}
	bus := newFakeBus(log.spyLog)
	e := start(t, log, bus, nil, engine.Policies{})
	e.call(t, account(0), "before")
	bus.until(t, 1)
	bus.leave()
	for i, refused := 0, 0; refused == 0; i++ {
		e.call(t, account(i%20), fmt.Sprintf("call-%d", i))
		bus.mu.Lock()
		refused = bus.refused
		bus.mu.Unlock()
	}
	bus.comeBack()
	e.call(t, account(1), "after")
	if err := e.stop(); err != nil {
		t.Fatal(err)
	}
	if want := expected(t, log.spyLog); !slices.Equal(bus.got, want) || log.reads.Load() < 3 {
		t.Errorf("%d messages on the bus, the log gives %d; read %d times", len(bus.got), len(want), log.reads.Load())
	}
}

// TestRestartGoesOn: live calls are live, what was durable and not published is
// published, what was published is not skipped over, and nothing is commanded.
func TestRestartGoesOn(t *testing.T) {
	log := newSpyLog()
	bus := newFakeBus(log)
	both := engine.Policies{RejectSecondCall: true, UnholdAfterConsult: true}
	first, second := commands{sent: make(chan struct{}, 8)}, commands{}
	e := start(t, log, bus, &first, both)
	e.call(t, account(0), "one")
	e.call(t, account(0), "two") // refused by the policy
	<-first.sent
	if err := e.stop(); err != nil {
		t.Fatal(err)
	}
	if len(first.got) != 1 || first.got[0].Action != engine.ActionHangup || first.got[0].Leg != "leg-two" {
		t.Errorf("commanded %+v, want one hangup of leg-two", first.got)
	}
	// The next bus knows nothing, as a stream that lost what it had not synced.
	if err := log.SetCheckpoint("nats", 1); err != nil {
		t.Fatal(err)
	}
	again := newFakeBus(log)
	e2 := start(t, log, again, &second, both)
	e2.seq = e.seq
	v, ok, err := e2.Call(t.Context(), events.CallKey{Account: account(0), Call: "one"})
	if err != nil || !ok || v.Call.StateName != "CONNECTED" {
		t.Fatalf("after the restart: %+v, %v, %v", v, ok, err)
	}
	again.until(t, log.Last())
	e2.end(t, "one")
	e2.end(t, "two")
	if err := e2.stop(); err != nil {
		t.Fatal(err)
	}
	var late []string
	for _, id := range expected(t, log) {
		if !isOf(id, log.ID(), 1) {
			late = append(late, id)
		}
	}
	if !slices.Equal(again.got, late) {
		t.Errorf("published again %v, want all after position 1: %v", again.got, late)
	}
	if len(second.got) != 0 {
		t.Errorf("reading the log commanded %+v (I9)", second.got)
	}
}

func isOf(id, log string, position int) bool {
	prefix := fmt.Sprintf("%s.%d.", log, position)
	return len(id) > len(prefix) && id[:len(prefix)] == prefix
}

// TestFullLogIsWaitedFor: no frame that was taken is lost.
func TestFullLogIsWaitedFor(t *testing.T) {
	log := newSpyLog()
	full := fmt.Errorf("append: %w", events.ErrLogFull)
	log.errs = []error{full, full}
	bus := newFakeBus(log)
	e := start(t, log, bus, nil, engine.Policies{})
	e.call(t, account(0), "one")
	<-log.seen
	<-log.seen
	e.end(t, "one")
	bus.until(t, 4) // new, accepted, bridged, hungup
	if err := e.stop(); err != nil {
		t.Fatal(err)
	}
	if want := expected(t, log); !slices.Equal(bus.got, want) || len(want) == 0 {
		t.Errorf("%v on the bus, the log gives %v", bus.got, want)
	}
}

// TestBrokenLogEndsTheEngine: what is on disk is not known any more.
func TestBrokenLogEndsTheEngine(t *testing.T) {
	log := newSpyLog()
	broken := errors.New("i/o error")
	log.errs = []error{broken}
	e := start(t, log, newFakeBus(log), nil, engine.Policies{})
	e.submit(t, engine.LegObservation{Kind: engine.LegCreated, Leg: "leg", Presence: account(0), Vars: true, ChannelCall: "one"})
	<-log.seen
	if err := e.stop(); !errors.Is(err, broken) {
		t.Errorf("Run returned %v, want %v", err, broken)
	}
}
