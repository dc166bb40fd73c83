package engine

import (
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

const hour = events.Time(3_600_000_000)

// jump sets one of the clocks, or both, now and then: ours by up to an hour, the
// switch's by up to half a day.
func (s *story) jump(t *rapid.T) {
	switch rapid.IntRange(0, 24).Draw(t, "jump") {
	case 0: // ours, and the switch's with it
		s.now += events.Time(rapid.Int64Range(int64(-hour), 90_000_000).Draw(t, "clock"))
	case 1: // ours alone
		d := events.Time(rapid.Int64Range(int64(-hour), int64(hour)).Draw(t, "our clock"))
		s.now, s.skew = s.now+d, s.skew-d
	case 2:
		s.skew = events.Time(rapid.Int64Range(int64(-12*hour), int64(12*hour)).Draw(t, "the switch's clock"))
	}
}

// TestClocksDecideNothing: whatever the clocks do, the switch's hours away from
// ours from the beginning, set forth and back in the middle of calls, every view,
// history, filter, export and moment of the past goes by sequence, and no duration
// is negative.
func TestClocksDecideNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStory(t, Policies{})
		s.skew = events.Time(rapid.Int64Range(int64(-12*hour), int64(12*hour)).Draw(t, "the switch's clock"))
		for range rapid.IntRange(1, 50).Draw(t, "frames") {
			s.feed(draw(t, s))
			if rapid.IntRange(0, 7).Draw(t, "set") == 0 {
				s.skew = events.Time(rapid.Int64Range(int64(-12*hour), int64(12*hour)).Draw(t, "the switch's clock"))
			}
		}
		if len(s.evs) == 0 {
			return
		}
		log := &sliceLog{evs: s.evs}
		keys := checkPast(t, log)
		checkHistory(t, log, keys)
		checkMoments(t, s, log)
	})
}

func checkDurations(t *rapid.T, where string, c *cti.Call) {
	t.Helper()
	if c.RingMs < 0 || c.TalkMs < 0 || c.HoldMs < 0 {
		t.Errorf("%s: a duration of %s is negative: ring %d, talk %d, hold %d", where, c.ID, c.RingMs, c.TalkMs, c.HoldMs)
	}
}

// checkPast holds what exports and filters see of every call to the log, and
// returns the calls.
func checkPast(t *rapid.T, log *sliceLog) []events.CallKey {
	t.Helper()
	first, last := map[events.CallKey]uint64{}, map[events.CallKey]uint64{}
	for i := range log.evs {
		if k := log.evs[i].Key(); !k.IsZero() && k.Account != "" {
			if first[k] == 0 {
				first[k] = log.evs[i].Position
			}
			last[k] = log.evs[i].Position
		}
	}
	var keys []events.CallKey
	err := ScanCalls(t.Context(), log, "", func(pc *PastCall) error {
		k := events.CallKey{Account: pc.View.Account, Call: pc.View.CallID}
		checkDurations(t, "export", &pc.View.Call)
		if slices.Contains(keys, k) || pc.First != first[k] || pc.View.Position != last[k] {
			t.Errorf("%s is exported as of events %d to %d, want %d to %d, and once", k, pc.First, pc.View.Position, first[k], last[k])
		}
		keys = append(keys, k)
		return nil
	})
	if err != nil || len(keys) != len(first) {
		t.Errorf("%d calls exported, the log has %d, %v", len(keys), len(first), err)
	}
	// A range of time holds the calls that say they began in it, whatever came before or after.
	middle := log.evs[len(log.evs)/2].OccurredAt
	n := 0
	for _, f := range []CallFilter{{Until: middle}, {Since: middle}} {
		found, err := FindCalls(t.Context(), log, f)
		if err != nil {
			t.Fatal(err)
		}
		for i := range found {
			checkDurations(t, "filter", &found[i].Call)
			if at := found[i].Call.StartedAt; (at < middle) != (f.Until != 0) {
				t.Errorf("a call that began at %s is found on the wrong side of %s", at, middle)
			}
		}
		n += len(found)
	}
	if middle != 0 && n != len(keys) {
		t.Errorf("%d calls began before or after %s, there are %d", n, middle, len(keys))
	}
	return keys
}

// checkHistory: events in order of position, sequences in order with them.
func checkHistory(t *rapid.T, log *sliceLog, keys []events.CallKey) {
	t.Helper()
	for _, k := range keys {
		h, err := History(t.Context(), log, k)
		if err != nil || len(h) == 0 {
			t.Errorf("history of %s: %d events, %v", k, len(h), err)
		}
		position, seq := uint64(0), uint64(0)
		for i := range h {
			if h[i].Event.Position <= position {
				t.Errorf("history of %s: event %d after %d", k, h[i].Event.Position, position)
			}
			position = h[i].Event.Position
			for j := range h[i].CTI {
				c := &h[i].CTI[j]
				if c.CallID != k.Call {
					continue
				}
				if seq++; c.Seq != seq {
					t.Errorf("history of %s: sequence %d after %d", k, c.Seq, seq-1)
				}
				if c.Call != nil {
					checkDurations(t, "history", c.Call)
				}
			}
		}
		if _, err := Explain(t.Context(), log, k); err != nil {
			t.Errorf("explain %s: %v", k, err)
		}
	}
}

// checkMoments: by our clock a moment is a state that the engine was in, that of
// the last event recorded by then; by the switch's it is defensible.
func checkMoments(t *rapid.T, s *story, log *sliceLog) {
	for range 3 {
		at := log.evs[rapid.IntRange(0, len(log.evs)-1).Draw(t, "moment")].RecordedAt
		want := uint64(0)
		for i := range log.evs {
			if log.evs[i].RecordedAt <= at {
				want = log.evs[i].Position
			}
		}
		m, err := At(t.Context(), log, AtFilter{Time: at})
		if err != nil || m.Position != want {
			t.Fatalf("at %s: position %d, want %d, %v", at, m.Position, want, err)
		}
		p := NewProjection(log.ID())
		live := 0
		for i := range log.evs[:want] {
			p.Apply(&log.evs[i])
		}
		live = p.Live()
		if len(m.Calls) != live {
			t.Fatalf("at %s, event %d: %d calls, the engine had %d", at, want, len(m.Calls), live)
		}
		theirs, err := At(t.Context(), log, AtFilter{Time: at + s.skew, Occurred: true})
		if err != nil && !errors.Is(err, ErrDropped) {
			t.Fatal(err)
		}
		for _, calls := range [][]cti.CallView{m.Calls, theirs.Calls} {
			for i := range calls {
				checkDurations(t, "at", &calls[i].Call)
			}
		}
	}
}

// TestClockThatWasAhead: our clock was a day ahead and is put right. What waits is
// decided as ever, what has ended is forgotten, and what the PBX does not list any
// more is asked for.
func TestClockThatWasAhead(t *testing.T) {
	for name, restarted := range map[string]bool{"goes on": false, "started anew": true} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t, Policies{})
			s.now += 24 * hour
			s.feed(s.input(incoming("x", "x", bert, "380")), s.input(incoming("z", "z", bert, "381")), s.input(hangup("x", "NORMAL_CLEARING")))
			if restarted {
				st := NewState("log")
				for i := range s.evs {
					st.Apply(&s.evs[i])
				}
				k := st.correlator
				k.rules, k.hasCall, k.domains = s.o.correlator.rules, s.o.correlator.hasCall, s.o.correlator.domains
				s.o.correlator = k
			}
			s.now -= 24 * hour
			s.pass(0)

			s.leg(LegObservation{Kind: LegSeen, Leg: "b", Presence: anna, ChannelCall: "a", CallerNumber: "380", CalleeNumber: "1004"})
			s.want(s.pass(3*time.Second), "1004 callStarted a", "1004 line 12 a", "1004 ISBUSY")
			s.pass(2 * keepLeg)
			if l := s.o.correlator.legs["x"]; l != nil {
				t.Error("a leg that ended is not forgotten")
			}
			got := s.o.Compare(Snapshot{Domain: "acme.example", RequestedAt: s.now})
			if want := []string{"b", "z"}; !slices.Equal(got, want) {
				t.Errorf("the PBX lists none: asked for %v, want %v", got, want)
			}
		})
	}
}
