package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/callstate/callstate/events"
)

// retainedLog is a log of which retention has left what comes after base.
type retainedLog struct {
	sliceLog
	base  uint64
	state []byte
}

func (l *retainedLog) Base() (uint64, []byte, error) { return l.base, l.state, nil }

func (l *retainedLog) Read(ctx context.Context, from uint64, fn func(*events.Event) error) error {
	return l.sliceLog.Read(ctx, max(from, l.base+1), fn)
}

// retained returns what retention leaves of a log when it drops the events
// through a position.
func retained(t *testing.T, log *sliceLog, through uint64) *retainedLog {
	t.Helper()
	st := NewState(log.ID())
	if err := st.advance(t.Context(), log, through); err != nil {
		t.Fatal(err)
	}
	return &retainedLog{*log, through, st.Append(nil)}
}

// TestAtBeforeWhatIsLeft: of a time that retention has dropped nobody knows which
// calls were live, by either clock.
func TestAtBeforeWhatIsLeft(t *testing.T) {
	log := &sliceLog{}
	log.call(1, 2, anna, "c1", "380")
	log.call(10, 5, anna, "c2", "380") // at 10, 11 and 16; the first is dropped
	left := retained(t, log, 4)
	for _, occurred := range []bool{false, true} {
		for _, at := range []int{0, 2, 10} {
			if m, err := At(t.Context(), left, AtFilter{Time: second(at), Occurred: occurred}); !errors.Is(err, ErrDropped) {
				t.Errorf("second %d, occurred %v: %d calls, %v", at, occurred, len(m.Calls), err)
			}
		}
		for at, want := range map[int]int{11: 1, 15: 1, 16: 0} {
			if m, err := At(t.Context(), left, AtFilter{Time: second(at), Occurred: occurred}); err != nil || len(m.Calls) != want {
				t.Errorf("second %d, occurred %v: %d calls, want %d, %v", at, occurred, len(m.Calls), want, err)
			}
		}
	}
}

// TestExplainOfWhatWasDropped: what a dropped event set, no other event did.
func TestExplainOfWhatWasDropped(t *testing.T) {
	log := &sliceLog{}
	log.call(1, 5, anna, "c1", "380") // began, answered; the end is left
	left := retained(t, log, 2)
	left.evs = append(left.evs[:2:2], events.Event{ // and before it an event of the agent
		Position: 3, Account: anna, Payload: &events.WebRTCRegistered{},
	}, left.evs[2])
	left.evs[3].Position = 4
	got, err := Explain(t.Context(), left, events.CallKey{Account: anna, Call: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{"callerId": 0, "answeredAt": 0, "ringMs": 0, "endedAt": 4, "outcome": 4, "state": 4}
	for i := range got {
		e := &got[i]
		if p, ok := want[e.Field]; ok && (e.Position != p || (e.Type == "") != (p == 0) || e.Of != "") {
			t.Errorf("%s = %s by event %d %s of %q, want event %d", e.Field, e.Value, e.Position, e.Type, e.Of, p)
		}
		delete(want, e.Field)
	}
	if len(want) > 0 {
		t.Errorf("nothing said of %v", want)
	}
}

// TestHistoryAfterWhatWasDropped: what follows for a call from another call's event
// is told also where the call's own events before it were dropped.
func TestHistoryAfterWhatWasDropped(t *testing.T) {
	log := &sliceLog{}
	log.call(1, 5, anna, "c1", "380")
	log.evs = log.evs[:2] // it goes on
	log.add(4, anna, "c2", "c1", &events.CallNew{Direction: events.In})
	log.add(5, anna, "c1", "c1", &events.CallHungup{EndedAt: second(5)}) // which makes c2 the active call
	log.add(6, anna, "c2", "c1", &events.CallHungup{EndedAt: second(6)})
	key := events.CallKey{Account: anna, Call: "c2"}
	all, err := History(t.Context(), log, key)
	if err != nil {
		t.Fatal(err)
	}
	left := retained(t, log, 3)
	for name, history := range map[string]func() ([]HistoryEntry, error){
		"call":         func() ([]HistoryEntry, error) { return History(t.Context(), left, key) },
		"conversation": func() ([]HistoryEntry, error) { return ConversationHistory(t.Context(), left, []events.CallKey{key}) },
	} {
		got, err := history()
		if err != nil {
			t.Fatal(err)
		}
		if want, n := seqsOf(all[1:], "c2"), seqsOf(got, "c2"); len(want) == 0 || !slices.Equal(n, want) {
			t.Errorf("%s: sequences %d, want %d", name, n, want)
		}
	}
}

// seqsOf are the sequences of the CTI events about a call.
func seqsOf(h []HistoryEntry, call string) []uint64 {
	var out []uint64
	for i := range h {
		for j := range h[i].CTI {
			if c := &h[i].CTI[j]; c.CallID == call {
				out = append(out, c.Seq)
			}
		}
	}
	return out
}

// TestDigitsOfACallThatBeganBefore: a call that retention has cut through has the
// digits that were keyed before, too.
func TestDigitsOfACallThatBeganBefore(t *testing.T) {
	log := &sliceLog{}
	log.call(1, 20, anna, "c1", "380")
	end := log.evs[2]
	log.evs = log.evs[:2]
	for i := range 5 {
		log.add(3+i, anna, "c1", "c1", &events.CallDTMF{Digit: "5"})
	}
	end.Position = uint64(len(log.evs) + 1)
	log.evs = append(log.evs, end)
	for through := range end.Position {
		var left Reader = log
		if through > 0 {
			left = retained(t, log, through)
		}
		err := ScanCalls(t.Context(), left, "", func(pc *PastCall) error {
			if pc.Digits != 5 || pc.View.Call.Digits != "55555" || pc.First != through+1 {
				t.Errorf("%d dropped: %d digits of %q, first event %d", through, pc.Digits, pc.View.Call.Digits, pc.First)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestScanBesideACallOfTheBase: a call that the fold holds without an event of it
// that is left, since its end was inferred, hides no other call.
func TestScanBesideACallOfTheBase(t *testing.T) {
	log := &sliceLog{}
	log.add(1, anna, "doubtful", "doubtful", &events.CallNew{Direction: events.In})
	log.add(2, anna, "doubtful", "doubtful", &events.CallHungup{Inferred: inferredAbsent})
	for i := range 3 * keepEnded {
		log.call(3+i, 0, anna, fmt.Sprint("c", i), "380")
		left := retained(t, log, 2)
		n := 0
		if err := ScanCalls(t.Context(), left, "", func(*PastCall) error { n++; return nil }); err != nil || n != i+1 {
			t.Fatalf("%d calls of %d, %v", n, i+1, err)
		}
	}
}
