package bolt

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/callstate/callstate/events"
)

// readLoose reads the pages of events, frames and the index that no tree leads to,
// or the wrong one. Without a whole list of what is free, which the newest meta page leads to, that
// may be pages of before: see settle.
func (w *wreck) readLoose() {
	for id := uint64(2); id < w.limit; id++ {
		isFree := w.free.has(id)
		if w.inner.has(id) || isFree && w.metas == 2 {
			continue
		}
		w.seen.clear(id)
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
	case isIndexKey(k):
		number, _, _ := parseIndexKey(k)
		run, _, _ := parseRun(nil, number, k, v)
		for _, position := range run {
			if _, known := w.index[position]; !known {
				w.index[position] = number
			}
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

// isIndexKey tells a key of the index from that of a call, which does not begin with
// two zeros: numbers of calls are small.
func isIndexKey(k []byte) bool { return len(k) == 16 && k[0] == 0 && k[1] == 0 }

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
	w.most = w.lastEvent()
	if w.harmed || w.metas < 2 || !w.found[string(bucketEvents)] {
		spoken := append(slices.Collect(maps.Keys(w.index)), w.spoken...)
		slices.Sort(spoken)
		for _, position := range spoken {
			if position > w.most && plausible(position, w.most) {
				w.most = position
			}
		}
	}
	w.settleFrames()
}

// settleFrames decides what is believed of the two numbers between which the
// file's quarantined frames are: they have no checksums.
func (w *wreck) settleFrames() {
	n, last := len(w.frames), w.head.quarantined
	if n > 0 {
		last = w.frames[n-1].n
	}
	if plausible(w.lastFrame, last) {
		return
	}
	if w.found[string(bucketQuarantine)] {
		w.damage("bucket quarantine: it counts %d frames, and the last is %d", w.lastFrame, last)
	}
	if n == 0 {
		w.head.quarantined = min(last, w.lastFrame)
		last = w.head.quarantined
	}
	w.lastFrame = last
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
