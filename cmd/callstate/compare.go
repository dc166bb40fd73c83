package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"strings"

	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/events/cti"
)

// deviations are what we do otherwise than a golden, on purpose. Each names the
// quirk of the design, section 4, that asks for it; one without, or one that is
// not needed, is a failure.
type deviations struct {
	Deviations []deviation `json:"deviations"`
}

// deviation takes an entry of the golden away, or adds one of ours, or both: an
// entry that we raise with other arguments.
type deviation struct {
	Quirk string `json:"quirk"` // "Q1" to "Q31", or "client quirk 33"; several joined by ", "
	Why   string `json:"why"`
	At    int    `json:"at"`
	Drop  entry  `json:"drop,omitempty"` // of the golden: its event, command or updateCallId, with as many keys as tell it apart
	Add   entry  `json:"add,omitempty"`  // of ours
}

// comparison is one golden against our outputs.
type comparison struct {
	golden *webitel.Golden
	devs   []deviation
}

// compareGolden returns what differs, nothing if the golden passes.
func compareGolden(g *webitel.Golden, ours []entry, devFile string) (problems []string, err error) {
	c := comparison{golden: g}
	if c.devs, err = readDeviations(devFile); err != nil {
		return nil, err
	}
	want := make([]entry, len(g.Expected))
	for i, raw := range g.Expected {
		if err := json.Unmarshal(raw, &want[i]); err != nil {
			return nil, fmt.Errorf("expected %d: %w", i, err)
		}
	}
	got := make([]entry, len(ours))
	for i := range ours {
		p, err := plain(ours[i])
		if err != nil {
			return nil, err
		}
		got[i] = entry(p.(map[string]any))
	}
	want, got = c.clean(want, true), c.clean(got, false)
	want, problems = c.deviate(want, problems)
	got, problems = c.allow(got, problems)
	want, got = c.dropRepeats(want), c.dropRepeats(got)
	return append(problems, diff(want, got)...), nil
}

func readDeviations(file string) ([]deviation, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("deviations: %w", err)
	}
	var d deviations
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("deviations %s: %w", file, err)
	}
	for i, x := range d.Deviations {
		if !strings.HasPrefix(x.Quirk, "Q") && !strings.HasPrefix(x.Quirk, "client quirk ") || x.Why == "" {
			return nil, fmt.Errorf("deviations %s: entry %d names no quirk or no reason", file, i+1)
		}
	}
	return d.Deviations, nil
}

// clean removes what the comparison leaves out (leftOut says the same in words).
func (c *comparison) clean(in []entry, golden bool) []entry {
	var out []entry
	for _, e := range in {
		if e["save"] != nil {
			continue
		}
		delete(e, "id")
		if e["verto"] != nil {
			delete(e, "params")
		}
		switch name, _ := e["event"].(string); {
		case name == "rawMessage" || name == "callSaved" || cti.Name(name).Ours():
			continue
		case name == "error":
			e = entry{"at": e["at"], "event": "error"}
		case name == "callInfoChanged":
			cleanCall(e, "callFeaturesSet")
		case name != "":
			cleanCall(e)
		}
		if _, ok := e["exception"]; ok {
			e = entry{"at": e["at"], "exception": ""}
		}
		if u, ok := e["updateCallId"]; golden && ok {
			e = entry{"at": e["at"], "alias": u}
		}
		out = append(out, e)
	}
	return out
}

// cleanCall removes the fields of a call that are not compared.
func cleanCall(e entry, more ...string) {
	args, _ := e["args"].([]any)
	for _, a := range args {
		if m, ok := a.(map[string]any); ok {
			for _, f := range append(more, "oldState", "databaseUId", "otherLegUUID", "NewUUID") {
				if _, isCall := m["state"]; isCall {
					delete(m, f)
				}
			}
		}
	}
}

// deviate takes away what the deviations drop.
func (c *comparison) deviate(want []entry, problems []string) ([]entry, []string) {
	for _, d := range c.devs {
		if d.Drop == nil {
			continue
		}
		i := find(want, d.At, d.Drop)
		if i < 0 {
			problems = append(problems, fmt.Sprintf("at %d: deviation %s drops %s, which the golden does not have", d.At, d.Quirk, show(d.Drop)))
			continue
		}
		want = append(want[:i:i], want[i+1:]...)
	}
	return want, problems
}

// allow takes away what the deviations add.
func (c *comparison) allow(got []entry, problems []string) ([]entry, []string) {
	for _, d := range c.devs {
		if d.Add == nil {
			continue
		}
		i := find(got, d.At, d.Add)
		if i < 0 {
			problems = append(problems, fmt.Sprintf("at %d: deviation %s adds %s, which did not come", d.At, d.Quirk, show(d.Add)))
			continue
		}
		got = append(got[:i:i], got[i+1:]...)
	}
	return got, problems
}

// find returns the index of the first entry of the frame that has all of e's
// keys with e's values.
func find(in []entry, at int, e entry) int {
	p, err := plain(e)
	if err != nil {
		return -1
	}
	for i, x := range in {
		if n, _ := x["at"].(float64); int(n) == at && covers(map[string]any(x), p) {
			return i
		}
	}
	return -1
}

// covers reports whether x has all that part has, in objects at any depth.
func covers(x, part any) bool {
	switch p := part.(type) {
	case map[string]any:
		m, ok := x.(map[string]any)
		if !ok {
			return false
		}
		for k, v := range p {
			if !covers(m[k], v) {
				return false
			}
		}
		return true
	case []any:
		s, ok := x.([]any)
		if !ok || len(s) != len(p) {
			return false
		}
		for i := range p {
			if !covers(s[i], p[i]) {
				return false
			}
		}
		return true
	default:
		return reflect.DeepEqual(x, part)
	}
}

// dropRepeats removes lineStateChanged and agentStateChanged that say again what
// the one before said, and agentStateChanged that a call's end causes (Q21).
func (c *comparison) dropRepeats(in []entry) []entry {
	last := map[string]any{}
	finished := -1.0
	var out []entry
	for _, e := range in {
		name, _ := e["event"].(string)
		at, _ := e["at"].(float64)
		switch name {
		case "callFinished":
			finished = at
		case "agentStateChanged", "lineStateChanged":
			if name == "agentStateChanged" && at == finished || reflect.DeepEqual(last[name], e["args"]) {
				continue
			}
			last[name] = e["args"]
		}
		out = append(out, e)
	}
	return out
}

// diff says where two lists of outputs part, frame by frame.
func diff(want, got []entry) []string {
	var problems []string
	frames := map[int][2][]entry{}
	last := 0
	for i, list := range [][]entry{want, got} {
		for _, e := range list {
			n, _ := e["at"].(float64)
			f := frames[int(n)]
			f[i] = append(f[i], e)
			frames[int(n)] = f
			last = max(last, int(n))
		}
	}
	for at := -1; at <= last; at++ { // -1 is before the first input
		f := frames[at]
		for i := range max(len(f[0]), len(f[1])) {
			switch {
			case i >= len(f[1]):
				problems = append(problems, fmt.Sprintf("at %d: missing %s", at, show(f[0][i])))
			case i >= len(f[0]):
				problems = append(problems, fmt.Sprintf("at %d: unexpected %s", at, show(f[1][i])))
			case !same(f[0][i], f[1][i]):
				problems = append(problems, fmt.Sprintf("at %d: want %s", at, show(f[0][i])), fmt.Sprintf("at %d: got  %s", at, show(f[1][i])))
			}
		}
	}
	return problems
}

// same compares two entries; "$text" stands for any text.
func same(want, got any) bool {
	if w, ok := want.(string); ok && w == "$text" {
		_, isText := got.(string)
		return isText
	}
	switch w := want.(type) {
	case entry:
		g, ok := got.(entry)
		return ok && same(map[string]any(w), map[string]any(g))
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok || len(w) != len(g) {
			return false
		}
		for k := range w {
			if _, has := g[k]; !has || !same(w[k], g[k]) {
				return false
			}
		}
		return true
	case []any:
		g, ok := got.([]any)
		if !ok || len(w) != len(g) {
			return false
		}
		for i := range w {
			if !same(w[i], g[i]) {
				return false
			}
		}
		return true
	default:
		return reflect.DeepEqual(want, got)
	}
}

func show(e entry) string {
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Sprint(map[string]any(e))
	}
	return string(b)
}
