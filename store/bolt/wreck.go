package bolt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

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

// readWreck reads a file of the log as far as it can be read. end is the position
// of its last event, 0 where nothing tells. The error is that of a file which
// cannot be read at all, or is no log.
func readWreck(name string, file *os.File, end uint64) (*wreck, error) {
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
	if n := len(w.events); end > 0 && len(w.bad) == 0 && (n == 0 || w.events[n-1].n < end) {
		w.damage("the events up to %d, with which the next file goes on, are missing", end)
		w.metas = 1 // the newest one is of before
	}
	if len(w.bad) > 0 {
		w.readLoose()
	}
	w.settle()
	if v := w.head.version; v > formatVersion && v < 1000 { // the rest is damage
		return nil, fmt.Errorf("%w: format %d, this program knows %d", store.ErrVersion, w.head.version, formatVersion)
	}
	if !w.hasHead && len(w.events) == 0 {
		if w.metas == 2 {
			return nil, store.ErrForeign
		}
		w.damage("nothing in it can be read")
	}
	return w, nil
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
	w.seen, w.free = make(bitset, w.limit/64+1), make(bitset, w.limit/64+1)
	return w, fi.Size(), nil
}

// readHead reads no more than what the file says of itself, if that is whole.
func readHead(name string, file *os.File) (*wreck, error) {
	w, _, err := newWreck(name, file)
	if err != nil {
		return nil, err
	}
	if w.metas == 2 {
		w.walk(w.meta.root, "root", func(k, v []byte, at int64) {
			if string(k) == string(bucketMeta) {
				w.takeBucket(k, v, at)
			}
		})
	}
	if w.hasHead && len(w.bad) == 0 {
		return w, nil
	}
	return readWreck(name, file, 0)
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
	w.walk(w.meta.root, "root", w.takeBucket)
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
	if root := binary.NativeEndian.Uint64(v); root != 0 {
		w.walk(root, string(k), take)
		return
	}
	w.leaf(v[bucketHeader:], at+bucketHeader, string(k), take)
}

func (w *wreck) takeMeta(k, v []byte, _ int64) {
	n, err := parseU64(v)
	w.said[string(k)] = true
	switch string(k) {
	case string(keyVersion):
		w.head.version = n
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

func (w *wreck) takeIndex(k, _ []byte, _ int64) {
	number, position, err := parseIndexKey(k)
	if err != nil {
		w.damage("bucket index: an entry")
		return
	}
	w.index[position] = number
}

func (w *wreck) takeCheckpoint(k, v []byte, _ int64) {
	n, err := parseU64(v)
	if err != nil {
		w.damage("checkpoint %q", k)
		return
	}
	w.checkpoints[string(k)] = max(n, w.checkpoints[string(k)])
}

// walk gives fn the entries of a tree, as far as its pages are whole.
func (w *wreck) walk(root uint64, bucket string, fn func(k, v []byte, at int64)) {
	for todo := []child{{id: root}}; len(todo) > 0; {
		id, key := todo[len(todo)-1].id, todo[len(todo)-1].key
		todo = todo[:len(todo)-1]
		page, why := w.page(id)
		if why == "" && key != nil && !bytes.Equal(key, firstKey(page)) {
			why = "it is not the one that the page above it means"
			w.unsee(id, page)
		}
		if why != "" {
			w.damage("page %d of %s: %s", id, bucket, why)
			w.harmed = w.harmed || bucket == string(bucketEvents)
			continue
		}
		if parsePageHead(page).flags == flagLeaf {
			w.leaf(page, int64(id)*w.pageSize, bucket, fn)
			continue
		}
		children := w.branch(page, id, bucket)
		for _, c := range children {
			if bucket == string(bucketEvents) && len(c.key) == 8 {
				w.spoken = append(w.spoken, binary.BigEndian.Uint64(c.key))
			}
		}
		slices.Reverse(children)
		todo = append(todo, children...)
	}
}

// maxPageBytes is more than bbolt makes of the largest record.
const maxPageBytes = 2 * store.MaxRecord

// page reads a page that is in use, with those that belong to it.
func (w *wreck) page(id uint64) (page []byte, why string) {
	switch {
	case id < 2 || id >= w.limit:
		return nil, "it is not in the file"
	case w.seen.has(id):
		return nil, "it is used twice"
	}
	b := make([]byte, w.pageSize)
	if _, err := w.file.ReadAt(b, int64(id)*w.pageSize); err != nil && !errors.Is(err, io.EOF) {
		return nil, err.Error()
	}
	h := parsePageHead(b)
	if h.id != id || h.flags != flagLeaf && h.flags != flagBranch {
		return nil, "it is no page of a tree"
	}
	n := int64(h.overflow) + 1
	if n*w.pageSize > maxPageBytes {
		return nil, "its size is impossible"
	}
	if n > 1 {
		b = make([]byte, n*w.pageSize)
		if _, err := w.file.ReadAt(b, int64(id)*w.pageSize); err != nil && !errors.Is(err, io.EOF) {
			return nil, err.Error()
		}
		if used := int64(contentEnd(b))/w.pageSize + 1; used < n { // bbolt takes no more than it needs
			w.damage("page %d says that it is of %d pages", id, n)
			n = used
			b = b[:n*w.pageSize]
		}
	}
	for i := range uint64(n) {
		w.seen.set(id + i)
	}
	return b, ""
}

// contentEnd returns where the entries of a page end.
func contentEnd(page []byte) (end int) {
	h := parsePageHead(page)
	for at := pageHeader; at < pageHeader+elemSize*int(h.count) && at+elemSize <= len(page); at += elemSize {
		u32 := func(off int) int { return int(binary.NativeEndian.Uint32(page[at+off:])) }
		e := at + u32(0) + u32(4)
		if h.flags == flagLeaf {
			e = at + u32(4) + u32(8) + u32(12)
		}
		if e <= len(page) {
			end = max(end, e)
		}
	}
	return end
}

// unsee takes back that a page is in use.
func (w *wreck) unsee(id uint64, page []byte) {
	for i := range uint64(len(page)) / uint64(w.pageSize) {
		w.seen[(id+i)/64] &^= 1 << ((id + i) % 64)
	}
}

// child is an entry of a branch: a page, and the first key in it.
type child struct {
	id  uint64
	key []byte
}

// firstKey returns the first key of a page, nil where it leads out of it.
func firstKey(page []byte) []byte {
	h := parsePageHead(page)
	if h.count == 0 || len(page) < pageHeader+elemSize {
		return nil
	}
	e := page[pageHeader:]
	from, size := int(binary.NativeEndian.Uint32(e)), int(binary.NativeEndian.Uint32(e[4:]))
	if h.flags == flagLeaf {
		from, size = size, int(binary.NativeEndian.Uint32(e[8:]))
	}
	if from += pageHeader; from+size > len(page) {
		return nil
	}
	return page[from : from+size]
}

func (w *wreck) branch(page []byte, id uint64, bucket string) (children []child) {
	n := int(parsePageHead(page).count)
	if n == 0 || pageHeader+elemSize*n > len(page) {
		w.damage("page %d of %s: it is no branch", id, bucket)
		return nil
	}
	for i := range n {
		at := pageHeader + elemSize*i
		e := page[at:]
		from, size := at+int(binary.NativeEndian.Uint32(e)), int(binary.NativeEndian.Uint32(e[4:]))
		key := []byte{} // no page begins so
		if from+size <= len(page) {
			key = page[from : from+size]
		}
		children = append(children, child{binary.NativeEndian.Uint64(e[8:]), key})
	}
	return children
}

// leaf gives fn the entries of a leaf that is at a place in the file.
func (w *wreck) leaf(page []byte, at int64, bucket string, fn func(k, v []byte, at int64)) {
	if len(page) < pageHeader {
		w.damage("bucket %s: its page is too small", bucket)
		return
	}
	n := int(parsePageHead(page).count)
	if len(page) >= pageHeader+elemSize {
		// The first entry follows the last element: it tells their number too.
		first := int(binary.NativeEndian.Uint32(page[pageHeader+4:]))
		if m := first / elemSize; first%elemSize == 0 && m > n && pageHeader+first < len(page) {
			w.damage("a page of %s has %d entries and says %d", bucket, m, n)
			n = m
		}
	}
	for i := range n {
		e := pageHeader + elemSize*i
		if e+elemSize > len(page) {
			w.damage("a page of %s ends before its entries", bucket)
			w.harmed = w.harmed || bucket == string(bucketEvents)
			return
		}
		u32 := func(off int) int { return int(binary.NativeEndian.Uint32(page[e+off:])) }
		from, key, value := e+u32(4), u32(8), u32(12)
		if from+key+value > len(page) || key == 0 {
			w.damage("an entry of %s leads out of its page", bucket)
			w.harmed = w.harmed || bucket == string(bucketEvents)
			continue
		}
		fn(page[from:from+key], page[from+key:from+key+value], at+int64(from+key))
	}
}

// readLoose reads the pages of events, frames and the index that no tree leads to.
// Without a whole list of what is free, which the newest meta page leads to, that
// may be pages of before: see settle.
func (w *wreck) readLoose() {
	for id := uint64(2); id < w.limit; id++ {
		isFree := w.free.has(id)
		if w.seen.has(id) || isFree && w.metas == 2 {
			continue
		}
		page, why := w.page(id)
		if why != "" || parsePageHead(page).flags != flagLeaf {
			continue
		}
		known := len(w.bad)
		w.leaf(page, int64(id)*w.pageSize, "no bucket", func(k, v []byte, at int64) { w.takeLoose(k, v, at, isFree) })
		w.bad = w.bad[:known] // of a page that may be none
	}
}

func (w *wreck) takeLoose(k, v []byte, at int64, isFree bool) {
	switch {
	case len(k) == 8 && len(v) > 4 && binary.BigEndian.Uint32(v) == checksum(k, v[4:]):
		ev, err := events.DecodeBinary(v[4:])
		w.loose = append(w.loose, looseRef{
			ref:   ref{binary.BigEndian.Uint64(k), at, len(v), binary.BigEndian.Uint32(v)},
			event: err == nil && ev.ID != "", // a quarantined frame has none
			free:  isFree,
		})
	case len(k) == 16 && len(v) == 0:
		number, position, _ := parseIndexKey(k)
		if _, known := w.index[position]; !known {
			w.index[position] = number
		}
	case len(v) == 16 && !isBucketName(k):
		if number, first, err := parseCall(v); err == nil {
			if _, known := w.calls[string(k)]; !known {
				w.calls[string(k)] = callRef{number, first}
			}
		}
	case isBucketName(k) && !w.found[string(k)] && len(v) > bucketHeader && binary.NativeEndian.Uint64(v) == 0:
		w.leaf(v[bucketHeader:], at+bucketHeader, "no bucket", func(ik, iv []byte, at int64) {
			switch string(k) {
			case string(bucketMeta):
				w.takeMeta(ik, iv, at)
			case string(bucketCheckpoints):
				w.takeCheckpoint(ik, iv, at)
			default:
				w.takeLoose(ik, iv, at, isFree)
			}
		})
	}
}

func isBucketName(k []byte) bool {
	return slices.ContainsFunc(allBuckets, func(name []byte) bool { return string(name) == string(k) })
}

// settle puts the records in order and decides about the loose ones: one whose
// place is taken by a tree's is of before, of two that differ neither is believed.
// Where one meta page is lost, pages listed as free by the other may be the last
// transaction's: they are believed where they go on from where the trees end.
func (w *wreck) settle() {
	w.events = w.withLoose(w.events, true)
	w.frames = w.withLoose(w.frames, false)
	w.most = w.head.first - min(w.head.first, 1)
	if n := len(w.events); n > 0 {
		w.most = w.events[n-1].n
	}
	if w.harmed || w.metas < 2 || !w.found[string(bucketEvents)] {
		spoken := append(slices.Collect(maps.Keys(w.index)), w.spoken...)
		slices.Sort(spoken)
		for _, position := range spoken {
			if position > w.most && plausible(position, w.most) {
				w.most = position
			}
		}
	}
	last := w.head.quarantined
	if n := len(w.frames); n > 0 {
		last = w.frames[n-1].n
	}
	if !plausible(w.lastFrame, last) {
		w.lastFrame = last
	}
}

// plausible reports whether a number without a checksum may follow on one that is
// known: a few pages' worth after it.
func plausible(n, known uint64) bool { return n >= known && n-known <= 256 }

func (w *wreck) withLoose(refs []ref, event bool) []ref {
	byNumber := func(a, b ref) int { return cmp.Compare(a.n, b.n) }
	slices.SortStableFunc(refs, byNumber)
	refs = slices.CompactFunc(refs, func(a, b ref) bool { return a.n == b.n })
	end := uint64(0)
	if len(refs) > 0 {
		end = refs[len(refs)-1].n
	}
	var more []ref
	loose := slices.DeleteFunc(slices.Clone(w.loose), func(l looseRef) bool { return l.event != event })
	slices.SortStableFunc(loose, func(a, b looseRef) int { return byNumber(a.ref, b.ref) })
	for len(loose) > 0 {
		same := slices.IndexFunc(loose, func(l looseRef) bool { return l.n != loose[0].n })
		if same < 0 {
			same = len(loose)
		}
		l := loose[0]
		differ := slices.ContainsFunc(loose[:same], func(o looseRef) bool { return o.sum != l.sum || o.size != l.size })
		fits := !slices.ContainsFunc(loose[:same], func(o looseRef) bool { return !o.free })
		loose = loose[same:]
		if _, taken := slices.BinarySearchFunc(refs, l.ref, byNumber); taken || differ {
			continue
		}
		if w.metas == 1 && fits { // all copies are on free pages
			if l.n <= end || !plausible(l.n, end) {
				continue
			}
			end = l.n
		}
		more = append(more, l.ref)
	}
	refs = append(refs, more...)
	slices.SortFunc(refs, byNumber)
	return refs
}
