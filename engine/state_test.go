package engine

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// TestStateAndTailAreTheFullFold is I4: a state written down at any position and
// taken up again goes on as if it had never been: the same CTI events, and in the
// end the same state, byte for byte.
func TestStateAndTailAreTheFullFold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawWideStory(t, func(*story) {})
		at := rapid.IntRange(0, len(s.evs)).Draw(t, "at")
		full := NewState("log")
		var saved []byte
		for i := range s.evs {
			if i == at {
				saved = full.Append(nil)
			}
			full.Apply(&s.evs[i])
		}
		if saved == nil {
			saved = full.Append(nil)
		}
		taken, err := LoadState("log", saved)
		if err != nil {
			t.Fatal(err)
		}
		if again := taken.Append(nil); !bytes.Equal(again, saved) {
			t.Fatal("a state that was taken up is written down differently")
		}
		if n, live := taken.Position(), taken.Live(); n != uint64(at) || live > at {
			t.Fatalf("position %d, live %d at %d", n, live, at)
		}
		taken.projection.mute = uint64(at)
		for i := at; i < len(s.evs); i++ {
			taken.correlator.learn(&s.evs[i])
			got, want := taken.projection.Apply(&s.evs[i]).Messages, s.steps[i].Result.Messages
			if len(got) != len(want) {
				t.Fatalf("%d messages at %d, want %d", len(got), i+1, len(want))
			}
			for j := range want {
				if got[j].ID != want[j].ID || !bytes.Equal(got[j].Payload, want[j].Payload) {
					t.Fatalf("message %s is\n%s\nwant\n%s", got[j].ID, got[j].Payload, want[j].Payload)
				}
			}
		}
		if got, want := taken.Append(nil), full.Append(nil); !bytes.Equal(got, want) {
			t.Fatalf("state after the tail is\n%q\nwant\n%q", got, want)
		}
		if taken.Live() != full.Live() {
			t.Fatalf("%d live calls, want %d", taken.Live(), full.Live())
		}
	})
}

// TestDamagedStateIsRefused: whatever is written there, it is an error or a state.
func TestDamagedStateIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawStory(t)
		st := NewState("log")
		for i := range s.evs {
			st.Apply(&s.evs[i])
		}
		b := st.Append(nil)
		if rapid.Bool().Draw(t, "cut") {
			b = b[:rapid.IntRange(0, len(b)-1).Draw(t, "n")]
		} else {
			b[rapid.IntRange(0, len(b)-1).Draw(t, "byte")] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		}
		if _, err := LoadState("log", b); err != nil && !errors.Is(err, ErrState) {
			t.Fatal(err)
		}
	})
}
