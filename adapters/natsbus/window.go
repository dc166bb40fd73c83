package natsbus

import "github.com/callstate/callstate/engine"

// window is the messages that were sent and not yet confirmed, oldest first. It
// is a ring; a message's number is its place since the bus was made and names
// its slot. Not safe for concurrent use: Bus.mu guards it.
type window struct {
	slots     []slot
	head      uint64 // number of the oldest unconfirmed message
	tail      uint64 // number that the next message gets
	confirmed uint64 // last position all of whose messages are confirmed
	bytes     int    // of the payloads
}

type slot struct {
	msg     *engine.Message // nil once confirmed
	through uint64          // position that is complete once this one is confirmed; 0: more of it follows
	sent    uint64          // how many messages were sent in this epoch, this one included
	asked   bool            // for its confirmation, in this epoch
}

func newWindow(size int) window { return window{slots: make([]slot, size)} }

func (w *window) len() int   { return int(w.tail - w.head) }
func (w *window) full() bool { return w.len() == len(w.slots) || w.bytes > maxWindowBytes }

// maxWindowBytes bounds the payloads in the window, where they are large: one more is
// taken as long as it is not reached.
const maxWindowBytes = 32 << 20

func (w *window) at(n uint64) *slot { return &w.slots[n%uint64(len(w.slots))] }

// push adds a message and returns its number. The window must not be full.
func (w *window) push(m *engine.Message) uint64 {
	n := w.tail
	*w.at(n) = slot{msg: m}
	w.tail++
	w.bytes += len(m.Payload)
	return n
}

// id is that of an unconfirmed message.
func (w *window) id(n uint64) string {
	if n < w.head || n >= w.tail || w.at(n).msg == nil {
		return ""
	}
	return w.at(n).msg.ID
}

// through notes that every message of position, and of those before, was pushed.
func (w *window) through(position uint64) {
	if w.head == w.tail {
		w.confirmed = max(w.confirmed, position)
		return
	}
	w.at(w.tail - 1).through = position
}

// confirm takes a confirmation, in whatever order they come, and reports whether
// the message was waiting for one.
func (w *window) confirm(n uint64) bool {
	if n < w.head || n >= w.tail || w.at(n).msg == nil {
		return false
	}
	w.bytes -= len(w.at(n).msg.Payload)
	w.at(n).msg = nil
	for w.head < w.tail && w.at(w.head).msg == nil {
		w.confirmed = max(w.confirmed, w.at(w.head).through)
		w.head++
	}
	return true
}

// confirmAll confirms the messages from one number through another and returns how
// many of them waited.
func (w *window) confirmAll(from, through uint64) (confirmed uint64) {
	for n := max(from, w.head); n <= through; n++ {
		if w.confirm(n) {
			confirmed++
		}
	}
	return confirmed
}

// clear forgets what is unconfirmed; the numbers go on, so that a late
// confirmation meets no slot.
func (w *window) clear() {
	for n := w.head; n < w.tail; n++ {
		*w.at(n) = slot{}
	}
	w.head, w.bytes = w.tail, 0
}
