package bolt

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// When the file that is appended to is sealed and the next one begun, unless
// Options say otherwise. A day is what an operator counts retention in.
const (
	defaultSegmentBytes = 256 << 20
	defaultSegmentAge   = 24 * time.Hour
)

// newSuffix is of a file that is being made and is no part of the log yet.
const newSuffix = ".new"

// full reports whether the file that is appended to is large or old enough.
func (w *writer) full() bool {
	s := w.s
	if s.Last() < s.head.first {
		return false
	}
	return s.segmentBytes > 0 && w.size >= max(s.segmentBytes, w.retryAt) ||
		s.segmentAge > 0 && time.Since(s.headMade) >= s.segmentAge && w.size >= w.retryAt
}

// roll seals the file that is appended to and begins the next. Where that fails
// the log goes on in the same file: it is not worth a batch.
func (w *writer) roll() {
	s := w.s
	err := w.rollTo(filepath.Join(s.dir, FileName), filepath.Join(s.dir, sealedName(s.head.first)))
	if err != nil {
		w.retryAt = w.size + 16<<20
		s.log.Warn("no new file for the log was begun, it goes on in the old one", "dir", s.dir, "err", err)
		return
	}
	w.size, w.retryAt = 0, 0
	s.log.Info("log goes on in a new file", "dir", s.dir, "position", s.head.first)
}

// rollTo makes the next file beside the old one, gives the old one its name as a
// sealed one, and puts the next in its place: at every moment there is a file
// under the old name, and its lock is ours. The old file's second name is on disk
// before it loses its first.
func (w *writer) rollTo(path, sealed string) (err error) {
	s := w.s
	fresh := path + newSuffix
	var frames uint64 // quarantined in all files so far
	if err := s.head.view(func(tx *bbolt.Tx) error {
		frames = tx.Bucket(bucketQuarantine).Sequence()
		return nil
	}); err != nil {
		return err
	}
	s.mu.Lock()
	h := header{id: s.id, first: s.Last() + 1, made: time.Now(), quarantined: frames}
	totals, checkpoints := s.frames, maps.Clone(s.checkpoints)
	s.mu.Unlock()
	db, err := s.makeFile(fresh, h, func(tx *bbolt.Tx) error {
		err := tx.Bucket(bucketMeta).Put(keyFrames, appendFrames(nil, totals))
		for name, position := range checkpoints {
			err = errors.Join(err, tx.Bucket(bucketCheckpoints).Put([]byte(name), u64(position)))
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := s.exchange(fresh, path, sealed); err != nil {
		return errors.Join(err, guard(db.Close), removeIfThere(s.disk, fresh))
	}
	if err := s.disk.syncDir(s.dir); err != nil {
		// The next batch would be in a file that has no name on disk.
		_ = w.fail(fmt.Errorf("begin a new file: sync the folder: %w", err))
	}
	s.head.mu.Lock()
	s.head.path = sealed
	s.head.mu.Unlock()
	s.head, s.headMade = &segment{path: path, first: h.first, id: s.id, db: db}, h.made
	for { // Drop may remove some meanwhile
		old := s.segs.Load()
		segs := append(slices.Clone(*old), s.head)
		if s.segs.CompareAndSwap(old, &segs) {
			return nil
		}
	}
}

// exchange gives the file at path the name sealed, and its own to the one at fresh.
func (s *Store) exchange(fresh, path, sealed string) error {
	err := s.disk.link(path, sealed)
	if err != nil {
		return fmt.Errorf("the file system cannot give a file two names: %w", err)
	}
	if err = s.disk.syncDir(s.dir); err == nil {
		err = s.disk.rename(fresh, path)
	}
	if err != nil {
		err = errors.Join(err, s.disk.remove(sealed))
	}
	return err
}
