package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/callstate/callstate/adapters/natsbus"
)

// callDiff is what the log says otherwise of one call, or of a line where CallID
// is empty.
type callDiff struct {
	Account     string      `json:"account"`
	CallID      string      `json:"callId,omitempty"`
	Differences []entryDiff `json:"differences"`
}

// entryDiff is one message or view.
type entryDiff struct {
	Position uint64                 `json:"position"`
	Kind     natsbus.DifferenceKind `json:"kind"`
	What     string                 `json:"what"`
	Event    string                 `json:"event,omitempty"` // name of the CTI event
	Fields   []fieldDiff            `json:"fields,omitempty"`
}

// fieldDiff is one field by its path; what is absent is empty.
type fieldDiff struct {
	Field     string `json:"field"`
	Published string `json:"published"`
	Expected  string `json:"expected"`
}

// diffs gathers differences by call. It keeps what differs, not the messages.
type diffs struct {
	mask   bool
	n      int
	byCall map[[2]string]*callDiff
}

func newDiffs(mask bool) *diffs { return &diffs{mask: mask, byCall: map[[2]string]*callDiff{}} }

func (d *diffs) add(x natsbus.Difference) error {
	d.n++
	key := [2]string{x.Account, x.CallID}
	c := d.byCall[key]
	if c == nil {
		c = &callDiff{Account: d.text("account", x.Account), CallID: x.CallID}
		d.byCall[key] = c
	}
	published, expected := leaves(x.Published), leaves(x.Expected)
	entry := entryDiff{Position: x.Position, Kind: x.Kind, What: x.What, Event: cmp.Or(expected["event"], published["event"])}
	if x.Kind == natsbus.Changed {
		for _, f := range slices.Sorted(maps.Keys(union(published, expected))) {
			if published[f] != expected[f] {
				name := f[strings.LastIndexByte(f, '.')+1:]
				entry.Fields = append(entry.Fields, fieldDiff{f, d.text(name, published[f]), d.text(name, expected[f])})
			}
		}
	}
	c.Differences = append(c.Differences, entry)
	return nil
}

func (d *diffs) text(field, s string) string {
	if d.mask {
		return maskString(field, s)
	}
	return s
}

func union(a, b map[string]string) map[string]string {
	u := maps.Clone(a)
	maps.Copy(u, b)
	return u
}

// leaves returns the leaves of a JSON document by their paths.
func leaves(doc string) map[string]string {
	out := map[string]string{}
	var v any
	dec := json.NewDecoder(strings.NewReader(doc))
	dec.UseNumber()
	if doc == "" {
		return out
	}
	if err := dec.Decode(&v); err != nil {
		out["(not JSON)"] = doc
		return out
	}
	addLeaves(out, "", v)
	return out
}

func addLeaves(out map[string]string, path string, v any) {
	join := func(key string) string {
		if path == "" {
			return key
		}
		return path + "." + key
	}
	switch v := v.(type) {
	case map[string]any:
		for k, w := range v {
			addLeaves(out, join(k), w)
		}
	case []any:
		for i, w := range v {
			addLeaves(out, fmt.Sprintf("%s[%d]", path, i), w)
		}
	default:
		out[path] = fmt.Sprint(v)
	}
}

// calls returns what was gathered, the call with the earliest difference first.
func (d *diffs) calls() []callDiff {
	out := make([]callDiff, 0, len(d.byCall))
	for _, c := range d.byCall {
		slices.SortStableFunc(c.Differences, func(a, b entryDiff) int { return cmp.Compare(a.Position, b.Position) })
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b callDiff) int {
		return cmp.Or(cmp.Compare(a.Differences[0].Position, b.Differences[0].Position), cmp.Compare(a.Account, b.Account), cmp.Compare(a.CallID, b.CallID))
	})
	return out
}

// fewCalls is how many calls are shown where not all are asked for.
const fewCalls = 5

// print shows the differences to people.
func (d *diffs) print(w io.Writer, all bool) {
	calls := d.calls()
	for i := range calls {
		if !all && i == fewCalls {
			fmt.Fprintf(w, "... and %d more; --diff shows them all\n", len(calls)-i)
			break
		}
		calls[i].print(w)
	}
	fmt.Fprintln(w)
}

func (c *callDiff) print(w io.Writer) {
	name := cmp.Or(c.Account, "(no account)")
	if c.CallID != "" {
		name += "/" + c.CallID
	}
	fmt.Fprintln(w, name)
	for _, x := range c.Differences {
		what := x.What
		if x.Event != "" {
			what = x.Event
		}
		fmt.Fprintf(w, "  event %-8d %-10s %s\n", x.Position, x.Kind, what)
		for _, f := range x.Fields {
			fmt.Fprintf(w, "    - %s: %s\n    + %s: %s\n", f.Field, onScreen(cmp.Or(f.Published, "(absent)")), f.Field, onScreen(cmp.Or(f.Expected, "(absent)")))
		}
	}
}
