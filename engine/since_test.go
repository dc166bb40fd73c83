package engine_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/memory"
)

// countingLog counts the events that are read of it.
type countingLog struct {
	store.Store
	read int
}

func (l *countingLog) Read(ctx context.Context, from uint64, fn func(*events.Event) error) error {
	return l.Store.Read(ctx, from, func(ev *events.Event) error { l.read++; return fn(ev) })
}

// TestSinceOfAnIdleAccount: who asks every minute about an account of which there is
// nothing new is told so, and from where to ask on, without a look at the whole log,
// also where the snapshot is newer than what was told.
func TestSinceOfAnIdleAccount(t *testing.T) {
	log := &countingLog{Store: memory.New()}
	st := engine.NewState(log.ID())
	keep := func(n int) {
		t.Helper()
		b := &events.Batch{}
		for i := range n {
			who := account(1 + i%10)
			b.Events = append(b.Events, events.Event{
				ID: fmt.Sprint(log.Last(), i), Version: 1, Account: who, Domain: "acme.example", Call: fmt.Sprint("call-", log.Last(), "-", i), Leg: "leg",
				Payload: &events.CallNew{Direction: events.In},
			})
		}
		if err := log.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		for i := range b.Events {
			st.Apply(&b.Events[i])
		}
	}
	keep(1000)
	told := log.Last()
	keep(30)
	if err := log.SetSnapshot(st.Position(), st.Append(nil)); err != nil {
		t.Fatal(err)
	}
	keep(10)
	for name, f := range map[string]engine.SinceFilter{
		"an account": {Account: account(0), Position: told}, "a domain": {Domain: "other.example", Position: told},
	} {
		log.read = 0
		m, err := engine.Since(t.Context(), log, f)
		if err != nil || len(m.Events) != 0 || m.Last != log.Last() {
			t.Errorf("%s: %d events, through %d of %d, %v", name, len(m.Events), m.Last, log.Last(), err)
		}
		if log.read > 100 {
			t.Errorf("%s: %d events were read", name, log.read)
		}
	}
}

// TestSinceAfterARestart: the snapshot of a clean stop is early enough for who had been
// told nearly all.
func TestSinceAfterARestart(t *testing.T) {
	log := &countingLog{Store: memory.New()}
	e := engine.New(log, nil, nil, engine.Config{Rules: rules, SnapshotEvery: 500})
	stop := run(t, e)
	for n := range uint64(2000) {
		if err := e.Submit(t.Context(), created(n+1, account(int(n)), fmt.Sprint("call-", n))); err != nil {
			t.Fatal(err)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	log.read = 0
	last := log.Last()
	m, err := engine.Since(t.Context(), log, engine.SinceFilter{Position: last - 20})
	if err != nil || len(m.Events) < 20 || m.Last != last {
		t.Errorf("%d events, through %d of %d, %v", len(m.Events), m.Last, last, err)
	}
	if at, _, _ := log.Snapshot(last); log.read > 600 {
		t.Errorf("%d events were read, the snapshot is of %d of %d", log.read, at, last)
	}
}
