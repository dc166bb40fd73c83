package events

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// digitOne and digitTwo are a payload's forms of an invented past: first the
// digit was a number, then a text of its own, and its name came later.
type digitOne struct {
	Number int64 `json:"number" wire:"1"`
}

func (d *digitOne) EventType() Type { return TypeCallDTMF }

func (d *digitOne) Upcast(*Event) any { return &digitTwo{Text: string(rune('0' + d.Number))} }

type digitTwo struct {
	Text string `json:"text" wire:"2"`
}

func (d *digitTwo) EventType() Type { return TypeCallDTMF }

func (d *digitTwo) Upcast(e *Event) any { return &CallDTMF{Digit: d.Text + e.Leg} }

// inThePast runs fn with the type as it was: today's version is another payload.
func inThePast(version int, v Payload, fn func()) {
	now := plansByType[TypeCallDTMF]
	then := newPlan(reflect.TypeOf(v).Elem())
	then.version, then.new = version, func() Payload { return reflect.New(reflect.TypeOf(v).Elem()).Interface().(Payload) }
	plansByType[TypeCallDTMF], plansByGoType[reflect.TypeOf(v)] = then, then
	defer func() {
		plansByType[TypeCallDTMF] = now
		delete(plansByGoType, reflect.TypeOf(v))
	}()
	fn()
}

func TestOlderVersionsAreRead(t *testing.T) {
	p := plansByType[TypeCallDTMF]
	before := *p
	defer func() { *p = before }()

	for version, c := range map[int]struct {
		payload Payload
		want    string
	}{1: {&digitOne{Number: 5}, "5-leg"}, 2: {&digitTwo{Text: "#"}, "#-leg"}} {
		old := Event{ID: "e", Version: version, Account: "1@a.example", Call: "c", Leg: "-leg", Payload: c.payload}
		var bin, doc []byte
		inThePast(version, c.payload, func() {
			var err error
			if bin, err = AppendBinary(nil, &old); err != nil {
				t.Fatal(err)
			}
			if doc, err = json.Marshal(old); err != nil {
				t.Fatal(err)
			}
		})
		p.version = 3
		p.older = makeOlder(map[int]func() Older{
			1: func() Older { return new(digitOne) }, 2: func() Older { return new(digitTwo) },
		}, 3)
		want := old
		want.Version, want.Payload = 3, &CallDTMF{Digit: c.want}
		got, err := DecodeBinary(bin)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("version %d, binary: %v\n%s", version, err, d)
		}
		var fromJSON Event
		err = json.Unmarshal(doc, &fromJSON)
		if d := cmp.Diff(want, fromJSON); err != nil || d != "" {
			t.Errorf("version %d, JSON: %v\n%s", version, err, d)
		}
		// What is written from now on is today's.
		again, err := AppendBinary(nil, &got)
		if err != nil {
			t.Fatal(err)
		}
		if got, err = DecodeBinary(again); err != nil || cmp.Diff(want, got) != "" {
			t.Errorf("version %d, written again: %+v, %v", version, got, err)
		}
		for n := range bin {
			_, _ = DecodeBinary(bin[:n]) // no panic
		}
		*p = before
	}

	later := Event{ID: "e", Version: 9, Payload: &Unknown{Name: TypeCallDTMF, Raw: []byte{1}}}
	b, err := AppendBinary(nil, &later)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeBinary(b); err != nil || got.Version != 9 {
		t.Errorf("of a later version: %+v, %v", got, err)
	}
}

func TestOlderMustBeOlder(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an older payload of today's version was registered")
		}
	}()
	makeOlder(map[int]func() Older{1: func() Older { return new(digitOne) }}, 1)
}
