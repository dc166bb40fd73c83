package webitel

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/testdata/captures"
)

// silentAsCaptured are the names that fell silent in a recording: those that another
// socket gave up, and every second one when another socket died.
var silentAsCaptured = map[string][]string{
	"19-root-masks-the-unbind-fault.domain.jsonl": {"SE:CHANNEL_ANSWER", "SE:CHANNEL_HANGUP"},
	"24-own-old-socket-dies-late.new.jsonl":       {"SE:CHANNEL_ANSWER", "SE:CHANNEL_CALLSTATE", "SE:CHANNEL_CREATE", "SE:CHANNEL_HANGUP", "SE:CHANNEL_UNBRIDGE"},
}

// TestNamesAsCaptured: nothing is thought silent in what a server sent that was
// whole, and the half that fell silent when another socket died is found, name by
// name.
func TestNamesAsCaptured(t *testing.T) {
	names, err := captures.List("webitel-v3/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	judged := 0
	for _, name := range names {
		t.Run(strings.TrimPrefix(name, "webitel-v3/"), func(t *testing.T) {
			r, err := captures.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			rec, err := ReadRecording(r)
			if err != nil {
				t.Fatal(err)
			}
			zero := time.Unix(1_700_000_000, 0)
			w := newNameWatch("demo.local", 100*time.Millisecond)
			w.renewed(zero)
			silent := map[string]bool{}
			now := zero
			for _, c := range rec.Captured {
				now = zero.Add(time.Duration(max(0, c.After)) * time.Millisecond)
				maps.Copy(silent, w.judge(now))
				if bytes.Contains(c.Raw, []byte("unsubscribe SE:")) {
					maps.Copy(silent, w.judge(now.Add(graceOfEnd)))
					w.renewed(now)
				}
				if c.Raw == nil || c.Sent {
					continue
				}
				f, err := Decode(c.Raw)
				if err != nil || f.Kind != KindLeg || f.Path != "server" {
					continue
				}
				w.note(&f, Normalise(&f, testSource, testArrival).Leg, now)
			}
			w.mu.Lock()
			judged += len(w.ending)
			w.mu.Unlock()
			maps.Copy(silent, w.judge(now.Add(time.Hour)))
			want := silentAsCaptured[strings.TrimPrefix(name, "webitel-v3/")]
			if d := cmp.Diff(want, slices.Sorted(maps.Keys(silent))); d != "" {
				t.Errorf("silent, -want +got:\n%s", d)
			}
			if len(w.legs) > 8 {
				t.Errorf("%d legs are still watched", len(w.legs))
			}
		})
	}
	if judged == 0 {
		t.Error("no leg was judged at a recording's end")
	}
}

// watching is a nameWatch whose frames are made up: of each leg a set of names, at
// a clock of its own.
type watching struct {
	*nameWatch

	now time.Time
}

func newWatching() *watching {
	w := &watching{newNameWatch("demo.local", 0), time.Unix(1_700_000_000, 0)}
	w.renewed(w.now)
	w.now = w.now.Add(time.Second)
	return w
}

// frame tells of legs from one number to another, which began now or before.
func (w *watching) frame(event string, from, to int, began time.Time) {
	for n := from; n < to; n++ {
		w.note(&Frame{Event: event}, &engine.LegObservation{
			Leg: fmt.Sprint("leg-", n), Presence: "1001@demo.local", CreatedAt: events.At(began), At: events.At(w.now),
		}, w.now)
	}
}

// whole plays legs from their begin to their end.
func (w *watching) whole(from, to int, names ...string) {
	for _, name := range names {
		w.frame(name, from, to, w.now)
	}
}

var namesOfAny = []string{
	"CHANNEL_CREATE", "CHANNEL_STATE", "CHANNEL_CALLSTATE", "CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE", "CHANNEL_DESTROY",
}

// TestManyLegsAreSampled: however many legs there are, memory is bounded, no name is
// thought silent that is not, and one that is is found.
func TestManyLegsAreSampled(t *testing.T) {
	const many = 20 * maxWatched
	w := newWatching()
	w.frame("CHANNEL_CREATE", 0, many, w.now)
	if n := len(w.legs); n == 0 || n >= maxWatched {
		t.Fatalf("%d legs are watched, want some, and less than %d", n, maxWatched)
	}
	began := w.now
	w.now = w.now.Add(time.Second)
	for _, name := range namesOfAny[1:] {
		w.frame(name, 0, many, began)
	}
	if len(w.ending) == 0 {
		t.Fatal("no leg of the sample has ended")
	}
	if silent := w.judge(w.now.Add(time.Minute)); len(silent) > 0 {
		t.Errorf("%v are thought silent", silent)
	}
	w.whole(many, 2*many, namesOfAny[1:]...) // and no CREATE
	if silent := w.judge(w.now.Add(time.Minute)); len(silent) != 1 || !silent["SE:CHANNEL_CREATE"] {
		t.Errorf("silent are %v, want SE:CHANNEL_CREATE", silent)
	}
}

// TestSampleWidens: when few legs are left all are watched again, and those whose
// beginning was not watched tell nothing.
func TestSampleWidens(t *testing.T) {
	const many = 20 * maxWatched
	w := newWatching()
	began := w.now
	w.frame("CHANNEL_CREATE", 0, many, began)
	for _, name := range namesOfAny[1:] {
		w.frame(name, 0, many-1000, began) // the last thousand go on
	}
	for w.thin != 0 {
		w.now = w.now.Add(time.Minute)
		w.judge(w.now)
	}
	w.now = w.now.Add(time.Second)
	for _, name := range namesOfAny[1:] {
		w.frame(name, many-1000, many, began)
	}
	if silent := w.judge(w.now.Add(time.Minute)); len(silent) > 0 {
		t.Errorf("%v are thought silent", silent)
	}
	w.whole(many, many+10, namesOfAny...)
	if n := len(w.ending); n != 10 {
		t.Errorf("%d of 10 new legs are watched", n)
	}
}
