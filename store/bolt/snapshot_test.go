package bolt

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/callstate/callstate/store"
)

// TestSnapshotThatCannotBeUsed: a snapshot is damaged, cut off, of another log or
// ahead of its log, and the log does without.
func TestSnapshotThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Append(t.Context(), batchOf(1)); err != nil {
		t.Fatal(err)
	}
	if err := s.SetSnapshot(1, []byte("what one event adds up to")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, SnapshotName(1))
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	used := func(b []byte) bool {
		t.Helper()
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		p, _, err := s.Snapshot(9)
		if err != nil {
			t.Fatal(err)
		}
		return p != 0
	}
	if !used(good) {
		t.Fatal("a good snapshot is not used")
	}
	for i := range good {
		if used(good[:i]) {
			t.Fatalf("cut off at %d it is used", i)
		}
		bad := append([]byte(nil), good...)
		bad[i] ^= 0x10
		if used(bad) {
			t.Fatalf("with a bit of byte %d flipped it is used", i)
		}
	}
	if err := s.SetSnapshot(2, nil); err != nil {
		t.Fatal(err)
	}
	if p, _, err := s.Snapshot(9); p != 0 || err != nil {
		t.Errorf("a snapshot ahead of the log is used: %d, %v", p, err)
	}
	other, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := os.WriteFile(filepath.Join(other.dir, SnapshotName(1)), good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := other.Append(t.Context(), batchOf(1)); err != nil {
		t.Fatal(err)
	}
	if p, _, err := other.Snapshot(9); p != 0 || err != nil {
		t.Errorf("the snapshot of another log is used: %d, %v", p, err)
	}
}

func TestSnapshotOfAReader(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	r, err := Open(dir, &Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.SetSnapshot(0, nil); !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("a reader's snapshot: %v", err)
	}
}

// TestSnapshotAheadOfTheLog: a log that was put back from a copy goes on in another
// way than the one whose snapshots lie beside it.
func TestSnapshotAheadOfTheLog(t *testing.T) {
	dir := t.TempDir()
	grow := func() *Store {
		t.Helper()
		s, err := Open(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Append(t.Context(), batchOf(2)); err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := grow()
	if err := errors.Join(s.SetSnapshot(2, []byte("two")), s.Close()); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	s = grow()
	if err := errors.Join(s.SetSnapshot(4, []byte("four")), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, FileName), old, 0o600); err != nil {
		t.Fatal(err)
	}
	s = grow()
	defer s.Close()
	if p, state, err := s.Snapshot(9); p != 2 || string(state) != "two" || err != nil {
		t.Errorf("snapshot %d %q is used, %v", p, state, err)
	}
}

// TestSnapshotsAreThinnedOut: as many are kept as there is room for, and they stay
// spread over the log; the first and the last one stay.
func TestSnapshotsAreThinnedOut(t *testing.T) {
	s, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const n = 64
	if err := s.Append(t.Context(), batchOf(n)); err != nil {
		t.Fatal(err)
	}
	state := make([]byte, snapshotRoom/9)
	for at := uint64(1); at <= n; at++ {
		if err := s.SetSnapshot(at, state); err != nil {
			t.Fatal(err)
		}
		files, err := s.snapshots()
		if err != nil {
			t.Fatal(err)
		}
		if len(files) != min(int(at), 8) || files[0].position != 1 || files[len(files)-1].position != at {
			t.Fatalf("after that of %d there are %d, from %d to %d", at, len(files), files[0].position, files[len(files)-1].position)
		}
		for i := range files[1:] {
			if gap := files[i+1].position - files[i].position; gap > at/2+1 {
				t.Errorf("after that of %d nothing is kept between %d and %d", at, files[i].position, files[i+1].position)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(s.dir, "callstate.snapshot"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.SetSnapshot(n, state); err != nil {
		t.Fatal(err)
	}
	if names, err := filepath.Glob(filepath.Join(s.dir, snapshotNames)); err != nil || len(names) != 8 {
		t.Errorf("there are %v, %v", names, err)
	}
}
