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
	file := filepath.Join(dir, SnapshotName)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	used := func(b []byte) bool {
		t.Helper()
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		p, _, err := s.Snapshot()
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
	if p, _, err := s.Snapshot(); p != 0 || err != nil {
		t.Errorf("a snapshot ahead of the log is used: %d, %v", p, err)
	}
	other, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := os.WriteFile(filepath.Join(other.dir, SnapshotName), good, 0o600); err != nil {
		t.Fatal(err)
	}
	if p, _, err := other.Snapshot(); p != 0 || err != nil {
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
