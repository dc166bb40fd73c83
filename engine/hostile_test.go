package engine

import (
	"fmt"
	"testing"

	"github.com/callstate/callstate/events"
)

// hostile feeds what one switch says of its legs, one frame after the other.
type hostile struct {
	*Offline
	t   *testing.T
	now events.Time
	src events.Source
}

func newHostile(t *testing.T) *hostile {
	return &hostile{
		Offline: NewOffline(Rules{Domains: []string{"acme.example"}}, Policies{}, "log"), t: t,
		now: 1_700_000_000_000_000, src: events.Source{Core: "core", Switch: "pbx", Path: events.PathServer},
	}
}

func (h *hostile) say(o LegObservation) []Step {
	h.t.Helper()
	h.now += 1000
	h.src.Sequence++
	o.At, o.Clock, o.Vars = h.now, events.TimeOfEvent, true
	steps, err := h.Observe(Input{ReceivedAt: h.now, Leg: &o, Source: h.src})
	if err != nil {
		h.t.Fatal(err)
	}
	return steps
}

// TestEndlessAliases: a call that is given ever new ids does not grow with them,
// and is still followed under the last of its leg's.
func TestEndlessAliases(t *testing.T) {
	const n = 1000
	for name, next := range map[string]func(i int) LegObservation{
		"call ids": func(i int) LegObservation {
			return LegObservation{Kind: LegSeen, Leg: "0", CallGroup: fmt.Sprint("g", i)}
		},
		"renames": func(i int) LegObservation {
			return LegObservation{Kind: LegRenamed, OldLeg: fmt.Sprint(i), Leg: fmt.Sprint(i + 1)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHostile(t)
			h.say(LegObservation{Kind: LegCreated, Leg: "0", Presence: "1001@acme.example", ChannelCall: "c"})
			leg := "0"
			for i := range n {
				o := next(i)
				h.say(o)
				leg = o.Leg
			}
			steps := h.say(LegObservation{Kind: LegHungup, Leg: leg, Ending: true, Cause: "NORMAL_CLEARING"})
			last := steps[len(steps)-1]
			if last.Result.Call == nil || last.Event.Type() != events.TypeCallHungup {
				t.Fatalf("the last event is %s", last.Event.Type())
			}
			if got := len(last.Result.Call.Aliases); got > maxAliases {
				t.Errorf("the call has %d aliases", got)
			}
			if got := len(h.correlator.legs[leg].call.more().aliases); got > maxAliases {
				t.Errorf("correlation knows %d aliases", got)
			}
		})
	}
}

// TestEndlessSwitches: switches, and runs of one, that a PBX makes up are forgotten
// again.
func TestEndlessSwitches(t *testing.T) {
	const n = 1000
	h := newHostile(t)
	for i := range n {
		h.src.Switch = fmt.Sprint("pbx", i)
		h.say(LegObservation{Kind: LegCreated, Leg: fmt.Sprint(i), Presence: fmt.Sprint(i, "@acme.example"), ChannelCall: fmt.Sprint("c", i)})
	}
	if got, homes := len(h.correlator.cores), len(h.correlator.homes); got > maxCores || homes > 2*maxCores {
		t.Errorf("%d switches are known, %d homes", got, homes)
	}
	for i := range n {
		h.src.Core = fmt.Sprint("core", i)
		h.say(LegObservation{Kind: LegSeen, Leg: fmt.Sprint(n - 1)})
	}
	if got := len(h.correlator.cores[switchOf(&h.src)].former); got > maxFormer {
		t.Errorf("%d former runs are known", got)
	}
}
