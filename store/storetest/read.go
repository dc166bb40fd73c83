package storetest

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/callstate/callstate/events"
)

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
