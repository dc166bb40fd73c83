// Package memory is a [store.Store] that keeps its log in memory: for tests, for
// examples and for reading recordings without a data folder. It keeps events in
// the stored form, so that what a reader gets is its own.
package memory

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/internal/gate"
)

var _ store.Store = (*Store)(nil)

// Store is a log in memory, made with [New].
type Store struct {
	log  *log
	gate gate.Gate
}

// log is what survives Close, for [Store.Reopen].
type log struct {
	id string

	mu          sync.RWMutex // guards what follows
	events      [][]byte     // position-1 → stored form
	quarantine  [][]byte
	calls       map[events.CallKey][]uint64 // → positions
	frames      events.FrameCounts
	checkpoints map[string]uint64
	snapshots   []snapshot // in order
}

// New returns an empty log.
func New() *Store {
	return &Store{log: &log{
		id:          uuid.NewString(),
		calls:       make(map[events.CallKey][]uint64),
		checkpoints: make(map[string]uint64),
	}}
}

// Reopen closes s and returns its log opened anew, as after a restart.
func (s *Store) Reopen() *Store {
	_ = s.Close()
	return &Store{log: s.log}
}

// ID implements [store.Store].
func (s *Store) ID() string { return s.log.id }

// Append implements [store.Store]. An error means that nothing was stored.
func (s *Store) Append(ctx context.Context, b *events.Batch) error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	defer s.gate.Leave()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var r store.Records
	if err := r.Encode(b); err != nil {
		return err
	}
	s.log.append(b, &r)
	return nil
}

func (l *log) append(b *events.Batch, r *store.Records) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range b.Events {
		e := &b.Events[i]
		l.events = append(l.events, r.Event(i))
		e.Position = uint64(len(l.events))
		if k := e.Key(); !k.IsZero() {
			l.calls[k] = append(l.calls[k], e.Position)
		}
	}
	for i := range b.Quarantine {
		l.quarantine = append(l.quarantine, r.Quarantined(i))
		b.Quarantine[i].Number = uint64(len(l.quarantine))
	}
	if b.Frames != (events.FrameCounts{}) {
		l.frames = b.Frames
	}
}

// Last implements [store.Store].
func (s *Store) Last() uint64 {
	s.log.mu.RLock()
	defer s.log.mu.RUnlock()
	return uint64(len(s.log.events))
}

// Read implements [store.Store].
func (s *Store) Read(ctx context.Context, from uint64, fn func(*events.Event) error) error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	defer s.gate.Leave()
	from = max(from, 1)
	for pos, last := from, s.Last(); pos <= last; pos++ {
		if err := s.log.one(ctx, pos, fn); err != nil {
			return err
		}
	}
	return nil
}

// ReadCall implements [store.Store].
func (s *Store) ReadCall(ctx context.Context, key events.CallKey, fn func(*events.Event) error) error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	defer s.gate.Leave()
	s.log.mu.RLock()
	positions := s.log.calls[key] // only ever grows: the part seen here stays
	s.log.mu.RUnlock()
	for _, pos := range positions {
		if err := s.log.one(ctx, pos, fn); err != nil {
			return err
		}
	}
	return nil
}

func (l *log) one(ctx context.Context, pos uint64, fn func(*events.Event) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	l.mu.RLock()
	body := l.events[pos-1]
	l.mu.RUnlock()
	e, err := events.DecodeBinary(body)
	if err != nil {
		return err
	}
	e.Position = pos
	return fn(&e)
}

// HasCall implements [store.Store].
func (s *Store) HasCall(key events.CallKey) (bool, error) {
	if err := s.gate.Enter(); err != nil {
		return false, err
	}
	defer s.gate.Leave()
	s.log.mu.RLock()
	defer s.log.mu.RUnlock()
	return len(s.log.calls[key]) > 0, nil
}

// Calls implements [store.Store].
func (s *Store) Calls(ctx context.Context, account string, fn func(key events.CallKey, first, last uint64) error) error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	defer s.gate.Leave()
	type call struct {
		key         events.CallKey
		first, last uint64
	}
	var calls []call
	s.log.mu.RLock()
	for k, p := range s.log.calls {
		if account == "" || k.Account == account {
			calls = append(calls, call{k, p[0], p[len(p)-1]})
		}
	}
	s.log.mu.RUnlock()
	slices.SortFunc(calls, func(a, b call) int {
		if c := strings.Compare(a.key.Account, b.key.Account); c != 0 {
			return c
		}
		return strings.Compare(a.key.Call, b.key.Call)
	})
	for _, c := range calls {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := fn(c.key, c.first, c.last); err != nil {
			return err
		}
	}
	return nil
}

// Frames implements [store.Store].
func (s *Store) Frames() events.FrameCounts {
	s.log.mu.RLock()
	defer s.log.mu.RUnlock()
	return s.log.frames
}

// Checkpoint implements [store.Store].
func (s *Store) Checkpoint(name string) (uint64, error) {
	if err := s.gate.Enter(); err != nil {
		return 0, err
	}
	defer s.gate.Leave()
	s.log.mu.RLock()
	defer s.log.mu.RUnlock()
	return s.log.checkpoints[name], nil
}

// SetCheckpoint implements [store.Store].
func (s *Store) SetCheckpoint(name string, position uint64) error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	defer s.gate.Leave()
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.checkpoints[name] = position
	return nil
}

// Quarantine implements [store.Store].
func (s *Store) Quarantine(ctx context.Context, from uint64, fn func(*events.Quarantined) error) error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	defer s.gate.Leave()
	s.log.mu.RLock()
	frames := s.log.quarantine
	s.log.mu.RUnlock()
	from = max(from, 1)
	for n := from; n <= uint64(len(frames)); n++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		q, err := events.DecodeQuarantined(frames[n-1])
		if err != nil {
			return err
		}
		q.Number = n
		if err := fn(&q); err != nil {
			return err
		}
	}
	return nil
}

// Close implements [store.Store].
func (s *Store) Close() error {
	s.gate.Close()
	return nil
}

// SetSnapshot implements [store.Store].
func (s *Store) SetSnapshot(position uint64, state []byte) error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	defer s.gate.Leave()
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	i, there := slices.BinarySearchFunc(s.log.snapshots, position, snapshot.compare)
	if !there {
		s.log.snapshots = slices.Insert(s.log.snapshots, i, snapshot{at: position})
	}
	s.log.snapshots[i].state = slices.Clone(state)
	return nil
}

// Snapshot implements [store.Store].
func (s *Store) Snapshot(most uint64) (position uint64, state []byte, err error) {
	if err := s.gate.Enter(); err != nil {
		return 0, nil, err
	}
	defer s.gate.Leave()
	s.log.mu.RLock()
	defer s.log.mu.RUnlock()
	for _, sn := range slices.Backward(s.log.snapshots) {
		if sn.at <= most {
			return sn.at, slices.Clone(sn.state), nil
		}
	}
	return 0, nil, nil
}

// ForgetSnapshots implements [store.Store].
func (s *Store) ForgetSnapshots() error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	defer s.gate.Leave()
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.snapshots = nil
	return nil
}

// snapshot is a state and its position.
type snapshot struct {
	at    uint64
	state []byte
}

func (s snapshot) compare(position uint64) int { return cmp.Compare(s.at, position) }

// Base implements [store.Store]: nothing is ever dropped.
func (s *Store) Base() (position uint64, state []byte, err error) { return 0, nil, nil }
