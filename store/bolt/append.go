package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
)

// What one transaction may gather: beyond it a commit takes longer than the sync
// that gathering saves, and the waiters' latency grows with it. A batch alone
// may be larger.
const (
	maxGatheredEvents = 4096
	maxGatheredBytes  = 4 << 20
)

// request is one Append on its way through the writer.
type request struct {
	batch   *events.Batch
	records store.Records
	calls   []byte     // the call keys of the events, one after the other
	ends    []int      // of each key in calls; an event without a call has an empty one
	done    chan error // holds one, so that the writer never waits
	first   uint64     // position of the first event
	number  uint64     // of the first quarantined frame
}

// requests are used again: their buffers make up most of an Append's memory.
var requests = sync.Pool{New: func() any { return &request{done: make(chan error, 1)} }}

// Append implements [store.Store]. When it returns the context's error nothing
// was stored: a batch that the writer has taken is waited for.
func (s *Store) Append(ctx context.Context, b *events.Batch) error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	defer s.gate.Leave()
	if s.readOnly {
		return store.ErrReadOnly
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if b.Empty() {
		return nil
	}
	r := requests.Get().(*request)
	defer requests.Put(r)
	if err := r.encode(b); err != nil {
		return err
	}
	select {
	case s.appends <- r:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	err := <-r.done
	r.batch = nil
	return err
}

// encode does, on the caller's goroutine, all that needs no position.
func (r *request) encode(b *events.Batch) error {
	r.batch, r.calls, r.ends = b, r.calls[:0], r.ends[:0]
	if err := r.records.Encode(b); err != nil {
		return err
	}
	for i := range b.Events {
		if k := b.Events[i].Key(); !k.IsZero() {
			r.calls = appendCallKey(r.calls, k)
		}
		r.ends = append(r.ends, len(r.calls))
	}
	return nil
}

func (r *request) call(i int) []byte {
	from := 0
	if i > 0 {
		from = r.ends[i-1]
	}
	return r.calls[from:r.ends[i]]
}

// write is the writer: the one goroutine that begins a writing transaction.
func (s *Store) write() {
	defer close(s.stopped)
	w := writer{s: s}
	var idle <-chan time.Time // set while there are checkpoints to write
	for {
		select {
		case r := <-s.appends:
			w.gather(r)
			w.commit()
			idle = nil
			if full := w.full(); full || s.head.tail.n >= s.maxTail {
				if w.index() && full {
					w.roll()
				}
			}
		case <-s.touched:
			if idle == nil {
				idle = time.After(s.flush)
			}
		case <-idle:
			idle = nil
			w.commit()
		case <-s.stop:
			s.end = w.close()
			return
		}
	}
}

// writer is the state of the writing goroutine.
type writer struct {
	s      *Store
	group  []*request
	buf    []byte // keys and framed records of the transaction
	wedged bool   // bbolt panicked and may hold its locks

	size    int64 // of the file that is appended to
	retryAt int64 // its size before another attempt to begin the next one
}

// gather takes what is waiting beside r. The callers of the last group need the
// processor to come back with their next batches; one Gosched lets them, and
// costs nothing when there are none.
func (w *writer) gather(r *request) {
	w.group = append(w.group[:0], r)
	n, size := len(r.batch.Events), r.records.Size()
	yielded := false
	for n < maxGatheredEvents && size < maxGatheredBytes {
		select {
		case r := <-w.s.appends:
			w.group = append(w.group, r)
			n, size = n+len(r.batch.Events), size+r.records.Size()
			yielded = false
		default:
			if yielded {
				return
			}
			yielded = true
			runtime.Gosched()
		}
	}
}

// commit stores the group, if any, and the checkpoints, and answers the group.
func (w *writer) commit() {
	group := w.group
	w.group = w.group[:0]
	s := w.s

	s.mu.Lock()
	failed, dirty := s.failed, s.dirty
	if failed == nil {
		s.dirty = make(map[string]uint64)
	}
	s.mu.Unlock()
	if failed != nil {
		answer(group, failed)
		return
	}
	if len(group) == 0 && len(dirty) == 0 {
		return
	}

	var last uint64
	var frames events.FrameCounts
	err := w.transact(func(tx *bbolt.Tx) (err error) {
		last, frames, err = w.put(tx, group, dirty)
		return err
	})
	if err != nil {
		err = w.judge(err)
		s.mu.Lock()
		newer := s.dirty
		s.dirty = dirty
		maps.Copy(s.dirty, newer)
		s.mu.Unlock()
		answer(group, err)
		return
	}
	t := &s.head.tail
	t.mu.Lock()
	for _, r := range group {
		for i := range r.batch.Events {
			r.batch.Events[i].Position = r.first + uint64(i)
			t.add(r.first+uint64(i), r.call(i))
		}
		for i := range r.batch.Quarantine {
			r.batch.Quarantine[i].Number = r.number + uint64(i)
		}
	}
	t.mu.Unlock()
	s.mu.Lock()
	s.frames = frames
	s.mu.Unlock()
	s.last.Store(last)
	answer(group, nil)
}

// index brings calls and index up to the last event. Where that fails for want of
// space they stay behind, and the next attempt is after the next batch.
func (w *writer) index() (done bool) {
	s := w.s
	if s.failure() != nil {
		return false
	}
	if s.head.tail.n == 0 {
		return true
	}
	if err := w.transact(s.head.tail.store); err != nil {
		_ = w.judge(err)
		return false
	}
	s.head.tail.clear()
	return true
}

func answer(group []*request, err error) {
	for _, r := range group {
		r.done <- err
	}
}

// commitError is an error of bbolt's Commit, as opposed to one before it, when
// nothing can have been written.
type commitError struct {
	err error
	tx  int // the transaction's id
}

func (e *commitError) Error() string { return "commit: " + e.err.Error() }
func (e *commitError) Unwrap() error { return e.err }

// judge decides what a failed transaction means for the store. A full disk is
// an answer if the old state is still the current one; all else is the end, as
// after a failed sync nobody knows what the disk holds.
func (w *writer) judge(err error) error {
	s := w.s
	var ce *commitError
	if outOfSpace(err) && errors.As(err, &ce) && !w.wedged {
		stored := true
		probe := guard(func() error {
			return s.head.db.View(func(tx *bbolt.Tx) error {
				stored = tx.ID() >= ce.tx
				return nil
			})
		})
		if probe == nil && !stored {
			s.log.Warn("disk full, nothing stored", "dir", s.dir, "err", err)
			return &store.HintError{
				Err:  fmt.Errorf("%w: %w", store.ErrFull, err),
				Hint: "free some space for " + s.dir + "; the same batch can then be stored",
			}
		}
	}
	return w.fail(fmt.Errorf("append to %s: %w", s.dir, err))
}

// fail makes err the answer to all that is still to be written, and returns it
// with a hint.
func (w *writer) fail(err error) error {
	s := w.s
	if errors.Is(err, store.ErrDamaged) {
		err = &store.HintError{Err: err, Hint: s.damagedHint()}
	} else {
		err = &store.HintError{Err: err, Hint: "check the disk under " + s.dir + " and start again"}
	}
	s.log.Error("log cannot be written any more", "dir", s.dir, "err", err)
	s.mu.Lock()
	s.failed = err
	s.mu.Unlock()
	return err
}

// transact runs one writing transaction. The transaction is not run by Update,
// so that a panic of bbolt's own clean-up does not leave its locks behind unseen.
func (w *writer) transact(put func(*bbolt.Tx) error) (err error) {
	var tx *bbolt.Tx
	err = guard(func() (err error) {
		if tx, err = w.s.head.db.Begin(true); err != nil {
			return err
		}
		return put(tx)
	})
	if err == nil {
		id, size := tx.ID(), tx.Size()
		if err = guard(tx.Commit); err == nil {
			w.size = size
			return nil
		}
		err = &commitError{err, id}
	}
	if tx != nil {
		rb := guard(tx.Rollback)
		w.wedged = errors.Is(rb, store.ErrDamaged)
	}
	return err
}

// put puts a group's records, totals and checkpoints; where its events are is the
// tail's matter.
func (w *writer) put(tx *bbolt.Tx, group []*request, dirty map[string]uint64) (uint64, events.FrameCounts, error) {
	t := table{
		events:     tx.Bucket(bucketEvents),
		quarantine: tx.Bucket(bucketQuarantine),
		buf:        w.buf[:0],
	}
	// Both only ever grow at their end: full pages are never split again.
	t.events.FillPercent, t.quarantine.FillPercent = 1, 1

	s := w.s
	last, frames, changed := s.Last(), s.Frames(), false
	for _, r := range group {
		r.first = last + 1
		for i := range r.batch.Events {
			last++
			if err := t.putRecord(t.events, last, r.records.Event(i)); err != nil {
				return 0, frames, err
			}
		}
		for i := range r.batch.Quarantine {
			n, err := t.quarantine.NextSequence()
			if err != nil {
				return 0, frames, err
			}
			if i == 0 {
				r.number = n
			}
			if err := t.putRecord(t.quarantine, n, r.records.Quarantined(i)); err != nil {
				return 0, frames, err
			}
		}
		if r.batch.Frames != (events.FrameCounts{}) {
			frames, changed = r.batch.Frames, true
		}
	}
	w.buf = t.buf
	if changed {
		if err := tx.Bucket(bucketMeta).Put(keyFrames, appendFrames(nil, frames)); err != nil {
			return 0, frames, err
		}
	}
	for name, position := range dirty {
		if err := tx.Bucket(bucketCheckpoints).Put([]byte(name), u64(position)); err != nil {
			return 0, frames, err
		}
	}
	return last, frames, nil
}

// table are the buckets of one writing transaction.
type table struct {
	events, quarantine *bbolt.Bucket

	buf []byte // grows; bbolt keeps values, not keys, until the commit
}

func (t *table) putRecord(b *bbolt.Bucket, n uint64, body []byte) error {
	var key [8]byte
	binary.BigEndian.PutUint64(key[:], n)
	from := len(t.buf)
	t.buf = binary.BigEndian.AppendUint32(t.buf, checksum(key[:], body))
	t.buf = append(t.buf, body...)
	return b.Put(key[:], t.buf[from:len(t.buf):len(t.buf)])
}

// close writes what is left and closes the file. After a panic of bbolt it may hold
// its own locks: then the file is left to the end of the process, with its lock.
// What failed before Close is not Close's to say.
func (w *writer) close() error {
	before := w.s.failure()
	w.commit()
	w.index()
	failed := w.s.failure()
	if w.wedged {
		return failed
	}
	err := w.s.closeAll()
	if before == nil {
		err = errors.Join(failed, err)
	}
	return err
}

// failure is why nothing can be written any more.
func (s *Store) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}
