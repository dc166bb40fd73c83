// Package storetest is the one suite that every [store.Store] must pass.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
