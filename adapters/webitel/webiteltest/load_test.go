package webiteltest

import (
	"encoding/json"
	"testing"
)

const watching = "1001@demo.local"

// TestLoadArrivesAsRendered sends a load past the server's queue and reads it by a
// client that knows the protocol.
func TestLoadArrivesAsRendered(t *testing.T) {
	s := New(Options{})
	defer s.Close()
	l := listen(t, s, watching, true)
	sc := scenario(t, "02-incoming-answered")
	opts := LoadOptions{Scenarios: []*Scenario{sc}, Agents: Numbers(1001, 4), Domain: sc.Domain, AtOnce: 3, Calls: 5}
	load, err := s.Render(opts)
	if err != nil {
		t.Fatal(err)
	}
	var before []int
	if err := s.Send(watching, load, 0, load.Len(), func(i int) { before = append(before, i) }); err != nil {
		t.Fatal(err)
	}
	if len(before) != load.Len() || load.Len() == 0 {
		t.Fatalf("before was called %d times for %d frames", len(before), load.Len())
	}
	legs, hangups := map[string]bool{}, 0
	for i, f := range l.frames(load.Len()) {
		var want frame
		if err := json.Unmarshal(load.Payload(i), &want); err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if f.Sequence != want.Sequence || f.Name != want.Name || f.Leg != want.Leg || f.Source != "server" {
			t.Fatalf("frame %d is %+v, want %+v", i, f, want)
		}
		legs[f.Leg] = true
		if f.Name == "SE:CHANNEL_HANGUP_COMPLETE" {
			hangups++
		}
	}
	if hangups == 0 || len(legs) < 10 {
		t.Errorf("%d hangups, %d legs", hangups, len(legs))
	}

	opts.Until = "CHANNEL_HANGUP"
	if load, err = s.Render(opts); err != nil {
		t.Fatal(err)
	}
	for i := range load.Len() {
		var f frame
		if err := json.Unmarshal(load.Payload(i), &f); err != nil || f.Name == "SE:CHANNEL_HANGUP_COMPLETE" {
			t.Fatalf("frame %d: %v, %v", i, f.Name, err)
		}
	}
}

func TestLoadRefusesWhatCannotBe(t *testing.T) {
	s := New(Options{})
	defer s.Close()
	if _, err := s.Render(LoadOptions{Agents: Numbers(1001, 4)}); err == nil {
		t.Error("a load without end is rendered")
	}
	if _, err := s.Render(LoadOptions{Calls: 1}); err == nil {
		t.Error("a load without agents is rendered")
	}
	if err := s.Send(watching, &Load{}, 0, 0, nil); err == nil {
		t.Error("a load is sent to an account without a socket")
	}
}
