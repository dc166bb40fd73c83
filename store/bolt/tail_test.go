package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/storetest"
)

// checkIndex compares what the index says of each call with the events, and returns
// how many calls there are.
func checkIndex(t *testing.T, s *Store) int {
	t.Helper()
	want := map[events.CallKey][]uint64{}
	err := s.Read(t.Context(), 1, func(e *events.Event) error {
		want[e.Key()] = append(want[e.Key()], e.Position)
		return nil
	})
	n := 0
	err = errors.Join(err, s.Calls(t.Context(), "", func(key events.CallKey, first, last uint64) error {
		n++
		var got []uint64
		err := s.ReadCall(t.Context(), key, func(e *events.Event) error { got = append(got, e.Position); return nil })
		has, hasErr := s.HasCall(key)
		if !has || !slices.Equal(got, want[key]) || first != got[0] || last != got[len(got)-1] {
			t.Errorf("call %s: from %d to %d, %v, want %v, %v", key, first, last, got, want[key], has)
		}
		return errors.Join(err, hasErr)
	}))
	if err != nil || n != len(want) {
		t.Errorf("%d calls of %d, %v", n, len(want), err)
	}
	return n
}

// grow appends n batches of events of a few calls, a new one now and then and one that
// has an event in each.
func grow(t *testing.T, s *Store, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		b := &events.Batch{Events: []events.Event{
			storetest.Event(storetest.Key(1, 1000), 3*i),
			storetest.Event(storetest.Key(1, i/3), 3*i+1),
			storetest.Event(storetest.Key(2, i%5), 3*i+2),
		}}
		if err := s.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
}

// TestIndexIsBehind: whatever part of a call's events the index has, the call is whole.
func TestIndexIsBehind(t *testing.T) {
	for _, lag := range []int{1, 4, 100, 1 << 20} {
		s := mustOpen(t, t.TempDir(), &Options{maxTail: lag})
		for i := range 12 {
			grow(t, s, 30*i, 30) // the call that has an event in each batch takes several transactions
			checkIndex(t, s)
		}
	}
}

// copied is what a process that was killed leaves.
func copied(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestIndexAfterKill: what the index was behind by is known to the next process, for
// reading and for writing, and to Inspect.
func TestIndexAfterKill(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, &Options{maxTail: 20})
	grow(t, s, 0, 25)
	for range 3 { // a kill after each, with events that only the tail has
		dir = copied(t, dir)
		if d, err := Inspect(t.Context(), dir); err != nil || !d.Whole() {
			t.Errorf("Inspect: %+v, %v", d, err)
		}
		r, err := Open(dir, &Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if r.head.tail.n == 0 {
			t.Error("the index is not behind")
		}
		checkIndex(t, r)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, dir, &Options{maxTail: 20})
		checkIndex(t, s)
		grow(t, s, int(s.Last())/3, 9) // the last one does not make the index catch up
		checkIndex(t, s)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, nil)
	if s.head.tail.n != 0 {
		t.Errorf("Close left the index behind by %d events", s.head.tail.n)
	}
	checkIndex(t, s)
}

// TestDamageBehindTheIndex: which call has lost an event that the index does not have
// is not known, so that no call could be read.
func TestDamageBehindTheIndex(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, nil)
	grow(t, s, 0, 4)
	dir = copied(t, dir)
	path := filepath.Join(dir, FileName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[strings.LastIndex(string(b), storetest.Event(storetest.Key(1, 1), 10).ID)] ^= 1 // event 11
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, readOnly := range []bool{true, false} {
		_, err = Open(dir, &Options{ReadOnly: readOnly})
		wantHint(t, err, store.ErrDamaged, dir)
	}
	d, err := Inspect(t.Context(), dir)
	if err != nil || !slices.Equal(d.Lost, []Stretch{{11, 11}}) || d.UnknownCalls != 1 {
		t.Errorf("Inspect: %+v, %v", d, err)
	}
	_, _, err = Rescue(t.Context(), dir, filepath.Join(dir, "new"), nil)
	if err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, filepath.Join(dir, "new"), nil)
	if got := positionsFrom(t, s, 1); !slices.Equal(got, upTo(1, 12)) {
		t.Errorf("rescued %v", got)
	}
}

// TestWrongEndOfIndex: an index that says it goes further than the log, or that one of
// a sealed file is behind, would hide events.
func TestWrongEndOfIndex(t *testing.T) {
	for _, tt := range []struct {
		name string
		file func([]Segment) string
		end  uint64
	}{
		{"further", func([]Segment) string { return FileName }, 1000},
		{"sealed", func(segs []Segment) string { return sealedName(segs[0].First) }, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			s := inFiles(t, dir, 3)
			rolled(t, s, "[1-4 5-8 9-12]")
			segs, err := s.Segments()
			if err := errors.Join(err, s.Close()); err != nil {
				t.Fatal(err)
			}
			changed(t, filepath.Join(dir, tt.file(segs)), func(tx *bbolt.Tx) error { return tx.Bucket(bucketIndex).SetSequence(tt.end) })
			d, err := Inspect(t.Context(), dir)
			if err != nil || d.Whole() || len(d.Lost) > 0 {
				t.Errorf("Inspect: %+v, %v", d, err)
			}
			s, err = Open(dir, &Options{ReadOnly: true})
			if err == nil {
				err = s.Read(context.Background(), 1, func(*events.Event) error { return nil })
				s.Close()
			}
			wantHint(t, err, store.ErrDamaged, dir)
		})
	}
}

// changed changes a file of a log that is closed.
func changed(t *testing.T, path string, fn func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(fn), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestLayoutWithoutRuns: a log of before the index could be behind, with an entry for
// each event, is read as it is, and the file that is appended to goes on as one of now.
func TestLayoutWithoutRuns(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, nil)
	grow(t, s, 0, 20)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	changed(t, filepath.Join(dir, FileName), func(tx *bbolt.Tx) error {
		index := tx.Bucket(bucketIndex)
		entries := map[string]uint64{} // of now
		err := index.ForEach(func(k, v []byte) error {
			number := binary.BigEndian.Uint64(k)
			run, _, err := parseRun(nil, number, k, v)
			for _, p := range run {
				entries[string(indexKey(number, p))] = p
			}
			return err
		})
		if len(entries) != 60 {
			t.Errorf("%d entries", len(entries))
		}
		for k := range entries {
			err = errors.Join(err, index.Put([]byte(k), nil))
		}
		return errors.Join(err, index.SetSequence(0), tx.Bucket(bucketMeta).Put(keyVersion, u64(1)))
	})
	if d, err := Inspect(t.Context(), dir); err != nil || !d.Whole() {
		t.Errorf("Inspect: %+v, %v", d, err)
	}
	r, err := Open(dir, &Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	checkIndex(t, r)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, nil)
	checkIndex(t, s)
	grow(t, s, 20, 5)
	dir = copied(t, dir)
	s = mustOpen(t, dir, &Options{maxTail: 1})
	if s.head.tail.n != 15 {
		t.Errorf("the index is behind by %d events", s.head.tail.n)
	}
	checkIndex(t, s)
	grow(t, s, 25, 5)
	checkIndex(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err := Inspect(t.Context(), dir); err != nil || !d.Whole() {
		t.Errorf("Inspect: %+v, %v", d, err)
	}
}
