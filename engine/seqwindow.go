package engine

// seqWindow knows which of a switch's last numbers of events it was given. One that
// is older than that counts as not given, and so does one that no switch can have
// come to since the others.
type seqWindow struct {
	top  uint64   // the highest
	bits []uint64 // a bit for each of the last numbers, by their remainders
}

// seqWindowSize is a minute and more of a switch that raises 2,000 events a second:
// the same frame comes twice where two connections show it.
const seqWindowSize = 1 << 17

// seqLeap is further than a switch counts between two frames that we see: 24 days at
// 2,000 events a second. Where one number is so far off, the lower one is right: one
// frame with a number of 18 digits would end the recognition of repeats.
const seqLeap = 1 << 32

func (w *seqWindow) has(seq uint64) bool {
	if w.bits == nil || seq > w.top || w.top-seq >= seqWindowSize {
		return false
	}
	return w.bits[seq%seqWindowSize/64]&(1<<(seq%64)) != 0
}

func (w *seqWindow) add(seq uint64) {
	if w.bits == nil {
		w.bits, w.top = make([]uint64, seqWindowSize/64), seq
	}
	switch {
	case seq > w.top && seq-w.top >= seqLeap:
		return
	case seq > w.top && seq-w.top >= seqWindowSize, seq < w.top && w.top-seq >= seqLeap:
		clear(w.bits)
		w.top = seq
	case w.top >= seqWindowSize && seq <= w.top-seqWindowSize:
		return
	}
	for ; w.top < seq; w.top++ {
		next := w.top + 1
		w.bits[next%seqWindowSize/64] &^= 1 << (next % 64)
	}
	w.bits[seq%seqWindowSize/64] |= 1 << (seq % 64)
}
