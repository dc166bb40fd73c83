package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"strings"
	"syscall"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/callstate/callstate/store"
)

// guard runs fn and turns a panic into an error matching [store.ErrDamaged].
// bbolt trusts its pages: on a damaged file it panics, or reads mapped memory
// behind the end of a file that was cut short, which without SetPanicOnFault
// would end the process.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", store.ErrDamaged, r)
		}
	}()
	return fn()
}

// view runs a reading transaction on a segment, without the caller's function
// inside: its panics are its own.
func (s *Store) view(g *segment, fn func(tx *bbolt.Tx) error) error {
	return s.explainRead(g.view(fn))
}

func (s *Store) explainRead(err error) error {
	if errors.Is(err, store.ErrDamaged) {
		return &store.HintError{Err: err, Hint: s.damagedHint()}
	}
	return err
}

func (s *Store) damagedHint() string {
	return fmt.Sprintf("`callstate verify --data %s` says what is lost, `callstate rescue --data %s --to NEW` copies the rest", s.dir, s.dir)
}

// explainOpen gives an error of opening its sentinel and its hint.
func (s *Store) explainOpen(err error) error {
	hint := func(sentinel error, format string, args ...any) error {
		if sentinel != nil && !errors.Is(err, sentinel) {
			err = fmt.Errorf("%w: %w", sentinel, err)
		}
		return &store.HintError{Err: err, Hint: fmt.Sprintf(format, args...)}
	}
	switch {
	case errors.Is(err, berrors.ErrTimeout) && s.readOnly:
		return hint(store.ErrInUse, "an engine is writing %s; ask it instead, or stop it first", s.dir)
	case errors.Is(err, berrors.ErrTimeout):
		return hint(store.ErrInUse, "stop the other callstate that has %s open, or choose another folder", s.dir)
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS):
		return hint(store.ErrDenied, "give this user read and write permission on %s, or choose another folder", s.dir)
	case s.readOnly && errors.Is(err, fs.ErrNotExist):
		return hint(store.ErrMissing, "there is no log in %s yet; start `callstate run --data %s` first, or name the right folder", s.dir, s.dir)
	case errors.Is(err, store.ErrVersion), errors.Is(err, berrors.ErrVersionMismatch):
		return hint(store.ErrVersion, "use the newer callstate that wrote %s", s.dir)
	case errors.Is(err, store.ErrForeign), errors.Is(err, berrors.ErrInvalid):
		return hint(store.ErrForeign, "%s in %s was not written by callstate; move it away, or choose another folder", FileName, s.dir)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.EEXIST):
		return hint(store.ErrForeign, "%s must be a folder with nothing but a log in it; choose another one", s.dir)
	case errors.Is(err, store.ErrDamaged), errors.Is(err, berrors.ErrChecksum),
		strings.Contains(err.Error(), "file size too small"): // bbolt has no sentinel for it
		return hint(store.ErrDamaged, "%s", s.damagedHint())
	case outOfSpace(err):
		return hint(store.ErrFull, "free some space for %s and start again", s.dir)
	}
	return err
}

// outOfSpace recognises a disk, a quota or a file that cannot grow. bbolt keeps
// only the text of what growing the file said.
func outOfSpace(err error) bool {
	for _, e := range []syscall.Errno{syscall.ENOSPC, syscall.EFBIG, syscall.EDQUOT} {
		if errors.Is(err, e) || strings.Contains(err.Error(), e.Error()) {
			return true
		}
	}
	return errors.Is(err, berrors.ErrMaxSizeReached)
}
