package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/callstate/callstate/adapters/verto"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/testdata/captures"
)

const phoneOfCaptures = "1001@demo.local"

// vertoInputs plays the frames of capture 17, whose clock is the switch's.
func vertoInputs(t *testing.T) []*engine.Input {
	t.Helper()
	lines, err := captures.Transcript("freeswitch/17-verto-frames.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	phone := verto.NewReplay(phoneOfCaptures, "pbx1:8081")
	var ins []*engine.Input
	for _, l := range lines {
		for _, in := range phone.Frame(l.Frame, l.Dir == "out", events.Time(l.T*1000)) {
			ins = append(ins, &in)
		}
	}
	return ins
}

// merged is the two streams as one, in order of arrival, the phone's later by d.
func merged(pbx, phone []*engine.Input, d time.Duration) []*engine.Input {
	var all []*engine.Input
	for _, in := range pbx {
		if in != nil {
			all = append(all, in)
		}
	}
	for _, in := range phone {
		moved := *in
		moved.ReceivedAt = in.ReceivedAt.Add(d)
		all = append(all, &moved)
	}
	slices.SortStableFunc(all, func(a, b *engine.Input) int { return cmp.Compare(a.ReceivedAt, b.ReceivedAt) })
	return all
}

// sessionLine is a fact of a session, or the fact of the call that it goes with.
func sessionLine(ev *events.Event) string {
	switch p := ev.Payload.(type) {
	case *events.WebRTCSessionNew:
		return fmt.Sprintf("session-new %s %s inferred=%v joined=%v", p.Direction, p.State, p.Inferred, p.Joined)
	case *events.WebRTCStateChanged:
		return fmt.Sprintf("%s %s>%s inferred=%v", p.Layer, p.From, p.State, p.Inferred)
	case *events.WebRTCSessionEnded:
		return fmt.Sprintf("session-ended %s %s by=%s inferred=%v", p.Reason, p.Cause, p.By, p.Inferred)
	case *events.WebRTCRegistered:
		return "registered"
	case *events.WebRTCUnregistered:
		return "unregistered " + p.Reason
	case *events.CallNew, *events.CallAccepted, *events.CallHeld, *events.CallUnheld, *events.CallTransferred, *events.CallHungup:
		return string(ev.Type())
	case *events.CallDTMF:
		return "call.dtmf " + p.Digit
	default:
		return ""
	}
}

// TestVertoCaptureJoinsTheSwitch plays the web phone's frames of capture 17 with
// the switch's events of the same time: four calls, each with its session
// (reference/captures/freeswitch/README.md). Every call's story is reviewed.
func TestVertoCaptureJoinsTheSwitch(t *testing.T) {
	rec := readCapture(t, "freeswitch/17-verto.jsonl")
	phone := vertoInputs(t)
	p := play(t, rec, merged(rec.Inputs(), phone, 0))
	if p.frames.Quarantined != 0 || !p.frames.Reconciles() {
		t.Errorf("frames: %+v", p.frames)
	}
	var b strings.Builder
	stories := map[events.CallKey]string{}
	for i := range p.steps {
		ev := &p.steps[i].Event
		line := sessionLine(ev)
		if ev.Account != phoneOfCaptures || line == "" {
			continue
		}
		fmt.Fprintf(&b, "%-8.8s  %s\n", cmp.Or(ev.Call, "-"), line)
		stories[ev.Key()] += line + "\n"
	}
	file := "../../testdata/records/freeswitch/17-verto.sessions.txt"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := gocmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("the sessions' story differs (-want +got):\n%s", d)
	}

	// Whichever stream is late, by less than a session waits: the same sessions of
	// the same calls, with the same states and ends.
	for _, d := range []time.Duration{-2 * time.Second, -30 * time.Millisecond, 50 * time.Millisecond, 2 * time.Second} {
		late := play(t, rec, merged(rec.Inputs(), phone, d))
		if got, want := sessionFacts(late), sessionFacts(p); !slices.Equal(got, want) {
			t.Errorf("the phone %v later: sessions\n%s\nwant\n%s", d, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// sessionFacts are the sessions of the calls, with what the phone told of each.
func sessionFacts(p *played) []string {
	facts := map[string]string{}
	for i := range p.steps {
		ev := &p.steps[i].Event
		var id, text string
		switch e := ev.Payload.(type) {
		case *events.WebRTCSessionNew:
			if id, text = e.Session, e.State; e.Inferred {
				continue // the phone was not signed in yet: its word replaces it
			}
		case *events.WebRTCStateChanged:
			if id, text = e.Session, e.State; e.State == events.DialogHangup {
				continue // the switch or the phone, whoever is first
			}
		case *events.WebRTCSessionEnded:
			id, text = e.Session, e.Reason+" "+e.Cause+" "+e.By
		default:
			continue
		}
		key := ev.Call + " " + id
		facts[key] += " " + text
	}
	var out []string
	for key, text := range facts {
		out = append(out, key+":"+text)
	}
	slices.Sort(out)
	return out
}

// TestVertoCapturesAlone: a phone's recordings without the switch's events lose
// nothing: every session is the account's, begins once and ends once.
func TestVertoCapturesAlone(t *testing.T) {
	names, err := captures.List("verto/*.jsonl")
	if err != nil || len(names) < 20 {
		t.Fatalf("%d captures, %v", len(names), err)
	}
	for _, name := range names {
		lines, err := captures.Transcript(name)
		if err != nil {
			t.Fatal(err)
		}
		p := play(t, readCapture(t, "freeswitch/02-incoming-answered.jsonl"), vertoOnly(lines, strings.HasPrefix(name, "verto/13") || strings.HasPrefix(name, "verto/14")))
		if !p.frames.Reconciles() {
			t.Errorf("%s: frames: %+v", name, p.frames)
		}
		state := map[string]int{}
		for i := range p.steps {
			ev := &p.steps[i].Event
			if ev.Call != "" || ev.Account != phoneOfCaptures {
				t.Errorf("%s: %s of account %q, call %q", name, ev.Type(), ev.Account, ev.Call)
			}
			switch e := ev.Payload.(type) {
			case *events.WebRTCSessionNew:
				state[e.Session]++
			case *events.WebRTCSessionEnded:
				if state[e.Session] += 10; e.Inferred {
					t.Errorf("%s: the end of %s is inferred", name, e.Session)
				}
			}
		}
		for id, n := range state {
			want := 11
			if name == "verto/13-same-sessid.jsonl" {
				want = 22 // displaced, and taken over by the other phone
			}
			if n != want {
				t.Errorf("%s: session %s began and ended %d times", name, id, n)
			}
		}
	}
}

// vertoOnly plays a recording; two holds the recordings of two phones at once.
func vertoOnly(lines []captures.Line, two bool) []*engine.Input {
	const begin = events.Time(1_700_000_000_000_000)
	phones := map[int]*verto.Replay{}
	var ins []*engine.Input
	for _, l := range lines {
		who := 0
		if two {
			who = l.Conn
		}
		if phones[who] == nil {
			phones[who] = verto.NewReplay(phoneOfCaptures, "pbx1:8081")
		}
		at := begin + events.Time(l.T*1000)
		var list []engine.Input
		switch {
		case l.Note == "":
			list = phones[who].Frame(text(l.Frame), l.Dir == "out", at)
		case strings.HasPrefix(l.Note, "TCP connection dropped"), strings.HasPrefix(l.Note, "socket closed"):
			list = phones[who].Lost(events.SessionClosed, at)
		}
		for i := range list {
			ins = append(ins, &list[i])
		}
	}
	return ins
}

// text is a frame as it was sent: one that is not JSON is a string in the file.
func text(frame json.RawMessage) []byte {
	var s string
	if json.Unmarshal(frame, &s) == nil {
		return []byte(s)
	}
	return frame
}
