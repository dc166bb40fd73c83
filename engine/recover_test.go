package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// work runs an engine over the log until fn has submitted what it wants.
func work(t *testing.T, log *spyLog, bus *fakeBus, diary *bytes.Buffer, fn func(*engine.Engine)) {
	t.Helper()
	e := engine.New(log, bus, nil, engine.Config{
		Rules: engine.Rules{AllDomains: true}, SnapshotEvery: 20, Logger: slog.New(slog.NewTextHandler(diary, nil)),
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	if err := e.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	fn(e)
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func submitCall(t *testing.T, e *engine.Engine, n int, end bool) {
	t.Helper()
	id := fmt.Sprintf("leg-%d", n)
	at := events.Time(1_795_383_915_000_000 + int64(n)*1_000_000)
	frames := []engine.LegKind{engine.LegCreated, engine.LegAnswered, engine.LegHeld, engine.LegUnheld}
	if end {
		frames = append(frames, engine.LegHungup)
	}
	for i, kind := range frames {
		o := &engine.LegObservation{
			Kind: kind, Leg: id, Presence: "1001@acme.example", ChannelCall: id, Vars: true, At: at + events.Time(i)*1000,
			LogicalInbound: true, CallerNumber: "380", CalleeNumber: "1001", Ending: kind == engine.LegHungup,
		}
		if err := e.Submit(t.Context(), engine.Input{ReceivedAt: o.At, Leg: o, Source: events.Source{Adapter: "test", Core: "core", Sequence: uint64(n*10 + i + 1)}}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStartFromSnapshot: an engine that begins with a snapshot goes on as one that
// reads the whole log, and one whose snapshot is of no use reads the whole log.
func TestStartFromSnapshot(t *testing.T) {
	log := newSpyLog()
	bus := newFakeBus(log)
	var diary bytes.Buffer
	work(t, log, bus, &diary, func(e *engine.Engine) {
		for n := range 20 {
			submitCall(t, e, n, n%4 != 0) // every fourth lives on
		}
	})
	position, state, err := log.Snapshot(log.Last())
	if err != nil || position == 0 {
		t.Fatalf("no snapshot after %d events: %v", log.Last(), err)
	}
	st, err := engine.LoadState(log.ID(), state)
	if err != nil || st.Position() != position {
		t.Fatalf("snapshot at %d is of %d: %v", position, st.Position(), err)
	}

	var with, before, without []string
	lives := func(into *[]string) func(*engine.Engine) {
		return func(e *engine.Engine) {
			vs, err := e.Calls(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range vs {
				if v.Call.EndedAt != 0 {
					continue // the second start has one more to remember, and forgets another
				}
				v.Position, v.Seq = 0, 0 // the first start added an event
				*into = append(*into, fmt.Sprintf("%+v", v))
			}
			submitCall(t, e, 100, true)
		}
	}
	diary.Reset()
	work(t, log, bus, &diary, lives(&with))
	if !strings.Contains(diary.String(), fmt.Sprintf("snapshot=%d", position)) {
		t.Errorf("the snapshot was not used:\n%s", diary.String())
	}
	bus.checkAgainst(t, log)

	for _, at := range []uint64{log.Last(), position} { // the second start kept one more
		if err := log.SetSnapshot(at, []byte("rubbish")); err != nil {
			t.Fatal(err)
		}
	}
	earlier, _, err := log.Snapshot(position - 1)
	if err != nil || earlier == 0 {
		t.Fatalf("no snapshot before that at %d: %v", position, err)
	}
	diary.Reset()
	work(t, log, bus, &diary, lives(&before))
	if !strings.Contains(diary.String(), fmt.Sprintf("snapshot=%d", earlier)) || !strings.Contains(diary.String(), "snapshot is not used") {
		t.Errorf("the snapshot before the useless ones was not used:\n%s", diary.String())
	}
	if err := log.ForgetSnapshots(); err != nil {
		t.Fatal(err)
	}
	diary.Reset()
	work(t, log, bus, &diary, lives(&without))
	if !strings.Contains(diary.String(), "snapshot=0") {
		t.Errorf("not the whole log was read:\n%s", diary.String())
	}
	if len(with) != 5 {
		t.Errorf("%d live calls after the start, want 5", len(with))
	}
	if w, b, wo := strings.Join(with, "\n"), strings.Join(before, "\n"), strings.Join(without, "\n"); w != wo || b != wo {
		t.Errorf("with snapshot\n%s\nwith an earlier one\n%s\nwithout\n%s", w, b, wo)
	}
}

// checkAgainst compares what was published with the fold of the whole log.
func (b *fakeBus) checkAgainst(t *testing.T, log *spyLog) {
	t.Helper()
	var want []string
	p := engine.NewProjection(log.ID())
	if err := log.Read(context.Background(), 1, func(ev *events.Event) error {
		for _, m := range p.Apply(ev).Messages {
			want = append(want, m.ID)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if got, want := strings.Join(b.got, " "), strings.Join(want, " "); got != want {
		t.Errorf("published\n%s\nthe log gives\n%s", got, want)
	}
}
