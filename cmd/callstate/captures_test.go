package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
	"github.com/callstate/callstate/testdata/captures"
)

// played is what a recording came to.
type played struct {
	steps   []engine.Step
	frames  events.FrameCounts
	calls   map[events.CallKey]*cti.Call
	order   []events.CallKey
	conv    map[events.CallKey]string
	bridges map[events.CallKey]int
}

func readCapture(t testing.TB, name string) *webitel.Recording {
	t.Helper()
	f, err := captures.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := webitel.ReadRecording(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return rec
}

func play(t testing.TB, rec *webitel.Recording, ins []*engine.Input) *played {
	t.Helper()
	domains := rec.Domains
	if len(domains) == 0 {
		domains = []string{"demo.local"}
	}
	o := engine.NewOffline(engine.Rules{Domains: domains}, engine.Policies{}, "capture")
	p := &played{calls: map[events.CallKey]*cti.Call{}, conv: map[events.CallKey]string{}, bridges: map[events.CallKey]int{}}
	take := func(steps []engine.Step, err error) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range steps {
			s := &steps[i]
			p.steps = append(p.steps, *s)
			k := s.Event.Key()
			if s.Event.Type() == events.TypeCallBridged {
				p.bridges[k]++
			}
			if s.Result.Call != nil {
				if p.calls[k] == nil {
					p.order = append(p.order, k)
				}
				p.calls[k] = s.Result.Call
				p.conv[k] = s.Event.Conversation
			}
		}
	}
	for _, in := range ins {
		if in != nil {
			take(o.Observe(*in))
		}
	}
	take(o.Finish())
	p.frames = o.Frames()
	return p
}

// record is one line about a finished call, for people and for golden files.
func record(k events.CallKey, c *cti.Call) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", k, c.Direction)
	if c.Callback {
		b.WriteString(" callback")
	}
	fmt.Fprintf(&b, " %s>%s ring=%d talk=%d hold=%d %s %s", c.CallerID, c.CalledID, c.RingMs, c.TalkMs, c.HoldMs, c.Outcome, c.Cause)
	if c.Transfer != nil {
		fmt.Fprintf(&b, " %s-transfer-to=%s(%s)", c.Transfer.Kind, c.Transfer.Target, c.Transfer.Result)
	}
	if c.ParentCallID != "" {
		fmt.Fprintf(&b, " consults-for=%s", c.ParentCallID)
	}
	if c.Digits != "" {
		fmt.Fprintf(&b, " digits=%s", c.Digits)
	}
	if c.Recorded {
		b.WriteString(" recorded")
	}
	if c.WebRTC != nil {
		fmt.Fprintf(&b, " webrtc=%s", c.WebRTC.Transport)
	}
	if c.Inferred != "" {
		fmt.Fprintf(&b, " inferred=%s", c.Inferred)
	}
	if len(c.Aliases) > 0 {
		fmt.Fprintf(&b, " aliases=%s", strings.Join(c.Aliases, ","))
	}
	return b.String()
}

var update = flag.Bool("update", false, "rewrite golden files")

// recordings are the captures of a switch, and the transcripts whose meaning the
// client semantics, section 11, tells.
func recordings(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, glob := range []string{
		"freeswitch/*.jsonl", "freeswitch/webitel-view/*.jsonl",
		"webitel-v3/06-*.jsonl", "webitel-v3/1*.jsonl", "webitel-v3/2*.jsonl", "webitel-v3/4*.jsonl",
	} {
		list, err := captures.List(glob)
		if err != nil || len(list) == 0 {
			t.Fatalf("captures %s: %v", glob, err)
		}
		names = append(names, list...)
	}
	return slices.DeleteFunc(names, func(n string) bool { return strings.Contains(n, "verto-frames") })
}

// TestCaptureRecords compares the calls of every capture with the reviewed ones.
func TestCaptureRecords(t *testing.T) {
	for _, name := range recordings(t) {
		t.Run(name, func(t *testing.T) {
			rec := readCapture(t, name)
			p := play(t, rec, rec.Inputs())
			if p.frames.Quarantined != 0 || !p.frames.Reconciles() {
				t.Errorf("frames: %+v", p.frames)
			}
			var b strings.Builder
			for _, k := range p.order {
				fmt.Fprintf(&b, "%s  conversation %s\n", record(k, p.calls[k]), p.conv[k])
			}
			file := filepath.Join("../../testdata/records", strings.TrimSuffix(name, ".jsonl")+".txt")
			if *update {
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), b.String()); d != "" {
				t.Errorf("records differ (-want +got):\n%s", d)
			}
		})
	}
}

// truth is what the switch itself says of a leg at its end.
type truth struct {
	wait, bill, hold         int64
	cause, account, callback string
}

func truths(t *testing.T, name string) map[string]truth {
	t.Helper()
	lines, err := captures.Lines(name)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]truth{}
	for _, l := range lines {
		var f map[string]any
		if err := json.Unmarshal(l, &f); err != nil {
			t.Fatal(err)
		}
		if f["Event-Name"] != "CHANNEL_HANGUP_COMPLETE" {
			continue
		}
		num := func(k string) int64 {
			s, _ := f[k].(string)
			n, _ := strconv.ParseInt(s, 10, 64)
			return n
		}
		text := func(k string) string { s, _ := f[k].(string); return s }
		out[text("Unique-ID")] = truth{
			wait: num("variable_waitmsec"), bill: num("variable_billmsec"), hold: num("variable_hold_accum_ms"),
			cause: text("variable_hangup_cause"), account: text("Channel-Presence-ID"),
			callback: text("variable_w_jsclient_originate_number"),
		}
	}
	return out
}

// otherMeaning says where the switch's own figures mean something else than ours.
var otherMeaning = map[string]string{
	"11-uuid-change": "loopback legs count the time of their other half as theirs",
	"17-verto":       "the first call's callee answers 1.2 s before the caller's media is up, and waitmsec runs until then",
}

// TestCaptureTimes compares ring, talk and hold with the switch's own figures.
func TestCaptureTimes(t *testing.T) {
	names, err := captures.List("freeswitch/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	near := func(a, b int64) bool { return a-b <= 100 && b-a <= 100 }
	compared := 0
	for _, name := range names {
		if strings.Contains(name, "verto-frames") || otherMeaning[strings.TrimSuffix(filepath.Base(name), ".jsonl")] != "" {
			continue
		}
		told := truths(t, name)
		rec := readCapture(t, name)
		p := play(t, rec, rec.Inputs())
		for _, k := range p.order {
			c := p.calls[k]
			tr, ok := told[c.Legs[0].ID]
			if !ok || len(c.Legs) != 1 || c.Inferred != "" {
				continue
			}
			compared++
			if c.Cause != tr.cause {
				t.Errorf("%s %s: cause %s, the switch says %s", name, k, c.Cause, tr.cause)
			}
			if c.AnsweredAt == 0 {
				continue // waitmsec is 0 for a leg that was not answered
			}
			// waitmsec runs to the last bridge: it is ring where the answer bridged
			// the leg, once.
			if p.bridges[k] == 1 && c.BridgedAt.Sub(c.AnsweredAt) <= 50 && !near(c.RingMs, tr.wait) {
				t.Errorf("%s %s: ring %d ms, the switch says %d", name, k, c.RingMs, tr.wait)
			}
			// billmsec of a click-to-call runs from the own device's answer.
			if tr.callback == "" && !near(c.TalkMs+c.HoldMs, tr.bill) {
				t.Errorf("%s %s: talk and hold %d ms, the switch says %d", name, k, c.TalkMs+c.HoldMs, tr.bill)
			}
			if !near(c.HoldMs, tr.hold) {
				t.Errorf("%s %s: hold %d ms, the switch says %d", name, k, c.HoldMs, tr.hold)
			}
		}
	}
	if compared < 200 {
		t.Errorf("only %d calls compared", compared)
	}
}

// TestBurst: 200 concurrent calls, 400 legs.
func TestBurst(t *testing.T) {
	rec := readCapture(t, "freeswitch/16-burst-200.jsonl")
	p := play(t, rec, rec.Inputs())
	if len(p.calls) != 200 {
		t.Errorf("%d calls, want 200", len(p.calls))
	}
	accounts := map[string]int{}
	for k, c := range p.calls {
		accounts[k.Account]++
		if c.Outcome == "" || c.State != cti.StateNone || c.EndedAt == 0 {
			t.Errorf("call %s has not ended: %s", k, c.StateName)
		}
	}
	if len(accounts) != 200 {
		t.Errorf("%d accounts, want 200 with one call each", len(accounts))
	}
	if p.frames.Quarantined != 0 {
		t.Errorf("%d frames quarantined", p.frames.Quarantined)
	}
}

// serverFrames turns FreeSWITCH events into the SE: frames that a domain's
// subscriber gets: twelve names, the name prefixed, nothing filtered.
func serverFrames(t testing.TB, rec *webitel.Recording) *webitel.Recording {
	t.Helper()
	names := map[string]bool{}
	for _, n := range []string{
		"CHANNEL_CREATE", "CHANNEL_DESTROY", "CHANNEL_CALLSTATE", "CHANNEL_STATE", "CHANNEL_ANSWER",
		"CHANNEL_HANGUP_COMPLETE", "CHANNEL_HANGUP", "CHANNEL_HOLD", "CHANNEL_UNHOLD", "CHANNEL_BRIDGE", "CHANNEL_UNBRIDGE", "DTMF",
	} {
		names[n] = true
	}
	out := &webitel.Recording{Domains: rec.Domains}
	for _, c := range rec.Captured {
		const key = `"Event-Name":"`
		i := bytes.Index(c.Raw, []byte(key))
		if i < 0 {
			t.Fatalf("no Event-Name in %.80s", c.Raw)
		}
		rest := c.Raw[i+len(key):]
		name, tail, _ := bytes.Cut(rest, []byte(`"`))
		if !names[string(name)] {
			continue
		}
		raw := slices.Concat(c.Raw[:i], []byte(`"webitel-event-name":"server",`+key+"SE:"), name, []byte(`"`), tail)
		out.Captured = append(out.Captured, webitel.Captured{Raw: raw, After: -1})
	}
	return out
}

// lastOfDeadCore is the call of capture 18 that a second restart ended. Nothing
// of the third core comes under the twelve names before the capture ends.
const lastOfDeadCore = "7107f454-"

// TestServerPathSaysTheSame: the twelve SE: names are enough for the same calls.
// What they cannot tell is taken out: recordings have no SE: name.
func TestServerPathSaysTheSame(t *testing.T) {
	names, err := captures.List("freeswitch/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.Contains(name, "verto-frames") {
			continue
		}
		rec := readCapture(t, name)
		all, se := play(t, rec, rec.Inputs()), play(t, rec, serverFrames(t, rec).Inputs())
		lines := func(p *played) []string {
			var out []string
			for _, k := range p.order {
				if strings.HasPrefix(k.Call, lastOfDeadCore) {
					continue
				}
				out = append(out, strings.Replace(record(k, p.calls[k]), " recorded", "", 1))
			}
			slices.Sort(out)
			return out
		}
		if d := cmp.Diff(lines(all), lines(se)); d != "" {
			t.Errorf("%s (-switch events +SE: frames):\n%s", name, d)
		}
	}
}

// poorer lists what the account path cannot know, by capture: the whitelist has
// no transfer history, no core, and no time of the event itself.
var poorer = map[string]string{
	"06-blind-transfer":       "outcome",
	"06b-blind-transfer-bleg": "outcome",
	"17-verto":                "outcome",
	"18-core-crash-restart":   "end",
}

// TestAccountPathSaysTheSame: the account's own frames give the same calls. When
// a hold or a bridge happened they do not say, so that talk and hold are compared
// as their sum, and ring of a click-to-call not at all.
func TestAccountPathSaysTheSame(t *testing.T) {
	views, err := captures.List("freeswitch/webitel-view/*.jsonl")
	if err != nil || len(views) == 0 {
		t.Fatal(err)
	}
	for _, view := range views {
		base := strings.TrimSuffix(filepath.Base(view), ".1001.jsonl")
		full, own := readCapture(t, "freeswitch/"+base+".jsonl"), readCapture(t, view)
		a, b := play(t, full, full.Inputs()), play(t, own, own.Inputs())
		lines := func(p *played) []string {
			var out []string
			for _, k := range p.order {
				c := p.calls[k]
				if k.Account != "1001@demo.local" {
					continue
				}
				s := fmt.Sprintf("%s %s callback=%v %s>%s digits=%s parent=%s", k, c.Direction, c.Callback, c.CallerID, c.CalledID, c.Digits, c.ParentCallID)
				if poorer[base] != "outcome" && poorer[base] != "end" {
					s += fmt.Sprintf(" %s transfer=%v", c.Outcome, c.Transfer)
				}
				if poorer[base] != "end" {
					s += fmt.Sprintf(" %s state=%s", c.Cause, c.StateName)
					total := c.TalkMs + c.HoldMs
					if c.Callback {
						total += c.RingMs
					} else {
						s += fmt.Sprintf(" ring=%d", (c.RingMs+50)/100)
					}
					s += fmt.Sprintf(" talk+hold=%d", (total+50)/100)
				}
				out = append(out, s)
			}
			return out
		}
		if d := cmp.Diff(lines(a), lines(b)); d != "" {
			t.Errorf("%s (-switch events +account frames):\n%s", base, d)
		}
	}
}

// TestDisorderAndRepeats: order is kept per leg, and across legs only among
// events within 40 ms of each other; frames come twice. The records stay.
func TestDisorderAndRepeats(t *testing.T) {
	names, err := captures.List("freeswitch/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.Contains(name, "verto-frames") || strings.Contains(name, "burst") && testing.Short() {
			continue
		}
		t.Run(filepath.Base(name), func(t *testing.T) {
			rec := readCapture(t, name)
			ins := slices.DeleteFunc(rec.Inputs(), func(in *engine.Input) bool { return in == nil })
			want := finalRecords(t, rec, ins)
			rounds := 20
			if strings.Contains(name, "burst") {
				rounds = 1
			}
			for seed := range uint64(rounds) {
				got := finalRecords(t, rec, disorder(ins, rand.New(rand.NewPCG(seed, 1))))
				if d := cmp.Diff(want, got); d != "" {
					t.Fatalf("seed %d (-in order +in disorder):\n%s", seed, d)
				}
			}
		})
	}
}

func finalRecords(t *testing.T, rec *webitel.Recording, ins []*engine.Input) []string {
	t.Helper()
	p := play(t, rec, ins)
	if p.frames.Quarantined != 0 || !p.frames.Reconciles() {
		t.Errorf("frames: %+v", p.frames)
	}
	var out []string
	for _, k := range p.order {
		out = append(out, record(k, p.calls[k])+" "+p.conv[k])
	}
	slices.Sort(out)
	return out
}

// disorder deals the inputs into one queue a leg and takes them out again at
// random among those whose time is within 40 ms of the earliest.
func disorder(ins []*engine.Input, r *rand.Rand) []*engine.Input {
	// A frame about no leg has no time: it keeps its place before the leg that follows.
	when := map[*engine.Input]events.Time{}
	next := events.Time(math.MaxInt64 / 2)
	for _, in := range slices.Backward(ins) {
		if in.Leg != nil && in.Leg.At != 0 {
			next = in.Leg.At
		}
		when[in] = next
	}
	queues := map[string][]*engine.Input{}
	var legs []string
	for _, in := range ins {
		id := ""
		if in.Leg != nil {
			id = in.Leg.Leg
		}
		if queues[id] == nil {
			legs = append(legs, id)
		}
		queues[id] = append(queues[id], in)
	}
	at := func(in *engine.Input) events.Time {
		return when[in]
	}
	var out []*engine.Input
	var clock events.Time
	give := func(in *engine.Input) {
		c := *in
		if c.Leg != nil {
			l := *c.Leg
			c.Leg = &l
		}
		if c.Leg != nil {
			clock = max(clock, at(in))
		}
		c.ReceivedAt = clock
		out = append(out, &c)
	}
	var recent []*engine.Input
	for len(legs) > 0 {
		first := at(queues[legs[0]][0])
		for _, l := range legs {
			first = min(first, at(queues[l][0]))
		}
		var may []int
		for i, l := range legs {
			if at(queues[l][0]) <= first+40_000 {
				may = append(may, i)
			}
		}
		i := may[r.IntN(len(may))]
		in := queues[legs[i]][0]
		give(in)
		recent = append(recent, in)
		if r.IntN(5) == 0 {
			give(recent[max(0, len(recent)-1-r.IntN(10))])
		}
		if queues[legs[i]] = queues[legs[i]][1:]; len(queues[legs[i]]) == 0 {
			legs = slices.Delete(legs, i, i+1)
		}
	}
	return out
}
