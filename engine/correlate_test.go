package engine

import (
	"strings"
	"testing"

	"github.com/callstate/callstate/events"
)

// trunk is a carrier's leg that calls the switch.
func trunk(id string) LegObservation {
	return LegObservation{
		Kind: LegCreated, Leg: id, Presence: "+380@carrier.example", Vars: true, ChannelCall: id, Inbound: true,
		CallerNumber: "380", Destination: "1004",
	}
}

// TestRenamedLegGoesOn: the switch gives a leg another id; what it does under the
// new one is the same call's.
func TestRenamedLegGoesOn(t *testing.T) {
	renamed := LegObservation{Kind: LegRenamed, Leg: "b-new", OldLeg: "b", Vars: true}
	t.Run("hold and end", func(t *testing.T) {
		s := newStory(t, Policies{})
		s.feed(s.input(incoming("b", "a", anna, "380")), s.input(of(LegAnswered, "b")))
		s.want(s.leg(renamed), "1004 callAliased a")
		s.want(s.leg(of(LegHeld, "b-new")), "1004 hold a", "1004 line 1568")
		s.want(s.leg(of(LegUnheld, "b-new")), "1004 unhold a", "1004 line 1816")
		s.want(s.leg(hangup("b-new", "NORMAL_CLEARING")), "1004 callFinished a answered", "1004 line 2", "1004 ONHOOK")
		if c := s.steps[len(s.steps)-1].Result.Call; len(c.Legs) != 1 || c.Legs[0].ID != "b-new" {
			t.Errorf("legs: %+v, want the one under its new id", c.Legs)
		}
	})
	t.Run("its partner is transferred", func(t *testing.T) {
		s := newStory(t, Policies{})
		s.feed(s.input(trunk("a")), s.input(incoming("b", "a", anna, "380")), s.input(of(LegAnswered, "b")), s.input(bridge("a", "b")), s.input(renamed))
		moved := LegObservation{Kind: LegUnbridged, Leg: "a", Vars: true, BridgeA: "a", BridgeB: "b-new", TransferTarget: "1007", TransferStamp: "1800000000:x"}
		s.want(s.leg(moved), "1004 callTransferred a")
	})
	t.Run("a trunk's", func(t *testing.T) {
		s := newStory(t, Policies{})
		s.feed(s.input(trunk("a")))
		s.want(s.leg(LegObservation{Kind: LegRenamed, Leg: "a-new", OldLeg: "a", Vars: true}))
		s.leg(hangup("a-new", "NORMAL_CLEARING"))
		if ev := s.evs[len(s.evs)-1]; ev.Type() != events.TypeLegHungup || ev.Leg != "a-new" {
			t.Errorf("%s of %s, want the hangup of a-new", ev.Type(), ev.Leg)
		}
	})
	t.Run("of a leg that nobody knows", func(t *testing.T) {
		s := newStory(t, Policies{})
		s.want(s.leg(renamed))
		s.want(s.leg(with(incoming("b-new", "a", anna, "380"), func(o *LegObservation) { o.Kind = LegSeen })),
			"1004 callStarted a", "1004 line 12 a", "1004 ISBUSY")
	})
}

// TestDeviceThoughtGoneComesBack: one of two devices was missing when the switch
// was asked, and was there all the same.
func TestDeviceThoughtGoneComesBack(t *testing.T) {
	s := newStory(t, Policies{})
	s.feed(s.input(incoming("b1", "a", anna, "380")), s.input(incoming("b2", "a", anna, "380")), s.input(of(LegAnswered, "b1")))
	absent := s.input(LegObservation{Kind: LegAbsent, Leg: "b1"})
	absent.Origin, absent.Unframed = events.Resync, true
	s.want(s.feed(absent))
	s.want(s.leg(of(LegHeld, "b1")), "1004 hold a", "1004 line 1568")
	s.want(s.leg(hangup("b2", "LOSE_RACE")))
	s.want(s.leg(hangup("b1", "NORMAL_CLEARING")), "1004 callFinished a answered", "1004 line 2", "1004 ONHOOK")
}

// TestEventIDsOfAFrameThatWaits: the first frame of a new core ends what the old
// one carried, and may itself have to wait. What it gives in the end must not
// take the ids of what it gave at once.
func TestEventIDsOfAFrameThatWaits(t *testing.T) {
	s := newStory(t, Policies{})
	s.feed(s.input(incoming("b1", "a1", anna, "380")))
	s.core, s.seq = "core-2", 0
	s.feed(s.input(LegObservation{Kind: LegSeen, Leg: "b2", Presence: bert, ChannelCall: "a2", CallerNumber: "380", CalleeNumber: "1007"}))
	s.now += 5_000_000
	s.finish()
	ids := map[string]bool{}
	for i := range s.evs {
		if ids[s.evs[i].ID] {
			t.Errorf("%s is the id of two events", s.evs[i].ID)
		}
		ids[s.evs[i].ID] = true
	}
	if f := s.o.Frames(); f.Recorded != 2 || !f.Reconciles() {
		t.Errorf("frames: %+v, want two recorded", f)
	}
}

// TestFramesWithoutNumbersAreNoRepeats: an adapter that knows the core and no
// sequence still tells several things.
func TestFramesWithoutNumbersAreNoRepeats(t *testing.T) {
	s := newStory(t, Policies{})
	var got []string
	for _, o := range []LegObservation{incoming("b", "a", anna, "380"), of(LegAnswered, "b"), of(LegHeld, "b")} {
		in := s.input(o)
		in.Source.Sequence = 0
		got = append(got, s.feed(in)...)
	}
	if !strings.Contains(strings.Join(got, "\n"), "hold a") {
		t.Errorf("got %v, want the hold too", got)
	}
}

// TestOnlyOnePathCountsADigit: where both paths are live the server's wins; on
// the account's path alone a repeated digit is a new one.
func TestOnlyOnePathCountsADigit(t *testing.T) {
	five := LegObservation{Kind: LegDTMF, Leg: "b", Digit: "5"}
	onAccount := func(s *story, o LegObservation) Input {
		in := s.input(o)
		in.Source = events.Source{Path: events.PathAccount, Connection: "conn", Sequence: s.seq}
		return in
	}
	t.Run("both", func(t *testing.T) {
		s := newStory(t, Policies{})
		s.feed(s.input(incoming("b", "a", anna, "380")))
		s.want(s.feed(onAccount(s, five), s.input(five), onAccount(s, five)), "1004 dtmfEntered a")
		if f := s.o.Frames(); f.Duplicates != 2 || !f.Reconciles() {
			t.Errorf("frames: %+v", f)
		}
	})
	t.Run("the account's alone", func(t *testing.T) {
		s := newStory(t, Policies{})
		s.feed(onAccount(s, incoming("b", "a", anna, "380")))
		s.want(s.feed(onAccount(s, five), onAccount(s, five)), "1004 dtmfEntered a", "1004 dtmfEntered a")
	})
	t.Run("an answer told twice", func(t *testing.T) {
		s := newStory(t, Policies{})
		s.feed(s.input(incoming("b", "a", anna, "380")), s.input(of(LegAnswered, "b")))
		s.want(s.feed(onAccount(s, of(LegAnswered, "b")), onAccount(s, with(of(LegAnswered, "b"), func(o *LegObservation) { o.Kind = LegSeen }))))
	})
}

// TestConversationOutlivesItsFirstLegs: legs end and are forgotten while the
// conversation goes on; who comes to it later comes to the same one.
func TestConversationOutlivesItsFirstLegs(t *testing.T) {
	s := newStory(t, Policies{})
	s.feed(s.input(trunk("a")), s.input(trunk("t")), s.input(bridge("a", "t"))) // t's conversation becomes a's
	s.feed(s.input(hangup("t", "NORMAL_CLEARING")))
	s.now += 2 * 60 * 1_000_000 // t is forgotten
	s.feed(s.input(of(LegSeen, "a")))
	s.leg(incoming("b", "t", anna, "380")) // and somebody is called on its behalf
	if ev := s.evs[len(s.evs)-1]; ev.Conversation != "a" {
		t.Errorf("conversation %s, want a, which t's was merged into", ev.Conversation)
	}
	s.feed(s.input(hangup("a", "NORMAL_CLEARING")), s.input(hangup("b", "NORMAL_CLEARING")))
	s.now += 2 * 60 * 1_000_000
	if _, err := s.o.tick(s.now); err != nil {
		t.Fatal(err)
	}
	left(t, s.o.correlator)
}

// TestUnseenPartnersAreForgotten (I8): an outgoing trunk may never be shown.
func TestUnseenPartnersAreForgotten(t *testing.T) {
	s := newStory(t, Policies{})
	for range 50 {
		id := "a" + string(rune('0'+s.seq%10)) + s.core
		s.feed(s.input(outgoing(id, anna, "380")), s.input(of(LegAnswered, id)), s.input(bridge(id, "never-shown-"+id)), s.input(hangup(id, "NORMAL_CLEARING")))
		s.now += 2 * 60 * 1_000_000
	}
	if _, err := s.o.tick(s.now); err != nil {
		t.Fatal(err)
	}
	left(t, s.o.correlator)
}

// TestLegOfNobodyBecomesAnAccounts: its first frames had no presence id.
func TestLegOfNobodyBecomesAnAccounts(t *testing.T) {
	s := newStory(t, Policies{})
	nobody := with(incoming("b", "a", anna, "380"), func(o *LegObservation) { o.Presence = "" })
	s.want(s.leg(nobody))
	s.want(s.leg(with(incoming("b", "a", anna, "380"), func(o *LegObservation) { o.Kind = LegSeen })), "1004 callStarted a", "1004 line 12 a", "1004 ISBUSY")
	s.want(s.leg(hangup("b", "ORIGINATOR_CANCEL")), "1004 callFinished a missed", "1004 line 2", "1004 ONHOOK")
	s.now += 2 * 60 * 1_000_000
	if _, err := s.o.tick(s.now); err != nil {
		t.Fatal(err)
	}
	left(t, s.o.correlator)
}

// TestSwitchIsAsked: what it says of its legs after a gap.
func TestSwitchIsAsked(t *testing.T) {
	t.Run("a call that began and was held unseen", func(t *testing.T) {
		s := newStory(t, Policies{})
		s.want(s.leg(with(incoming("b", "a", anna, "380"), func(o *LegObservation) { o.Kind, o.AnsweredAt, o.OnHold = LegStated, s.now, true })),
			"1004 callStarted a", "1004 line 12 a", "1004 ISBUSY", "1004 commutationStarted a", "1004 line 1048", "1004 callInfoChanged a", "1004 line 1816", "1004 hold a", "1004 line 1568")
	})
	t.Run("a hold that was taken back unseen", func(t *testing.T) {
		s := newStory(t, Policies{})
		s.feed(s.input(incoming("b", "a", anna, "380")), s.input(of(LegAnswered, "b")), s.input(of(LegHeld, "b")))
		s.want(s.leg(of(LegStated, "b")), "1004 unhold a", "1004 line 1816")
	})
	t.Run("nothing new", func(t *testing.T) {
		s := newStory(t, Policies{})
		s.feed(s.input(incoming("b", "a", anna, "380")), s.input(of(LegAnswered, "b")))
		s.want(s.leg(of(LegStated, "b")))
	})
	t.Run("a leg past its end", func(t *testing.T) {
		s := newStory(t, Policies{})
		s.feed(s.input(incoming("b", "a", anna, "380")))
		s.want(s.leg(with(of(LegStated, "b"), func(o *LegObservation) { o.Ending, o.Cause = true, "ORIGINATOR_CANCEL" })), "1004 callFinished a missed", "1004 line 2", "1004 ONHOOK")
	})
}

// TestRecordingOfATrunkIsTheCalls: the switch records the leg it was told to.
func TestRecordingOfATrunkIsTheCalls(t *testing.T) {
	record := func(s *story) events.Event {
		n := len(s.evs)
		s.leg(LegObservation{Kind: LegRecordingStarted, Leg: "a", Vars: true, Recording: "/r/1.wav"})
		if len(s.evs) == n {
			return events.Event{}
		}
		return s.evs[n]
	}
	s := newStory(t, Policies{})
	s.feed(s.input(trunk("a")), s.input(incoming("b", "a", anna, "380")), s.input(of(LegAnswered, "b")), s.input(bridge("a", "b")))
	if ev := record(s); ev.Key() != (events.CallKey{Account: anna, Call: "a"}) {
		t.Errorf("recorded %s, want the call", ev.Key())
	}
	s = newStory(t, Policies{})
	s.feed(s.input(trunk("a")), s.input(incoming("b", "a", anna, "380")), s.input(of(LegAnswered, "b")), s.input(bridge("a", "b")), s.input(hangup("b", "NORMAL_CLEARING")))
	if ev := record(s); !ev.Key().IsZero() {
		t.Errorf("a call that has ended is recorded: %s", ev.Key())
	}
}

// TestStaleAnswerOfTheSwitch: a frame that came while the switch was being asked
// counts, and the answer does not.
func TestStaleAnswerOfTheSwitch(t *testing.T) {
	s := newStory(t, Policies{})
	s.feed(s.input(incoming("b", "a", anna, "380")), s.input(of(LegAnswered, "b")))
	asked := s.now
	s.leg(of(LegHeld, "b"))
	s.want(s.leg(with(of(LegStated, "b"), func(o *LegObservation) { o.Asked = asked })))
	s.want(s.leg(with(of(LegStated, "b"), func(o *LegObservation) { o.Asked = s.now + 1 })), "1004 unhold a", "1004 line 1816")
}
