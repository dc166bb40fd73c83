package verto

import (
	"fmt"
	"time"
)

// digits are the events 0 to 15 of RFC 4733, section 3.2.
const digits = "0123456789*#ABCD"

// digitReader finds the digits in the telephone-event packets of one track (RFC
// 4733). A digit is told once, at the first packet with the end bit of its
// timestamp; where all of those were lost, when the next digit begins.
type digitReader struct {
	clockRate uint32

	open      bool // a digit began and was not told yet
	timestamp uint32
	seen      bool // timestamp is that of a digit
	event     byte
	duration  uint16
}

// packet takes one payload and returns the digit that it completes.
func (r *digitReader) packet(timestamp uint32, payload []byte) (digit byte, d time.Duration, ok bool) {
	if len(payload) < 4 || int(payload[0]) >= len(digits) {
		return 0, 0, false
	}
	event, end := payload[0], payload[1]&0x80 != 0
	duration := uint16(payload[2])<<8 | uint16(payload[3])
	if r.seen && timestamp == r.timestamp {
		if !r.open {
			return 0, 0, false // a repetition of the end
		}
		r.duration = max(r.duration, duration)
		if end {
			return r.close()
		}
		return 0, 0, false
	}
	if r.open {
		digit, d, ok = r.close()
	}
	r.seen, r.open, r.timestamp, r.event, r.duration = true, true, timestamp, event, duration
	if end && !ok {
		return r.close()
	}
	return digit, d, ok
}

func (r *digitReader) close() (byte, time.Duration, bool) {
	r.open = false
	var d time.Duration
	if r.clockRate > 0 {
		d = time.Duration(r.duration) * time.Second / time.Duration(r.clockRate)
	}
	return digits[r.event], d, true
}

// checkDigits tells a sequence that verto.info takes from one that it does not:
// digits, w and W (pauses), F (flash), in groups joined by + that may end in
// @milliseconds.
func checkDigits(s string) error {
	inLength, n := false, 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '+':
			inLength = false
		case c == '@' && !inLength && n > 0:
			inLength = true
		case inLength && c >= '0' && c <= '9':
		case !inLength && isDigit(c):
			n++
		default:
			return fmt.Errorf("%w: %q is no sequence of digits at %d", ErrArgument, s, i)
		}
	}
	if n == 0 {
		return fmt.Errorf("%w: no digit in %q", ErrArgument, s)
	}
	return nil
}

func isDigit(c byte) bool {
	switch {
	case c >= '0' && c <= '9', c >= 'A' && c <= 'D', c >= 'a' && c <= 'd':
		return true
	}
	return c == '*' || c == '#' || c == 'w' || c == 'W' || c == 'F'
}
