package main

import (
	"bytes"
	"encoding/json"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/testdata/captures"
)

// driven says which fact each step of the driver must have caused. A step that
// matches none causes none that can be told apart.
var driven = []struct {
	step *regexp.Regexp
	fact []events.Type
}{
	{regexp.MustCompile(`^\d+ dials`), []events.Type{events.TypeCallNew}},
	{regexp.MustCompile(`^answered|answers call`), []events.Type{events.TypeCallAccepted}},
	{regexp.MustCompile(`uuid_hold off|unholds`), []events.Type{events.TypeCallUnheld}},
	{regexp.MustCompile(`uuid_hold [0-9a-f]|^\d+ holds`), []events.Type{events.TypeCallHeld}},
	{regexp.MustCompile(`rfc2833|INFO \S$|uuid_recv_dtmf`), []events.Type{events.TypeCallDTMF}},
	{regexp.MustCompile(`uuid_park`), []events.Type{events.TypeLegParked}},
	{regexp.MustCompile(`uuid_bridge`), []events.Type{events.TypeCallTransferred}},
	{regexp.MustCompile(`bgapi originate`), []events.Type{events.TypeCallNew}},
	{regexp.MustCompile(`uuid_record \S+ start`), []events.Type{events.TypeCallRecordingStarted}},
	{regexp.MustCompile(`uuid_record \S+ stop`), []events.Type{events.TypeCallRecordingStopped}},
	{regexp.MustCompile(`hangs up|cancels|declines|uuid_kill`), []events.Type{events.TypeCallHungup}},
}

// TestDriverSteps: what the driver of the captures did at a wall-clock time is
// recorded as a fact of that time.
func TestDriverSteps(t *testing.T) {
	files, err := captures.List("freeswitch/meta/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no ground truth: %v", err)
	}
	checked := 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".meta.json")
		if strings.Contains(name, "burst") || strings.Contains(name, "verto") {
			continue // their drivers noted no single steps, or in another form
		}
		f, err := captures.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		var meta struct {
			Marks []struct {
				T    float64 `json:"t"`
				What string  `json:"what"`
			} `json:"marks"`
		}
		if err := json.Unmarshal(bytes.TrimSpace(b), &meta); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		rec := readCapture(t, "freeswitch/"+name+".jsonl")
		p := play(t, rec, rec.Inputs())
		for _, m := range meta.Marks {
			for _, d := range driven {
				if !d.step.MatchString(m.What) {
					continue
				}
				checked++
				if !happened(p, d.fact, events.At(time.UnixMicro(int64(m.T*1e6)))) {
					t.Errorf("%s: %q at %s left no %v", name, m.What, events.Time(m.T*1e6), d.fact)
				}
				break
			}
		}
	}
	if checked < 40 {
		t.Errorf("only %d steps checked", checked)
	}
}

// happened reports whether one of the facts was recorded for the time: the phone
// and the switch take some 100 ms each.
func happened(p *played, facts []events.Type, at events.Time) bool {
	for i := range p.steps {
		ev := &p.steps[i].Event
		for _, f := range facts {
			if d := ev.OccurredAt - at; ev.Type() == f && d > -250_000 && d < 750_000 {
				return true
			}
		}
	}
	return false
}
