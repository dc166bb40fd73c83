package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
)

// wreck is a file of the log read page by page, without bbolt, which trusts what
// it reads. A page is believed where a tree leads to it; one that no tree leads
// to any more, since the page above it is damaged, where it is not listed as free:
// every page is one or the other. Records have checksums of their own.
type wreck struct {
	name     string
	file     io.ReaderAt
	pageSize int64
	limit    uint64 // pages that the file has
	metas    int    // how many of the two meta pages are whole
	meta     metaPage
	seen     bitset
	inner    bitset          // pages that go on from the one before
	found    map[string]bool // buckets
	free     bitset
	bad      []string // what is damaged

	said        map[string]bool // keys of bucket meta
	hasHead     bool
	head        header
	totals      events.FrameCounts
	checkpoints map[string]uint64

	events, frames []ref              // in order
	spoken         []uint64           // positions that branches speak of
	harmed         bool               // a page or a record of the events is damaged
	most           uint64             // greatest position that anything in the file speaks of
	lastFrame      uint64             // the same of the quarantine
	calls          map[string]callRef // by key in stored form
	index          map[uint64]uint64  // position → number of its call
	indexed        uint64             // position of the last event that index and calls have
	loose          []looseRef
}

// ref is where a record is.
type ref struct {
	n    uint64 // its position or number
	at   int64  // of its value in the file
	size int
	sum  uint32
}

type callRef struct{ number, first uint64 }

// looseRef is a record of a page that no tree leads to.
type looseRef struct {
	ref
	event, free bool
}

type bitset []uint64

func (b bitset) has(n uint64) bool { return n/64 < uint64(len(b)) && b[n/64]&(1<<(n%64)) != 0 }
func (b bitset) set(n uint64) {
	if n/64 < uint64(len(b)) {
		b[n/64] |= 1 << (n % 64)
	}
}

func (b bitset) clear(n uint64) {
	if n/64 < uint64(len(b)) {
		b[n/64] &^= 1 << (n % 64)
	}
}

// readWreck reads a file of the log as far as it can be read. first and end are the
// positions of its first and last event, 0 where nothing but the file tells. The
// error is that of a file which cannot be read at all, or is no log.
func readWreck(name string, file *os.File, first, end uint64) (*wreck, error) {
	w, size, err := newWreck(name, file)
	if err != nil {
		return nil, err
	}
	if w.metas > 0 {
		if w.meta.pages > w.limit || size%w.pageSize != 0 {
			w.damage("cut short: %d of %d bytes are there", size, max(int64(w.meta.pages)*w.pageSize, size))
		}
		w.readTrees()
	}
	if first > 0 {
		if w.hasHead && w.head.first != first {
			w.damage("its name says that it begins with event %d, and it says %d", first, w.head.first)
		}
		w.head.first = first
	}
	w.checkRow(end)
	if len(w.bad) > 0 {
		w.readLoose()
	}
	w.settle()
	if err := checkVersion(w.head.version); errors.Is(err, store.ErrVersion) {
		return nil, err
	}
	if !w.hasHead && len(w.events) == 0 {
		if w.metas == 2 {
			return nil, store.ErrForeign
		}
		w.damage("nothing in it can be read")
	}
	return w, nil
}

// checkRow finds events that are missing of the file's row, where nothing else is
// wrong: a tree may be whole and not be the one that it should be.
func (w *wreck) checkRow(end uint64) {
	n := len(w.events)
	if len(w.bad) > 0 || n == 0 && end == 0 {
		return
	}
	if n == 0 || w.events[n-1].n < end {
		w.damage("the events up to %d, with which the next file goes on, are missing", end)
		w.metas = 1 // the newest one is of before
		return
	}
	first, last := w.events[0].n, w.events[n-1].n
	if w.said[string(keyFirst)] && first > w.head.first || last-first != uint64(n-1) {
		w.damage("events are missing: there are %d from %d to %d", n, first, last)
	}
	for position := range w.index {
		if position > last {
			w.damage("events are missing behind %d", last)
			return
		}
	}
}

func newWreck(name string, file *os.File) (w *wreck, size int64, err error) {
	fi, err := file.Stat()
	if err != nil {
		return nil, 0, err
	}
	w = &wreck{
		name: name, file: file, pageSize: int64(os.Getpagesize()),
		found: map[string]bool{}, said: map[string]bool{}, checkpoints: map[string]uint64{}, calls: map[string]callRef{}, index: map[uint64]uint64{},
	}
	w.readMetas(fi.Size())
	w.limit = uint64((fi.Size() + w.pageSize - 1) / w.pageSize)
	for _, set := range []*bitset{&w.seen, &w.inner, &w.free} {
		*set = make(bitset, w.limit/64+1)
	}
	return w, fi.Size(), nil
}

// readHead reads no more than what the file says of itself, if that is whole.
func readHead(name string, file *os.File) (*wreck, error) {
	w, _, err := newWreck(name, file)
	if err != nil {
		return nil, err
	}
	if w.metas == 2 {
		w.walk(w.meta.root, bucketOfBuckets, func(k, v []byte, at int64) {
			if string(k) == string(bucketMeta) {
				w.takeBucket(k, v, at)
			}
		})
	}
	if w.hasHead && len(w.bad) == 0 {
		return w, nil
	}
	return readWreck(name, file, 0, 0)
}

// maxDamages is how many are named of a file.
const maxDamages = 50

func (w *wreck) damage(format string, args ...any) {
	if len(w.bad) < maxDamages {
		w.bad = append(w.bad, fmt.Sprintf(format, args...))
	}
}

// readMetas finds the newer of the meta pages that are whole. The first one tells
// the size of a page; without it the second is looked for where it may be.
func (w *wreck) readMetas(size int64) {
	for i := range int64(2) {
		whole := w.readMeta(i, i*w.pageSize)
		for at := int64(1024); i == 1 && !whole && w.metas == 0 && at < size; at *= 2 {
			whole = w.readMeta(i, at)
		}
		if !whole {
			w.damage("page %d, one of the two that say what is the newest", i)
		}
	}
}

func (w *wreck) readMeta(i, at int64) bool {
	b := make([]byte, pageHeader+metaSize)
	_, err := w.file.ReadAt(b, at)
	m, whole := parseMeta(b, i)
	if !whole || err != nil {
		return false
	}
	if w.metas++; w.metas == 1 || m.tx > w.meta.tx {
		w.meta, w.pageSize = m, int64(m.pageSize)
	}
	return true
}

// readTrees reads what the newest meta page leads to.
func (w *wreck) readTrees() {
	free, err := readFreeList(w.file, int(w.pageSize), w.meta)
	if err != nil {
		w.damage("%v", errors.Unwrap(err))
	}
	for _, id := range free {
		w.free.set(id)
	}
	if l := w.meta.freelist; err == nil && l != noFreeList {
		w.seen.set(l)
	}
	w.walk(w.meta.root, bucketOfBuckets, w.takeBucket)
	for _, name := range allBuckets {
		if !w.found[string(name)] {
			w.damage("bucket %s is missing", name)
		}
	}
	// A file of before there were segments has none of the three.
	three := 0
	for _, key := range [][]byte{keyFirst, keyMade, keyQuarantined} {
		if w.said[string(key)] {
			three++
		}
	}
	if w.found[string(bucketMeta)] && (!w.said[string(keyVersion)] || !w.said[string(keyID)] || three%3 != 0) {
		w.damage("bucket meta: an entry is missing")
	}
	if w.head.version < versionOfRuns {
		w.indexed = math.MaxUint64
	} else if last := w.lastEvent(); w.indexed > last {
		w.damage("bucket index: it goes on to event %d, the events to %d", w.indexed, last)
	}
}

// lastEvent is the position of the last record, that before the first without any.
func (w *wreck) lastEvent() uint64 {
	if n := len(w.events); n > 0 {
		return w.events[n-1].n
	}
	return w.head.first - min(w.head.first, 1)
}

// takeBucket reads a bucket from its entry: page of its root and sequence, and
// where the first is 0 a page that is part of the entry.
func (w *wreck) takeBucket(k, v []byte, at int64) {
	take := map[string]func(k, v []byte, at int64){
		string(bucketMeta): w.takeMeta, string(bucketEvents): w.takeEvent, string(bucketCalls): w.takeCall,
		string(bucketIndex): w.takeIndex, string(bucketQuarantine): w.takeFrame, string(bucketCheckpoints): w.takeCheckpoint,
	}[string(k)]
	if take == nil || len(v) < bucketHeader {
		return
	}
	w.found[string(k)] = true
	if string(k) == string(bucketQuarantine) {
		w.lastFrame = binary.NativeEndian.Uint64(v[8:])
	}
	if string(k) == string(bucketIndex) {
		w.indexed = binary.NativeEndian.Uint64(v[8:])
	}
	if root := binary.NativeEndian.Uint64(v); root != 0 {
		w.walk(root, string(k), take)
		return
	}
	w.inline(v[bucketHeader:], at+bucketHeader, string(k), take)
}

func (w *wreck) takeMeta(k, v []byte, _ int64) {
	n, err := parseU64(v)
	w.said[string(k)] = true
	switch string(k) {
	case string(keyVersion):
		w.head.version = n
		if vErr := checkVersion(n); err == nil && errors.Is(vErr, store.ErrDamaged) {
			w.damage("bucket meta: %v", vErr)
		}
	case string(keyID):
		w.head.id, w.hasHead, err = string(v), true, nil
	case string(keyFirst):
		w.head.first = n
	case string(keyQuarantined):
		w.head.quarantined = n
	case string(keyFrames):
		var c events.FrameCounts
		if c, err = parseFrames(v); err == nil && c.Received >= w.totals.Received {
			w.totals = c
		}
	}
	if err != nil {
		w.damage("bucket meta, %s: %v", k, errors.Unwrap(err))
	}
}

func (w *wreck) takeRecord(k, v []byte, at int64, what string) (ref, bool) {
	if len(k) != 8 || len(v) < 4 || binary.BigEndian.Uint32(v) != checksum(k, v[4:]) {
		n := uint64(0)
		if len(k) == 8 {
			n = binary.BigEndian.Uint64(k)
		}
		w.damage("%s %d: checksum differs", what, n)
		return ref{}, false
	}
	return ref{binary.BigEndian.Uint64(k), at, len(v), binary.BigEndian.Uint32(v)}, true
}

func (w *wreck) takeEvent(k, v []byte, at int64) {
	r, ok := w.takeRecord(k, v, at, "event")
	if !ok {
		w.harmed = true
		return
	}
	w.events = append(w.events, r)
}

func (w *wreck) takeFrame(k, v []byte, at int64) {
	if r, ok := w.takeRecord(k, v, at, "quarantined frame"); ok {
		w.frames = append(w.frames, r)
	}
}

func (w *wreck) takeCall(k, v []byte, _ int64) {
	number, first, err := parseCall(v)
	if _, keyErr := parseCallKey(k); err != nil || keyErr != nil {
		w.damage("bucket calls: an entry")
		return
	}
	w.calls[string(k)] = callRef{number, first}
}

func (w *wreck) takeIndex(k, v []byte, _ int64) {
	number, _, err := parseIndexKey(k)
	var run []uint64
	if err == nil {
		run, _, err = parseRun(nil, number, k, v)
	}
	if err != nil {
		w.damage("bucket index: an entry")
		return
	}
	for _, position := range run {
		w.index[position] = number
	}
}

func (w *wreck) takeCheckpoint(k, v []byte, _ int64) {
	n, err := parseU64(v)
	if err != nil {
		w.damage("checkpoint %q", k)
		return
	}
	w.checkpoints[string(k)] = max(n, w.checkpoints[string(k)])
}
