package events

import (
	"encoding/binary"
	"encoding/hex"
	"sync/atomic"
	"unsafe"
)

// Most of an event's text is UUIDs: of the call, the leg, the conversation, the
// switch's run, and often two of them are the same. In the stored form a UUID
// takes its sixteen bytes, and where the record has it already a number of one.

const uuidLen = 36

// uuids are those of one record so far, in the order in which they stand in it.
// Later ones than it has room for are written out each time.
type uuids struct {
	n    int
	text [8]string
}

// index returns which of them s is, or -1.
func (u *uuids) index(s string) int {
	for i, text := range u.text[:u.n] {
		if text == s {
			return i
		}
	}
	return -1
}

func (u *uuids) add(s string) {
	if u.n < len(u.text) {
		u.text[u.n] = s
		u.n++
	}
}

// appendString appends a text that may be a UUID.
func (u *uuids) appendString(b []byte, number uint32, s string) []byte {
	if s == "" {
		return b
	}
	return u.appendText(b, number, s)
}

// appendText is appendString for a text that is written even if it is empty.
func (u *uuids) appendText(b []byte, number uint32, s string) []byte {
	if len(s) == uuidLen {
		if i := u.index(s); i >= 0 {
			return append(appendTag(b, number, wireAgain), byte(i))
		}
		if raw, ok := parseUUID(s); ok {
			u.add(s)
			return append(appendTag(b, number, wireUUID), raw[:]...)
		}
	}
	b = appendUvarint(appendTag(b, number, wireBytes), uint64(len(s)))
	return append(b, s...)
}

// nibbles are the values of lower-case hexadecimal digits; 0xff stands for none.
var nibbles = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range []byte("0123456789abcdef") {
		t[c] = byte(i)
	}
	return t
}()

// parseUUID reads the one spelling that formatUUID writes: lower case.
func parseUUID(s string) (raw [16]byte, ok bool) {
	if len(s) != uuidLen || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return raw, false
	}
	at, bad := 0, byte(0)
	for i := range raw {
		if at == 8 || at == 13 || at == 18 || at == 23 {
			at++
		}
		high, low := nibbles[s[at]], nibbles[s[at+1]]
		bad |= high | low
		raw[i] = high<<4 | low&0x0f
		at += 2
	}
	return raw, bad < 0x10
}

// The events of a call follow each other closely and name the same UUIDs. The
// last texts are kept, one a slot, so that most are neither made anew nor held
// twice by who keeps them. What is in it decides nothing but that.
const uuidSlotBits = 12

type uuidText struct {
	raw  [16]byte
	text [uuidLen]byte
}

var uuidTexts [1 << uuidSlotBits]atomic.Pointer[uuidText]

// textOf returns the text of a UUID.
func textOf(raw []byte) string {
	const odd = 0x9e3779b97f4a7c15 // spreads ids that differ in few bits
	mixed := (binary.LittleEndian.Uint64(raw) ^ binary.LittleEndian.Uint64(raw[8:])) * odd
	slot := &uuidTexts[mixed>>(64-uuidSlotBits)]
	t := slot.Load()
	if t == nil || t.raw != [16]byte(raw) {
		t = &uuidText{raw: [16]byte(raw)}
		formatUUID(&t.text, raw)
		slot.Store(t)
	}
	return unsafe.String(&t.text[0], uuidLen) // t never changes again
}

func formatUUID(to *[uuidLen]byte, raw []byte) {
	hex.Encode(to[:], raw[:4])
	hex.Encode(to[9:], raw[4:6])
	hex.Encode(to[14:], raw[6:8])
	hex.Encode(to[19:], raw[8:10])
	hex.Encode(to[24:], raw[10:])
	to[8], to[13], to[18], to[23] = '-', '-', '-', '-'
}
