//go:build linux

package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/storetest"
)

// life is a log on a simDisk, and what was given to it to keep.
type life struct {
	t   *testing.T
	dir string
	d   *simDisk
	s   *Store

	closed   bool            // be it with an error
	n        int             // events made so far
	batches  []*events.Batch // as they were appended; the last one may not be answered
	answered int
	sure     int // operation from which on batches is what the log has
	snaps    map[uint64]string
	bases    map[uint64]string
	checks   []uint64
}

var lifeOptions = Options{SegmentBytes: 40 << 10, SegmentAge: -1, maxTail: 25}

func newLife(t *testing.T, dir string) *life {
	return &life{t: t, dir: dir, d: newSimDisk(t, dir), snaps: map[uint64]string{}, bases: map[uint64]string{}}
}

// memoryDir is a folder in memory, where the system has one: these tests sync
// thousands of times, and need no disk for it.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "callstate-*") //nolint:usetesting // that is no folder in memory
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (l *life) open() error {
	o := lifeOptions
	o.disk = l.d
	s, err := Open(l.dir, &o)
	if err == nil {
		l.s, l.closed = s, false
	}
	return err
}

// next makes the batch that comes next: mostly small, some of many events, some
// with records of several pages.
func (l *life) next() *events.Batch {
	i := len(l.batches)
	n := 1 + i%4
	if i%6 == 5 {
		n = 50
	}
	b := &events.Batch{Frames: events.FrameCounts{Received: uint64(i + 1), Recorded: uint64(i + 1)}}
	for range n {
		l.n++
		e := storetest.Event(storetest.Key(l.n%3, l.n/20), l.n)
		if l.n%40 == 7 {
			e.Payload = &events.CallDTMF{Digit: strings.Repeat("long", 3000)}
		}
		b.Events = append(b.Events, e)
	}
	if i%5 == 2 {
		b.Quarantine = []events.Quarantined{{ReceivedAt: 1, Reason: "not-json", Frame: bytes.Repeat([]byte{byte(i)}, 5000)}}
	}
	return b
}

func (l *life) append() error {
	b := l.next()
	l.batches = append(l.batches, b)
	err := l.s.Append(context.Background(), b)
	if err == nil {
		l.answered++
		l.settle()
	}
	return err
}

// settle waits until the store does nothing any more.
func (l *life) settle() {
	synctest.Wait()
	l.d.settled(l.answered)
}

func (l *life) snapshot() error {
	at := l.s.Last()
	l.snaps[at] = fmt.Sprint("what adds up by ", at, strings.Repeat(".", int(at)*5))
	err := l.s.SetSnapshot(at, []byte(l.snaps[at]))
	l.d.settled(l.answered)
	return err
}

func (l *life) checkpoint() error {
	l.checks = append(l.checks, l.s.Last())
	return l.s.SetCheckpoint("outbox", l.s.Last())
}

// drop drops the oldest file, if there is one that is not appended to.
func (l *life) drop() error {
	segs, err := l.s.Segments()
	if err != nil || len(segs) == 0 {
		return err
	}
	at := segs[0].Last
	l.bases[at] = fmt.Sprint("what was dropped by ", at)
	err = l.s.Drop(at, []byte(l.bases[at]))
	l.settle()
	return err
}

// run lives through all that a log does, and returns the first error.
func (l *life) run(batches int) error {
	if err := l.open(); err != nil {
		return err
	}
	for i := range batches {
		if err := l.append(); err != nil {
			return err
		}
		var err error
		switch i % 8 {
		case 1, 4:
			err = l.checkpoint()
		case 3:
			err = l.snapshot()
		case 5:
			time.Sleep(2 * time.Second) // of the bubble's clock: the checkpoint is flushed
			l.settle()
		case 7:
			err = l.drop()
		}
		if err == nil && i == batches/2 {
			if err = l.close(); err == nil {
				err = l.open()
			}
		}
		if err != nil {
			return err
		}
	}
	return l.close()
}

func (l *life) close() error {
	err := l.s.Close()
	l.closed = true
	l.d.closed()
	if err == nil {
		l.d.settled(l.answered)
	}
	return err
}

// bubble runs fn where the store's timers need no waiting for.
func bubble(t *testing.T, fn func(l *life)) *life {
	t.Helper()
	return bubbleIn(t, memoryDir(t), fn)
}

func bubbleIn(t *testing.T, dir string, fn func(l *life)) *life {
	t.Helper()
	l := newLife(t, dir)
	pool := func() { requests = sync.Pool{New: requests.New} } // their channels stay inside
	pool()
	defer pool()
	synctest.Test(t, func(*testing.T) { fn(l) })
	return l
}

// check looks at what a folder holds, when acked batches had been
// answered, and goes on with it.
func (l *life) check(dir string, acked int) error {
	s, err := Open(dir, &lifeOptions)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := errors.Join(l.checkLog(s, acked), l.checkStates(s), checkPages(s)); err != nil {
		return err
	}
	last := s.Last()
	if err := s.Append(context.Background(), batchOf(3)); err != nil {
		return fmt.Errorf("going on: %w", err)
	}
	if err := s.Close(); err != nil {
		return err
	}
	again, err := Open(dir, &lifeOptions)
	if err != nil {
		return fmt.Errorf("opened again: %w", err)
	}
	defer again.Close()
	if again.Last() != last+3 {
		return fmt.Errorf("it went on from %d to %d", last, again.Last())
	}
	return checkPages(again)
}

func (l *life) checkLog(s *Store, acked int) error {
	position, held := uint64(0), 0
	var want []events.Event
	var frames []events.Quarantined
	for i, b := range l.batches {
		if position >= s.Last() {
			break
		}
		held = i + 1
		for _, e := range b.Events {
			position++
			e.Position = position
			want = append(want, e)
		}
		for _, q := range b.Quarantine {
			q.Number = uint64(len(frames) + 1)
			frames = append(frames, q)
		}
	}
	switch {
	case held < acked:
		return fmt.Errorf("lost: it has %d batches, %d were answered", held, acked)
	case held > acked+1:
		return fmt.Errorf("it has %d batches, %d were answered", held, acked)
	case position != s.Last():
		return fmt.Errorf("torn: it ends with event %d of %d", s.Last(), position)
	}
	if f := s.Frames(); f.Received != uint64(held) {
		return fmt.Errorf("%d frames for %d batches", f.Received, held)
	}
	base, _, err := s.Base()
	if err != nil {
		return err
	}
	var got []events.Event
	if err := s.Read(context.Background(), 1, func(e *events.Event) error { got = append(got, *e); return nil }); err != nil {
		return err
	}
	if !reflect.DeepEqual(want[base:], got) {
		return fmt.Errorf("other events (-want +got):\n%s", gocmp.Diff(want[base:], got))
	}
	if err := l.checkCalls(s, got); err != nil {
		return err
	}
	return l.checkQuarantine(s, frames)
}

// checkCalls compares the index with the events.
func (l *life) checkCalls(s *Store, all []events.Event) error {
	byCall := map[events.CallKey][]events.Event{}
	for _, e := range all {
		byCall[e.Key()] = append(byCall[e.Key()], e)
	}
	n := 0
	err := s.Calls(context.Background(), "", func(key events.CallKey, first, last uint64) error {
		n++
		evs := byCall[key]
		var got []events.Event
		if err := s.ReadCall(context.Background(), key, func(e *events.Event) error { got = append(got, *e); return nil }); err != nil {
			return err
		}
		if !reflect.DeepEqual(evs, got) || first != evs[0].Position || last != evs[len(evs)-1].Position {
			return fmt.Errorf("call %s from %d to %d (-want +got):\n%s", key, first, last, gocmp.Diff(evs, got))
		}
		return nil
	})
	if err == nil && n != len(byCall) {
		err = fmt.Errorf("%d calls in the index, %d in the log", n, len(byCall))
	}
	return err
}

func (l *life) checkQuarantine(s *Store, want []events.Quarantined) error {
	var got []events.Quarantined
	if err := s.Quarantine(context.Background(), 1, func(q *events.Quarantined) error { got = append(got, *q); return nil }); err != nil {
		return err
	}
	if len(got) > len(want) || len(got) > 0 && !reflect.DeepEqual(want[len(want)-len(got):], got) {
		return fmt.Errorf("quarantine: %d frames, want the last of %d", len(got), len(want))
	}
	return nil
}

// checkStates compares checkpoint, snapshot and base with what was ever set.
func (l *life) checkStates(s *Store) error {
	c, err := s.Checkpoint("outbox")
	if err != nil || c != 0 && !slices.Contains(l.checks, c) || c > s.Last() {
		return fmt.Errorf("checkpoint %d of %v, last event %d, %w", c, l.checks, s.Last(), err)
	}
	p, state, err := s.Snapshot(s.Last())
	if err != nil || p != 0 && string(state) != l.snaps[p] || p > s.Last() {
		return fmt.Errorf("snapshot %d is %.40q, %w", p, state, err)
	}
	p, state, err = s.Base()
	if err != nil || p != 0 && string(state) != l.bases[p] {
		return fmt.Errorf("base %d is %.40q, %w", p, state, err)
	}
	left, err := filepath.Glob(filepath.Join(s.dir, ".callstate*"))
	if err != nil || len(left) > 0 {
		return fmt.Errorf("left behind: %v, %w", left, err)
	}
	return nil
}

// checkPages has bbolt look for pages that are lost or used twice.
func checkPages(s *Store) error {
	for _, g := range s.segments() {
		err := g.view(func(tx *bbolt.Tx) error {
			var errs []error
			for err := range tx.Check() {
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(g.path), err)
		}
	}
	return nil
}

// isClear reports whether an error of opening is one that tells an operator what is
// the matter.
func isClear(err error) bool {
	_, hint := errors.AsType[*store.HintError](err)
	return hint && errors.Is(err, store.ErrDamaged)
}

// endOf is the position of the last event of batches.
func endOf(batches []*events.Batch) (n uint64) {
	for _, b := range batches {
		n += uint64(len(b.Events))
	}
	return n
}
