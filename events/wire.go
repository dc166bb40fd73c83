package events

import (
	"encoding/binary"
	"fmt"
	"math"
)

// The wire types. The first three have the numbers of Protocol Buffers.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireUUID    = 3 // sixteen bytes, standing for a text of 36
	wireAgain   = 4 // a byte: the record's UUID with that number, from 0
)

// maxNumber bounds a field number, so that a hostile tag cannot overflow.
const maxNumber = 1<<29 - 1

func appendTag(b []byte, number uint32, wire uint8) []byte {
	if number < 16 {
		return append(b, byte(number)<<3|wire)
	}
	return appendUvarint(b, uint64(number)<<3|uint64(wire))
}

func appendUvarint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }

func appendFixed64(b []byte, v uint64) []byte { return binary.LittleEndian.AppendUint64(b, v) }

func appendUint(b []byte, number uint32, v uint64) []byte {
	if v == 0 {
		return b
	}
	return appendUvarint(appendTag(b, number, wireVarint), v)
}

// appendInt writes v in zigzag, so that a small negative number stays short.
func appendInt(b []byte, number uint32, v int64) []byte {
	if v == 0 {
		return b
	}
	return appendUvarint(appendTag(b, number, wireVarint), uint64(v)<<1^uint64(v>>63))
}

func appendBytes(b []byte, number uint32, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	b = appendUvarint(appendTag(b, number, wireBytes), uint64(len(v)))
	return append(b, v...)
}

// reader reads tagged fields. It never panics: the first wrong byte sets bad,
// after which every read returns zero and more returns false.
type reader struct {
	b   []byte
	s   string // the same bytes; strings are cut out of it
	off int
	end int // of what is read: b, or one struct in it
	bad bool
	ids uuids
}

type field struct {
	number uint32
	wire   uint8
}

func newReader(b []byte) (reader, error) {
	if len(b) == 0 {
		return reader{}, fmt.Errorf("%w: empty", ErrCorrupt)
	}
	if b[0] < firstFormVersion || b[0] > formVersion {
		return reader{}, fmt.Errorf("%w: %d", ErrVersion, b[0])
	}
	return reader{b: b, s: string(b), off: 1, end: len(b)}, nil
}

func (r *reader) more() bool { return !r.bad && r.off < r.end }

func (r *reader) fail() { r.bad = true }

func (r *reader) uvarint() uint64 {
	if r.off < r.end && r.b[r.off] < 0x80 {
		r.off++
		return uint64(r.b[r.off-1])
	}
	v, n := binary.Uvarint(r.b[r.off:r.end])
	if n <= 0 {
		r.fail()
		return 0
	}
	r.off += n
	return v
}

func (r *reader) field() field {
	tag := r.uvarint()
	number := tag >> 3
	if number == 0 || number > maxNumber {
		r.fail()
	}
	return field{number: uint32(number), wire: uint8(tag & 7)}
}

// uint reads an unsigned number that must fit in bits.
func (r *reader) uint(f field, bits uint8) uint64 {
	if r.bad || f.wire != wireVarint {
		r.fail()
		return 0
	}
	v := r.uvarint()
	if bits < 64 && v>>bits != 0 {
		r.fail()
		return 0
	}
	return v
}

// int reads a signed number that must fit in bits.
func (r *reader) int(f field, bits uint8) int64 {
	u := r.uint(f, 64)
	v := int64(u>>1) ^ -int64(u&1)
	if spare := 64 - bits; v<<spare>>spare != v {
		r.fail()
		return 0
	}
	return v
}

func (r *reader) float(f field) float64 {
	if r.bad || f.wire != wireFixed64 || r.end-r.off < 8 {
		r.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b[r.off:])
	r.off += 8
	return math.Float64frombits(v)
}

// span reads a length and returns where the bytes after it begin and end.
func (r *reader) span(f field) (from, to int) {
	if r.bad || f.wire != wireBytes {
		r.fail()
		return 0, 0
	}
	n := r.uvarint()
	if r.bad || n > uint64(r.end-r.off) {
		r.fail()
		return 0, 0
	}
	from = r.off
	r.off += int(n)
	return from, r.off
}

func (r *reader) string(f field) string {
	switch {
	case r.bad:
		return ""
	case f.wire == wireUUID && r.end-r.off >= 16:
		s := textOf(r.b[r.off : r.off+16])
		r.off += 16
		r.ids.add(s)
		return s
	case f.wire == wireAgain && r.off < r.end && int(r.b[r.off]) < r.ids.n:
		s := r.ids.text[r.b[r.off]]
		r.off++
		return s
	}
	from, to := r.span(f)
	return r.s[from:to]
}

// sub returns a reader of the framed bytes, which stand by themselves.
func (r *reader) sub(f field) reader {
	from, to := r.span(f)
	return reader{b: r.b[from:to], s: r.s[from:to], end: to - from, bad: r.bad}
}

// enter begins to read a struct, leave goes on behind it with what enter returned.
func (r *reader) enter(f field) (end int) {
	from, to := r.span(f)
	end, r.off, r.end = r.end, from, to
	return end
}

func (r *reader) leave(end int) { r.end = end }

// copy returns the reader's bytes in memory of their own, nil if there are none.
func (r *reader) copy() []byte { return append([]byte(nil), r.b...) }

func (r *reader) skip(f field) {
	switch f.wire {
	case wireVarint:
		r.uvarint()
	case wireFixed64:
		r.float(f)
	case wireBytes:
		r.span(f)
	case wireUUID, wireAgain:
		r.string(f) // later ones count it
	default:
		r.fail()
	}
}
