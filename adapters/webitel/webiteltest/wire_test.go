package webiteltest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/callstate/callstate/testdata/captures"
)

// legEvents returns the frames of one path in a transcript, by leg, event name
// and how often the leg had that event before.
func legEvents(t *testing.T, transcript, source string) map[string]json.RawMessage {
	t.Helper()
	frames, err := captures.ServerFrames("webitel-v3/" + transcript + ".jsonl")
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]json.RawMessage)
	seen := make(map[string]int)
	for _, b := range frames {
		var f struct {
			Source string `json:"webitel-event-name"`
			Name   string `json:"Event-Name"`
			Leg    string `json:"Unique-ID"`
		}
		if json.Unmarshal(b, &f) != nil || f.Source != source {
			continue
		}
		b = bytes.Replace(b, []byte(`"Event-Name":"SE:`), []byte(`"Event-Name":"`), 1)
		key := f.Leg + " " + string(bytes.TrimPrefix([]byte(f.Name), []byte("SE:")))
		out[fmt.Sprint(key, " ", seen[key])] = b
		seen[key]++
	}
	return out
}

// TestAccountFrame cuts the frames of the server path down to those of the
// account path and compares with what the real server sent to the account.
func TestAccountFrame(t *testing.T) {
	compared := 0
	for _, name := range []string{"10-main-scenario", "11-outgoing-dialled-on-phone", "20-commands-in-a-call", "14-ring-group"} {
		full := legEvents(t, name+".domain", "server")
		for key, want := range legEvents(t, name+".agent", "call") {
			b, ok := full[key]
			if !ok {
				continue // PROGRESS and ORIGINATE have no SE: name
			}
			f, err := parseFields(b)
			if err != nil {
				t.Fatal(err)
			}
			var g, w map[string]any
			if err := json.Unmarshal(f.accountFrame(), &g); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(want, &w); err != nil {
				t.Fatal(err)
			}
			if compared++; !reflect.DeepEqual(g, w) {
				for k := range w {
					if !reflect.DeepEqual(g[k], w[k]) {
						t.Errorf("%s %s: %s is %v, recorded %v", name, key, k, g[k], w[k])
					}
				}
				for k := range g {
					if _, ok := w[k]; !ok {
						t.Errorf("%s %s: %s is %v, recorded nothing", name, key, k, g[k])
					}
				}
			}
		}
	}
	if compared < 100 {
		t.Errorf("compared %d frames only", compared)
	}
}

// TestDomainRule takes what root saw and finds out what a watcher of the domain
// saw at the same time (protocol 6.5.3, transcript 17).
func TestDomainRule(t *testing.T) {
	root := legEvents(t, "17-root-observes.root", "server")
	domain := legEvents(t, "17-root-observes.domain", "server")
	var predicted []string
	for key, b := range root {
		f, err := parseFields(b)
		if err != nil {
			t.Fatal(err)
		}
		r := f.routing()
		if r.data == "demo.local" && r.domain == "demo.local" {
			predicted = append(predicted, key)
		}
	}
	slices.Sort(predicted)
	want := slices.Sorted(maps.Keys(domain))
	if !slices.Equal(predicted, want) {
		t.Errorf("a watcher gets\n%v\nrecorded\n%v", predicted, want)
	}
}
