package vertotest

import (
	"encoding/binary"
	"strings"
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// track is what the client hears.
type track struct {
	stream

	far FarEnd

	// mu guards what follows.
	audio  uint8  // payload type
	ts     uint32 // of the next audio
	step   uint32 // timestamp units of 20 ms
	frame  []byte // 20 ms of the tone
	event  webrtc.RTPCodecParameters
	digits []byte // still to be sent; the first is under way if at > 0
	at     uint32 // ticks since the first digit began
}

// stream is what goes to the client of one medium.
type stream struct {
	m *media

	mu     sync.Mutex // guards what follows
	w      webrtc.TrackLocalWriter
	header rtp.Header // of the last packet
}

// Unbind forgets the stream.
func (s *stream) Unbind(webrtc.TrackLocalContext) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.w = nil
	return nil
}

// RID and StreamID are for pion; FreeSWITCH's names are written later.
func (*stream) RID() string      { return "" }
func (*stream) StreamID() string { return "vertotest" }

// writeLocked sends the next packet, and reports whether there was a way.
func (s *stream) writeLocked(payload []byte, pt uint8, ts uint32, marker bool) bool {
	if s.w == nil || !s.m.open.Load() {
		return false
	}
	h := &s.header
	h.SequenceNumber++
	h.PayloadType, h.Timestamp, h.Marker = pt, ts, marker
	if _, err := s.w.WriteRTP(h, payload); err != nil {
		return false
	}
	s.m.counts.sent.Add(1)
	return true
}

// Bind takes the negotiated payload types.
func (t *track) Bind(ctx webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var audio *webrtc.RTPCodecParameters
	for i, c := range ctx.CodecParameters() {
		switch event := strings.EqualFold(c.MimeType, telephoneEvent); {
		case event && t.event.ClockRate == 0:
			t.event = c
		case !event && audio == nil:
			audio = &ctx.CodecParameters()[i]
		}
	}
	if audio == nil {
		return webrtc.RTPCodecParameters{}, webrtc.ErrUnsupportedCodec
	}
	t.w, t.step = ctx.WriteStream(), audio.ClockRate/packetsPerSecond
	t.audio = uint8(audio.PayloadType)
	t.header = rtp.Header{Version: 2, SSRC: uint32(ctx.SSRC()), SequenceNumber: uint16(t.ts)}
	t.frame = toneFrame(audio.MimeType)
	return *audio, nil
}

// ID and Kind are for pion.
func (*track) ID() string                { return "a0" }
func (*track) Kind() webrtc.RTPCodecType { return webrtc.RTPCodecTypeAudio }

func (t *track) isEvent(pt uint8) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.event.ClockRate != 0 && pt == uint8(t.event.PayloadType)
}

// queue adds digits to be sent as telephone-event, and reports whether the client
// knows them.
func (t *track) queue(digits string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.event.ClockRate == 0 {
		return false
	}
	t.digits = append(t.digits, digits...)
	return true
}

// heard takes a digit, or sends the packet back.
func (t *track) heard(in *inbound) {
	p, c := &in.packet, t.m.counts
	switch {
	case !t.isEvent(p.PayloadType):
		if t.far == Echo {
			t.send(p.Payload, p.Timestamp)
		}
	case len(p.Payload) >= 4 && p.Payload[1]&0x80 != 0 && (!in.digit || in.event != p.Timestamp):
		in.digit, in.event = true, p.Timestamp
		if int(p.Payload[0]) < len(eventDigits) {
			c.mu.Lock()
			c.digits = append(c.digits, eventDigits[p.Payload[0]])
			c.mu.Unlock()
		}
	}
}

func (t *track) requested([]rtcp.Packet) {} // of audio nothing can be asked

// send sends one packet of audio with a timestamp of its own.
func (t *track) send(payload []byte, ts uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ts = ts
	t.writeLocked(payload, t.audio, ts, false)
}

// tick sends what is due in these 20 ms.
func (t *track) tick() {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.w == nil || !t.m.open.Load():
		return
	case len(t.digits) > 0:
		t.eventLocked()
	case t.far == Tone:
		t.writeLocked(t.frame, t.audio, t.ts, false)
	}
	t.ts += t.step
}

// Times of a digit in ticks of 20 ms.
const (
	eventTicks = 5
	pauseTicks = 3
)

// eventLocked sends the next packet of a digit: the timestamp stands still, the
// duration grows, and the end is said three times (RFC 4733, 2.5.1).
func (t *track) eventLocked() {
	t.at++
	if t.at > eventTicks {
		if t.at == eventTicks+pauseTicks {
			t.digits, t.at = t.digits[1:], 0
		}
		return
	}
	var b [4]byte
	b[0], b[1] = byte(strings.IndexByte(eventDigits, t.digits[0])), 10
	binary.BigEndian.PutUint16(b[2:], uint16(t.at*t.event.ClockRate/packetsPerSecond))
	began, copies := t.ts-(t.at-1)*t.step, 1
	if t.at == eventTicks {
		b[1] |= 0x80
		copies = 3
	}
	for range copies {
		t.writeLocked(b[:], uint8(t.event.PayloadType), began, t.at == 1)
	}
}

const packetsPerSecond = 50

// startPacing has the server's one clock drive a medium, and stopPacing ends
// that. The clock runs while there is one to drive.
func (s *Server) startPacing(m *media) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.paced[m] = struct{}{}
	if len(s.paced) == 1 {
		s.wg.Go(s.pace)
	}
}

func (s *Server) stopPacing(m *media) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.paced, m)
}

func (s *Server) pace() {
	const every = time.Second / packetsPerSecond
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var due []*media
	next := time.Now().Add(every)
	for {
		select {
		case <-ticker.C:
		case <-s.done:
			return
		}
		due = due[:0]
		s.mu.Lock()
		for m := range s.paced {
			due = append(due, m)
		}
		s.mu.Unlock()
		if len(due) == 0 {
			return
		}
		// A tick that comes late makes up for those that were missed, up to a point.
		now := time.Now()
		if behind := now.Sub(next); behind > maxBehind {
			next = now.Add(-maxBehind)
		}
		for ; !next.After(now); next = next.Add(every) {
			for _, m := range due {
				m.source.tick()
			}
		}
	}
}

// maxBehind is how late a tick may be and still be made up for.
const maxBehind = 100 * time.Millisecond
