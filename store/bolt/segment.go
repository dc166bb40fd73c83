package bolt

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
)

// A log is a row of segments, each a bbolt file with a stretch of positions. The
// last, FileName, is the one that is appended to; the others are sealed and named
// after their first position.
const sealedPattern = "callstate-*.db"

func sealedName(first uint64) string { return fmt.Sprintf("callstate-%020d.db", first) }

// segment is one file of the log.
type segment struct {
	first uint64 // position of its first event
	id    string // of the log, checked when a sealed one is opened
	tail  tail   // of the one that is appended to; the index of a sealed one has all

	mu      sync.RWMutex // held for reading while a transaction reads
	path    string
	db      *bbolt.DB // nil until it is needed
	dropped bool
}

// size returns the file's size and when it was written last.
func (g *segment) size() (int64, time.Time, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	fi, err := os.Stat(g.path)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("segment: %w", err)
	}
	return fi.Size(), fi.ModTime(), nil
}

// errDropped is what reading a segment gives that retention has removed.
var errDropped = fmt.Errorf("%w while it was read", events.ErrLogDropped)

// view runs a reading transaction. A sealed segment is opened by the first one.
func (g *segment) view(fn func(*bbolt.Tx) error) error {
	g.mu.RLock()
	if g.db == nil && !g.dropped {
		g.mu.RUnlock()
		if err := g.open(); err != nil {
			return err
		}
		g.mu.RLock()
	}
	defer g.mu.RUnlock()
	if g.dropped {
		return fmt.Errorf("%s: %w", filepath.Base(g.path), errDropped)
	}
	return guard(func() error { return g.db.View(fn) })
}

// open opens a sealed segment for reading.
func (g *segment) open() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.db != nil || g.dropped {
		return nil
	}
	db, file, err := openFile(g.path, &bbolt.Options{ReadOnly: true}, osDisk{})
	if err == nil {
		err = guard(func() error {
			return db.View(func(tx *bbolt.Tx) error { return g.check(file, tx) })
		})
		if err != nil {
			_ = guard(db.Close)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: a file of the log is gone: %w", store.ErrDamaged, err)
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", g.path, err)
	}
	g.db = db
	return nil
}

// check looks whether the file is whole and the one that its name says.
func (g *segment) check(file *os.File, tx *bbolt.Tx) error {
	if err := checkFile(file, tx); err != nil {
		return err
	}
	h, err := readHeader(tx)
	if err == nil && (h.id != g.id || h.first != g.first) {
		err = fmt.Errorf("%w: it is of log %s from event %d on", store.ErrForeign, h.id, h.first)
	}
	if err == nil && h.version >= versionOfRuns {
		var last uint64
		if last, err = lastEvent(tx, h); err == nil && h.indexed != last {
			err = fmt.Errorf("%w: the index goes on to event %d, the file ends with %d", store.ErrDamaged, h.indexed, last)
		}
	}
	return err
}

// close closes the file, when nobody reads it any more. Nobody opens it again.
func (g *segment) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	db := g.db
	g.db, g.dropped = nil, true
	if db == nil {
		return nil
	}
	return guard(db.Close)
}

// openFile opens a bbolt file. A file that bbolt keeps open, and locked, when it
// panics while it opens, is closed.
func openFile(path string, o *bbolt.Options, d disk) (db *bbolt.DB, file *os.File, err error) {
	o.FreelistType, o.NoStatistics = bbolt.FreelistMapType, true
	o.OpenFile = func(name string, flag int, perm os.FileMode) (f *os.File, err error) {
		file, err = d.open(name, flag, perm)
		return file, err
	}
	err = guard(func() (err error) {
		db, err = bbolt.Open(path, 0o600, o)
		return err
	})
	if errors.Is(err, store.ErrDamaged) && file != nil {
		_ = file.Close()
	}
	if err == nil {
		d.opened(db)
	}
	return db, file, err
}

// sealed lists the sealed segments of a folder in order of position. What a
// roll that was cut short left behind, a second name of the file that is still
// appended to, is not among them.
func (s *Store) sealed() ([]*segment, error) {
	names, err := matching(s.dir, sealedPattern)
	if err != nil {
		return nil, err
	}
	head, err := os.Stat(filepath.Join(s.dir, FileName))
	if err != nil {
		return nil, err
	}
	var segs []*segment
	for _, name := range names {
		digits := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(name), "callstate-"), ".db")
		first, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || filepath.Base(name) != sealedName(first) {
			continue // not ours
		}
		fi, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		if os.SameFile(fi, head) {
			if !s.readOnly {
				err = s.disk.remove(name)
			}
			if err != nil {
				return nil, err
			}
			continue
		}
		segs = append(segs, &segment{path: name, first: first, id: s.id})
	}
	slices.SortFunc(segs, func(a, b *segment) int { return cmp.Compare(a.first, b.first) })
	return segs, nil
}

// segments returns all segments in order of position, the one that is appended
// to last. The slice is never changed.
func (s *Store) segments() []*segment { return *s.segs.Load() }

// segmentOf returns the segment that position belongs to and the position of its
// last event. What was dropped belongs to the first one that is left.
func (s *Store) segmentOf(position uint64) (g *segment, last uint64) {
	segs := s.segments()
	i, found := slices.BinarySearchFunc(segs, position, func(g *segment, p uint64) int {
		return cmp.Compare(g.first, p)
	})
	if !found && i > 0 {
		i--
	}
	if i+1 < len(segs) {
		return segs[i], segs[i+1].first - 1
	}
	return segs[i], s.Last()
}
