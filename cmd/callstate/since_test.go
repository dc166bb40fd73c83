package main

import (
	"fmt"
	"slices"
	"testing"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
	"github.com/callstate/callstate/store/memory"
)

// TestSinceGivesWhatWasMissed asks for every tail of every account and call of
// the captures, without a snapshot and with one at every tenth position.
func TestSinceGivesWhatWasMissed(t *testing.T) {
	log := memory.New()
	defer log.Close()
	if err := log.Append(t.Context(), &events.Batch{Events: capturedEvents(t)}); err != nil {
		t.Fatal(err)
	}
	var all []cti.Event
	st := engine.NewState(log.ID())
	snapshots := [][]byte{nil}
	err := engine.Fold(t.Context(), log, func(ev *events.Event, r *engine.Result) error {
		for i := range r.Messages {
			all = append(all, r.Messages[i].Event)
		}
		if st.Apply(ev); ev.Position%100 == 0 {
			snapshots = append(snapshots, st.Append(nil))
		}
		return nil
	})
	if err != nil || len(all) < 300 || len(snapshots) < 4 {
		t.Fatalf("%d CTI events, %d snapshots, %v", len(all), len(snapshots), err)
	}
	for i, b := range snapshots {
		if b != nil {
			if err := log.SetSnapshot(uint64(100*i), b); err != nil {
				t.Fatal(err)
			}
		}
		for j := range all {
			if j%7 != i { // a sample, another one for each snapshot
				continue
			}
			e := &all[j]
			check(t, log, all, engine.SinceFilter{Account: e.Account, After: e.LineSeq}, func(x *cti.Event) bool { return x.Account == e.Account && x.LineSeq > e.LineSeq })
			check(t, log, all, engine.SinceFilter{Position: e.Position}, func(x *cti.Event) bool { return x.Position > e.Position })
			check(t, log, all, engine.SinceFilter{Account: e.Account, Position: e.Position}, func(x *cti.Event) bool { return x.Account == e.Account && x.Position > e.Position })
			check(t, log, all, engine.SinceFilter{Domain: e.Domain, Position: e.Position}, func(x *cti.Event) bool { return x.Domain == e.Domain && x.Position > e.Position })
			if e.CallID != "" {
				check(t, log, all, engine.SinceFilter{Account: e.Account, CallID: e.CallID, After: e.Seq}, func(x *cti.Event) bool {
					return x.Account == e.Account && x.CallID == e.CallID && x.Seq > e.Seq
				})
			}
		}
	}
}

func check(t *testing.T, log engine.Log, all []cti.Event, f engine.SinceFilter, want func(*cti.Event) bool) {
	t.Helper()
	id := func(e *cti.Event) string { return fmt.Sprintf("%s/%d", e.Account, e.LineSeq) }
	var ids, got []string
	for i := range all {
		if want(&all[i]) {
			ids = append(ids, id(&all[i]))
		}
	}
	m, err := engine.Since(t.Context(), log, f)
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.Events {
		got = append(got, id(&m.Events[i]))
	}
	if !slices.Equal(got, ids) {
		t.Errorf("%+v\n got %v\nwant %v", f, got, ids)
	}
	if len(ids) < 3 {
		return
	}
	f.Limit = 2
	if m, err = engine.Since(t.Context(), log, f); err != nil || !m.More || len(m.Events) < 2 || id(&m.Events[1]) != ids[1] {
		t.Errorf("%+v: %d events, more %v, %v", f, len(m.Events), m.More, err)
	}
}
