// Package bolt is the [store.Store] of a running engine: a row of bbolt files in
// a folder of their own.
//
// An Append that returned survives a crash of the process and of the machine.
// Appends that wait at the same time share one transaction and so one sync. See
// store/DESIGN.md for the layout and for what happens when things go wrong.
package bolt

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/internal/gate"
)

// FileName is the name of the log in its folder.
const FileName = "callstate.db"

// formatVersion is the version of the layout below. A newer one is refused. A file
// of an earlier one is read as it is, and the one that is appended to is brought up
// to this one.
const (
	formatVersion = 2
	versionOfRuns = 2 // before it the index had an entry for every event, and was never behind
)

// checkVersion tells a newer format, with [store.ErrVersion], from a number that
// none will ever have, with [store.ErrDamaged].
func checkVersion(v uint64) error {
	switch {
	case v == 0 || v >= 1000:
		return fmt.Errorf("%w: format %d", store.ErrDamaged, v)
	case v > formatVersion:
		return fmt.Errorf("%w: format %d, this program knows %d", store.ErrVersion, v, formatVersion)
	}
	return nil
}

// The buckets. Numbers are 8 bytes, big-endian.
var (
	bucketMeta        = []byte("meta")        // "version", "id", "frames", "first", "made", "quarantined"
	bucketEvents      = []byte("events")      // position → CRC32C of key and body, body
	bucketCalls       = []byte("calls")       // callKey → the call's number, first position
	bucketIndex       = []byte("index")       // call's number, position → positions that follow; sequence: how far it goes
	bucketQuarantine  = []byte("quarantine")  // number → CRC32C of key and body, body
	bucketCheckpoints = []byte("checkpoints") // name → position

	keyVersion     = []byte("version")
	keyID          = []byte("id")
	keyFrames      = []byte("frames")
	keyFirst       = []byte("first")       // position of the file's first event
	keyMade        = []byte("made")        // when the file was made, Unix seconds
	keyQuarantined = []byte("quarantined") // how many frames the files before have
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
	// SegmentBytes and SegmentAge are when the file that is appended to is sealed
	// and a new one is begun: whole files are what Drop gives back. 0 means
	// 256 MiB and 24 h, a negative value never.
	SegmentBytes int64
	SegmentAge   time.Duration

	maxTail int // for tests; 0 means the constant

	disk  disk  // for tests; nil means the operating system's
	start start // where a log that is made begins
}

// start is where a log begins that goes on from another one.
type start struct {
	after       uint64 // position of the last event before it
	base        []byte // what those add up to
	quarantined uint64 // number of the last frame before it
}

var _ store.Store = (*Store)(nil)

// Store is an open log. It owns one goroutine, the writer, that Close waits for.
type Store struct {
	dir          string
	id           string
	log          *slog.Logger
	readOnly     bool
	flush        time.Duration
	segmentBytes int64
	segmentAge   time.Duration
	maxTail      int
	disk         disk

	head     *segment                   // the file that is appended to; the writer's alone after Open
	headMade time.Time                  // the writer's
	segs     atomic.Pointer[[]*segment] // all of them, head last; a new slice each time
	base     atomic.Uint64              // position of the last event that was dropped
	dropping sync.Mutex                 // one Drop at a time

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
		dir:          dir,
		log:          opts.Logger,
		readOnly:     opts.ReadOnly,
		flush:        opts.FlushInterval,
		segmentBytes: opts.SegmentBytes,
		segmentAge:   opts.SegmentAge,
		maxTail:      cmp.Or(opts.maxTail, maxTail),
		disk:         opts.disk,
		appends:      make(chan *request),
		touched:      make(chan struct{}, 1),
		stop:         make(chan struct{}),
		stopped:      make(chan struct{}),
		checkpoints:  make(map[string]uint64),
		dirty:        make(map[string]uint64),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.disk == nil {
		s.disk = osDisk{}
	}
	if s.flush <= 0 {
		s.flush = time.Second
	}
	if s.segmentBytes == 0 {
		s.segmentBytes = defaultSegmentBytes
	}
	if s.segmentAge == 0 {
		s.segmentAge = defaultSegmentAge
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
		if there, err := isThere(path); err != nil || !there {
			return cmp.Or(err, fs.ErrNotExist)
		}
	} else if err := s.makeFirst(path, opts.start); err != nil {
		return err
	}

	timeout := opts.LockTimeout
	if timeout <= 0 {
		timeout = 100 * time.Millisecond
	}
	db, file, err := openFile(path, &bbolt.Options{ReadOnly: s.readOnly, Timeout: timeout}, s.disk)
	if err != nil {
		return err
	}
	s.head = &segment{path: path, db: db}
	if err = s.settle(file); err == nil {
		err = guard(func() error {
			return db.View(func(tx *bbolt.Tx) error {
				if err := checkFile(file, tx); err != nil {
					return err
				}
				return s.loadTx(tx)
			})
		})
	}
	if err == nil {
		err = s.loadSegments()
	}
	if err == nil && !s.readOnly {
		if err = s.upgrade(); err == nil {
			err = s.settleSnapshots()
		}
	}
	if err != nil {
		_ = guard(db.Close)
	}
	return err
}

// loadSegments finds the sealed files and where the log begins.
func (s *Store) loadSegments() error {
	segs, err := s.sealed()
	if err != nil {
		return err
	}
	segs = append(segs, s.head)
	if n := len(segs); n > 1 && segs[n-2].first >= s.head.first {
		return fmt.Errorf("%w: %s begins at event %d, after %s", store.ErrDamaged, filepath.Base(segs[n-2].path), segs[n-2].first, FileName)
	}
	s.segs.Store(&segs)
	if !s.readOnly {
		if err := s.removeLeftovers(); err != nil {
			return err
		}
	}
	return s.loadBase()
}

// upgrade brings the file that is appended to up to this version's layout.
func (s *Store) upgrade() error {
	return guard(func() error {
		var h header
		err := s.head.db.View(func(tx *bbolt.Tx) (err error) {
			h, err = readHeader(tx)
			return err
		})
		if err != nil || h.version == formatVersion {
			return err
		}
		return s.head.db.Update(func(tx *bbolt.Tx) error {
			return errors.Join(
				tx.Bucket(bucketIndex).SetSequence(s.Last()),
				tx.Bucket(bucketMeta).Put(keyVersion, u64(formatVersion)),
			)
		})
	})
}

// checkFile finds what bbolt would trip over.
func checkFile(file *os.File, tx *bbolt.Tx) error {
	fi, err := file.Stat()
	if err != nil {
		return err
	}
	if fi.Size() < tx.Size() {
		return fmt.Errorf("%w: the file is cut short, %d of %d bytes are there", store.ErrDamaged, fi.Size(), tx.Size())
	}
	return checkTree(file, tx)
}

// header is what a file says of itself.
type header struct {
	version     uint64 // of the layout
	id          string
	first       uint64 // position of its first event
	made        time.Time
	quarantined uint64 // number of the last frame that was quarantined before it
	indexed     uint64 // position of the last event that index and calls have
}

// readHeader checks that the file is a log that this version can read.
func readHeader(tx *bbolt.Tx) (h header, err error) {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return h, store.ErrForeign
	}
	version, id := meta.Get(keyVersion), meta.Get(keyID)
	if len(version) != 8 || len(id) == 0 {
		return h, store.ErrForeign
	}
	if err := checkVersion(binary.BigEndian.Uint64(version)); err != nil {
		return h, err
	}
	for _, name := range allBuckets {
		if tx.Bucket(name) == nil {
			return h, fmt.Errorf("%w: bucket %s is missing", store.ErrDamaged, name)
		}
	}
	h.version, h.id = binary.BigEndian.Uint64(version), string(id)
	h.indexed = tx.Bucket(bucketIndex).Sequence()
	h.first = 1
	var made uint64
	for key, into := range map[string]*uint64{string(keyFirst): &h.first, string(keyMade): &made, string(keyQuarantined): &h.quarantined} {
		v := meta.Get([]byte(key))
		if v == nil { // of before there were segments
			continue
		}
		if *into, err = parseU64(v); err != nil {
			return h, err
		}
	}
	h.made = time.Unix(int64(made), 0)
	return h, nil
}

func (s *Store) loadTx(tx *bbolt.Tx) error {
	h, err := readHeader(tx)
	if err != nil {
		return err
	}
	s.id, s.head.id, s.head.first, s.headMade = h.id, h.id, h.first, h.made
	meta := tx.Bucket(bucketMeta)
	last, err := lastEvent(tx, h)
	if err != nil {
		return err
	}
	s.last.Store(last)
	if v := meta.Get(keyFrames); v != nil {
		frames, err := parseFrames(v)
		if err != nil {
			return err
		}
		s.frames = frames
	}
	err = tx.Bucket(bucketCheckpoints).ForEach(func(k, v []byte) error {
		position, err := parseU64(v)
		s.checkpoints[string(k)] = position
		return err
	})
	if err != nil {
		return err
	}
	return s.head.tail.load(tx, h)
}

// lastEvent returns the position of a file's last event, that before its first for
// one without any.
func lastEvent(tx *bbolt.Tx, h header) (uint64, error) {
	k, _ := tx.Bucket(bucketEvents).Cursor().Last()
	if k == nil {
		return h.first - 1, nil
	}
	return parseU64(k)
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
		return s.closeAll()
	}
	close(s.stop)
	<-s.stopped
	s.log.Info("log closed", "dir", s.dir, "position", s.Last())
	return s.end
}

// closeAll closes the files; nobody is inside any more.
func (s *Store) closeAll() error {
	var errs []error
	for _, g := range s.segments() {
		errs = append(errs, g.close())
	}
	return errors.Join(errs...)
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
