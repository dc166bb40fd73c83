package webitel

import (
	"sync"
	"sync/atomic"
)

// FreeSWITCH writes the headers of an event in one order, so that the member
// behind another is nearly always one that came behind it before: in captured
// frames 97 of 100 are among the last two that did. To compare a member with
// those takes less than to read its name and to look that up.
//
// What is known is a cache of a fixed size: what a sender writes decides what is
// in it, never what is read.

// member is a member's name as it stands in a frame, with what we know of it: one
// line of the processor's cache.
type member struct {
	size     uint8
	header   header
	variable bool // of the channel
	text     [memberMax]byte
}

const (
	memberMax   = 61 // bytes with the quotes and the colon; longer ones are not kept
	memberSlots = 1 << 11
	firstMember = 0 // the slot of what is before the first member
)

// known are the members in the order in which they were first met, so that those
// of one event lie side by side.
var known [memberSlots]struct {
	member atomic.Pointer[member]
	then   atomic.Uint32 // the slots of the last two that followed, 16 bits each
}

// guess returns the member that stands at b[i] and its slot, if it is one of
// those that followed the member in slot before; nil if not.
func guess(b []byte, i int, before uint16) (*member, uint16) {
	then := known[before%memberSlots].then.Load()
	slot, other := uint16(then), uint16(then>>16)
	if m := known[slot%memberSlots].member.Load(); m != nil && m.at(b, i) {
		return m, slot
	}
	if m := known[other%memberSlots].member.Load(); m != nil && m.at(b, i) {
		known[before%memberSlots].then.Store(then<<16 | uint32(other))
		return m, other
	}
	return nil, firstMember
}

func (m *member) at(b []byte, i int) bool {
	end := i + int(m.size)
	return end <= len(b) && string(b[i:end]) == string(m.text[:m.size])
}

// slots says where in known a member is. The oldest makes room.
var slots = struct {
	sync.Mutex

	of   map[string]uint16
	last uint16
}{of: make(map[string]uint16)}

// learn notes which member followed the one in slot before, and returns its slot.
func learn(text []byte, h header, variable bool, before uint16) uint16 {
	if len(text) > memberMax {
		return firstMember
	}
	slots.Lock()
	defer slots.Unlock()
	slot, ok := slots.of[string(text)]
	if !ok {
		slots.last = slots.last%(memberSlots-1) + 1
		slot = slots.last
		if old := known[slot].member.Load(); old != nil {
			delete(slots.of, string(old.text[:old.size]))
		}
		m := &member{size: uint8(len(text)), header: h, variable: variable}
		copy(m.text[:], text)
		known[slot].member.Store(m)
		slots.of[string(text)] = slot
	}
	then := &known[before].then
	then.Store(then.Load()<<16 | uint32(slot))
	return slot
}
