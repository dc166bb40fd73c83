package engine

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/callstate/callstate/events"
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

// TestFoldVersion folds the recorded logs and compares what they add up to, on the
// way and in the end, with what was noted when this foldVersion was new. A snapshot
// of before the change would be taken up, and go on as something that no fold gives.
func TestFoldVersion(t *testing.T) {
	logs, err := filepath.Glob("../testdata/streams/v*/events.jsonl.gz")
	if err != nil || len(logs) == 0 {
		t.Fatalf("no recorded streams: %v", err)
	}
	for _, name := range logs {
		dir := filepath.Dir(name)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			got := fmt.Sprintf("%d %x\n", foldVersion, statesOf(t, name))
			golden := filepath.Join(dir, "state.txt")
			b, err := os.ReadFile(golden)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			var version int
			_, _ = fmt.Sscan(string(b), &version)
			switch {
			case got == string(b):
			case version == foldVersion:
				t.Error("these events add up to another state than they did: raise foldVersion in state.go, then go test ./engine -run TestFoldVersion -update")
			case flag.Lookup("update").Value.String() == "true":
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			default:
				t.Errorf("the states noted are those of version %d, this is %d: go test ./engine -run TestFoldVersion -update", version, foldVersion)
			}
		})
	}
}

// statesOf is a hash of the states that a recorded log adds up to.
func statesOf(t *testing.T, name string) []byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	st, h, dec := NewState("log"), sha256.New(), json.NewDecoder(z)
	for {
		var ev events.Event
		err := dec.Decode(&ev)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		st.Apply(&ev)
		if ev.Position%50 == 0 {
			h.Write(st.Append(nil))
		}
	}
	h.Write(st.Append(nil))
	return h.Sum(nil)
}

// TestSnapshotOfAnotherFold: a snapshot that another fold made is not used, and
// verify does not find fault with it; a base is used whoever made it.
func TestSnapshotOfAnotherFold(t *testing.T) {
	for _, tt := range []struct {
		fold, want uint64
		checked    bool
	}{
		{foldVersion, 7, true},
		{foldVersion - 1, 4, false},
		{foldVersion + 1, 4, false},
	} {
		st := NewState("log")
		st.fold = tt.fold
		st.projection.position = 4
		log := &savedLog{baseAt: 4, base: st.Append(nil)}
		st.projection.position = 7
		log.at, log.snapshot = 7, st.Append(nil)
		got, err := lastState(log, 9, slog.New(slog.DiscardHandler))
		if err != nil || got.Position() != tt.want || got.fold != foldVersion {
			t.Errorf("fold %d: the state of %d is taken up, want %d, %v", tt.fold, got.Position(), tt.want, err)
		}
		at, _, err := CheckSnapshots(t.Context(), log)
		if checked := at != 0 || err != nil; checked != tt.checked {
			t.Errorf("fold %d: checked %v, want %v: %v", tt.fold, checked, tt.checked, err)
		}
	}
}

// savedLog has a base and a snapshot, and no events.
type savedLog struct {
	Log
	baseAt, at     uint64
	base, snapshot []byte
}

func (l *savedLog) ID() string                    { return "log" }
func (l *savedLog) Base() (uint64, []byte, error) { return l.baseAt, l.base, nil }
func (l *savedLog) Last() uint64                  { return 9 }
func (l *savedLog) ForgetSnapshots() error        { l.at = 0; return nil }

func (l *savedLog) Snapshot(most uint64) (uint64, []byte, error) {
	if l.at > most {
		return 0, nil, nil
	}
	return l.at, l.snapshot, nil
}

func (l *savedLog) Read(context.Context, uint64, func(*events.Event) error) error { return nil }
