package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

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

// decoded is a capture, read once.
type decoded struct {
	*webitel.Recording

	ins    []*engine.Input
	frames []map[string]any
	made   switchState // what each channel is made with
}

func decodeCapture(t *testing.T, name string) *decoded {
	t.Helper()
	r := &decoded{Recording: readCapture(t, name), made: switchState{}}
	r.ins = r.Inputs()
	for _, c := range r.Captured {
		var f map[string]any
		if err := json.Unmarshal(c.Raw, &f); err != nil {
			t.Fatal(err)
		}
		r.frames = append(r.frames, f)
		id, _ := f["Unique-ID"].(string)
		for _, name := range origin {
			if f[name] == nil {
				continue
			}
			if r.made[id] == nil {
				r.made[id] = map[string]any{}
			}
			r.made[id][name] = f[name]
		}
	}
	return r
}

// input is one of the inputs, for a run of its own.
func (r *decoded) input(i int) *engine.Input {
	if r.ins[i] == nil {
		return nil
	}
	in := *r.ins[i]
	if in.Leg != nil {
		leg := *in.Leg
		in.Leg = &leg
	}
	return &in
}

func (s switchState) feed(f map[string]any, made switchState) {
	if core := f["Core-UUID"]; core != nil { // what an earlier run of the switch had is gone
		maps.DeleteFunc(s, func(_ string, h map[string]any) bool { return h["Core-UUID"] != core })
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
func (s switchState) dump(t *testing.T, id string, now events.Time) []byte {
	t.Helper()
	h := maps.Clone(s[id])
	h["Event-Name"] = "CHANNEL_DATA"
	h["Event-Date-Timestamp"] = strconv.FormatInt(int64(now), 10)
	delete(h, "Event-Sequence") // its own, higher than any before
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s switchState) snapshot(conn string, at events.Time) engine.Snapshot {
	sn := engine.Snapshot{Connection: conn, Domain: "demo.local", RequestedAt: at + 1}
	for id, h := range s {
		state, _ := h["Channel-Call-State"].(string)
		sn.Legs = append(sn.Legs, engine.SnapshotLeg{
			ID: id, Answered: state == "ACTIVE" || state == "HELD", Held: state == "HELD", Ending: h["Answer-State"] == "hangup",
		})
	}
	return sn
}

var everyGap = flag.Bool("gaps", false, "lose the link at every frame of every capture but the burst of 200 calls, not at some")

// TestGapAnywhere loses the link at many points of every capture, for some frames,
// for a second, or for all the rest, and resynchronises. The live calls are then
// those of the switch, every call gets exactly one end, and what is recorded of a
// call is what an undisturbed run records, but for what cannot be known; and then
// the record says so.
func TestGapAnywhere(t *testing.T) {
	names, err := captures.List("freeswitch/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		base := strings.TrimSuffix(filepath.Base(name), ".jsonl")
		if strings.Contains(name, "verto-frames") {
			continue // no frames of the switch's events
		}
		t.Run(base, func(t *testing.T) {
			rec := decodeCapture(t, name)
			ins := rec.ins
			whole := play(t, rec.Recording, rec.Inputs())
			points := 12
			switch burst := len(ins) > 10_000; {
			case burst && !*everyGap:
				points = 3
			case !burst && *everyGap:
				points = len(ins)
			}
			step := max(1, len(ins)/points)
			for from := step; from < len(ins); from += step {
				for _, to := range []int{from + 3, secondAfter(ins, from), from + len(ins)/4, len(ins)} {
					gap(t, rec, whole, from, min(len(ins), to))
				}
			}
		})
	}
}

// secondAfter is the first frame a second after another.
func secondAfter(ins []*engine.Input, from int) int {
	var began events.Time
	for i := from; i < len(ins); i++ {
		switch {
		case ins[i] == nil:
		case began == 0:
			began = ins[i].ReceivedAt
		case ins[i].ReceivedAt.Sub(began) >= 1000:
			return i
		}
	}
	return len(ins)
}

// gapRun is a run with a gap.
type gapRun struct {
	t     *testing.T
	o     *engine.Offline
	ends  map[events.CallKey]int
	calls map[events.CallKey]*cti.Call
}

func (g *gapRun) take(steps []engine.Step, err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
	for i := range steps {
		switch k := steps[i].Event.Key(); steps[i].Event.Type() {
		case events.TypeCallHungup:
			g.ends[k]++
		case events.TypeCallReinstated:
			g.ends[k]--
		}
		if c := steps[i].Result.Call; c != nil {
			g.calls[steps[i].Event.Key()] = c
		}
	}
}

func (g *gapRun) link(kind engine.LinkKind, conn string, at events.Time) {
	g.t.Helper()
	g.take(g.o.Observe(engine.Input{
		ReceivedAt: at, Unframed: true, Source: events.Source{Adapter: "webitel", Connection: conn},
		Link: &engine.LinkObservation{Kind: kind, At: at, Domain: "demo.local", Login: "9000@demo.local", Mode: "domain"},
	}))
}

func gap(t *testing.T, rec *decoded, whole *played, from, to int) {
	t.Helper()
	g := &gapRun{
		t: t, o: engine.NewOffline(engine.Rules{Domains: rec.Domains}, engine.Policies{}, "gap"),
		ends: map[events.CallKey]int{}, calls: map[events.CallKey]*cti.Call{},
	}
	when := fmt.Sprintf("gap %d to %d", from, to)
	state := switchState{}
	var now events.Time
	conn := "before"
	for i := range rec.ins {
		in := rec.input(i)
		state.feed(rec.frames[i], rec.made)
		if in != nil {
			if now == 0 {
				g.link(engine.LinkUp, conn, in.ReceivedAt)
			}
			now = max(now, in.ReceivedAt)
		}
		if i == from {
			g.link(engine.LinkDown, conn, now)
			conn = "after"
		}
		if in != nil && (i < from || i >= to) {
			in.Source.Connection = conn
			g.take(g.o.Observe(*in))
		}
		if i+1 == to {
			g.link(engine.LinkUp, conn, now+1) // a connection takes time
			g.take(resync(t, g.o, state, now))
			live(t, g.calls, g.ends, state, when)
		}
	}
	// The next comparison of the minute: a leg that was found by asking is not known
	// to be of the switch's earlier run.
	g.take(resync(t, g.o, state, now+1))
	g.take(g.o.Finish())
	// A call whose creation was missed may have another id: the leg tells.
	byLeg := map[string]*cti.Call{}
	for _, w := range whole.calls {
		for i := range w.Legs {
			byLeg[w.Legs[i].ID] = w
		}
	}
	for k, c := range g.calls {
		w := byLeg[c.Legs[0].ID]
		if g.ends[k] != 1 {
			t.Errorf("%s: call %s has %d ends", when, k, g.ends[k])
		}
		if w == nil {
			t.Errorf("%s: call %s is not in the undisturbed run", when, k)
			continue
		}
		for _, field := range differences(t, c, w) {
			t.Errorf("%s: call %s: %s", when, k, field)
		}
	}
}

// What a record may be wrong about, by what it says of itself.
var (
	// unknownOfGap is what may have happened and been undone, and what only the
	// events of the gap told.
	unknownOfGap = []string{
		"origin", "oldState", "talkMs", "holdMs", "digits", "callerId", "callerName", "calledId", "calledName", "otherLegUUID",
		"conference", "parked", "recorded", "transfer", "redirectingId", "redirectionId", "outcome", "legs",
	}
	// unknownOfLate is what the first frames of a call tell alone.
	unknownOfLate = []string{"id", "aliases", "recording"}
	// unknownOfEnd is what the end would have told.
	unknownOfEnd = []string{"cause", "causeCode", "hungupBy", "endedAt", "ringMs", "aliases", "recording"}
)

// mayDiffer lists the fields of a record that cannot be known by what it says of
// itself. A moment that lies outside its gaps is known.
func mayDiffer(c, w *cti.Call) []string {
	var free []string
	if c.Inferred != "" {
		free = append(free, unknownOfEnd...)
	}
	for _, g := range c.Gaps {
		in := func(ts ...events.Time) bool {
			return slices.ContainsFunc(ts, func(t events.Time) bool { return t >= g.From && t <= g.To })
		}
		free = append(free, unknownOfGap...)
		if g.Reason == "found-late" {
			free = append(free, unknownOfLate...)
		}
		if in(w.BridgedAt, c.BridgedAt) {
			free = append(free, "bridgedAt")
		}
		if in(w.AnsweredAt, c.AnsweredAt) {
			free = append(free, "answeredAt", "ringMs")
		}
		if in(w.AgentAnsweredAt, c.AgentAnsweredAt) {
			free = append(free, "agentAnsweredAt")
		}
		if w.EndedAt >= g.From.Add(-lastWords) && w.EndedAt <= g.To {
			free = append(free, "endedAt", "hungupBy", "ringMs") // the switch's own figure comes last
		}
	}
	return free
}

// lastWords is for how long after its end a call is told of.
const lastWords = 5 * time.Second

// differences lists the fields of a record that differ from the undisturbed one
// though the record does not say that they may.
func differences(t *testing.T, c, w *cti.Call) (out []string) {
	t.Helper()
	got, want, free := fields(t, c), fields(t, w), mayDiffer(c, w)
	for name := range want {
		if got[name] == nil {
			got[name] = nil
		}
	}
	for name, v := range got {
		if !bytes.Equal(v, want[name]) && !slices.Contains(free, name) {
			out = append(out, fmt.Sprintf("%s is %s, undisturbed %s (inferred %q, gaps %v)", name, v, want[name], c.Inferred, c.Gaps))
		}
	}
	return out
}

// fields is a record by its fields, without what it says of its gaps.
func fields(t *testing.T, c *cti.Call) map[string]json.RawMessage {
	t.Helper()
	x := *c
	x.Gaps, x.Inferred = nil, ""
	b, err := json.Marshal(&x)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// resync is what webitel.Resync does over a socket.
func resync(t *testing.T, o *engine.Offline, state switchState, now events.Time) ([]engine.Step, error) {
	t.Helper()
	var all []engine.Step
	for _, id := range o.Compare(state.snapshot("after", now)) {
		in := engine.Input{ReceivedAt: now, Leg: &engine.LegObservation{Kind: engine.LegAbsent, Leg: id}}
		if state[id] != nil {
			in = webitel.Observe(state.dump(t, id, now), events.Source{Adapter: "webitel", Connection: "resync"}, now)
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
