package events

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type formInner struct {
	name string `wire:"1"`
	n    int    `wire:"2"`
}

type formOuter struct {
	Time   Time        `wire:"1"`
	inners []formInner `wire:"2"`
	maybe  *formInner  `wire:"3"`
	none   *formInner  `wire:"4"`
	plain  formInner   `wire:"5"`
	words  []string    `wire:"6"`
	left   func()      `wire:"-"`
	flag   bool        `wire:"7"`
	deep   []formDeep  `wire:"8"`
}

type formDeep struct {
	inner *formInner  `wire:"1"`
	list  []formInner `wire:"2"`
}

func TestFormKeepsEverything(t *testing.T) {
	form := FormOf[formOuter]()
	want := formOuter{
		Time: -5, inners: []formInner{{"a", 1}, {}, {"b", -2}}, maybe: &formInner{}, plain: formInner{"p", 7},
		words: []string{"", "x"}, flag: true, none: nil, left: nil,
		deep: []formDeep{{}, {inner: &formInner{n: 3}, list: []formInner{{}, {"z", 0}}}},
	}
	b := form.Append(nil, &want)
	var got formOuter
	if err := form.Decode(b, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(formOuter{}, formInner{}, formDeep{})); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	for n := range b {
		var v formOuter
		if err := form.Decode(b[:n], &v); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}
