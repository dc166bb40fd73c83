package engine

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// drawWide is draw with what else comes in: what a switch says when it is asked,
// agents, links, both paths, and frames that carry no number.
func drawWide(t *rapid.T, s *story) Input {
	switch rapid.IntRange(0, 14).Draw(t, "input") {
	case 0: // the switch, asked, does not know the leg
		in := s.input(LegObservation{Kind: LegAbsent, Leg: rapid.SampledFrom([]string{"l1", "l2", "l3"}).Draw(t, "absent")})
		in.Unframed, in.Origin, in.Source = true, events.Resync, events.Source{Connection: "conn"}
		return in
	case 1: // the switch, asked, says how the leg is
		in := s.input(LegObservation{
			Kind: LegStated, Leg: rapid.SampledFrom([]string{"l1", "l2", "l6"}).Draw(t, "stated"), Vars: true,
			Presence: anna, ChannelCall: "c1", CallerNumber: "380", CalleeNumber: "1004", AnsweredAt: s.now,
			OnHold: rapid.Bool().Draw(t, "on hold"), BridgedTo: rapid.SampledFrom([]string{"", "l3", "x"}).Draw(t, "bridged to"),
		})
		in.Unframed, in.Origin, in.Source = true, events.Resync, events.Source{Connection: "conn"}
		return in
	case 2:
		s.seq++
		s.now += 1_000_000
		return Input{
			ReceivedAt: s.now, Source: events.Source{Connection: "conn", Sequence: s.seq},
			Agents: []AgentObservation{{
				Kind: AgentKind(rapid.IntRange(1, 3).Draw(t, "agent")), Account: rapid.SampledFrom([]string{anna, bert}).Draw(t, "account"),
				State:  rapid.SampledFrom([]string{"ONHOOK", "ISBUSY", "NONREG", ""}).Draw(t, "state"),
				Status: rapid.SampledFrom([]string{"NONE", "ONBREAK"}).Draw(t, "status"),
			}},
		}
	case 3:
		s.now += 1_000_000
		return Input{
			ReceivedAt: s.now, Unframed: true, Source: events.Source{Connection: rapid.SampledFrom([]string{"conn", "conn-2"}).Draw(t, "connection")},
			Link: &LinkObservation{Kind: LinkKind(rapid.IntRange(1, 3).Draw(t, "link")), Domain: "acme.example", Mode: "domain"},
		}
	case 4: // the same facts on the account's own path
		in := draw(t, s)
		in.Source = events.Source{Adapter: "test", Path: events.PathAccount, Connection: "conn", Sequence: in.Source.Sequence}
		return in
	case 5, 6, 7:
		return drawSession(t, s)
	default:
		return draw(t, s)
	}
}

// drawWideStory feeds frames and then ends every leg that is left. check runs
// after each input.
func drawWideStory(t *rapid.T, check func(*story)) *story {
	s := newStory(t, Policies{})
	for range rapid.IntRange(1, 60).Draw(t, "frames") {
		s.feed(drawWide(t, s))
		check(s)
	}
	s.finish()
	for len(s.liveLegs()) > 0 {
		for _, id := range s.liveLegs() {
			s.leg(hangup(id, "NORMAL_CLEARING"))
			check(s)
		}
	}
	return s
}

func (s *story) finish() []string {
	s.t.Helper()
	steps, err := s.o.Finish()
	if err != nil {
		s.t.Fatal(err)
	}
	return s.take(steps)
}

func (s *story) liveLegs() []string {
	var ids []string
	for id, l := range s.o.correlator.legs {
		if !l.ended {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// TestEveryEventHasItsOwnID: a store keeps an id once, so that two facts under
// one id are one fact lost.
func TestEveryEventHasItsOwnID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawWideStory(t, func(*story) {})
		seen := map[string]int{}
		for i := range s.evs {
			if j, ok := seen[s.evs[i].ID]; ok {
				t.Fatalf("%s: %s at %d and %s at %d", s.evs[i].ID, s.evs[j].Type(), j+1, s.evs[i].Type(), i+1)
			}
			seen[s.evs[i].ID] = i
		}
	})
}

// TestLineAndStateAreFunctionsOfTheFacts (quirks Q10, Q11, Q12, Q31): whatever
// came before, the line holds the live calls, each once; state and flags say what
// the legs say; and the flags last published are the line's.
func TestLineAndStateAreFunctionsOfTheFacts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		drawWideStory(t, func(s *story) {
			for _, a := range s.o.projection.accounts {
				checkLine(t, a)
				for _, c := range a.calls {
					checkCall(t, a, c)
				}
			}
		})
	})
}

func checkLine(t tester, a *account) {
	var on []string
	for _, id := range append([]string{a.active, a.second}, a.waiting...) {
		if id != "" {
			on = append(on, id)
		}
	}
	var live []string
	for id, c := range a.calls {
		if c.live() {
			live = append(live, id)
		}
	}
	slices.Sort(on)
	slices.Sort(live)
	if !slices.Equal(on, live) {
		t.Errorf("on the line of %s: %v, live: %v", a.name, on, live)
		t.Fatal("a call is lost or twice on the line")
	}
	if a.active == "" && len(on) > 0 {
		t.Fatal("calls wait behind nothing", on)
	}
	if a.consulting && (a.second == "" || a.calls[a.second].inbound) {
		t.Fatal("consulting without a consultation")
	}
	if a.flags != a.lineFlags() {
		t.Errorf("%s was told %d, its line is %d", a.name, a.flags, a.lineFlags())
		t.Fatal("a change of the line was not published")
	}
}

// checkCall derives state and flags anew, from nothing but the facts.
func checkCall(t tester, a *account, c *call) {
	held := false
	if p := c.primary(); p != nil {
		held = p.held
	}
	var want []string
	switch {
	case !c.live():
		want = []string{stateEnded}
	case c.more().conference && held:
		want = []string{stateHeld, stateConferenced} // whichever came last
	case held:
		want = []string{stateHeld}
	case c.more().conference:
		want = []string{stateConferenced}
	case c.connected:
		want = []string{stateConnected}
	default:
		want = []string{stateAlerting}
	}
	if !slices.Contains(want, c.state()) {
		t.Errorf("call %s is %s, its facts say %v: legs %+v, connected %v, conference %v", c.id, c.state(), want, c.legs, c.connected, c.more().conference)
		t.Fatal("state is no function of the facts")
	}
	flags := map[string]cti.Features{stateEnded: 2, stateHeld: 1568, stateConferenced: 1048, stateConnected: 1048, stateAlerting: 8}[c.state()]
	consult := a.consulting && c.live()
	switch {
	case consult && c.id == a.active:
		flags = 0
		if a.calls[a.second].bridged {
			flags = 128
		}
	case consult && c.id == a.second:
		if c.state() == stateAlerting {
			flags = 0
		}
	case c.state() == stateConnected && c.bridged:
		flags = 1816
	case c.state() == stateAlerting && c.inbound:
		flags = 12
	}
	if got := a.features(c); got != flags {
		t.Errorf("call %s (%s) has flags %d, the design says %d", c.id, c.state(), got, flags)
		t.Fatal("flags are no function of the facts")
	}
}

// TestMemoryFollowsLiveCallsWhateverCame (I8).
func TestMemoryFollowsLiveCallsWhateverCame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawWideStory(t, func(*story) {})
		s.now = s.o.correlator.now
		s.pass(keepDoubtful + time.Minute)
		s.pass(2 * keepLeg) // sessions that went silent have ended only now
		left(t, s.o.correlator)
	})
}

func left(t tester, k *correlator) {
	t.Helper()
	n := map[string]int{
		"legs": len(k.legs), "conversations": len(k.convs), "waiting": len(k.waiting),
		"awaited": len(k.awaited), "gone": len(k.gone), "doubtful": len(k.doubtful),
		"sessions": len(k.sessions), "ended sessions": len(k.over), "waiting sessions": len(k.early),
	}
	for _, a := range k.accounts {
		n["live calls of accounts"] += len(a.calls)
		n["ended calls of accounts"] += len(a.over)
	}
	for name, n := range n {
		if n != 0 {
			t.Errorf("%d %s are left when all has ended (I8)", n, name)
		}
	}
}

// TestDurationsAddUp: where no clock jumps, ring, talk and hold are the whole of
// the call, up to a millisecond for each change of state.
func TestDurationsAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStory(t, Policies{})
		s.feed(s.input(incoming("b", "a", anna, "380")))
		for i := range rapid.IntRange(0, 12).Draw(t, "n") {
			s.now += events.Time(rapid.Int64Range(0, 90_000_000).Draw(t, fmt.Sprint("wait", i)))
			kind := rapid.SampledFrom([]LegKind{LegAnswered, LegHeld, LegUnheld, LegConferenceJoined, LegConferenceLeft, LegBridged, LegParked}).Draw(t, fmt.Sprint("kind", i))
			s.leg(LegObservation{Kind: kind, Leg: "b", Vars: true, BridgeA: "b", BridgeB: "x"})
		}
		s.leg(hangup("b", "NORMAL_CLEARING"))
		c := s.steps[len(s.steps)-1].Result.Call
		whole := c.EndedAt.Sub(c.StartedAt)
		if sum := c.RingMs + c.TalkMs + c.HoldMs; sum > whole || sum < whole-15 {
			t.Fatalf("ring %d + talk %d + hold %d of %d ms", c.RingMs, c.TalkMs, c.HoldMs, whole)
		}
		if !c.AnsweredAt.Time().IsZero() && c.RingMs > c.AnsweredAt.Sub(c.StartedAt) {
			t.Fatalf("rang %d ms, answered after %d", c.RingMs, c.AnsweredAt.Sub(c.StartedAt))
		}
	})
}

// TestRebuiltCorrelationIsTheSame: the log alone gives a correlator whose next
// events are the same to the last field.
func TestRebuiltCorrelationIsTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStory(t, Policies{})
		s.oneCore, s.steady = true, true
		for range rapid.IntRange(1, 40).Draw(t, "before") {
			s.feed(drawWide(t, s))
		}
		s.finish()
		rebuilt := newCorrelator(Rules{Domains: []string{"acme.example"}}, func(k events.CallKey) (bool, error) { return s.o.known[k], nil })
		for i := range s.evs {
			rebuilt.evolve(&s.evs[i])
		}
		if _, err := rebuilt.tick(s.o.correlator.now); err != nil {
			t.Fatal(err)
		}
		if _, err := s.o.correlator.tick(s.o.correlator.now); err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 20).Draw(t, "after") {
			in := drawWide(t, s)
			if in.Leg != nil && (in.Leg.TransferStamp != "" || in.Source.Path == events.PathAccount || in.Source.Core == "" ||
				in.Leg.Kind == LegRecordingStarted || in.Leg.Kind == LegRecordingStopped) {
				continue // the last stamp, the path and a trunk's recording are not in the log where they gave no event
			}
			if in.Leg != nil {
				in.Leg.TransferResult = ""
			}
			same := in
			if in.Leg != nil {
				leg := *in.Leg
				same.Leg = &leg
			}
			want, err := s.o.correlator.observe(&in)
			if err != nil {
				t.Fatal(err)
			}
			want = slices.Clone(want)
			got, err := rebuilt.observe(&same)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); len(want)+len(got) > 0 && d != "" {
				t.Fatalf("-live +rebuilt:\n%s", d)
			}
			for i := range want {
				s.o.known[want[i].Key()] = true
			}
		}
	})
}
