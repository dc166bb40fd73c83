// Package bolt is the [store.Store] of a running engine: one bbolt file in a
// folder of its own.
//
// An Append that returned survives a crash of the process and of the machine.
// Appends that wait at the same time share one transaction and so one sync. See
// store/DESIGN.md for the layout and for what happens when things go wrong.
package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/internal/gate"
)

// FileName is the name of the log in its folder.
const FileName = "callstate.db"

// formatVersion is the version of the layout below. A newer one is refused.
const formatVersion = 1

// The buckets. Numbers are 8 bytes, big-endian.
var (
	bucketMeta        = []byte("meta")        // "version", "id", "frames"
	bucketEvents      = []byte("events")      // position → CRC32C of key and body, body
	bucketCalls       = []byte("calls")       // callKey → the call's number, first position
	bucketIndex       = []byte("index")       // call's number, position → nothing
	bucketQuarantine  = []byte("quarantine")  // number → CRC32C of key and body, body
	bucketCheckpoints = []byte("checkpoints") // name → position

	keyVersion = []byte("version")
	keyID      = []byte("id")
	keyFrames  = []byte("frames")
)

var allBuckets = [][]byte{bucketMeta, bucketEvents, bucketCalls, bucketIndex, bucketQuarantine, bucketCheckpoints}

// Options of [Open]. Nil means the zero value.
type Options struct {
	// ReadOnly opens an existing log for reading. Several readers may have it
	// open at once, but none beside a writer.
	ReadOnly bool
	// Logger gets what an operator should know; nil means discard.
	Logger *slog.Logger
	// LockTimeout is how long to wait for another process to let go of the
	// folder; 0 means 100 ms.
	LockTimeout time.Duration
	// FlushInterval is how long a checkpoint may stay in memory while nothing is
	// appended; 0 means one second.
	FlushInterval time.Duration

	openFile func(string, int, os.FileMode) (*os.File, error) // for tests; nil means os.OpenFile
}

var _ store.Store = (*Store)(nil)

// Store is an open log. It owns one goroutine, the writer, that Close waits for.
type Store struct {
	db       *bbolt.DB
	dir      string
	id       string
	log      *slog.Logger
	readOnly bool
	flush    time.Duration

	gate    gate.Gate
	appends chan *request // unbuffered: a request that was taken gets its answer
	touched chan struct{} // holds one: there are checkpoints to write
	stop    chan struct{} // closed by Close once nobody is inside
	stopped chan struct{} // closed by the writer
	end     error         // what the writer ended with; read after stopped

	last atomic.Uint64 // position of the last durable event

	mu          sync.Mutex // guards what follows
	frames      events.FrameCounts
	checkpoints map[string]uint64 // as last set
	dirty       map[string]uint64 // those of them that are not yet written
	failed      error             // why nothing can be written any more
}

// Open opens the log in dir, which is made if need be, unless opts says
// ReadOnly. Errors match one of the sentinels of package store and, where the
// operator can do something, carry a [store.HintError].
func Open(dir string, opts *Options) (*Store, error) {
	if opts == nil {
		opts = &Options{}
	}
	s := &Store{
		dir:         dir,
		log:         opts.Logger,
		readOnly:    opts.ReadOnly,
		flush:       opts.FlushInterval,
		appends:     make(chan *request),
		touched:     make(chan struct{}, 1),
		stop:        make(chan struct{}),
		stopped:     make(chan struct{}),
		checkpoints: make(map[string]uint64),
		dirty:       make(map[string]uint64),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.flush <= 0 {
		s.flush = time.Second
	}
	if err := s.open(opts); err != nil {
		return nil, fmt.Errorf("open %s: %w", filepath.Join(dir, FileName), s.explainOpen(err))
	}
	if s.readOnly {
		close(s.stopped)
	} else {
		go s.write()
	}
	s.log.Info("log opened", "dir", dir, "log_id", s.id, "position", s.Last(), "read_only", s.readOnly)
	return s, nil
}

func (s *Store) open(opts *Options) error {
	path := filepath.Join(s.dir, FileName)
	if s.readOnly {
		if fi, err := os.Stat(path); err != nil {
			return err
		} else if fi.Size() == 0 {
			return fs.ErrNotExist
		}
	} else if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}

	// bbolt keeps the file open, and locked, when it panics while it opens.
	var file *os.File
	bopts := &bbolt.Options{
		ReadOnly:     s.readOnly,
		Timeout:      opts.LockTimeout,
		FreelistType: bbolt.FreelistMapType,
		NoStatistics: true,
		OpenFile: func(name string, flag int, perm os.FileMode) (f *os.File, err error) {
			openFile := opts.openFile
			if openFile == nil {
				openFile = os.OpenFile
			}
			file, err = openFile(name, flag, perm)
			return file, err
		},
	}
	if bopts.Timeout <= 0 {
		bopts.Timeout = 100 * time.Millisecond
	}
	err := guard(func() (err error) {
		s.db, err = bbolt.Open(path, 0o600, bopts)
		return err
	})
	if err != nil {
		if errors.Is(err, store.ErrDamaged) && file != nil {
			_ = file.Close()
		}
		return err
	}
	if err := guard(func() error { return s.load(file) }); err != nil {
		_ = guard(s.db.Close)
		return err
	}
	return nil
}

// load checks that the file is ours and reads what is kept in memory; it makes
// the buckets of a new file.
func (s *Store) load(file io.ReaderAt) error {
	fresh := false
	err := s.db.View(func(tx *bbolt.Tx) error {
		fi, err := os.Stat(s.db.Path())
		if err != nil {
			return err
		}
		if fi.Size() < tx.Size() {
			return fmt.Errorf("%w: the file is cut short, %d of %d bytes are there", store.ErrDamaged, fi.Size(), tx.Size())
		}
		if err := checkTree(file, tx); err != nil {
			return err
		}
		if k, _ := tx.Cursor().First(); k == nil {
			fresh = true // made, but the process ended before the next step
			return nil
		}
		return s.loadTx(tx)
	})
	if err != nil || !fresh {
		return err
	}
	if s.readOnly {
		return fs.ErrNotExist
	}
	if err := s.db.Update(create); err != nil {
		return err
	}
	// bbolt syncs the file, not the folder that names it.
	if err := errors.Join(syncDir(s.dir), syncDir(filepath.Dir(s.dir))); err != nil {
		return err
	}
	return s.db.View(s.loadTx)
}

func create(tx *bbolt.Tx) error {
	for _, name := range allBuckets {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return err
	}
	meta := tx.Bucket(bucketMeta)
	return errors.Join(meta.Put(keyVersion, u64(formatVersion)), meta.Put(keyID, []byte(id.String())))
}

func (s *Store) loadTx(tx *bbolt.Tx) error {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return store.ErrForeign
	}
	version, id := meta.Get(keyVersion), meta.Get(keyID)
	if len(version) != 8 || len(id) == 0 {
		return store.ErrForeign
	}
	if v := binary.BigEndian.Uint64(version); v > formatVersion {
		return fmt.Errorf("%w: format %d, this program knows %d", store.ErrVersion, v, formatVersion)
	}
	for _, name := range allBuckets {
		if tx.Bucket(name) == nil {
			return fmt.Errorf("%w: bucket %s is missing", store.ErrDamaged, name)
		}
	}
	s.id = string(id)
	if k, _ := tx.Bucket(bucketEvents).Cursor().Last(); k != nil {
		last, err := parseU64(k)
		if err != nil {
			return err
		}
		s.last.Store(last)
	}
	if v := meta.Get(keyFrames); v != nil {
		frames, err := parseFrames(v)
		if err != nil {
			return err
		}
		s.frames = frames
	}
	return tx.Bucket(bucketCheckpoints).ForEach(func(k, v []byte) error {
		position, err := parseU64(v)
		s.checkpoints[string(k)] = position
		return err
	})
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrPermission) {
		return nil // a parent that we may pass but not read was not made by us
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// ID implements [store.Store].
func (s *Store) ID() string { return s.id }

// Last implements [store.Store].
func (s *Store) Last() uint64 { return s.last.Load() }

// Frames implements [store.Store].
func (s *Store) Frames() events.FrameCounts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.frames
}

// Checkpoint implements [store.Store].
func (s *Store) Checkpoint(name string) (uint64, error) {
	if err := s.gate.Enter(); err != nil {
		return 0, err
	}
	defer s.gate.Leave()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checkpoints[name], nil
}

// SetCheckpoint implements [store.Store]. The value stays in memory until the
// next batch takes it along, the store is closed, or FlushInterval has passed: a
// checkpoint alone is not worth a sync, since a reader that comes back to an
// earlier one only repeats itself.
func (s *Store) SetCheckpoint(name string, position uint64) error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	defer s.gate.Leave()
	if s.readOnly {
		return store.ErrReadOnly
	}
	if name == "" || len(name) > store.MaxKey {
		return fmt.Errorf("%w: checkpoint name of %d bytes", store.ErrInvalid, len(name))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	if old, ok := s.checkpoints[name]; ok && old == position {
		return nil
	}
	s.checkpoints[name], s.dirty[name] = position, position
	select {
	case s.touched <- struct{}{}:
	default: // the writer knows already
	}
	return nil
}

// Close implements [store.Store]. It writes the checkpoints that are left. Called
// from a function given to Read it would wait for itself.
func (s *Store) Close() error {
	if !s.gate.Close() {
		<-s.stopped
		return nil
	}
	if s.readOnly {
		return guard(s.db.Close)
	}
	close(s.stop)
	<-s.stopped
	s.log.Info("log closed", "dir", s.dir, "position", s.Last())
	return s.end
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(key, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, body)
}

func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

func parseU64(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: a number of %d bytes", store.ErrDamaged, len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

func appendFrames(b []byte, c events.FrameCounts) []byte {
	for _, v := range []uint64{c.Received, c.Recorded, c.NoOps, c.Duplicates, c.Quarantined} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func parseFrames(b []byte) (events.FrameCounts, error) {
	if len(b) != 40 {
		return events.FrameCounts{}, fmt.Errorf("%w: frame totals of %d bytes", store.ErrDamaged, len(b))
	}
	at := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
	return events.FrameCounts{Received: at(0), Recorded: at(1), NoOps: at(2), Duplicates: at(3), Quarantined: at(4)}, nil
}
