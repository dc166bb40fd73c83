package engine

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/callstate/callstate/events"
)

// link raises a change of a connection.
func (s *story) link(conn string, o LinkObservation) []string {
	s.t.Helper()
	s.now += 1_000_000
	return s.feed(Input{ReceivedAt: s.now, Unframed: true, Source: events.Source{Connection: conn}, Link: &o})
}

func (s *story) online(conn, account string) []string {
	s.t.Helper()
	s.seq++
	s.now += 1_000_000
	return s.feed(Input{
		ReceivedAt: s.now, Source: events.Source{Connection: conn, Sequence: s.seq},
		Agents: []AgentObservation{{Kind: AgentOnline, Account: account, State: "ONHOOK"}},
	})
}

// TestTwoPathsToOneAgent: the domain's connection and the agent's own show the
// same; the agent is offline when neither does.
func TestTwoPathsToOneAgent(t *testing.T) {
	domain := LinkObservation{Kind: LinkUp, Domain: "acme.example", Login: "watcher@acme.example", Mode: linkDomain}
	own := LinkObservation{Kind: LinkUp, Domain: "acme.example", Login: anna, Mode: linkAccount}
	down := func(o LinkObservation) LinkObservation { o.Kind = LinkDown; return o }
	s := newStory(t, Policies{})
	s.link("d", domain)
	s.link("a", own)
	s.want(s.online("d", anna), "1004 initialized", "1004 ONHOOK")
	s.want(s.online("a", anna))
	s.want(s.online("d", bert), "1007 initialized", "1007 ONHOOK")
	s.want(s.link("a", down(own))) // the domain's connection shows her still
	s.want(s.link("a2", own))
	s.want(s.link("d", down(domain)), "1007 disconnected", "1007 NONREG")
	s.want(s.link("d2", domain)) // comes back, and takes nothing from her own
	s.want(s.link("d2", down(domain)))
	s.want(s.link("a2", down(own)), "1004 disconnected", "1004 NONREG")
}

// TestPBXsOfOneSwitchName: two PBXs whose switches have the same name, and even
// the same core uuid, end nothing of each other.
func TestPBXsOfOneSwitchName(t *testing.T) {
	s := newStory(t, Policies{})
	at := func(pbx, core string, o LegObservation) []string {
		in := s.input(o)
		in.Source.PBX, in.Source.Core, in.Source.Sequence = pbx, core, 7
		return s.feed(in)
	}
	at("one", "core-1", incoming("b1", "a1", anna, "380"))
	s.want(at("two", "core-2", incoming("b2", "a2", bert, "381")), "1007 callStarted a2", "1007 line 12 a2", "1007 ISBUSY")
	s.want(at("one", "core-1", with(of(LegAnswered, "b1"), func(o *LegObservation) {}))) // sequence 7 again: a repeat
	in := s.input(of(LegAnswered, "b1"))
	in.Source.PBX = "one"
	s.want(s.feed(in), "1004 commutationStarted a1", "1004 line 1048", "1004 callInfoChanged a1", "1004 line 1816")

	// Copied from one disk they count alike: the same core, the same numbers.
	at("three", "core-1", incoming("b3", "a3", bert, "382"))
	ids := map[string]bool{}
	for i := range s.evs {
		if ids[s.evs[i].ID] {
			t.Errorf("%s is the id of two events", s.evs[i].ID)
		}
		ids[s.evs[i].ID] = true
	}
	// One of them is started again: only its own calls end.
	s.want(at("one", "core-9", incoming("b4", "a4", anna, "383")),
		"1004 callFinished a1 answered", "1004 line 2", "1004 ONHOOK", "1004 callStarted a4", "1004 line 12 a4", "1004 ISBUSY")
}

// TestTrunksOfSeveralDomains: each snapshot judges the trunk legs that its
// domain's connection showed.
func TestTrunksOfSeveralDomains(t *testing.T) {
	s := newStory(t, Policies{})
	for _, d := range []string{"acme.example", "other.example"} {
		s.link(d, LinkObservation{Kind: LinkUp, Domain: d, Login: "w@" + d, Mode: linkDomain})
		in := s.input(LegObservation{Kind: LegCreated, Leg: "trunk-" + d, Presence: "+380@carrier.example", Vars: true, ChannelCall: d, Inbound: true})
		in.Source.Connection = d
		s.feed(in)
	}
	for _, d := range []string{"acme.example", "other.example"} {
		got := s.o.Compare(Snapshot{Connection: d, Domain: d, RequestedAt: s.now + 1})
		if diff := cmp.Diff([]string{"trunk-" + d}, got); diff != "" {
			t.Errorf("asked for, -want +got:\n%s", diff)
		}
	}
}

func TestDoubts(t *testing.T) {
	const minute = 60 * 1_000_000
	f := &DoubtFilter{Unchecked: 5 * time.Minute, Silent: 2 * time.Hour}
	up := LinkObservation{Kind: LinkUp, Domain: "acme.example", Login: "w@acme.example", Mode: linkDomain}
	begin := func(t *testing.T) *story {
		s := newStory(t, Policies{})
		s.link("d", up)
		in := s.input(incoming("b", "a", anna, "380"))
		in.Source.Connection = "d"
		s.feed(in)
		return s
	}
	reasons := func(s *story, later events.Time) []DoubtReason {
		var out []DoubtReason
		for _, d := range s.o.correlator.doubts(s.now+later, f) {
			for _, r := range d.Reasons {
				out = append(out, r.Reason)
			}
		}
		return out
	}
	snapshot := func(s *story, legs ...SnapshotLeg) {
		s.o.Compare(Snapshot{Connection: "d", Domain: "acme.example", RequestedAt: s.now + 1, Legs: legs})
	}
	listed := SnapshotLeg{ID: "b"}
	tests := map[string]struct {
		do    func(s *story)
		later events.Time
		want  []DoubtReason
	}{
		"fresh":                        {func(*story) {}, minute, nil},
		"neither heard of nor checked": {func(*story) {}, 6 * minute, []DoubtReason{DoubtNotChecked}},
		"found by a comparison":        {func(s *story) { s.now += 6 * minute; s.online("d", bert); snapshot(s, listed) }, minute, nil},
		"not found by the last one":    {func(s *story) { snapshot(s) }, minute, []DoubtReason{DoubtUnlisted}},
		"not found, then found":        {func(s *story) { snapshot(s); snapshot(s, listed) }, minute, nil},
		"found, and silent for very long": {
			func(s *story) { s.now += 121 * minute; s.online("d", bert); snapshot(s, listed) }, 0, []DoubtReason{DoubtNoFrame},
		},
		"the connection is down": {
			func(s *story) { s.link("d", LinkObservation{Kind: LinkDown, Domain: "acme.example", Login: up.Login}) }, minute, []DoubtReason{DoubtLinkDown},
		},
		"down and up again": {
			func(s *story) {
				s.link("d", LinkObservation{Kind: LinkDown, Domain: "acme.example", Login: up.Login})
				s.link("d2", up)
			}, minute, nil,
		},
		"the PBX does not answer": {
			func(s *story) { s.link("d", LinkObservation{Kind: LinkUnanswered, Reason: "switch not connected"}) }, minute, []DoubtReason{DoubtUnanswered},
		},
		"it answers again": {
			func(s *story) { s.link("d", LinkObservation{Kind: LinkUnanswered}); snapshot(s, listed) }, minute, nil,
		},
		"ended": {func(s *story) { snapshot(s); s.leg(hangup("b", "NORMAL_CLEARING")) }, 10 * minute, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			tt.do(s)
			if d := cmp.Diff(tt.want, reasons(s, tt.later)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}
