package storetest

import (
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/callstate/callstate/events"
)

func testCheckpoints(t *testing.T, h *harness) {
	set := func(name string, position uint64) {
		t.Helper()
		if err := h.SetCheckpoint(name, position); err != nil {
			t.Fatal(err)
		}
	}
	check := func(name string, want uint64) {
		t.Helper()
		if got, err := h.Checkpoint(name); got != want || err != nil {
			t.Errorf("checkpoint %s = %d, %v; want %d", name, got, err, want)
		}
	}
	set("outbox", 5)
	check("outbox", 5)
	mustAppend(t, h, batch(Key(1, 1), 0, 9))
	set("outbox", 7)
	set("views", 3)
	check("outbox", 7)
	h.reopen(t) // Close writes what is left
	check("outbox", 7)
	check("views", 3)
	set("outbox", 2) // a reader may be sent back
	h.reopen(t)
	check("outbox", 2)
}

func testQuarantine(t *testing.T, h *harness) {
	var want []events.Quarantined
	for i := range 5 {
		b := &events.Batch{Frames: events.FrameCounts{Received: uint64(i + 1), Quarantined: uint64(i + 1)}}
		for j := range i%2 + 1 {
			b.Quarantine = append(b.Quarantine, events.Quarantined{
				ReceivedAt: events.Time(1_795_383_915_000_000 + i),
				Source:     events.Source{Adapter: "webitel", Sequence: uint64(i)},
				Reason:     "not-json", Detail: "detail",
				Frame: []byte{0, byte(i), byte(j), 0xff, '\n', '{'},
			})
		}
		mustAppend(t, h, b)
		want = append(want, b.Quarantine...)
	}
	for i, q := range want {
		if q.Number != uint64(i+1) {
			t.Errorf("frame %d was given number %d", i+1, q.Number)
		}
	}
	for _, from := range []uint64{0, 1, 3, uint64(len(want)), uint64(len(want)) + 1} {
		var got []events.Quarantined
		err := h.Quarantine(t.Context(), from, func(q *events.Quarantined) error {
			got = append(got, *q)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if d := gocmp.Diff(append([]events.Quarantined(nil), want[max(from, 1)-1:]...), got); d != "" {
			t.Errorf("from %d (-want +got):\n%s", from, d)
		}
	}
	if h.Last() != 0 {
		t.Errorf("quarantined frames took positions: last %d", h.Last())
	}
}

func testFrames(t *testing.T, h *harness) {
	want := events.FrameCounts{Received: 10, Recorded: 4, NoOps: 3, Duplicates: 2, Quarantined: 1}
	mustAppend(t, h, &events.Batch{Frames: want})
	mustAppend(t, h, batch(Key(1, 1), 0, 1)) // keeps the totals
	if got := h.Frames(); got != want {
		t.Errorf("frames %+v, want %+v", got, want)
	}
	h.reopen(t)
	if got := h.Frames(); got != want {
		t.Errorf("frames after reopening %+v, want %+v", got, want)
	}
}

func testSnapshot(t *testing.T, h *harness) {
	check := func(most, position uint64, state string) {
		t.Helper()
		p, b, err := h.Snapshot(most)
		if err != nil || p != position || string(b) != state {
			t.Fatalf("snapshot up to %d is %d %q, %v; want %d %q", most, p, b, err, position, state)
		}
	}
	check(9, 0, "")
	mustAppend(t, h, batch(Key(1, 1), 0, 6))
	for i, state := range []string{"two", "", "six"} {
		if err := h.SetSnapshot(uint64(2*i+2), []byte(state)); err != nil {
			t.Fatal(err)
		}
		check(9, uint64(2*i+2), state)
	}
	if err := h.SetSnapshot(6, []byte("six again")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		check(1, 0, "")
		check(3, 2, "two")
		check(5, 4, "")
		check(6, 6, "six again")
		h.reopen(t)
	}
	if err := h.ForgetSnapshots(); err != nil {
		t.Fatal(err)
	}
	check(9, 0, "")
	if p, b, err := h.Base(); p != 0 || len(b) != 0 || err != nil {
		t.Fatalf("base %d %q, %v of a log from which nothing was dropped", p, b, err)
	}
}

func testReopen(t *testing.T, h *harness) {
	id := h.ID()
	mustAppend(t, h, batch(Key(1, 1), 0, 3))
	h.reopen(t)
	if h.ID() != id || h.Last() != 3 {
		t.Errorf("id %s, last %d; want %s, 3", h.ID(), h.Last(), id)
	}
	b := batch(Key(1, 1), 3, 1)
	mustAppend(t, h, b)
	if b.Events[0].Position != 4 {
		t.Errorf("first position after reopening is %d, want 4", b.Events[0].Position)
	}
}

func testID(t *testing.T, h *harness) {
	other := h.open(t, t.TempDir())
	defer other.Close()
	if h.ID() == "" || h.ID() == other.ID() {
		t.Errorf("ids %q and %q", h.ID(), other.ID())
	}
}
