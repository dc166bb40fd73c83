package engine

import (
	"testing"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// TestLine has the stories of a line with several calls (design, section 4): after
// the steps, who is active, second and waiting, and what the line shows.
func TestLine(t *testing.T) {
	in := func(id string) LegObservation { return incoming("b-"+id, id, anna, "380") }
	answer := func(id string) LegObservation { return of(LegAnswered, "b-"+id) }
	end := func(id string) LegObservation { return hangup("b-"+id, "NORMAL_CLEARING") }
	out := func(id, parent string) LegObservation { return clicked(id, anna, "1007", parent) }
	for _, tt := range []struct {
		name           string
		steps          []LegObservation
		active, second string
		consulting     bool
		waiting        []string
		flags          cti.Features
	}{
		{"nothing", nil, "", "", false, nil, 2},
		{"one call rings", []LegObservation{in("1")}, "1", "", false, nil, 12},
		{"a second call waits", []LegObservation{in("1"), answer("1"), in("2")}, "1", "", false, []string{"2"}, 1816},
		{"a second call waits while the first still rings", []LegObservation{in("1"), in("2")}, "1", "", false, []string{"2"}, 12},
		{"the waiting call is answered", []LegObservation{in("1"), answer("1"), in("2"), answer("2")}, "2", "1", false, nil, 1816},
		{"of three the last is answered: one waits on", []LegObservation{in("1"), answer("1"), in("2"), in("3"), answer("3")}, "3", "1", false, []string{"2"}, 1816},
		{"and then the other: the second slot's call waits", []LegObservation{in("1"), answer("1"), in("2"), in("3"), answer("3"), answer("2")}, "2", "3", false, []string{"1"}, 1816},
		{"a waiting call gives up", []LegObservation{in("1"), answer("1"), in("2"), end("2")}, "1", "", false, nil, 1816},
		{"the active call ends, the waiting one rings on", []LegObservation{in("1"), answer("1"), in("2"), end("1")}, "2", "", false, nil, 12},
		{"the second goes before the waiting", []LegObservation{in("1"), answer("1"), in("2"), in("3"), answer("3"), end("3")}, "1", "", false, []string{"2"}, 1816},
		{"a consultation that names its parent", []LegObservation{in("1"), answer("1"), out("c", "1")}, "1", "c", true, nil, 0},
		{"a consultation that names the parent's leg", []LegObservation{in("1"), answer("1"), out("c", "b-1")}, "1", "c", true, nil, 0},
		{"a consultation that names nobody", []LegObservation{in("1"), answer("1"), out("c", "")}, "1", "c", true, nil, 0},
		{"an outgoing call that names another call waits (Q30)", []LegObservation{in("1"), answer("1"), in("2"), out("c", "2")}, "1", "", false, []string{"2", "c"}, 1816},
		{"one that names a call nobody knows waits", []LegObservation{in("1"), answer("1"), out("c", "unknown")}, "1", "", false, []string{"c"}, 1816},
		{"a consultation with the slot taken waits", []LegObservation{in("1"), answer("1"), in("2"), answer("2"), out("c", "2")}, "2", "1", false, []string{"c"}, 1816},
		{"a call waits behind a consultation", []LegObservation{in("1"), answer("1"), out("c", "1"), in("2")}, "1", "c", true, []string{"2"}, 0},
		{"the consultation is bridged", []LegObservation{in("1"), answer("1"), out("c", "1"), bridge("c", "d")}, "1", "c", true, nil, 128},
		{"the waiting call is answered during a consultation, which waits", []LegObservation{in("1"), answer("1"), out("c", "1"), bridge("c", "d"), in("2"), answer("2")}, "2", "1", false, []string{"c"}, 1816},
		{"the consultation is given up", []LegObservation{in("1"), answer("1"), out("c", "1"), hangup("c", "NORMAL_CLEARING")}, "1", "", false, nil, 1816},
		{"the customer leaves: the consultation is a call", []LegObservation{in("1"), answer("1"), out("c", "1"), bridge("c", "d"), end("1")}, "c", "", false, nil, 1816},
		{"the customer leaves while the consultation rings: it rings as a call", []LegObservation{in("1"), answer("1"), out("c", "1"), end("1")}, "c", "", false, nil, 8},
		{"a waiting call is taken into a conference", []LegObservation{in("1"), answer("1"), in("2"), {Kind: LegConferenceJoined, Leg: "b-2", Vars: true, Conference: "room"}}, "2", "1", false, nil, 1048},
		{"held in a conference and taken back", []LegObservation{in("1"), answer("1"), {Kind: LegConferenceJoined, Leg: "b-1", Vars: true}, of(LegHeld, "b-1"), of(LegUnheld, "b-1")}, "1", "", false, nil, 1048},
		{"held, in a conference and out of it: still held", []LegObservation{in("1"), answer("1"), of(LegHeld, "b-1"), {Kind: LegConferenceJoined, Leg: "b-1", Vars: true}, {Kind: LegConferenceLeft, Leg: "b-1", Vars: true}}, "1", "", false, nil, 1568},
		{"all over", []LegObservation{in("1"), answer("1"), in("2"), end("2"), end("1")}, "", "", false, nil, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStory(t, Policies{})
			for _, o := range tt.steps {
				s.leg(o)
			}
			a := s.o.projection.accounts[anna]
			if a == nil {
				a = &account{}
			}
			if a.active != tt.active || a.second != tt.second || a.consulting != tt.consulting || len(a.waiting) != len(tt.waiting) {
				t.Fatalf("active %q, second %q, consulting %v, waiting %v; want %q, %q, %v, %v",
					a.active, a.second, a.consulting, a.waiting, tt.active, tt.second, tt.consulting, tt.waiting)
			}
			for i := range tt.waiting {
				if a.waiting[i] != tt.waiting[i] {
					t.Errorf("waiting %v, want %v", a.waiting, tt.waiting)
				}
			}
			if got := a.lineFlags(); got != tt.flags {
				t.Errorf("the line shows %d, want %d", got, tt.flags)
			}
		})
	}
}

// TestTwoDevices: the state is that of the device that is the call's now.
func TestTwoDevices(t *testing.T) {
	two := []LegObservation{incoming("b1", "a", anna, "380"), incoming("b2", "a", anna, "380")}
	for _, tt := range []struct {
		name  string
		steps []LegObservation
		last  []string
	}{
		{
			"the ringing one that held early media is gone, the other rings on",
			[]LegObservation{of(LegHeld, "b1"), hangup("b1", "USER_BUSY")},
			[]string{"1004 unhold a", "1004 line 12"},
		},
		{
			"one held early media, the other answers",
			[]LegObservation{of(LegHeld, "b1"), of(LegAnswered, "b2")},
			[]string{"1004 commutationStarted a", "1004 line 1048", "1004 callInfoChanged a", "1004 line 1816"},
		},
		{
			"the one that lost the race holds nothing",
			[]LegObservation{of(LegAnswered, "b2"), of(LegHeld, "b1")},
			nil,
		},
		{
			"answered elsewhere is not missed",
			[]LegObservation{of(LegAnswered, "b2"), hangup("b1", "LOSE_RACE"), hangup("b2", "NORMAL_CLEARING")},
			[]string{"1004 callFinished a answered", "1004 line 2", "1004 ONHOOK"},
		},
		{
			"nobody answers",
			[]LegObservation{hangup("b1", "NO_ANSWER"), hangup("b2", "NO_ANSWER")},
			[]string{"1004 callFinished a no-answer", "1004 line 2", "1004 ONHOOK"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStory(t, Policies{})
			for _, o := range two {
				s.leg(o)
			}
			var got []string
			for _, o := range tt.steps {
				got = s.leg(o)
			}
			if len(got) > 0 && got[0] == "1004 callAliased a" {
				got = got[1:]
			}
			s.want(got, tt.last...)
		})
	}
}

// TestLineOfAnAgentWhoLeaves: an agent who leaves with a call up is disconnected
// at its end; a lost link disconnects at once, and the call goes on.
func TestLineOfAnAgentWhoLeaves(t *testing.T) {
	agent := func(s *story, k AgentKind, reason string) []string {
		s.seq++
		s.now += 1_000_000
		return s.feed(Input{ReceivedAt: s.now, Source: events.Source{Connection: "c", Sequence: s.seq}, Agents: []AgentObservation{{Kind: k, Account: anna, State: "ONHOOK", Status: "NONE", Reason: reason}}})
	}
	t.Run("and is back before the end", func(t *testing.T) {
		s := newStory(t, Policies{})
		agent(s, AgentOnline, "")
		s.feed(s.input(incoming("b", "a", anna, "380")), s.input(of(LegAnswered, "b")))
		s.want(agent(s, AgentOffline, "Offline"), "1004 NONREG")
		s.want(agent(s, AgentOnline, ""), "1004 ISBUSY")
		s.want(s.leg(hangup("b", "NORMAL_CLEARING")), "1004 callFinished a answered", "1004 line 2", "1004 ONHOOK")
	})
	t.Run("the link is lost, the call ends unseen", func(t *testing.T) {
		s := newStory(t, Policies{})
		agent(s, AgentOnline, "")
		s.feed(s.input(incoming("b", "a", anna, "380")), s.input(of(LegAnswered, "b")))
		s.now += 1_000_000
		s.want(s.feed(Input{ReceivedAt: s.now, Unframed: true, Source: events.Source{Connection: "c"}, Link: &LinkObservation{Kind: LinkDown, Domain: "acme.example"}}),
			"1004 disconnected", "1004 NONREG")
		absent := s.input(LegObservation{Kind: LegAbsent, Leg: "b"})
		absent.Origin, absent.Unframed = events.Resync, true
		s.want(s.feed(absent), "1004 callFinished a answered", "1004 line 0")
	})
}

func TestOutcome(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    call
		want cti.Outcome
	}{
		{"answered, whatever the cause", call{connected: true, end: &callEnd{hangup: events.Hangup{Cause: "USER_BUSY"}}}, cti.OutcomeAnswered},
		{"answered, the end inferred", call{connected: true, end: &callEnd{inferred: inferredAbsent}}, cti.OutcomeAnswered},
		{"transferred", call{connected: true, rare: &callMore{transfer: &cti.Transfer{Result: "confirmed"}}}, cti.OutcomeTransferred},
		{"a transfer that failed", call{connected: true, rare: &callMore{transfer: &cti.Transfer{Result: "error"}}}, cti.OutcomeAnswered},
		{"nobody saw the end", call{end: &callEnd{inferred: inferredRestart}}, cti.OutcomeUnknown},
		{"no cause", call{}, cti.OutcomeUnknown},
		{"the caller gave up", call{inbound: true, end: &callEnd{hangup: events.Hangup{Cause: "ORIGINATOR_CANCEL"}}}, cti.OutcomeMissed},
		{"the agent gave up", call{end: &callEnd{hangup: events.Hangup{Cause: "ORIGINATOR_CANCEL"}}}, cti.OutcomeCancelled},
		{"another device or agent was faster (Q20)", call{inbound: true, end: &callEnd{hangup: events.Hangup{Cause: "LOSE_RACE"}}}, cti.OutcomeAnsweredElsewhere},
		{"picked up by a colleague", call{inbound: true, end: &callEnd{hangup: events.Hangup{Cause: "PICKED_OFF"}}}, cti.OutcomeAnsweredElsewhere},
		{"busy", call{end: &callEnd{hangup: events.Hangup{Cause: "USER_BUSY"}}}, cti.OutcomeBusy},
		{"rejected", call{inbound: true, end: &callEnd{hangup: events.Hangup{Cause: "CALL_REJECTED"}}}, cti.OutcomeRejected},
		{"rang out", call{end: &callEnd{hangup: events.Hangup{Cause: "NO_ANSWER"}}}, cti.OutcomeNoAnswer},
		{"timed out in a queue", call{inbound: true, end: &callEnd{hangup: events.Hangup{Cause: "ALLOTTED_TIMEOUT"}}}, cti.OutcomeNoAnswer},
		{"no such number", call{end: &callEnd{hangup: events.Hangup{Cause: "UNALLOCATED_NUMBER"}}}, cti.OutcomeFailed},
	} {
		if got := outcome(&tt.c); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
