package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/storetest"
)

// everyBatch begins a new file after each batch.
var everyBatch = &Options{SegmentBytes: 1, SegmentAge: -1}

// TestStoreOfManyFiles is the suite on a log of as many files as it may fill, with an
// index that is often behind and often catches up.
func TestStoreOfManyFiles(t *testing.T) {
	storetest.Run(t, func(t *testing.T, dir string) store.Store {
		return mustOpen(t, dir, &Options{SegmentBytes: 64 << 10, maxTail: 8})
	})
}

// inFiles fills a log with one batch a file: n files of four events and one quarantined frame.
func inFiles(t *testing.T, dir string, n int) *Store {
	t.Helper()
	s := mustOpen(t, dir, everyBatch)
	for i := range n {
		b := &events.Batch{
			Quarantine: []events.Quarantined{{Frame: []byte{byte(i)}}},
			Frames:     events.FrameCounts{Received: uint64(i + 1), Quarantined: uint64(i + 1)},
		}
		for j := range 4 { // call 0 has events in every file
			b.Events = append(b.Events, storetest.Event(storetest.Key(1, min(j, 1)*(10*i+j)), j))
		}
		if err := s.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if err := s.SetCheckpoint("outbox", uint64(4*i)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func positionsFrom(t *testing.T, s store.Store, from uint64) []uint64 {
	t.Helper()
	var out []uint64
	if err := s.Read(t.Context(), from, func(e *events.Event) error { out = append(out, e.Position); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func upTo(from, through uint64) []uint64 {
	var out []uint64
	for p := from; p <= through; p++ {
		out = append(out, p)
	}
	return out
}

func segmentsOf(t *testing.T, s *Store) string {
	t.Helper()
	segs, err := s.Segments()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, g := range segs {
		if g.Bytes <= 0 || time.Since(g.Sealed) > time.Hour {
			t.Errorf("segment %+v", g)
		}
		out = append(out, fmt.Sprintf("%d-%d", g.First, g.Last))
	}
	return fmt.Sprint(out)
}

// rolled waits until the writer, which answers first, has begun the next file.
func rolled(t *testing.T, s *Store, want string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); segmentsOf(t, s) != want; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("segments %s, want %s", segmentsOf(t, s), want)
		}
	}
}

func TestFilesBeginAnewAndAreOneLog(t *testing.T) {
	dir := t.TempDir()
	s := inFiles(t, dir, 5)
	check := func(s *Store) {
		t.Helper()
		rolled(t, s, "[1-4 5-8 9-12 13-16 17-20]")
		for from := uint64(0); from <= 22; from++ {
			if got := positionsFrom(t, s, from); !slices.Equal(got, upTo(max(from, 1), 20)) {
				t.Errorf("read from %d: %v", from, got)
			}
		}
		var call []uint64
		if err := s.ReadCall(t.Context(), storetest.Key(1, 0), func(e *events.Event) error { call = append(call, e.Position); return nil }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(call, []uint64{1, 5, 9, 13, 17}) {
			t.Errorf("the call of all files: %v", call)
		}
		if err := s.Calls(t.Context(), "", func(k events.CallKey, first, last uint64) error {
			if k == storetest.Key(1, 0) && (first != 1 || last != 17) {
				t.Errorf("the call of all files is from %d to %d", first, last)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		var frames []uint64
		if err := s.Quarantine(t.Context(), 2, func(q *events.Quarantined) error { frames = append(frames, q.Number); return nil }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(frames, upTo(2, 5)) {
			t.Errorf("quarantined frames from 2: %v", frames)
		}
		if p, err := s.Checkpoint("outbox"); p != 16 || err != nil {
			t.Errorf("checkpoint %d, %v", p, err)
		}
		if f := s.Frames(); f.Received != 5 {
			t.Errorf("frame totals %+v", f)
		}
	}
	check(s)
	id := s.ID()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, nil)
	if s.ID() != id {
		t.Errorf("id %s, was %s", s.ID(), id)
	}
	check(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r := mustOpen(t, dir, &Options{ReadOnly: true})
	defer r.Close()
	check(r)
}

// TestFolderWithBrackets: a folder's name may be one that means something to a shell.
func TestFolderWithBrackets(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "calls [a-c]*")
	if err := inFiles(t, dir, 3).Close(); err != nil {
		t.Fatal(err)
	}
	if d, err := Inspect(t.Context(), dir); err != nil || !d.Whole() {
		t.Errorf("inspected: %+v, %v", d, err)
	}
	s := mustOpen(t, dir, nil)
	if got := positionsFrom(t, s, 1); !slices.Equal(got, upTo(1, 12)) {
		t.Errorf("positions %v", got)
	}
}

func TestDropGivesSpaceBack(t *testing.T) {
	dir := t.TempDir()
	s := inFiles(t, dir, 5)
	rolled(t, s, "[1-4 5-8 9-12 13-16 17-20]")
	before, err := s.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Drop(6, nil); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("dropped in the middle of a file: %v", err)
	}
	read := 0
	err = s.Read(t.Context(), 1, func(e *events.Event) error {
		if read++; read == 1 { // while it is being read
			if err := s.Drop(8, []byte("what eight events add up to")); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	if !errors.Is(err, errDropped) || read != 4 {
		t.Errorf("reading what is dropped meanwhile gave %d events, %v", read, err)
	}
	after, err := s.Bytes()
	if err != nil || after >= before {
		t.Errorf("%d bytes before, %d after, %v", before, after, err)
	}
	check := func(s *Store) {
		t.Helper()
		p, state, err := s.Base()
		if p != 8 || !bytes.Equal(state, []byte("what eight events add up to")) || err != nil {
			t.Errorf("base %d, %q, %v", p, state, err)
		}
		if got := segmentsOf(t, s); got != "[9-12 13-16 17-20]" {
			t.Errorf("segments %s", got)
		}
		if got := positionsFrom(t, s, 1); !slices.Equal(got, upTo(9, 20)) {
			t.Errorf("left are %v", got)
		}
		if has, err := s.HasCall(storetest.Key(1, 11)); has || err != nil {
			t.Errorf("the log still has a dropped call, %v", err)
		}
		if err := s.SetSnapshot(5, []byte("old")); err != nil && !errors.Is(err, store.ErrReadOnly) {
			t.Fatal(err)
		}
		if p, _, err := s.Snapshot(s.Last()); p != 0 || err != nil {
			t.Errorf("a snapshot of before the beginning is used: %d, %v", p, err)
		}
	}
	check(s)
	if err := s.Append(t.Context(), batchOf(1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.db"))
	if err != nil || len(files) != 5 { // 9, 13, 17, 21 and the one appended to
		t.Errorf("files %v, %v", files, err)
	}
	if err := os.Remove(filepath.Join(dir, BaseName)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, nil); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("opened without its base: %v", err)
	}
}

// TestDroppedFileIsNotOpenedAgain: one that was never read is not opened by a
// reader that comes while it goes: nobody would close it, and its space would not
// come back.
func TestDroppedFileIsNotOpenedAgain(t *testing.T) {
	dir := t.TempDir()
	if err := inFiles(t, dir, 3).Close(); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, dir, nil)
	g := s.segments()[0]
	if err := g.close(); err != nil {
		t.Fatal(err)
	}
	if err := g.view(func(*bbolt.Tx) error { return nil }); !errors.Is(err, events.ErrLogDropped) {
		t.Errorf("reading a file that was closed to be dropped: %v", err)
	}
	if g.db != nil {
		t.Error("it was opened again")
	}
}

// TestRollAndDropCutShort puts the folder into the states that a crash leaves.
func TestRollAndDropCutShort(t *testing.T) {
	t.Run("roll, before the next file has its place", func(t *testing.T) {
		dir := t.TempDir()
		s := mustOpen(t, dir, nil)
		if err := s.Append(t.Context(), batchOf(3)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, FileName)
		if err := os.Link(path, filepath.Join(dir, sealedName(1))); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+newSuffix, []byte("half a file"), 0o600); err != nil {
			t.Fatal(err)
		}
		r := mustOpen(t, dir, &Options{ReadOnly: true})
		if got := positionsFrom(t, r, 1); !slices.Equal(got, upTo(1, 3)) {
			t.Errorf("a reader sees %v", got)
		}
		r.Close()
		s = mustOpen(t, dir, everyBatch)
		if err := s.Append(t.Context(), batchOf(1)); err != nil {
			t.Fatal(err)
		}
		if got := positionsFrom(t, s, 1); !slices.Equal(got, upTo(1, 4)) {
			t.Errorf("the log goes on with %v", got)
		}
		rolled(t, s, "[1-4]")
	})
	for _, through := range []uint64{4, 8, 12} { // with the last one no sealed file is left
		t.Run(fmt.Sprintf("drop through %d, before the files are gone", through), func(t *testing.T) {
			dir := t.TempDir()
			s := inFiles(t, dir, 3)
			if err := writeStateFile(osDisk{}, filepath.Join(dir, BaseName), baseMagic, s.ID(), through, []byte("base")); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			r := mustOpen(t, dir, &Options{ReadOnly: true})
			if got := positionsFrom(t, r, 1); !slices.Equal(got, upTo(through+1, 12)) {
				t.Errorf("a reader sees %v", got)
			}
			r.Close()
			if d, err := Inspect(t.Context(), dir); err != nil || !d.Whole() || d.First != through+1 || d.Last != 12 {
				t.Errorf("inspected: %+v, %v", d, err)
			}
			s = mustOpen(t, dir, nil)
			if got := positionsFrom(t, s, 1); !slices.Equal(got, upTo(through+1, 12)) {
				t.Errorf("left are %v, segments %s", got, segmentsOf(t, s))
			}
		})
	}
	t.Run("a file is gone", func(t *testing.T) {
		dir := t.TempDir()
		if err := inFiles(t, dir, 3).Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, sealedName(5))); err != nil {
			t.Fatal(err)
		}
		s := mustOpen(t, dir, nil)
		err := s.Read(t.Context(), 1, func(*events.Event) error { return nil })
		if !errors.Is(err, store.ErrDamaged) {
			t.Errorf("read over the gap: %v", err)
		}
	})
	t.Run("a file of another log", func(t *testing.T) {
		dir, other := t.TempDir(), t.TempDir()
		for _, d := range []string{dir, other} {
			if err := inFiles(t, d, 3).Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Rename(filepath.Join(other, sealedName(5)), filepath.Join(dir, sealedName(5))); err != nil {
			t.Fatal(err)
		}
		s := mustOpen(t, dir, nil)
		if err := s.Read(t.Context(), 1, func(*events.Event) error { return nil }); !errors.Is(err, store.ErrForeign) {
			t.Errorf("read it: %v", err)
		}
	})
}

// TestRollThatFails: the next file cannot be made, and the log goes on.
func TestRollThatFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, FileName+newSuffix, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, everyBatch)
	if err == nil {
		defer s.Close()
		t.Fatal("opened over a folder in the place of a file")
	}
	if err := os.RemoveAll(filepath.Join(dir, FileName+newSuffix)); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, everyBatch)
	if err := os.MkdirAll(filepath.Join(dir, FileName+newSuffix, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := s.Append(t.Context(), batchOf(1)); err != nil {
			t.Fatal(err)
		}
	}
	if got := segmentsOf(t, s); got != "[]" {
		t.Errorf("segments %s", got)
	}
	if got := positionsFrom(t, s, 1); !slices.Equal(got, upTo(1, 3)) {
		t.Errorf("the log has %v", got)
	}
	if err := os.RemoveAll(filepath.Join(dir, FileName+newSuffix)); err != nil {
		t.Fatal(err)
	}
}

// TestOlderLayout: a log of before there were segments is the first of them.
func TestOlderLayout(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, nil)
	if err := s.Append(t.Context(), batchOf(2)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(filepath.Join(dir, FileName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		m := tx.Bucket(bucketMeta)
		return errors.Join(m.Delete(keyFirst), m.Delete(keyMade), m.Delete(keyQuarantined))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, nil) // as old as can be: the next batch ends it
	if err := s.Append(t.Context(), batchOf(1)); err != nil {
		t.Fatal(err)
	}
	rolled(t, s, "[1-3]")
}
