package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
)

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
