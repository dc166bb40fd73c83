package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/memory"
)

// scriptLog is a log in memory whose appends are answered by a script.
type scriptLog struct {
	store.Store
	appends atomic.Int64
	answer  func(n int64, b *events.Batch) error // nil: stored
}

func (l *scriptLog) Append(ctx context.Context, b *events.Batch) error {
	n := l.appends.Add(1)
	if l.answer != nil {
		if err := l.answer(n, b); err != nil {
			return err
		}
	}
	return l.Store.Append(ctx, b)
}

// leg is one frame of a leg, numbered n.
func leg(n uint64, o engine.LegObservation) engine.Input {
	o.At, o.Clock, o.Vars, o.Profiled = events.Time(1_700_000_000_000_000+n*1_000_000), events.TimeOfEvent, true, o.CallerNumber != ""
	return engine.Input{ReceivedAt: o.At, Leg: &o, Source: events.Source{Core: "core", Switch: "pbx", Sequence: n, Path: events.PathServer}}
}

func created(n uint64, account, call string) engine.Input {
	return leg(n, engine.LegObservation{Kind: engine.LegCreated, Leg: "leg-" + call, Presence: account, ChannelCall: call, OtherLeg: call, CallerNumber: "380", CalleeNumber: "1004"})
}

var rules = engine.Rules{Domains: []string{"acme.example"}}

// run starts an engine without a bus and returns its stop.
func run(t *testing.T, e *engine.Engine) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = stop() })
	if err := e.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return stop
}

// TestWhatWasTakenIsDisposedOf: a frame for which Submit returned nil is in the
// log's counters when Run has returned, also if it came while the engine stopped.
func TestWhatWasTakenIsDisposedOf(t *testing.T) {
	for range 100 {
		log := memory.New()
		e := engine.New(log, nil, nil, engine.Config{Rules: rules, Shards: 1})
		stop := run(t, e)
		var taken atomic.Uint64
		var submitters sync.WaitGroup
		begun := make(chan struct{}, 4)
		for w := range uint64(4) {
			submitters.Go(func() {
				for n := uint64(1); ; n++ {
					err := e.Submit(context.Background(), leg(w<<32|n, engine.LegObservation{Kind: engine.LegSeen, Leg: "trunk", ChannelCall: "trunk"}))
					if errors.Is(err, engine.ErrStopped) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					taken.Add(1)
					if n == 1 {
						begun <- struct{}{}
					}
				}
			})
		}
		<-begun
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		submitters.Wait()
		if f := log.Frames(); f.Received != taken.Load() || !f.Reconciles() {
			t.Fatalf("%d frames were taken, the log says %+v", taken.Load(), f)
		}
	}
}

// TestMoreThanTheLogTakesAtOnce: frames that waited for their leg give their events
// all at once, which may be more than the log takes. It gets them in parts, with
// the counters in the last.
func TestMoreThanTheLogTakesAtOnce(t *testing.T) {
	log := memory.New()
	began := events.Time(1_700_000_000_000_000)
	e := engine.New(log, nil, nil, engine.Config{Rules: rules, Shards: 1, Now: began.Time})
	stop := run(t, e)
	const waiting = 24
	for n := range uint64(waiting) {
		in := leg(n+1, engine.LegObservation{
			Kind: engine.LegSeen, Leg: "leg-c", Presence: "1001@acme.example", CallerNumber: string(rune('a'+n)) + strings.Repeat("1", 3<<20),
		})
		in.ReceivedAt, in.Leg.Vars, in.Size = began, false, 3<<20
		if err := e.Submit(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Submit(t.Context(), created(waiting+1, "1001@acme.example", "c")); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if f := log.Frames(); f.Received != waiting+1 || !f.Reconciles() || log.Last() < waiting {
		t.Errorf("frames %+v, %d events", f, log.Last())
	}
}

// TestFullDiskIsWaitedFor: for an hour, without spinning, and nothing is lost.
func TestFullDiskIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		log := &scriptLog{Store: memory.New()}
		log.answer = func(int64, *events.Batch) error {
			if time.Since(begin) < time.Hour {
				return fmt.Errorf("append: %w", events.ErrLogFull)
			}
			return nil
		}
		e := engine.New(log, nil, nil, engine.Config{Rules: rules, Shards: 1})
		stop := run(t, e)
		for n := range uint64(500) {
			if err := e.Submit(t.Context(), created(n+1, account(int(n)), fmt.Sprintf("call-%d", n))); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour + time.Minute) // of the bubble's clock
		synctest.Wait()
		if n := log.appends.Load(); n > 900 {
			t.Errorf("%d tries in an hour", n)
		}
		if got := log.Last(); got != 500 {
			t.Errorf("%d events are stored, want 500", got)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if f := log.Frames(); f.Received != 500 || !f.Reconciles() {
			t.Errorf("frames: %+v", f)
		}
	})
}

// TestStopWithAFullDisk: what cannot be stored is said, not waited for.
func TestStopWithAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &scriptLog{Store: memory.New(), answer: func(int64, *events.Batch) error { return events.ErrLogFull }}
		e := engine.New(log, nil, nil, engine.Config{Rules: rules, Shards: 1})
		stop := run(t, e)
		if err := e.Submit(t.Context(), created(1, account(0), "one")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		begin := time.Now()
		if err := stop(); !errors.Is(err, events.ErrLogFull) {
			t.Errorf("Run returned %v, want %v", err, events.ErrLogFull)
		}
		if d := time.Since(begin); d > 10*time.Second {
			t.Errorf("stopping took %v", d)
		}
	})
}

// TestBrokenLogUnderLoad: those who wait to submit hear of it, nobody hangs.
func TestBrokenLogUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &scriptLog{Store: memory.New()}
		log.answer = func(n int64, _ *events.Batch) error {
			if n > 3 {
				time.Sleep(time.Second) // a slow disk, then a dead one
				return io.ErrUnexpectedEOF
			}
			return nil
		}
		e := engine.New(log, nil, nil, engine.Config{Rules: rules, Shards: 2})
		done := make(chan error, 1)
		go func() { done <- e.Run(t.Context()) }()
		var submitters sync.WaitGroup
		for w := range uint64(8) {
			submitters.Go(func() {
				for n := uint64(1); ; n++ {
					if err := e.Submit(t.Context(), created(w<<32|n, account(int(w)), fmt.Sprintf("call-%d-%d", w, n))); err != nil {
						if !errors.Is(err, engine.ErrStopped) {
							t.Errorf("Submit: %v", err)
						}
						return
					}
				}
			})
		}
		if err := <-done; !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Run returned %v, want %v", err, io.ErrUnexpectedEOF)
		}
		submitters.Wait()
		if _, err := e.Compare(t.Context(), engine.Snapshot{}); !errors.Is(err, engine.ErrStopped) {
			t.Errorf("Compare: %v", err)
		}
		if _, _, err := e.Line(t.Context(), account(0)); !errors.Is(err, engine.ErrStopped) {
			t.Errorf("Line: %v", err)
		}
	})
}

// TestIdleEngineWritesNothing, and a frame that waits is decided in time though
// no other comes.
func TestIdleEngineWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &scriptLog{Store: memory.New()}
		e := engine.New(log, nil, nil, engine.Config{Rules: rules, Shards: 1})
		stop := run(t, e)
		in := created(1, account(0), "one")
		in.ReceivedAt, in.Leg.Kind, in.Leg.Vars = events.At(time.Now()), engine.LegSeen, false
		if err := e.Submit(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if log.Last() != 0 {
			t.Fatal("the frame did not wait")
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if log.Last() == 0 {
			t.Fatal("the frame waits for ever")
		}
		if f := log.Frames(); f.Received != 1 || !f.Reconciles() {
			t.Errorf("frames: %+v", f)
		}
		before := log.appends.Load()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := log.appends.Load() - before; n > 1 {
			t.Errorf("%d writes in an hour without a frame", n)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// deafCommander takes a command and never answers.
type deafCommander struct{ calls atomic.Int64 }

func (c *deafCommander) Check(engine.Command) error { return nil }

func (c *deafCommander) Command(ctx context.Context, _ engine.Command) (string, error) {
	c.calls.Add(1)
	<-ctx.Done()
	return "", context.Cause(ctx)
}

// TestDeafPBXHoldsUpNothing: policies' commands pile up to a bound and are
// dropped, calls are followed all the same, and a stop does not wait for them.
func TestDeafPBXHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &scriptLog{Store: memory.New()}
		deaf := &deafCommander{}
		e := engine.New(log, nil, deaf, engine.Config{Rules: rules, Shards: 2, Policies: engine.Policies{RejectSecondCall: true}})
		stop := run(t, e)
		const calls = 2000 // all but the first are refused
		begin := time.Now()
		for n := range uint64(calls) {
			if err := e.Submit(t.Context(), created(n+1, account(0), fmt.Sprintf("call-%d", n))); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got := log.Last(); got != calls {
			t.Errorf("%d events are stored, want %d", got, calls)
		}
		if s, err := e.Status(t.Context()); err != nil || s.Folded != calls || s.LiveCalls != calls {
			t.Errorf("status %+v, %v", s, err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d > time.Minute {
			t.Errorf("it took %v", d)
		}
		if n := deaf.calls.Load(); n != 16 {
			t.Errorf("%d commands were begun, want those that may be on their way at once", n)
		}
	})
}

// TestQuarantineIsKept: verbatim, counted by reason, and durable with its counter.
func TestQuarantineIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memory.New()
		e := engine.New(log, nil, nil, engine.Config{Rules: rules})
		stop := run(t, e)
		for i := range 3 {
			err := e.Submit(t.Context(), engine.Input{ReceivedAt: events.At(time.Now()), Quarantine: &engine.Quarantine{Reason: "not-json", Frame: fmt.Appendf(nil, "{%d", i)}})
			if err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s, err := e.Status(t.Context()); err != nil || s.Quarantined["not-json"] != 3 {
			t.Errorf("status %+v, %v", s, err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		n := 0
		err := log.Quarantine(t.Context(), 1, func(q *events.Quarantined) error {
			if want := fmt.Sprintf("{%d", n); string(q.Frame) != want {
				t.Errorf("frame %q, want %q", q.Frame, want)
			}
			n++
			return nil
		})
		if f := log.Frames(); err != nil || n != 3 || f.Quarantined != 3 || !f.Reconciles() {
			t.Errorf("%d frames are kept, %v, counters %+v", n, err, f)
		}
	})
}

// TestStopWhileTheLogIsRead: a stop in the first moment is a clean one.
func TestStopWhileTheLogIsRead(t *testing.T) {
	log := memory.New()
	e := engine.New(log, nil, nil, engine.Config{Rules: rules})
	stop := run(t, e)
	if err := e.Submit(t.Context(), created(1, account(0), "one")); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := engine.New(log, nil, nil, engine.Config{Rules: rules}).Run(ctx); err != nil {
		t.Errorf("Run returned %v", err)
	}
}

// slowLog is a log that is read when it may be.
type slowLog struct {
	store.Store
	may chan struct{}
}

func (l *slowLog) Read(ctx context.Context, from uint64, fn func(*events.Event) error) error {
	<-l.may
	return l.Store.Read(ctx, from, fn)
}

// TestNoAnswerWhileTheLogIsRead: what the engine knows by then is a part, and nobody
// could tell it from all.
func TestNoAnswerWhileTheLogIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, who := memory.New(), account(0)
		e := engine.New(log, nil, nil, engine.Config{Rules: rules})
		stop := run(t, e)
		if err := e.Submit(t.Context(), created(1, who, "one")); err != nil {
			t.Fatal(err)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}

		slow := &slowLog{log, make(chan struct{})}
		e = engine.New(slow, nil, nil, engine.Config{Rules: rules})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()
		ask := map[string]func(context.Context) (found bool, err error){
			"Status": func(ctx context.Context) (bool, error) { s, err := e.Status(ctx); return s.Folded > 0, err },
			"Call": func(ctx context.Context) (bool, error) {
				_, ok, err := e.Call(ctx, events.CallKey{Account: who, Call: "one"})
				return ok, err
			},
			"Calls": func(ctx context.Context) (bool, error) { cs, err := e.Calls(ctx, ""); return len(cs) == 1, err },
			"Line":  func(ctx context.Context) (bool, error) { _, ok, err := e.Line(ctx, who); return ok, err },
			"Lines": func(ctx context.Context) (bool, error) { ls, err := e.Lines(ctx, ""); return len(ls) == 1, err },
			"Do": func(ctx context.Context) (bool, error) {
				o := e.Do(ctx, engine.Request{Account: who, Method: "queryActiveCallSnapshot"})
				if o.Result == engine.VerdictUnavailable {
					return false, errors.New(o.Answer)
				}
				return o.View != nil, nil
			},
		}
		for name, fn := range ask {
			short, cancel := context.WithTimeout(ctx, time.Second)
			if _, err := fn(short); err == nil {
				t.Errorf("%s answers while the log is read", name)
			}
			cancel()
		}
		close(slow.may)
		for name, fn := range ask {
			if found, err := fn(ctx); err != nil || !found {
				t.Errorf("%s: found %v, %v", name, found, err)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestNoCallIDTwiceWhileTheDiskIsFull: a call that has ended and is not stored yet
// is in no log to be looked up in, and must not be forgotten.
func TestNoCallIDTwiceWhileTheDiskIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		log := &scriptLog{Store: memory.New()}
		log.answer = func(int64, *events.Batch) error {
			if time.Since(begin) < 10*time.Minute {
				return events.ErrLogFull
			}
			return nil
		}
		e := engine.New(log, nil, nil, engine.Config{Rules: rules, Shards: 1})
		stop := run(t, e)
		n := uint64(0)
		offer := func(id string) {
			hangup := engine.LegObservation{Kind: engine.LegHungup, Leg: id, Ending: true, Cause: "NO_ANSWER"}
			begun := created(0, account(0), "queued")
			begun.Leg.Leg = id
			for _, o := range []engine.LegObservation{*begun.Leg, hangup} {
				n++
				in := leg(n, o)
				in.ReceivedAt = events.At(time.Now())
				if err := e.Submit(t.Context(), in); err != nil {
					t.Fatal(err)
				}
			}
		}
		offer("leg-1")
		time.Sleep(5 * time.Minute)
		offer("leg-2")
		time.Sleep(15 * time.Minute)
		offer("leg-3")
		time.Sleep(5 * time.Minute) // what is stored is forgotten again
		offer("leg-4")
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		var got []string
		err := log.Read(t.Context(), 1, func(ev *events.Event) error {
			if ev.Type() == events.TypeCallNew {
				got = append(got, ev.Call)
			}
			return nil
		})
		if want := []string{"queued", "queued-2", "queued-3", "queued-4"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("the calls are %v, want %v, %v", got, want, err)
		}
	})
}
