package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

func dirOf(s string) events.Direction { return events.Direction(s) }

// tester is a test's or a property's t.
type tester interface {
	Helper()
	Fatal(args ...any)
	Errorf(format string, args ...any)
}

// story runs observations through correlation and fold, a second of clock each.
type story struct {
	t    tester
	o    *Offline
	now  events.Time // our clock
	skew events.Time // by how much the switch's is ahead of it
	seq  uint64
	core string
	// oneCore keeps the switch from being started again.
	oneCore bool
	// steady keeps the clock from jumping.
	steady bool
	steps  []Step
	evs    []events.Event
}

const (
	anna = "1004@acme.example"
	bert = "1007@acme.example"
)

func newStory(t tester, p Policies) *story {
	return &story{t: t, core: "core-1", now: 1_700_000_000_000_000, o: NewOffline(Rules{Domains: []string{"acme.example"}}, p, "log")}
}

func (s *story) input(o LegObservation) Input {
	s.seq++
	s.now += 1_000_000
	if o.At == 0 {
		o.At, o.Clock = s.now+s.skew, events.TimeOfEvent
	}
	if o.Kind == LegAnswered && o.AnsweredAt == 0 {
		o.AnsweredAt = o.At
	}
	o.Profiled = o.CallerNumber != "" || o.Destination != ""
	return Input{
		ReceivedAt: s.now, Leg: &o,
		Source: events.Source{Adapter: "test", Path: events.PathServer, Switch: "pbx", Core: s.core, Sequence: s.seq},
	}
}

// feed takes inputs and returns the CTI events that followed, in short.
func (s *story) feed(ins ...Input) []string {
	s.t.Helper()
	var out []string
	for _, in := range ins {
		steps, err := s.o.Observe(in)
		if err != nil {
			s.t.Fatal(err)
		}
		out = append(out, s.take(steps)...)
	}
	return out
}

func (s *story) take(steps []Step) []string {
	var out []string
	for i := range steps {
		s.steps = append(s.steps, steps[i])
		s.evs = append(s.evs, steps[i].Event)
		for _, m := range steps[i].Result.Messages {
			out = append(out, short(&m.Event))
		}
		for _, c := range steps[i].Commands {
			out = append(out, "command "+string(c.Action)+" "+c.Leg+" "+c.Cause)
		}
	}
	return out
}

func (s *story) leg(o LegObservation) []string { s.t.Helper(); return s.feed(s.input(o)) }

func short(e *cti.Event) string {
	number, _ := cti.SplitAccount(e.Account)
	switch e.Event {
	case cti.LineStateChanged:
		return strings.TrimSpace(fmt.Sprintf("%s line %d %s", number, *e.CallFeaturesSet, e.FeaturesCallID))
	case cti.AgentStateChanged:
		return number + " " + e.UserState
	case cti.CallFinished:
		return fmt.Sprintf("%s callFinished %s %s", number, e.CallID, e.Call.Outcome)
	default:
		return strings.TrimSpace(fmt.Sprintf("%s %s %s", number, e.Event, e.CallID))
	}
}

func (s *story) want(got []string, want ...string) {
	s.t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		s.t.Errorf("-want +got:\n%s", d)
	}
}

// The pieces of a story.
func incoming(id, call, account, from string) LegObservation {
	number, _ := cti.SplitAccount(account)
	return LegObservation{
		Kind: LegCreated, Leg: id, Presence: account, Vars: true, ChannelCall: call, OtherLeg: call,
		CallerNumber: from, CalleeNumber: number, Destination: number,
	}
}

func outgoing(id, account, to string) LegObservation {
	number, _ := cti.SplitAccount(account)
	return LegObservation{
		Kind: LegCreated, Leg: id, Presence: account, Vars: true, ChannelCall: id, Inbound: true, LogicalInbound: true,
		HitDialplan: true, CallerNumber: number, Destination: to,
	}
}

func clicked(id, account, to, parent string) LegObservation {
	number, _ := cti.SplitAccount(account)
	return LegObservation{
		Kind: LegCreated, Leg: id, Presence: account, Vars: true, ChannelCall: id, OriginateNumber: to, Parent: parent,
		CallerNumber: to, CalleeNumber: number, Destination: number,
	}
}

func of(kind LegKind, id string) LegObservation {
	return LegObservation{Kind: kind, Leg: id, Vars: true}
}

func bridge(a, b string) LegObservation {
	return LegObservation{Kind: LegBridged, Leg: a, Vars: true, BridgeA: a, BridgeB: b}
}

func hangup(id, cause string) LegObservation {
	return LegObservation{Kind: LegHungup, Leg: id, Vars: true, Ending: true, Cause: cause}
}

func with(o LegObservation, change func(*LegObservation)) LegObservation { change(&o); return o }

// TestOutgoingHoldUnhold is the seed's own example.
func TestOutgoingHoldUnhold(t *testing.T) {
	s := newStory(t, Policies{})
	s.want(s.leg(outgoing("a", anna, "380")), "1004 callStarted a", "1004 line 8 a", "1004 ISBUSY")
	s.want(s.leg(of(LegAnswered, "a")), "1004 commutationStarted a", "1004 line 1048")
	s.want(s.leg(bridge("a", "b")), "1004 callInfoChanged a", "1004 line 1816")
	s.want(s.leg(of(LegHeld, "a")), "1004 hold a", "1004 line 1568")
	s.want(s.leg(of(LegUnheld, "a")), "1004 unhold a", "1004 line 1816")
	s.want(s.leg(hangup("a", "NORMAL_CLEARING")), "1004 callFinished a answered", "1004 line 2", "1004 ONHOOK")
	s.want(s.leg(with(hangup("a", "NORMAL_CLEARING"), func(o *LegObservation) { o.Kind, o.HasTimes = LegDetails, true })), "1004 callDetails a")
	c := s.steps[len(s.steps)-1].Result.Call
	if c.RingMs != 1000 || c.TalkMs != 3000 || c.HoldMs != 1000 {
		t.Errorf("ring %d, talk %d, hold %d ms", c.RingMs, c.TalkMs, c.HoldMs)
	}
}

func TestSecondInboundWaitsAndIsAnswered(t *testing.T) {
	s := newStory(t, Policies{})
	s.feed(s.input(incoming("b1", "a1", anna, "380")), s.input(of(LegAnswered, "b1")))
	s.want(s.leg(incoming("b2", "a2", anna, "381")), "1004 callStarted a2")
	s.want(s.leg(of(LegHeld, "b1")), "1004 hold a1", "1004 line 1568")
	s.want(s.leg(of(LegAnswered, "b2")), "1004 commutationStarted a2", "1004 currentCallChanged a2", "1004 line 1048", "1004 callInfoChanged a2", "1004 line 1816")
	s.want(s.leg(hangup("b2", "NORMAL_CLEARING")), "1004 callFinished a2 answered", "1004 currentCallChanged a1", "1004 line 1568")
	s.want(s.leg(of(LegUnheld, "b1")), "1004 unhold a1", "1004 line 1816")
}

func TestRejectSecondCallIsAPolicy(t *testing.T) {
	s := newStory(t, Policies{RejectSecondCall: true})
	s.feed(s.input(incoming("b1", "a1", anna, "380")), s.input(of(LegAnswered, "b1")))
	s.want(s.leg(incoming("b2", "a2", anna, "381")), "1004 callStarted a2", "command hangup b2 USER_BUSY")
	s.want(s.leg(hangup("b2", "USER_BUSY")), "1004 callFinished a2 busy")
}

func TestConsultationCancelled(t *testing.T) {
	s := newStory(t, Policies{UnholdAfterConsult: true})
	s.feed(s.input(incoming("b1", "a1", anna, "380")), s.input(of(LegAnswered, "b1")), s.input(of(LegHeld, "b1")))
	s.want(s.leg(clicked("c", anna, "1007", "a1")), "1004 line 0 a1", "1004 callStarted c", "1004 line 0 c")
	s.want(s.leg(of(LegAnswered, "c")), "1004 agentAnswered c")
	s.want(s.leg(bridge("c", "d")), "1004 commutationStarted c", "1004 callInfoChanged c", "1004 line 128")
	s.want(s.leg(hangup("c", "NORMAL_CLEARING")), "1004 currentCallChanged a1", "1004 callFinished c answered", "1004 line 1568", "command unhold b1 ")
}

// TestConfirmedTransfer: whichever own leg shows it first (Q3), and the UNHOLD of
// its tear-down is none.
func TestConfirmedTransfer(t *testing.T) {
	for _, first := range []string{"b1", "c"} {
		s := newStory(t, Policies{UnholdAfterConsult: true})
		s.feed(s.input(incoming("b1", "a1", anna, "380")), s.input(of(LegAnswered, "b1")), s.input(of(LegHeld, "b1")),
			s.input(clicked("c", anna, "1007", "a1")), s.input(of(LegAnswered, "c")), s.input(bridge("c", "d")))
		confirmed := func(o *LegObservation) { o.TransferResult = "confirmed" }
		second := map[string]string{"b1": "c", "c": "b1"}[first]
		var got []string
		got = append(got, s.leg(with(of(LegUnheld, "b1"), confirmed))...)
		got = append(got, s.leg(with(hangup(first, "NORMAL_CLEARING"), confirmed))...)
		got = append(got, s.leg(with(hangup(second, "NORMAL_CLEARING"), confirmed))...)
		all := strings.Join(got, "\n")
		if strings.Contains(all, "unhold") || strings.Count(all, "callTransferred a1") != 1 || !strings.Contains(all, "callFinished a1 transferred") {
			t.Errorf("%s hangs up first:\n%s", first, all)
		}
		for i := range s.steps {
			if c := s.steps[i].Result.Call; c != nil && c.ID == "a1" && c.Outcome != "" && (c.RedirectingID != "1004" || c.RedirectionID != "1007") {
				t.Errorf("redirecting %s to %s, want 1004 to 1007 (Q2)", c.RedirectingID, c.RedirectionID)
			}
		}
	}
}

func TestPromotionWhenTheCustomerLeaves(t *testing.T) {
	s := newStory(t, Policies{})
	s.feed(s.input(incoming("b1", "a1", anna, "380")), s.input(of(LegAnswered, "b1")), s.input(of(LegHeld, "b1")),
		s.input(clicked("c", anna, "1007", "a1")), s.input(of(LegAnswered, "c")), s.input(bridge("c", "d")))
	s.want(s.leg(hangup("b1", "NORMAL_CLEARING")), "1004 callFinished a1 answered", "1004 currentCallChanged c", "1004 line 1816")
}

func TestCallsFoundLate(t *testing.T) {
	for _, tt := range []struct {
		name  string
		first LegObservation
		want  []string
	}{
		{
			"on ANSWER", with(incoming("b", "a", anna, "380"), func(o *LegObservation) { o.Kind = LegAnswered }),
			[]string{"1004 callStarted a", "1004 line 12 a", "1004 ISBUSY", "1004 commutationStarted a", "1004 line 1048", "1004 callInfoChanged a", "1004 line 1816"},
		},
		{
			"on HANGUP", with(incoming("b", "a", anna, "380"), func(o *LegObservation) { o.Kind, o.Ending, o.Cause = LegHungup, true, "ORIGINATOR_CANCEL" }),
			[]string{"1004 callStarted a", "1004 line 12 a", "1004 ISBUSY", "1004 callFinished a missed", "1004 line 2", "1004 ONHOOK"},
		},
		{"a state after its end is nothing", with(of(LegSeen, "b"), func(o *LegObservation) { o.Vars, o.Ending, o.Presence = false, true, anna }), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStory(t, Policies{})
			s.want(s.leg(tt.first), tt.want...)
		})
	}
}

// TestFramesWaitForTheirLeg: a state does not tell the call id; the creation does.
func TestFramesWaitForTheirLeg(t *testing.T) {
	s := newStory(t, Policies{})
	state := LegObservation{Kind: LegSeen, Leg: "b", Presence: anna, ChannelCall: "b", CallerNumber: "380", CalleeNumber: "1004"}
	digit := LegObservation{Kind: LegDTMF, Leg: "b", Digit: "7"}
	s.want(s.feed(s.input(state), s.input(digit)))
	s.want(s.leg(with(incoming("b", "a", anna, "380"), func(o *LegObservation) { o.CallGroup = "w"; o.At = s.now })),
		"1004 callStarted w", "1004 line 12 w", "1004 ISBUSY", "1004 dtmfEntered w")
	if f := s.o.Frames(); !f.Reconciles() || f.Received != 3 {
		t.Errorf("frames: %+v", f)
	}
}

// TestWaitingEndsAfterTwoSeconds: then Channel-Call-UUID decides, and the id
// proper is an alias.
func TestWaitingEndsAfterTwoSeconds(t *testing.T) {
	s := newStory(t, Policies{})
	s.feed(s.input(LegObservation{Kind: LegSeen, Leg: "b", Presence: anna, ChannelCall: "a", CallerNumber: "380", CalleeNumber: "1004"}))
	s.now += 3_000_000
	got := s.leg(with(incoming("b", "a", anna, "380"), func(o *LegObservation) { o.Kind, o.CallGroup = LegSeen, "w" }))
	s.want(got, "1004 callStarted a", "1004 line 12 a", "1004 ISBUSY", "1004 callAliased a")
}

func TestEndedCallNeverLivesAgain(t *testing.T) {
	s := newStory(t, Policies{})
	for i, want := range []string{"a", "a-2", "a-3"} {
		id := fmt.Sprintf("b%d", i)
		s.feed(s.input(incoming(id, "a", anna, "380")))
		got := s.steps[len(s.steps)-1].Event.Call
		if got != want {
			t.Errorf("call %d has the id %s, want %s", i+1, got, want)
		}
		s.feed(s.input(hangup(id, "ORIGINATOR_CANCEL")))
	}
	for i := range s.evs {
		if s.evs[i].Call != "" && s.evs[i].Conversation != "a" {
			t.Errorf("%s is in conversation %s", s.evs[i].Key(), s.evs[i].Conversation)
		}
	}
}

// TestAliasOfSeveralCalls: a queue offers a call again, and the record's id is that of
// both. It names the one that is live.
func TestAliasOfSeveralCalls(t *testing.T) {
	s := newStory(t, Policies{})
	offer := func(id string) LegObservation {
		return with(incoming(id, "member", anna, "380"), func(o *LegObservation) { o.CallGroup, o.OriginatingLeg = "w", "member" })
	}
	answer := func(id string) LegObservation {
		return with(of(LegAnswered, id), func(o *LegObservation) { o.OriginatingLeg = "member" })
	}
	for i, want := range []string{"w", "w-2", "w-3"} {
		id := fmt.Sprintf("b%d", i)
		s.feed(s.input(offer(id)), s.input(answer(id)))
		for range 50 {
			a := s.o.projection.accounts[anna]
			if c := a.find("member"); c == nil || c.id != want || !slices.Contains(c.more().aliases, "member") {
				t.Fatalf("the call known as member is %+v, want %s", c, want)
			}
		}
		if i < 2 {
			s.feed(s.input(hangup(id, "NORMAL_CLEARING")))
		}
	}
}

func TestTwoDevicesOneCall(t *testing.T) {
	s := newStory(t, Policies{})
	s.feed(s.input(incoming("b1", "a", anna, "380")))
	s.want(s.leg(incoming("b2", "a", anna, "380")))
	s.want(s.leg(of(LegAnswered, "b2")), "1004 commutationStarted a", "1004 line 1048", "1004 callInfoChanged a", "1004 line 1816")
	s.want(s.leg(hangup("b1", "LOSE_RACE")))
	s.want(s.leg(of(LegHeld, "b2")), "1004 hold a", "1004 line 1568")
	s.want(s.leg(hangup("b2", "NORMAL_CLEARING")), "1004 callFinished a answered", "1004 line 2", "1004 ONHOOK")
}

func TestNewCoreEndsWhatTheOldOneCarried(t *testing.T) {
	s := newStory(t, Policies{UnholdAfterConsult: true, RejectSecondCall: true})
	s.feed(s.input(incoming("b1", "a1", anna, "380")), s.input(of(LegAnswered, "b1")), s.input(of(LegHeld, "b1")))
	old := s.core
	s.core, s.seq = "core-2", 0
	s.want(s.leg(incoming("b2", "a2", bert, "381")),
		"1004 callFinished a1 answered", "1004 line 2", "1004 ONHOOK", "1007 callStarted a2", "1007 line 12 a2", "1007 ISBUSY")
	for i := range s.evs {
		if h, ok := s.evs[i].Payload.(*events.CallHungup); ok && (h.Inferred != inferredRestart || s.evs[i].Origin != events.Resync) {
			t.Errorf("ended with %q, origin %s", h.Inferred, s.evs[i].Origin)
		}
	}
	s.core, s.seq = old, 100
	s.want(s.leg(of(LegUnheld, "b1"))) // a straggler brings nothing back
}

func TestInferredEndIsWithdrawn(t *testing.T) {
	s := newStory(t, Policies{})
	s.feed(s.input(incoming("b", "a", anna, "380")), s.input(of(LegAnswered, "b")))
	absent := s.input(LegObservation{Kind: LegAbsent, Leg: "b"})
	absent.Origin, absent.Unframed = events.Resync, true
	s.want(s.feed(absent), "1004 callFinished a answered", "1004 line 2", "1004 ONHOOK")
	s.want(s.leg(of(LegHeld, "b")), "1004 callReinstated a", "1004 line 1816", "1004 ISBUSY", "1004 hold a", "1004 line 1568")
	s.want(s.leg(hangup("b", "NORMAL_CLEARING")), "1004 callFinished a answered", "1004 line 2", "1004 ONHOOK")
}

// TestInferredEndIsWithdrawnAfterOtherCalls: however many calls the account has had
// since, as long as correlation knows the leg.
func TestInferredEndIsWithdrawnAfterOtherCalls(t *testing.T) {
	s := newStory(t, Policies{})
	s.feed(s.input(incoming("b", "a", anna, "380")), s.input(of(LegAnswered, "b")))
	absent := s.input(LegObservation{Kind: LegAbsent, Leg: "b"})
	absent.Origin, absent.Unframed = events.Resync, true
	s.feed(absent)
	for i := range 2 * keepEnded {
		id := fmt.Sprint("x", i)
		s.feed(s.input(incoming(id, id, anna, "381")), s.input(hangup(id, "ORIGINATOR_CANCEL")))
	}
	if n := len(s.o.projection.accounts[anna].calls); n != keepEnded+1 {
		t.Errorf("%d calls are kept, want %d and the doubtful one", n, keepEnded)
	}
	s.want(s.leg(of(LegHeld, "b")), "1004 callReinstated a", "1004 line 1816", "1004 ISBUSY", "1004 hold a", "1004 line 1568")
	s.want(s.leg(hangup("b", "NORMAL_CLEARING")), "1004 callFinished a answered", "1004 line 2", "1004 ONHOOK")
}

func TestBlindTransferNeedsATransferor(t *testing.T) {
	moved := func(o *LegObservation) { o.TransferTarget, o.TransferStamp = "1007", "1800000000:x" }
	trunk := LegObservation{Kind: LegCreated, Leg: "a", Presence: "+380@carrier.example", Vars: true, ChannelCall: "a", Inbound: true, CallerNumber: "380"}
	t.Run("bridged", func(t *testing.T) {
		s := newStory(t, Policies{})
		s.feed(s.input(trunk), s.input(incoming("b", "a", anna, "380")), s.input(of(LegAnswered, "b")), s.input(bridge("a", "b")))
		got := s.leg(with(LegObservation{Kind: LegUnbridged, Leg: "a", Vars: true, BridgeA: "a", BridgeB: "b"}, moved))
		s.want(got, "1004 callTransferred a")
		s.want(s.leg(hangup("b", "NORMAL_CLEARING")), "1004 callFinished a transferred", "1004 line 2", "1004 ONHOOK")
	})
	t.Run("parked, and fetched later", func(t *testing.T) {
		s := newStory(t, Policies{})
		s.feed(s.input(trunk), s.input(incoming("b", "a", anna, "380")), s.input(of(LegAnswered, "b")), s.input(bridge("a", "b")), s.input(of(LegParked, "a")))
		s.want(s.leg(with(of(LegSeen, "a"), moved)))
	})
	t.Run("a hunt that rings the next one", func(t *testing.T) {
		s := newStory(t, Policies{})
		s.feed(s.input(trunk), s.input(incoming("b", "a", anna, "380")))
		s.want(s.leg(with(of(LegSeen, "a"), moved)))
	})
	t.Run("a click-to-call's own way", func(t *testing.T) {
		s := newStory(t, Policies{})
		s.feed(s.input(clicked("c", anna, "1007", "")), s.input(of(LegAnswered, "c")))
		s.want(s.leg(with(bridge("c", "d"), func(o *LegObservation) { moved(o); o.OriginateNumber = "1007" })), "1004 commutationStarted c", "1004 line 1048", "1004 callInfoChanged c", "1004 line 1816")
	})
}

// TestRestartAfterABlindTransfer: each frame of a leg tells of its last transfer. What
// the process before had heard of is not told again, of whoever talks with the leg by
// now; a transfer that was made meanwhile is told.
func TestRestartAfterABlindTransfer(t *testing.T) {
	at := func(s *story, o LegObservation) LegObservation {
		o.TransferTarget, o.TransferStamp = "1007", fmt.Sprintf("%d:x", s.now/1e6)
		return o
	}
	restart := func(s *story) {
		st := NewState("log")
		for i := range s.evs {
			st.Apply(&s.evs[i])
		}
		s.now += 10_000_000
		k := st.correlator
		k.rules, k.hasCall, k.domains, k.began = s.o.correlator.rules, s.o.correlator.hasCall, s.o.correlator.domains, s.now
		k.takenUp()
		s.o.correlator = k
	}
	t.Run("made before, by an agent", func(t *testing.T) {
		s := newStory(t, Policies{})
		s.feed(s.input(trunk("a")), s.input(incoming("b", "a", anna, "380")), s.input(of(LegAnswered, "b")), s.input(bridge("a", "b")))
		moved := at(s, LegObservation{Kind: LegUnbridged, Leg: "a", Vars: true, BridgeA: "a", BridgeB: "b"})
		s.want(s.leg(moved), "1004 callTransferred a")
		s.feed(s.input(hangup("b", "NORMAL_CLEARING")), s.input(incoming("c", "a", bert, "380")), s.input(of(LegAnswered, "c")), s.input(bridge("a", "c")))
		restart(s)
		moved.Kind = LegSeen
		s.want(s.leg(moved))
	})
	t.Run("made before, by the dialplan", func(t *testing.T) {
		s := newStory(t, Policies{})
		s.feed(s.input(trunk("a")))
		routed := at(s, of(LegSeen, "a"))
		s.feed(s.input(routed), s.input(incoming("b", "a", anna, "380")), s.input(of(LegAnswered, "b")), s.input(bridge("a", "b")))
		restart(s)
		s.want(s.leg(routed))
	})
	t.Run("made before both legs were found", func(t *testing.T) {
		s := newStory(t, Policies{})
		found := func(o LegObservation, partner string) LegObservation {
			o.Kind, o.AnsweredAt, o.BridgedTo = LegStated, s.now-1_000_000, partner
			return o
		}
		s.leg(found(incoming("c", "a", bert, "1004"), "a"))
		for _, m := range s.leg(at(s, found(outgoing("a", anna, "1005"), "c"))) {
			if strings.Contains(m, "callTransferred") {
				t.Errorf("%s: nobody knows by whom", m)
			}
		}
	})
	t.Run("made meanwhile", func(t *testing.T) {
		s := newStory(t, Policies{})
		s.feed(s.input(trunk("a")), s.input(incoming("b", "a", anna, "380")), s.input(of(LegAnswered, "b")), s.input(bridge("a", "b")))
		restart(s)
		s.want(s.leg(at(s, of(LegSeen, "a"))), "1004 callTransferred a")
	})
}

// TestBridgeBeforeThePartnerIsSeen: the partner's first frame may come after.
func TestBridgeBeforeThePartnerIsSeen(t *testing.T) {
	s := newStory(t, Policies{})
	s.feed(s.input(outgoing("a", anna, "5901")), s.input(of(LegAnswered, "a")), s.input(bridge("a", "e")))
	got := s.feed(s.input(outgoing("e", bert, "5901")))
	if !strings.Contains(strings.Join(got, "\n"), "1007 callInfoChanged e") {
		t.Errorf("the bridge was forgotten: %v", got)
	}
	last := s.evs[len(s.evs)-1]
	if last.Conversation != "a" {
		t.Errorf("conversation %s, want a", last.Conversation)
	}
}

func TestAgents(t *testing.T) {
	s := newStory(t, Policies{})
	agent := func(o AgentObservation) []string {
		s.seq++
		s.now += 1_000_000
		o.Account = anna
		return s.feed(Input{ReceivedAt: s.now, Source: events.Source{Connection: "c", Sequence: s.seq}, Agents: []AgentObservation{o}})
	}
	s.want(agent(AgentObservation{Kind: AgentOnline, State: "ONHOOK", Status: "NONE"}), "1004 initialized", "1004 ONHOOK")
	s.want(agent(AgentObservation{Kind: AgentStatus, State: "ONHOOK", Status: "ONBREAK", Note: "lunch"}), "1004 ONBREAK")
	s.want(agent(AgentObservation{Kind: AgentStatus, State: "ONHOOK", Status: "ONBREAK", Note: "lunch"}))
	s.want(agent(AgentObservation{Kind: AgentStatus, State: "ONHOOK", Status: "NONE"}), "1004 ONHOOK")
	s.feed(s.input(incoming("b", "a", anna, "380")))
	// Offline with a call up: the call goes on, disconnected comes at its end.
	s.want(agent(AgentObservation{Kind: AgentOffline, Reason: "Offline"}), "1004 NONREG")
	s.want(s.leg(hangup("b", "ORIGINATOR_CANCEL")), "1004 callFinished a missed", "1004 disconnected")
	s.want(agent(AgentObservation{Kind: AgentOnline}), "1004 initialized", "1004 ONHOOK")
	s.now += 1_000_000
	s.want(s.feed(Input{ReceivedAt: s.now, Unframed: true, Source: events.Source{Connection: "c"}, Link: &LinkObservation{Kind: LinkDown, Domain: "acme.example"}}), "1004 disconnected", "1004 NONREG")
}

// TestIDsAreUnique: also of what no numbered frame caused.
func TestIDsAreUnique(t *testing.T) {
	s := newStory(t, Policies{})
	s.feed(s.input(incoming("b1", "a1", anna, "380")), s.input(incoming("b2", "a2", bert, "381")))
	for _, in := range []Input{
		{Link: &LinkObservation{Kind: LinkUp, Domain: "acme.example", Mode: "domain"}},
		{Leg: &LegObservation{Kind: LegAbsent, Leg: "b1"}},
		{Leg: &LegObservation{Kind: LegAbsent, Leg: "b2"}},
		{Link: &LinkObservation{Kind: LinkDown, Domain: "acme.example"}},
	} {
		s.now += 1_000_000
		in.ReceivedAt, in.Unframed, in.Source = s.now, true, events.Source{Connection: "conn"}
		s.feed(in)
	}
	seen := map[string]bool{}
	for i := range s.evs {
		if seen[s.evs[i].ID] {
			t.Errorf("two events have the id %s", s.evs[i].ID)
		}
		seen[s.evs[i].ID] = true
	}
}
