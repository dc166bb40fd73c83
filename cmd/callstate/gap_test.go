package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
	"github.com/callstate/callstate/testdata/captures"
)

// switchState is what the switch of a capture would answer at a moment: the
// channels that exist, each with the last value of every header.
type switchState map[string]map[string]any

// origin are the variables that a channel has from its beginning, though the
// first events of it do not carry them.
var origin = []string{"variable_w_jsclient_originate_number", "variable_w_jsclient_xtransfer", "variable_webitel_call_uuid"}

// newSwitchState looks ahead for what each channel is made with.
func newSwitchState(t *testing.T, rec *webitel.Recording) (s switchState, made switchState) {
	t.Helper()
	made = switchState{}
	for _, c := range rec.Captured {
		var f map[string]any
		if err := json.Unmarshal(c.Raw, &f); err != nil {
			t.Fatal(err)
		}
		id, _ := f["Unique-ID"].(string)
		for _, name := range origin {
			if f[name] == nil {
				continue
			}
			if made[id] == nil {
				made[id] = map[string]any{}
			}
			made[id][name] = f[name]
		}
	}
	return switchState{}, made
}

func (s switchState) feed(t *testing.T, raw []byte, made switchState) {
	t.Helper()
	var f map[string]any
	if err := json.Unmarshal(raw, &f); err != nil {
		t.Fatal(err)
	}
	id, _ := f["Unique-ID"].(string)
	name, _ := f["Event-Name"].(string)
	if id == "" || !strings.HasPrefix(name, "CHANNEL_") && name != "DTMF" {
		return
	}
	if name == "CHANNEL_DESTROY" || s[id] == nil && f["Channel-State"] == "CS_DESTROY" {
		delete(s, id)
		return
	}
	if s[id] == nil {
		s[id] = map[string]any{}
		maps.Copy(s[id], made[id])
	}
	maps.Copy(s[id], f)
	a, _ := f["Bridge-A-Unique-ID"].(string)
	b, _ := f["Bridge-B-Unique-ID"].(string)
	if name == "CHANNEL_BRIDGE" {
		for x, y := range map[string]string{a: b, b: a} {
			if s[x] != nil {
				s[x]["variable_bridge_uuid"] = y
			}
		}
	}
}

// dump is the reply to channel_dump.
func (s switchState) dump(t *testing.T, id string) []byte {
	t.Helper()
	h := maps.Clone(s[id])
	h["Event-Name"] = "CHANNEL_DATA"
	delete(h, "Event-Sequence") // its own, higher than any before
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s switchState) snapshot(at events.Time) engine.Snapshot {
	sn := engine.Snapshot{Domain: "demo.local", RequestedAt: at + 1}
	for id, h := range s {
		state, _ := h["Channel-Call-State"].(string)
		sn.Legs = append(sn.Legs, engine.SnapshotLeg{
			ID: id, Answered: state == "ACTIVE" || state == "HELD", Held: state == "HELD", Ending: h["Answer-State"] == "hangup",
		})
	}
	return sn
}

// TestGapAnywhere loses the link at many points of every capture, for some frames
// or for all the rest, and resynchronises. The live calls are then those of the
// switch; every call gets exactly one end; and what is recorded of a call is what
// an undisturbed run records, except where it says that it was inferred.
func TestGapAnywhere(t *testing.T) {
	names, err := captures.List("freeswitch/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		base := strings.TrimSuffix(filepath.Base(name), ".jsonl")
		if strings.Contains(name, "verto-frames") || strings.Contains(name, "burst") || strings.HasPrefix(base, "18") {
			continue // 18 loses its switch, which is another matter
		}
		t.Run(base, func(t *testing.T) {
			rec := readCapture(t, name)
			ins := rec.Inputs()
			whole := play(t, rec, ins)
			step := max(1, len(ins)/12)
			for from := step; from < len(ins); from += step {
				for _, length := range []int{3, len(ins) / 4, len(ins)} {
					gap(t, rec, ins, whole, from, min(len(ins), from+length))
				}
			}
		})
	}
}

func gap(t *testing.T, rec *webitel.Recording, ins []*engine.Input, whole *played, from, to int) {
	t.Helper()
	o := engine.NewOffline(engine.Rules{Domains: rec.Domains}, engine.Policies{}, "gap")
	n := map[events.CallKey]int{}
	calls := map[events.CallKey]*cti.Call{}
	take := func(steps []engine.Step, err error) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range steps {
			switch k := steps[i].Event.Key(); steps[i].Event.Type() {
			case events.TypeCallHungup:
				n[k]++
			case events.TypeCallReinstated:
				n[k]--
			}
			if c := steps[i].Result.Call; c != nil {
				calls[steps[i].Event.Key()] = c
			}
		}
	}
	state, made := newSwitchState(t, rec)
	var now events.Time
	for i, in := range ins {
		state.feed(t, rec.Captured[i].Raw, made)
		if in != nil {
			now = max(now, in.ReceivedAt)
		}
		if in != nil && (i < from || i >= to) {
			take(o.Observe(*in))
		}
		if i+1 == to {
			take(resync(t, o, state, now))
			live(t, calls, n, state, fmt.Sprintf("gap %d to %d", from, to))
		}
	}
	take(o.Finish())
	// A call whose creation was missed may have another id: the leg tells.
	byLeg := map[string]*cti.Call{}
	for _, w := range whole.calls {
		byLeg[w.Legs[0].ID] = w
	}
	for k, c := range calls {
		w := byLeg[c.Legs[0].ID]
		switch {
		case n[k] != 1:
			t.Errorf("gap %d to %d: call %s has %d ends", from, to, k, n[k])
		case w == nil:
			t.Errorf("gap %d to %d: call %s is not in the undisturbed run", from, to, k)
		case c.Direction != w.Direction || c.Callback != w.Callback:
			t.Errorf("gap %d to %d: call %s is %s, undisturbed %s", from, to, k, c.Direction, w.Direction)
		case c.Inferred == "" && (c.Cause != w.Cause || c.Outcome != w.Outcome && c.Outcome != cti.OutcomeAnswered):
			t.Errorf("gap %d to %d: call %s ended as %s %s, undisturbed %s %s", from, to, k, c.Outcome, c.Cause, w.Outcome, w.Cause)
		}
	}
}

// resync is what webitel.Resync does over a socket.
func resync(t *testing.T, o *engine.Offline, state switchState, now events.Time) ([]engine.Step, error) {
	t.Helper()
	var all []engine.Step
	for _, id := range o.Compare(state.snapshot(now)) {
		in := engine.Input{ReceivedAt: now, Leg: &engine.LegObservation{Kind: engine.LegAbsent, Leg: id}}
		if state[id] != nil {
			in = webitel.Observe(state.dump(t, id), events.Source{Adapter: "webitel", Connection: "resync"}, now)
		}
		in.Unframed, in.Origin = true, events.Resync
		steps, err := o.Observe(in)
		if all = append(all, steps...); err != nil {
			return all, err
		}
	}
	return all, nil
}

// live checks that the calls that are live are those whose legs the switch has.
func live(t *testing.T, calls map[events.CallKey]*cti.Call, ends map[events.CallKey]int, state switchState, when string) {
	t.Helper()
	var ours, theirs []string
	for k, c := range calls {
		if ends[k] == 0 {
			for _, l := range c.Legs {
				if !l.Ended {
					ours = append(ours, l.ID)
				}
			}
		}
	}
	for id, h := range state {
		if p, _ := h["Channel-Presence-ID"].(string); strings.HasSuffix(p, "@demo.local") && h["Answer-State"] != "hangup" {
			theirs = append(theirs, id)
		}
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	if !slices.Equal(ours, theirs) {
		t.Errorf("%s: live legs %v, the switch has %v", when, ours, theirs)
	}
}
