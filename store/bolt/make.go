package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/callstate/callstate/store"
)

// makeFirst makes a folder and the first file of a new log, where there is none.
func (s *Store) makeFirst(path string, from start) error {
	if there, err := isThere(path); there || err != nil {
		return err
	}
	there := firstThere(s.dir) // a folder's name is on disk when the one above is synced
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer dir.Close() // and with it the lock
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return berrors.ErrTimeout // another process is making it
	}
	if there, err := isThere(path); there || err != nil {
		return err
	}
	if sealed, err := matching(s.dir, sealedPattern); err != nil || len(sealed) > 0 {
		return errors.Join(err, fmt.Errorf("%w: %s is gone, its older files are there", store.ErrDamaged, FileName))
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return err
	}
	if from.after > 0 {
		if err := writeStateFile(s.disk, filepath.Join(s.dir, BaseName), baseMagic, id.String(), from.after, from.base); err != nil {
			return err
		}
	}
	h := header{id: id.String(), first: from.after + 1, made: time.Now(), quarantined: from.quarantined}
	db, err := s.makeFile(path+newSuffix, h, nil)
	if err != nil {
		return err
	}
	if err := errors.Join(guard(db.Close), s.disk.rename(path+newSuffix, path)); err != nil {
		return err
	}
	// bbolt syncs the file, not the folders that name it and one another.
	name := s.dir
	err = s.disk.syncDir(name)
	for err == nil && name != there {
		name = filepath.Dir(name)
		err = s.disk.syncDir(name)
	}
	return err
}

// firstThere is the last folder above dir that is there: those between are made.
func firstThere(dir string) string {
	for {
		up := filepath.Dir(dir)
		if _, err := os.Stat(up); err == nil || up == dir {
			return up
		}
		dir = up
	}
}

// isThere reports whether there is a file. An empty one was never ours: files get
// their names when they are whole.
func isThere(path string) (bool, error) {
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err == nil && fi.Size() == 0:
		err = fmt.Errorf("%w: %s is empty", store.ErrDamaged, FileName)
	}
	return err == nil, err
}

// matching returns the paths of a folder's files whose names are like pattern, in
// order. The folder's own name, in which there may be a bracket, is no pattern.
func matching(dir, pattern string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		switch like, err := filepath.Match(pattern, e.Name()); {
		case err != nil:
			return nil, err
		case like:
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// settle puts on disk what a process that was killed had written and not synced:
// it is about to be read, and what follows from it to be seen by others.
func (s *Store) settle(file *os.File) error {
	if s.readOnly {
		return nil
	}
	if err := errors.Join(s.disk.sync(file), s.disk.syncDir(s.dir)); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// removeLeftovers removes what a crash left of files that were being made.
func (s *Store) removeLeftovers() error {
	left := []string{s.head.path + newSuffix}
	for _, name := range []string{snapshotNames, BaseName} {
		names, err := matching(s.dir, tempPattern(name))
		if err != nil {
			return err
		}
		left = append(left, names...)
	}
	for _, name := range left {
		if err := removeIfThere(s.disk, name); err != nil {
			return err
		}
	}
	return nil
}

func create(tx *bbolt.Tx, h header) error {
	for _, name := range allBuckets {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	meta := tx.Bucket(bucketMeta)
	return errors.Join(
		meta.Put(keyVersion, u64(formatVersion)), meta.Put(keyID, []byte(h.id)), meta.Put(keyFirst, u64(h.first)),
		meta.Put(keyMade, u64(uint64(h.made.Unix()))), meta.Put(keyQuarantined, u64(h.quarantined)),
		tx.Bucket(bucketQuarantine).SetSequence(h.quarantined),
	)
}

// makeFile makes a file of the log with what its header says and fill puts in.
// Its name is that of a file which is no part of the log yet.
func (s *Store) makeFile(fresh string, h header, fill func(*bbolt.Tx) error) (*bbolt.DB, error) {
	if err := removeIfThere(s.disk, fresh); err != nil {
		return nil, err
	}
	db, _, err := openFile(fresh, &bbolt.Options{Timeout: time.Second}, s.disk)
	if err == nil {
		err = guard(func() error {
			return db.Update(func(tx *bbolt.Tx) error {
				err := create(tx, h)
				if err == nil && fill != nil {
					err = fill(tx)
				}
				return err
			})
		})
		if err != nil {
			_ = guard(db.Close)
		}
	}
	if err != nil {
		_ = removeIfThere(s.disk, fresh)
		return nil, err
	}
	return db, nil
}
