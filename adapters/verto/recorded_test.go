package verto_test

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/callstate/callstate/adapters/verto"
	"github.com/callstate/callstate/adapters/verto/vertotest"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/testdata/captures"
)

// members adds the names of all members of a request, with the method before them
// and a dot between; those of a map of variables are the user's own.
func members(raw []byte, to map[string]bool) {
	f, err := verto.Decode(raw)
	if err != nil || f.Kind != verto.KindRequest {
		return
	}
	var walk func(path string, raw json.RawMessage)
	walk = func(path string, raw json.RawMessage) {
		to[path] = true
		var m map[string]json.RawMessage
		if strings.HasSuffix(path, "userVariables") || json.Unmarshal(raw, &m) != nil {
			return
		}
		for name, v := range m {
			walk(path+"."+name, v)
		}
	}
	walk(f.Method, f.Params)
}

// What the phone sends has no method and no member that a running FreeSWITCH was
// not seen to take.
func TestPhoneSendsOnlyWhatWasRecorded(t *testing.T) {
	t.Parallel()
	recorded := make(map[string]bool)
	names, err := captures.List("verto/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(names, "freeswitch/17-verto-frames.jsonl") {
		lines, err := captures.Transcript(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			if l.Dir == "out" {
				members(l.Frame, recorded)
			}
		}
	}

	var mu sync.Mutex
	sent := make(map[string]bool)
	s := newServer(t, vertotest.Options{Trace: func(f vertotest.Frame) {
		if !f.Sent {
			mu.Lock()
			defer mu.Unlock()
			members(f.Text, sent)
		}
	}})
	p, o := startImpatient(t, quick(s.URL()))
	o.registered(t)
	ctx := t.Context()
	id, err := p.Call(ctx, "1002")
	if err != nil {
		t.Fatal(err)
	}
	o.reaches(t, id, events.DialogActive)
	for _, do := range []error{p.Hold(ctx, id), p.Unhold(ctx, id), p.SendDTMF(ctx, id, "1")} {
		if do != nil {
			t.Error(do)
		}
	}
	s.Leg(id).Cut(true)
	o.until(t, "ICE failed", func() bool { return slices.Contains(o.states(id, events.LayerICE), "failed") })
	s.Leg(id).Cut(false)
	o.until(t, "another way", func() bool {
		states := o.states(id, events.LayerICE)
		return states[len(states)-1] == "connected"
	})
	s.Drop(account)
	o.until(t, "taken up again", func() bool {
		states := o.states(id, events.LayerDialog)
		return slices.Contains(states, events.DialogRecovering) && states[len(states)-1] == events.DialogActive
	})
	leg := originate(t, s, vertotest.Call{CallerNumber: "1003"})
	o.reaches(t, leg.ID(), events.DialogRinging)
	if err := p.Answer(ctx, leg.ID(), false); err != nil {
		t.Error(err)
	}
	for _, id := range []string{id, leg.ID()} {
		if err := p.Hangup(ctx, id, "NORMAL_CLEARING"); err != nil {
			t.Error(err)
		}
	}

	mu.Lock()
	defer mu.Unlock()
	for what := range sent {
		if !recorded[what] {
			t.Errorf("%s is in no recording", what)
		}
	}
	for _, method := range []string{
		verto.MethodLogin, verto.MethodInvite, verto.MethodModify + ".sdp", verto.MethodInfo + ".dtmf",
		verto.MethodAttach + ".sdp", verto.MethodAnswer + ".sdp", verto.MethodBye + ".cause",
	} {
		if !sent[method] {
			t.Errorf("%s was not sent: the test shows less than it should", method)
		}
	}
}
