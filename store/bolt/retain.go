package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/callstate/callstate/store"
)

// BaseName is the name of the file with the state that the dropped events add up to.
const BaseName = "callstate.base"

const baseMagic = "callstate base\x00\x01"

// Segment is a stretch of the log that can be dropped as a whole.
type Segment struct {
	First, Last uint64 // positions
	Bytes       int64  // on disk
	Sealed      time.Time
}

// Segments returns the sealed stretches of the log, the oldest first. The one
// that is appended to is not among them.
func (s *Store) Segments() ([]Segment, error) {
	if err := s.gate.Enter(); err != nil {
		return nil, err
	}
	defer s.gate.Leave()
	segs := s.segments()
	out := make([]Segment, 0, len(segs)-1)
	for i, g := range segs[:len(segs)-1] {
		size, written, err := g.size()
		if err != nil {
			return nil, err
		}
		out = append(out, Segment{First: g.first, Last: segs[i+1].first - 1, Bytes: size, Sealed: written})
	}
	return out, nil
}

// Bytes is the size of the whole log on disk.
func (s *Store) Bytes() (int64, error) {
	var sum int64
	for _, g := range s.segments() {
		size, _, err := g.size()
		if err != nil {
			return 0, err
		}
		sum += size
	}
	return sum, nil
}

// Drop gives the space of the events through a position back to the file system.
// The position is the last one of a segment; base is the state that the events
// through it add up to, which Base returns from now on. Appends go on meanwhile,
// and what is being read is read no further.
//
// The state is on disk before the first file goes: a crash in between leaves
// files that the next Open removes.
func (s *Store) Drop(through uint64, base []byte) error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	defer s.gate.Leave()
	if s.readOnly {
		return store.ErrReadOnly
	}
	s.dropping.Lock()
	defer s.dropping.Unlock()
	segs := s.segments()
	n := slices.IndexFunc(segs, func(g *segment) bool { return g.first == through+1 })
	if n <= 0 {
		return fmt.Errorf("%w: event %d is not the last one of a segment", store.ErrInvalid, through)
	}
	if err := writeStateFile(s.disk, filepath.Join(s.dir, BaseName), baseMagic, s.id, through, base); err != nil {
		return fmt.Errorf("drop: %w", err)
	}
	s.base.Store(through)
	err := s.dropFiles(through)
	_, serr := s.removeSnapshots(func(f snapshotFile) bool { return f.named && f.position < through })
	return errors.Join(err, serr)
}

// dropFiles removes the sealed files whose events are all through a position.
func (s *Store) dropFiles(through uint64) error {
	for { // the writer may add one meanwhile
		old := s.segs.Load()
		n := slices.IndexFunc(*old, func(g *segment) bool { return g.first > through })
		if n <= 0 {
			return nil
		}
		left := slices.Clone((*old)[n:])
		if !s.segs.CompareAndSwap(old, &left) {
			continue
		}
		var errs []error
		for _, g := range (*old)[:n] {
			errs = append(errs, g.drop(s.disk))
		}
		return errors.Join(append(errs, s.disk.syncDir(s.dir))...)
	}
}

// drop closes and removes the file, when nobody reads it any more.
func (g *segment) drop(d disk) error {
	return errors.Join(g.close(), d.remove(g.path))
}

// Base implements [store.Store].
func (s *Store) Base() (position uint64, state []byte, err error) {
	if err := s.gate.Enter(); err != nil {
		return 0, nil, err
	}
	defer s.gate.Leave()
	if s.base.Load() == 0 {
		return 0, nil, nil
	}
	position, state, why, err := readStateFile(filepath.Join(s.dir, BaseName), baseMagic, s.id)
	if err == nil && why != "" {
		err = fmt.Errorf("%w: %s: %s", store.ErrDamaged, BaseName, why)
	}
	return position, state, err
}

// loadBase finds out where the log begins, and finishes a Drop that was cut short.
func (s *Store) loadBase() error {
	position, _, why, err := readStateFile(filepath.Join(s.dir, BaseName), baseMagic, s.id)
	first := func() uint64 { return s.segments()[0].first }
	switch {
	case errors.Is(err, fs.ErrNotExist) && first() == 1:
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err != nil || why != "":
		if first() == 1 {
			s.log.Warn("file is not used, the log is whole", "file", BaseName, "reason", why)
			return nil
		}
		return fmt.Errorf("%w: the log begins at event %d, and %s, the state before it, is missing or %s", store.ErrDamaged, first(), BaseName, why)
	}
	if first() <= position {
		if s.readOnly {
			return s.hide(position)
		}
		if err := s.dropFiles(position); err != nil {
			return err
		}
	}
	if first() != position+1 {
		return fmt.Errorf("%w: %s is of event %d, and the log begins at event %d", store.ErrDamaged, BaseName, position, first())
	}
	s.base.Store(position)
	return nil
}

// hide leaves out files that a writer would remove.
func (s *Store) hide(position uint64) error {
	segs := s.segments()
	n := slices.IndexFunc(segs, func(g *segment) bool { return g.first == position+1 })
	if n < 0 {
		return fmt.Errorf("%w: %s is of event %d, where no file begins", store.ErrDamaged, BaseName, position)
	}
	left := slices.Clone(segs[n:])
	s.segs.Store(&left)
	s.base.Store(position)
	return nil
}
