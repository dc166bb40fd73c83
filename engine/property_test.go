package engine

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/callstate/callstate/events"
)

// draw makes a frame about one of a few legs of a few accounts: likely ones,
// late ones, impossible ones.
func draw(t *rapid.T, s *story) Input {
	account := rapid.SampledFrom([]string{anna, bert, "+380@carrier.example", ""}).Draw(t, "presence")
	id := rapid.SampledFrom([]string{"l1", "l2", "l3", "l4", "l5"}).Draw(t, "leg")
	call := rapid.SampledFrom([]string{"c1", "c2", "l1", ""}).Draw(t, "call")
	o := LegObservation{
		Kind: LegKind(rapid.IntRange(int(LegSeen), int(LegRecordingStopped)).Draw(t, "kind")),
		Leg:  id, Presence: account, ChannelCall: call, Vars: rapid.Bool().Draw(t, "vars"),
		CallerNumber: rapid.SampledFrom([]string{"", "380", "1004"}).Draw(t, "caller"), CalleeNumber: "1007",
		OtherLeg: rapid.SampledFrom([]string{"", "l1", "l5", "x"}).Draw(t, "other"),
		BridgeA:  rapid.SampledFrom([]string{"", "l1", "l2"}).Draw(t, "a"), BridgeB: rapid.SampledFrom([]string{"", "l3", "x"}).Draw(t, "b"),
		LogicalInbound: rapid.Bool().Draw(t, "inbound"), Digit: "5", OldLeg: "l1",
	}
	switch rapid.IntRange(0, 9).Draw(t, "special") {
	case 0:
		o.OriginateNumber, o.Parent = "1007", call
	case 1:
		o.TransferResult = rapid.SampledFrom([]string{"confirmed", "error"}).Draw(t, "result")
	case 2:
		o.TransferTarget, o.TransferStamp = "1007", fmt.Sprintf("1700000%03d:x", s.seq)
	case 3:
		o.CallGroup = "w1"
	case 4:
		o.OnHold, o.BridgedTo = true, "l3"
	}
	switch o.Kind {
	case LegHungup, LegDetails, LegDestroyed:
		o.Ending, o.Vars, o.Cause, o.HasTimes = true, true, "NORMAL_CLEARING", o.Kind != LegHungup
	}
	in := s.input(o)
	if !s.steady {
		s.jump(t)
	}
	if !s.oneCore && rapid.IntRange(0, 29).Draw(t, "restart") == 0 {
		s.core = fmt.Sprintf("core-%d", s.seq)
	}
	return in
}

// drawStory feeds frames, some twice, and ends every leg.
func drawStory(t *rapid.T) *story {
	s := newStory(t, Policies{})
	for range rapid.IntRange(1, 60).Draw(t, "frames") {
		in := draw(t, s)
		s.feed(in)
		if rapid.IntRange(0, 4).Draw(t, "twice") == 0 {
			before := len(s.evs)
			again := in
			again.recorded = false
			s.feed(again)
			if len(s.evs) != before {
				t.Fatalf("the same frame twice gave %s: %+v", s.evs[before].Type(), in)
			}
		}
	}
	steps, err := s.o.Finish()
	if err != nil {
		t.Fatal(err)
	}
	s.take(steps)
	for id, l := range s.o.correlator.legs {
		if !l.ended {
			s.leg(hangup(id, "NORMAL_CLEARING"))
		}
	}
	return s
}

// TestInvariants: whatever comes, in whatever order.
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawStory(t)

		// I2: every frame is accounted for.
		if f := s.o.Frames(); !f.Reconciles() {
			t.Fatalf("frames: %+v", f)
		}
		// Every call gets exactly one effective end, and none begins twice.
		ends, began := map[events.CallKey]int{}, map[events.CallKey]int{}
		for i := range s.evs {
			switch s.evs[i].Payload.(type) {
			case *events.CallNew:
				began[s.evs[i].Key()]++
			case *events.CallHungup:
				ends[s.evs[i].Key()]++
			case *events.CallReinstated:
				ends[s.evs[i].Key()]--
			}
			if s.evs[i].Call != "" && began[s.evs[i].Key()] != 1 {
				t.Fatalf("%s of %s, which began %d times", s.evs[i].Type(), s.evs[i].Key(), began[s.evs[i].Key()])
			}
		}
		for k := range began {
			if ends[k] != 1 {
				t.Fatalf("call %s has %d ends", k, ends[k])
			}
		}
		// Sequences have no gap, durations are not negative, flags are of the set.
		seq, line := map[string]uint64{}, map[string]uint64{}
		for i := range s.steps {
			for _, m := range s.steps[i].Result.Messages {
				e := &m.Event
				if line[e.Account]++; e.LineSeq != line[e.Account] {
					t.Fatalf("lineSeq %d after %d", e.LineSeq, line[e.Account]-1)
				}
				if e.Call == nil {
					continue
				}
				key := e.Account + "/" + e.CallID
				if seq[key]++; e.Seq != seq[key] {
					t.Fatalf("seq %d after %d", e.Seq, seq[key]-1)
				}
				if e.Call.RingMs < 0 || e.Call.TalkMs < 0 || e.Call.HoldMs < 0 {
					t.Fatalf("a duration is negative: %+v", e.Call)
				}
			}
		}
		if s.o.projection.Live() != 0 {
			t.Fatalf("%d calls are live in the fold", s.o.projection.Live())
		}
	})
}

// TestFoldIsDeterministic: folding the log again, at once or an account at a
// time, gives the same messages byte for byte (I3).
func TestFoldIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawStory(t)
		again, alone := NewProjection("log"), map[string]*Projection{}
		for i := range s.evs {
			ev := s.evs[i]
			if alone[ev.Account] == nil {
				alone[ev.Account] = NewProjection("log")
			}
			want := s.steps[i].Result.Messages
			for name, got := range map[string][]Message{"again": again.Apply(&ev).Messages, "alone": alone[ev.Account].Apply(&ev).Messages} {
				if len(got) != len(want) {
					t.Fatalf("%s: %d messages at %d, want %d", name, len(got), ev.Position, len(want))
				}
				for j := range want {
					if got[j].ID != want[j].ID || !bytes.Equal(got[j].Payload, want[j].Payload) {
						t.Fatalf("%s: message %s is\n%s\nwant\n%s", name, got[j].ID, got[j].Payload, want[j].Payload)
					}
				}
			}
		}
	})
}

// TestMutedFoldCountsOn: a fold that is silent up to a position says afterwards
// what a fold that spoke all the time says: sequences go on.
func TestMutedFoldCountsOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawStory(t)
		muted := NewProjection("log")
		muted.mute = uint64(rapid.IntRange(0, len(s.evs)).Draw(t, "mute"))
		for i := range s.evs {
			ev := s.evs[i]
			got := muted.Apply(&ev).Messages
			if ev.Position <= muted.mute {
				if len(got) != 0 {
					t.Fatalf("a muted fold spoke at %d", ev.Position)
				}
				continue
			}
			if d := cmp.Diff(s.steps[i].Result.Messages, got); d != "" {
				t.Fatalf("at %d (-spoken +muted):\n%s", ev.Position, d)
			}
		}
	})
}

// TestLogRebuildsCorrelation: a correlator made from the events so far decides
// about the next frames as the one that made them.
func TestLogRebuildsCorrelation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStory(t, Policies{})
		s.oneCore = true // which run of a switch is the present one is in no event until one comes of it
		s.steady = true  // nor is the clock, but for the times of the events
		known := func(k events.CallKey) (bool, error) { return s.o.known[k], nil }
		for range rapid.IntRange(1, 40).Draw(t, "before") {
			s.feed(draw(t, s))
		}
		steps, err := s.o.Finish() // what waits is not in the log
		if err != nil {
			t.Fatal(err)
		}
		s.take(steps)
		rebuilt := newCorrelator(Rules{Domains: []string{"acme.example"}}, known)
		for i := range s.evs {
			rebuilt.evolve(&s.evs[i])
		}
		if _, err := rebuilt.tick(s.o.correlator.now); err != nil { // the time that passed is not in the log either
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 20).Draw(t, "after") {
			in := draw(t, s)
			if in.Leg.TransferStamp != "" || in.Leg.Kind == LegRecordingStarted || in.Leg.Kind == LegRecordingStopped {
				continue // of these the log has only what came of them
			}
			in.Leg.TransferResult = ""
			same := in
			leg := *in.Leg
			same.Leg = &leg
			want, err := s.o.correlator.observe(&in)
			if err != nil {
				t.Fatal(err)
			}
			got, err := rebuilt.observe(&same)
			if err != nil {
				t.Fatal(err)
			}
			if len(want) != len(got) {
				t.Fatalf("events %v, rebuilt %v, for %+v", typesOf(want), typesOf(got), in)
			}
			for i := range want {
				if want[i].Type() != got[i].Type() || want[i].Key() != got[i].Key() || want[i].Leg != got[i].Leg {
					t.Fatalf("%s of %s, rebuilt %s of %s", want[i].Type(), want[i].Key(), got[i].Type(), got[i].Key())
				}
				s.o.known[want[i].Key()] = true
			}
		}
	})
}

// TestMemoryFollowsLiveCalls (I8): when all has ended and time has passed,
// nothing is left that grows with history.
func TestMemoryFollowsLiveCalls(t *testing.T) {
	s := newStory(t, Policies{})
	for i := range 500 {
		trunk, b := fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i)
		s.feed(
			s.input(LegObservation{Kind: LegSeen, Leg: b, Presence: anna}),
			s.input(LegObservation{Kind: LegCreated, Leg: trunk, Presence: "+380@carrier.example", Vars: true, ChannelCall: trunk, Inbound: true}),
			s.input(incoming(b, trunk, anna, "380")), s.input(of(LegAnswered, b)), s.input(bridge(trunk, b)),
			s.input(hangup(b, "NORMAL_CLEARING")), s.input(hangup(trunk, "NORMAL_CLEARING")),
		)
	}
	s.now += events.Time(2 * keepDoubtful.Microseconds())
	steps, err := s.o.tick(s.now)
	if err != nil || len(steps) != 0 {
		t.Fatalf("%d steps, %v", len(steps), err)
	}
	k := s.o.correlator
	for name, n := range map[string]int{
		"legs": len(k.legs), "conversations": len(k.convs), "waiting": len(k.waiting),
		"awaited": len(k.awaited), "gone": len(k.gone), "doubtful": len(k.doubtful), "calls of the agent": len(k.agent(anna).calls) + len(k.agent(anna).over),
	} {
		if n != 0 {
			t.Errorf("%d %s are left", n, name)
		}
	}
	if n := len(s.o.projection.accounts[anna].calls); n > keepEnded {
		t.Errorf("%d calls are left in the fold", n)
	}
}

func typesOf(evs []events.Event) []string {
	out := make([]string, len(evs))
	for i := range evs {
		out[i] = fmt.Sprintf("%s %s %s", evs[i].Type(), evs[i].Key(), evs[i].Leg)
	}
	return out
}
