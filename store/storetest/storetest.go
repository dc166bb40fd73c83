// Package storetest is the one suite that every [store.Store] must pass.
package storetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
)

// Open opens the log of dir. It is called again with the same dir once the store
// before it was closed, and must then give the same log.
type Open func(t *testing.T, dir string) store.Store

// Run runs the suite. Each test gets a store in a folder of its own.
func Run(t *testing.T, open Open) {
	for _, tt := range []struct {
		name string
		fn   func(t *testing.T, h *harness)
	}{
		{"EmptyLog", testEmptyLog},
		{"AppendAssignsPositionsWithoutGaps", testPositions},
		{"EventsComeBackAsStored", testEventsComeBack},
		{"EventsBelongToTheReader", testEventsBelongToReader},
		{"BatchIsAllOrNothing", testAllOrNothing},
		{"EmptyBatchStoresNothing", testEmptyBatch},
		{"ReadFromAnyPosition", testReadFrom},
		{"ReadEndsAtTheLastEventOfItsStart", testReadWhileAppending},
		{"ReadReturnsTheReadersError", testReadError},
		{"ReadCall", testReadCall},
		{"HostileKeysAreKeptApart", testHostileKeys},
		{"CallsAreInOrder", testCalls},
		{"Checkpoints", testCheckpoints},
		{"Quarantine", testQuarantine},
		{"FrameTotalsAreKept", testFrames},
		{"Snapshot", testSnapshot},
		{"ReopenedLogIsTheSame", testReopen},
		{"LogsHaveTheirOwnID", testID},
		{"ClosedStoreRefuses", testClosed},
		{"CancelledContext", testCancelled},
		{"ConcurrentAppendersAndReaders", testConcurrent},
		{"CloseWaitsForCallsUnderWay", testCloseWaits},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := &harness{open: open, dir: t.TempDir()}
			h.Store = New(t, open, h.dir)
			tt.fn(t, h)
		})
	}
}

// New opens a store in dir that is verified and closed when the test ends: its
// positions have no gaps, every call's events are those that the whole log has
// for it, and the log opened anew reads the same.
func New(t *testing.T, open Open, dir string) store.Store {
	t.Helper()
	s := open(t, dir)
	t.Cleanup(func() {
		if _, err := s.HasCall(events.CallKey{Call: "any"}); errors.Is(err, store.ErrClosed) {
			s = open(t, dir)
		}
		before := verify(t, s)
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		again := open(t, dir)
		defer again.Close()
		if d := gocmp.Diff(before, verify(t, again)); d != "" {
			t.Errorf("the log opened anew differs (-before +after):\n%s", d)
		}
	})
	return s
}

type harness struct {
	store.Store
	open Open
	dir  string
}

func (h *harness) reopen(t *testing.T) {
	t.Helper()
	if err := h.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	h.Store = h.open(t, h.dir)
	t.Cleanup(func() { h.Close() })
}

// verify checks what must hold of any log and returns its events.
func verify(t *testing.T, s store.Store) []events.Event {
	t.Helper()
	all := readAll(t, s, 1)
	byCall := make(map[events.CallKey][]events.Event)
	for i, e := range all {
		if want := uint64(i + 1); e.Position != want {
			t.Fatalf("event %d of the log has position %d", want, e.Position)
		}
		if k := e.Key(); !k.IsZero() {
			byCall[k] = append(byCall[k], e)
		}
	}
	if got := s.Last(); got != uint64(len(all)) {
		t.Errorf("Last() = %d, the log holds %d events", got, len(all))
	}
	calls := 0
	err := s.Calls(context.Background(), "", func(k events.CallKey, first, last uint64) error {
		calls++
		want := byCall[k]
		if len(want) == 0 || first != want[0].Position || last != want[len(want)-1].Position {
			t.Errorf("call %s: first %d, last %d; its events are %v", k, first, last, positions(want))
		}
		if got := readCall(t, s, k); !slices.Equal(positions(got), positions(want)) {
			t.Errorf("call %s: positions %v, want %v", k, positions(got), positions(want))
		}
		return nil
	})
	if err != nil {
		t.Errorf("calls: %v", err)
	}
	if calls != len(byCall) {
		t.Errorf("%d calls, want %d", calls, len(byCall))
	}
	return all
}

// Event returns event n of a call, with a payload that differs by n.
func Event(k events.CallKey, n int) events.Event {
	return events.Event{
		ID: fmt.Sprintf("%s#%d", k, n), Version: 1, Domain: "acme.example",
		Account: k.Account, Call: k.Call, Leg: k.Call, Conversation: k.Call,
		OccurredAt: events.Time(1_795_383_915_000_000 + n), TimeSource: events.TimeOfEvent,
		RecordedAt: events.Time(1_795_383_915_000_500 + n),
		Source: events.Source{
			Adapter: "webitel", Connection: "c1", Path: events.PathServer,
			Switch: "fs-demo", Core: "d34d51d2-4886-4554-ac0e-187f92a8ccb8", Sequence: uint64(n),
		},
		Payload: &events.CallDTMF{Digit: fmt.Sprint(n % 10), Via: "RTP"},
	}
}

// Key returns the key of call n of an account.
func Key(account, n int) events.CallKey {
	return events.CallKey{
		Account: fmt.Sprintf("%d@acme.example", 1000+account),
		Call:    fmt.Sprintf("a2e60000-0000-4000-8000-%012d", n),
	}
}

func batch(k events.CallKey, from, n int) *events.Batch {
	b := &events.Batch{}
	for i := range n {
		b.Events = append(b.Events, Event(k, from+i))
	}
	return b
}

func mustAppend(t *testing.T, s store.Store, b *events.Batch) {
	t.Helper()
	if err := s.Append(t.Context(), b); err != nil {
		t.Fatalf("append: %v", err)
	}
}

func readAll(t *testing.T, s store.Store, from uint64) []events.Event {
	t.Helper()
	var out []events.Event
	if err := s.Read(context.Background(), from, collect(&out)); err != nil {
		t.Fatalf("read from %d: %v", from, err)
	}
	return out
}

func readCall(t *testing.T, s store.Store, k events.CallKey) []events.Event {
	t.Helper()
	var out []events.Event
	if err := s.ReadCall(context.Background(), k, collect(&out)); err != nil {
		t.Fatalf("read call %s: %v", k, err)
	}
	return out
}

func collect(out *[]events.Event) func(*events.Event) error {
	return func(e *events.Event) error {
		*out = append(*out, *e)
		return nil
	}
}

func positions(evs []events.Event) []uint64 {
	var out []uint64
	for _, e := range evs {
		out = append(out, e.Position)
	}
	return out
}

func testEmptyLog(t *testing.T, h *harness) {
	if h.Last() != 0 || h.Frames() != (events.FrameCounts{}) || len(readAll(t, h, 1)) != 0 {
		t.Errorf("a new log is not empty: last %d, frames %+v", h.Last(), h.Frames())
	}
	if len(readAll(t, h, 99)) != 0 || len(readCall(t, h, Key(1, 1))) != 0 {
		t.Error("reading a new log gives events")
	}
	if p, err := h.Checkpoint("none"); p != 0 || err != nil {
		t.Errorf("unknown checkpoint: %d, %v", p, err)
	}
}

func testPositions(t *testing.T, h *harness) {
	want := uint64(0)
	for _, n := range []int{1, 3, 0, 300, 1} {
		b := batch(Key(1, 1), int(want), n)
		mustAppend(t, h, b)
		for _, e := range b.Events {
			if want++; e.Position != want {
				t.Fatalf("position %d, want %d", e.Position, want)
			}
		}
		if h.Last() != want {
			t.Fatalf("Last() = %d, want %d", h.Last(), want)
		}
	}
}

func testEventsComeBack(t *testing.T, h *harness) {
	b := &events.Batch{}
	for i, typ := range events.Types() {
		e := Event(Key(1, i), i)
		e.Payload, e.Version = events.NewPayload(typ)
		b.Events = append(b.Events, e)
	}
	b.Events = append(
		b.Events,
		events.Event{ID: "newer", Version: 3, Payload: &events.Unknown{Name: "call.teleported", Raw: []byte{8, 1}}},
		events.Event{ID: "trunk", Version: 1, Leg: "leg", Payload: &events.LegHungup{Hangup: events.Hangup{Cause: "USER_BUSY", CauseCode: 17}}},
	)
	mustAppend(t, h, b)
	if d := gocmp.Diff(b.Events, readAll(t, h, 1)); d != "" {
		t.Errorf("events differ (-appended +read):\n%s", d)
	}
}

func testEventsBelongToReader(t *testing.T, h *harness) {
	b := batch(Key(1, 1), 0, 2)
	mustAppend(t, h, b)
	b.Events[0].Payload.(*events.CallDTMF).Digit = "changed after append"
	for _, e := range readAll(t, h, 1) {
		e.Payload.(*events.CallDTMF).Digit = "changed after read"
	}
	for i, e := range readAll(t, h, 1) {
		if got := e.Payload.(*events.CallDTMF).Digit; got != fmt.Sprint(i) {
			t.Errorf("event %d: digit %q", i, got)
		}
	}
}

func testAllOrNothing(t *testing.T, h *harness) {
	mustAppend(t, h, batch(Key(1, 1), 0, 2))
	bad := batch(Key(1, 2), 0, 2)
	bad.Events = append(bad.Events, events.Event{ID: "no payload"})
	bad.Quarantine = []events.Quarantined{{Reason: "not-json"}}
	bad.Frames = events.FrameCounts{Received: 9}
	large := batch(events.CallKey{Account: "a", Call: string(make([]byte, store.MaxKey))}, 0, 1)
	huge := &events.Batch{Quarantine: []events.Quarantined{{Frame: make([]byte, store.MaxRecord)}}}
	for _, b := range []*events.Batch{bad, large, huge} {
		if err := h.Append(t.Context(), b); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("got %v, want ErrInvalid", err)
		}
	}
	if bad.Events[0].Position != 0 {
		t.Errorf("a refused batch was given position %d", bad.Events[0].Position)
	}
	if found, err := h.HasCall(Key(1, 2)); found || err != nil || h.Last() != 2 || h.Frames().Received != 0 {
		t.Errorf("part of a refused batch was stored: %v, %v, last %d, frames %+v", found, err, h.Last(), h.Frames())
	}
	mustAppend(t, h, batch(Key(1, 2), 0, 1))
}

func testEmptyBatch(t *testing.T, h *harness) {
	mustAppend(t, h, &events.Batch{})
	if h.Last() != 0 {
		t.Errorf("Last() = %d after an empty batch", h.Last())
	}
}

func testReadFrom(t *testing.T, h *harness) {
	const n = 1000
	mustAppend(t, h, batch(Key(1, 1), 0, n))
	for _, from := range []uint64{0, 1, 2, 255, 256, 257, 512, n - 1, n, n + 1, n + 100} {
		got := readAll(t, h, from)
		first := max(from, 1)
		if want := max(0, n-int(first)+1); len(got) != want {
			t.Errorf("from %d: %d events, want %d", from, len(got), want)
		} else if want > 0 && (got[0].Position != first || got[want-1].Position != n) {
			t.Errorf("from %d: positions %d to %d", from, got[0].Position, got[want-1].Position)
		}
	}
}

func testReadWhileAppending(t *testing.T, h *harness) {
	k := Key(1, 1)
	mustAppend(t, h, batch(k, 0, 300))
	for name, read := range map[string]func(fn func(*events.Event) error) error{
		"Read":     func(fn func(*events.Event) error) error { return h.Read(t.Context(), 1, fn) },
		"ReadCall": func(fn func(*events.Event) error) error { return h.ReadCall(t.Context(), k, fn) },
	} {
		want, got := h.Last(), uint64(0)
		err := read(func(e *events.Event) error {
			got = e.Position
			return h.Append(t.Context(), batch(k, int(got), 1))
		})
		if err != nil || got != want {
			t.Errorf("%s: ended at %d, %v; want %d", name, got, err, want)
		}
	}
}

func testReadError(t *testing.T, h *harness) {
	mustAppend(t, h, batch(Key(1, 1), 0, 3))
	mustAppend(t, h, &events.Batch{Quarantine: []events.Quarantined{{Reason: "not-json"}, {Reason: "not-json"}}})
	stop := errors.New("stop")
	for name, read := range map[string]func(fn func() error) error{
		"Read": func(fn func() error) error {
			return h.Read(t.Context(), 1, func(*events.Event) error { return fn() })
		},
		"ReadCall": func(fn func() error) error {
			return h.ReadCall(t.Context(), Key(1, 1), func(*events.Event) error { return fn() })
		},
		"Calls": func(fn func() error) error {
			return h.Calls(t.Context(), "", func(events.CallKey, uint64, uint64) error { return fn() })
		},
		"Quarantine": func(fn func() error) error {
			return h.Quarantine(t.Context(), 1, func(*events.Quarantined) error { return fn() })
		},
	} {
		calls := 0
		if err := read(func() error { calls++; return stop }); err != stop || calls != 1 { //nolint:errorlint // as it is
			t.Errorf("%s: %v after %d calls, want the reader's own error after 1", name, err, calls)
		}
	}
}

func testReadCall(t *testing.T, h *harness) {
	const rounds, calls = 300, 4
	for r := range rounds {
		b := &events.Batch{}
		for c := range calls {
			b.Events = append(b.Events, Event(Key(c%2, c), r))
		}
		b.Events = append(b.Events, events.Event{ID: "trunk", Version: 1, Payload: &events.LegAnswered{}})
		mustAppend(t, h, b)
	}
	for c := range calls {
		got := readCall(t, h, Key(c%2, c))
		if len(got) != rounds {
			t.Fatalf("call %d: %d events, want %d", c, len(got), rounds)
		}
		for r, e := range got {
			want := Event(Key(c%2, c), r)
			want.Position = uint64(r*(calls+1) + c + 1)
			if d := gocmp.Diff(want, e); d != "" {
				t.Fatalf("call %d, event %d (-want +got):\n%s", c, r, d)
			}
		}
		if found, err := h.HasCall(Key(c%2, c)); !found || err != nil {
			t.Errorf("HasCall(call %d) = %v, %v", c, found, err)
		}
	}
	for _, k := range []events.CallKey{{}, Key(1, 0), {Account: Key(0, 0).Account}, {Call: Key(0, 0).Call}} {
		if found, err := h.HasCall(k); found || err != nil || len(readCall(t, h, k)) != 0 {
			t.Errorf("HasCall(%s) = %v, %v; want no such call", k, found, err)
		}
	}
}

func testHostileKeys(t *testing.T, h *harness) {
	keys := []events.CallKey{
		{Account: "a", Call: "b"},
		{Account: "a\x00", Call: "b"},
		{Account: "a", Call: "\x00b"},
		{Account: "a\x00\x01", Call: "b"},
		{Account: "a", Call: "\x01b"},
		{Account: "a\x00\xff", Call: "\xff"},
		{Account: "", Call: "a"},
		{Account: "\x00", Call: "\x00"},
		{Account: "\xff\xff", Call: "\xff"},
	}
	for i, k := range keys {
		mustAppend(t, h, batch(k, i, i+1))
	}
	for i, k := range keys {
		if got := readCall(t, h, k); len(got) != i+1 {
			t.Errorf("call %q: %d events, want %d", k, len(got), i+1)
		}
	}
}

func testCalls(t *testing.T, h *harness) {
	const accounts, calls = 3, 200
	var want []events.CallKey
	for a := range accounts {
		for c := range calls {
			want = append(want, Key(a, c))
		}
	}
	want = append(want, events.CallKey{Account: Key(0, 0).Account + "\x00", Call: "x"}, events.CallKey{Account: "1", Call: "x"})
	for i := range want {
		k := want[(i*11)%len(want)] // not in order
		mustAppend(t, h, batch(k, i, 1))
	}
	slices.SortFunc(want, func(a, b events.CallKey) int {
		return cmp.Or(strings.Compare(a.Account, b.Account), strings.Compare(a.Call, b.Call))
	})
	for _, account := range []string{"", Key(1, 0).Account, "nobody@acme.example", "1"} {
		var got, some []events.CallKey
		for _, k := range want {
			if account == "" || k.Account == account {
				some = append(some, k)
			}
		}
		err := h.Calls(t.Context(), account, func(k events.CallKey, _, _ uint64) error {
			got = append(got, k)
			return nil
		})
		if err != nil || !slices.Equal(got, some) {
			t.Errorf("account %q: %d calls, %v; want %d in order", account, len(got), err, len(some))
		}
	}
}

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
	check := func(position uint64, state string) {
		t.Helper()
		p, b, err := h.Snapshot()
		if err != nil || p != position || string(b) != state {
			t.Fatalf("snapshot %d %q, %v; want %d %q", p, b, err, position, state)
		}
	}
	check(0, "")
	mustAppend(t, h, batch(Key(1, 1), 0, 3))
	for i, state := range []string{"one", "", "three"} {
		if err := h.SetSnapshot(uint64(i+1), []byte(state)); err != nil {
			t.Fatal(err)
		}
		check(uint64(i+1), state)
	}
	h.reopen(t)
	check(3, "three")
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

func testClosed(t *testing.T, h *harness) {
	mustAppend(t, h, batch(Key(1, 1), 0, 1))
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	never := func(*events.Event) error { t.Error("a closed store gave an event"); return nil }
	_, hasErr := h.HasCall(Key(1, 1))
	_, checkErr := h.Checkpoint("x")
	for name, err := range map[string]error{
		"Append":        h.Append(t.Context(), batch(Key(1, 1), 1, 1)),
		"Read":          h.Read(t.Context(), 1, never),
		"ReadCall":      h.ReadCall(t.Context(), Key(1, 1), never),
		"HasCall":       hasErr,
		"Calls":         h.Calls(t.Context(), "", func(events.CallKey, uint64, uint64) error { return nil }),
		"Checkpoint":    checkErr,
		"SetCheckpoint": h.SetCheckpoint("x", 1),
		"Quarantine":    h.Quarantine(t.Context(), 1, func(*events.Quarantined) error { return nil }),
	} {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s: got %v, want ErrClosed", name, err)
		}
	}
}

func testCancelled(t *testing.T, h *harness) {
	mustAppend(t, h, batch(Key(1, 1), 0, 3))
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	calls := 0
	err := h.Read(ctx, 1, func(*events.Event) error {
		calls++
		cancel(gone)
		return nil
	})
	if !errors.Is(err, gone) || calls != 1 {
		t.Errorf("Read: %v after %d events, want the cause after 1", err, calls)
	}
	b := batch(Key(1, 1), 3, 1)
	if err := h.Append(ctx, b); !errors.Is(err, gone) || h.Last() != 3 || b.Events[0].Position != 0 {
		t.Errorf("Append: %v, last %d; want the cause and nothing stored", err, h.Last())
	}
	for name, err := range map[string]error{
		"ReadCall": h.ReadCall(ctx, Key(1, 1), func(*events.Event) error { return nil }),
		"Calls":    h.Calls(ctx, "", func(events.CallKey, uint64, uint64) error { return nil }),
	} {
		if !errors.Is(err, gone) {
			t.Errorf("%s: got %v, want the cause", name, err)
		}
	}
}

func testConcurrent(t *testing.T, h *harness) {
	const appenders, appends, size = 16, 20, 3
	var writers, readers sync.WaitGroup
	done := make(chan struct{})
	for a := range appenders {
		writers.Go(func() {
			before := uint64(0)
			for i := range appends {
				b := batch(Key(a, a), i*size, size)
				if err := h.Append(t.Context(), b); err != nil {
					t.Errorf("appender %d: %v", a, err)
					return
				}
				for j, e := range b.Events {
					if e.Position != b.Events[0].Position+uint64(j) || e.Position <= before {
						t.Errorf("appender %d: batch at %v after %d", a, positions(b.Events), before)
					}
				}
				before = b.Events[size-1].Position
				if h.Last() < before {
					t.Errorf("Last() is behind an append that returned")
				}
				if err := h.SetCheckpoint("reader", before); err != nil {
					t.Errorf("checkpoint: %v", err)
				}
			}
		})
	}
	for range 2 {
		readers.Go(func() {
			for {
				want := uint64(0)
				err := h.Read(t.Context(), 1, func(e *events.Event) error {
					if want++; e.Position != want {
						return fmt.Errorf("position %d, want %d", e.Position, want)
					}
					return nil
				})
				if err != nil {
					t.Errorf("reader: %v", err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	if want := uint64(appenders * appends * size); h.Last() != want {
		t.Errorf("Last() = %d, want %d", h.Last(), want)
	}
}

func testCloseWaits(t *testing.T, h *harness) {
	mustAppend(t, h, batch(Key(1, 1), 0, 1))
	closed := make(chan error, 1)
	err := h.Read(t.Context(), 1, func(*events.Event) error {
		go func() { closed <- h.Close() }()
		// Close has begun once other calls are refused; this one goes on.
		for {
			if _, err := h.HasCall(Key(1, 1)); errors.Is(err, store.ErrClosed) {
				break
			}
		}
		select {
		case err := <-closed:
			t.Errorf("Close returned (%v) while a call was under way", err)
		default:
		}
		return nil
	})
	if err != nil {
		t.Errorf("the call under way: %v", err)
	}
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
}
