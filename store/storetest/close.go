package storetest

import (
	"errors"
	"testing"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
)

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
