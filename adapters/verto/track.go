package verto

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// errNoAudioCodec is returned when nothing that we can send was agreed.
var errNoAudioCodec = errors.New("verto: no audio codec in common")

// outTrack is what a call sends: one packet every 20 ms from the first moment to
// the last, also while it is held, so that no media timeout of the server ends
// the call. pion's own tracks need to know the codec before it is agreed.
type outTrack struct {
	localTrack

	clip clip      // nil: silence
	echo *echoLine // nil: none

	// mu guards what follows.
	quiet  []byte
	frames [][]byte
	at     int // the next of frames
	step   uint32
}

// localTrack is what the tracks of both media are to pion, and counts what is sent.
type localTrack struct {
	stream string // what our descriptions call us

	mu     sync.Mutex // guards what follows
	writer webrtc.TrackLocalWriter
	header rtp.Header
	sent   outboundFigures
}

// bindLocked takes the stream to write to and the codec that was chosen for it.
func (t *localTrack) bindLocked(ctx webrtc.TrackLocalContext, c *webrtc.RTPCodecParameters) {
	t.writer = ctx.WriteStream()
	t.sent.mime, t.sent.ssrc, t.sent.rate = c.MimeType, uint32(ctx.SSRC()), c.ClockRate
	t.header = rtp.Header{
		Version: 2, PayloadType: uint8(c.PayloadType), SSRC: uint32(ctx.SSRC()), SequenceNumber: uint16(rand.Uint32()),
	}
}

// Unbind implements [webrtc.TrackLocal].
func (t *localTrack) Unbind(webrtc.TrackLocalContext) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.writer = nil
	return nil
}

// RID implements [webrtc.TrackLocal].
func (*localTrack) RID() string { return "" }

// StreamID implements [webrtc.TrackLocal].
func (t *localTrack) StreamID() string { return t.stream }

// figures returns what was sent so far.
func (t *localTrack) figures() outboundFigures {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sent
}

// sendLocked sends one packet under the header, whose number it moves on. Nothing is
// written while the transport is not up yet or not any more; pion tells that by its
// states.
func (t *localTrack) sendLocked(payload []byte, now time.Time) {
	if n, err := t.writer.WriteRTP(&t.header, payload); err == nil && n > 0 {
		t.sent.packets++
		t.sent.bytes += int64(len(payload))
		t.sent.timestamp, t.sent.at = t.header.Timestamp, now
	}
	t.header.SequenceNumber++
}

// outboundFigures are what was sent.
type outboundFigures struct {
	mime      string // empty before a codec was agreed
	ssrc      uint32
	rate      uint32 // of the clock, in hertz
	packets   int64
	bytes     int64     // of payload
	timestamp uint32    // of the last packet
	at        time.Time // when it went
}

func newOutTrack(id string, c clip, echo bool) *outTrack {
	t := &outTrack{localTrack: localTrack{stream: id}, clip: c}
	if echo {
		t.echo = new(echoLine)
	}
	return t
}

// Bind implements [webrtc.TrackLocal]. Of the agreed codecs it takes the first
// that the clip has, else the first that we can be silent in.
func (t *outTrack) Bind(ctx webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	var chosen *webrtc.RTPCodecParameters
	for _, c := range ctx.CodecParameters() {
		if silence[c.MimeType] == nil {
			continue
		}
		if _, has := t.clip[c.MimeType]; chosen == nil || has {
			chosen = &c
			if has {
				break
			}
		}
	}
	if chosen == nil {
		return webrtc.RTPCodecParameters{}, errNoAudioCodec
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bindLocked(ctx, chosen)
	t.header.Timestamp, t.header.Marker = rand.Uint32(), true
	t.quiet, t.frames = silence[chosen.MimeType], t.clip[chosen.MimeType]
	t.step = uint32(frameTime.Seconds() * float64(chosen.ClockRate))
	return *chosen, nil
}

// ID implements [webrtc.TrackLocal].
func (t *outTrack) ID() string { return t.stream }

// Kind implements [webrtc.TrackLocal].
func (*outTrack) Kind() webrtc.RTPCodecType { return webrtc.RTPCodecTypeAudio }

// tick sends n packets, after the time of skipped ones that nobody waits for any
// more.
func (t *outTrack) tick(n, skipped int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.writer == nil {
		return
	}
	if skipped > 0 {
		t.header.Timestamp += uint32(skipped) * t.step
		t.header.Marker = true
	}
	now := time.Now()
	for range n {
		t.sendLocked(t.next(), now)
		t.header.Timestamp += t.step
		t.header.Marker = false
	}
}

// next returns the payload of the next packet. It holds until the next call.
func (t *outTrack) next() []byte {
	switch {
	case t.echo != nil:
		if p := t.echo.take(t.header.PayloadType); p != nil {
			return p
		}
	case len(t.frames) > 0:
		p := t.frames[t.at]
		t.at = (t.at + 1) % len(t.frames)
		return p
	}
	return t.quiet
}

// echoLine carries payloads from the reader of a call to its sender. It keeps a
// few and drops the oldest, so that an echo never lags.
type echoLine struct {
	mu    sync.Mutex
	slots [4]struct {
		payload []byte
		pt      uint8
	}
	first, n int
	out      []byte
}

func (e *echoLine) put(pt uint8, payload []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.n == len(e.slots) {
		e.first = (e.first + 1) % len(e.slots)
		e.n--
	}
	s := &e.slots[(e.first+e.n)%len(e.slots)]
	s.payload, s.pt = append(s.payload[:0], payload...), pt
	e.n++
}

// take returns the oldest payload, nil where there is none of that type.
func (e *echoLine) take(pt uint8) []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.n > 0 {
		s := &e.slots[e.first]
		e.first = (e.first + 1) % len(e.slots)
		e.n--
		if s.pt == pt {
			e.out = append(e.out[:0], s.payload...)
			return e.out
		}
	}
	return nil
}

// maxBehind is how many packets a late tick makes up for. What is older is
// skipped: a burst of it would only fill the far end's jitter buffer.
const maxBehind = 5

// paced is what a call sends of a medium. tick sends what n frames of 20 ms have
// made due, after the time of skipped ones that nobody waits for any more.
type paced interface {
	tick(n, skipped int)
}

// pacer is the one ticker that drives the media of all calls.
type pacer struct {
	mu     sync.Mutex
	tracks map[paced]struct{}
	wake   chan struct{} // holds one: there is a track
	list   []paced       // of the last tick
}

func (p *pacer) add(t paced) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tracks[t] = struct{}{}
	p.list = nil
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *pacer) remove(t paced) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.tracks, t)
	p.list = nil
}

// current returns the tracks; the slice is not changed afterwards.
func (p *pacer) current() []paced {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.list == nil && len(p.tracks) > 0 {
		p.list = make([]paced, 0, len(p.tracks))
		for t := range p.tracks {
			p.list = append(p.list, t)
		}
	}
	return p.list
}

// run sends until done is closed. Without calls it sleeps.
func (p *pacer) run(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-p.wake:
		}
		if !p.pace(done) {
			return
		}
	}
}

// pace sends while there are tracks; it returns false when done is closed.
func (p *pacer) pace(done <-chan struct{}) bool {
	ticker := time.NewTicker(frameTime)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-done:
			return false
		case <-ticker.C:
		}
		tracks := p.current()
		if len(tracks) == 0 {
			return true
		}
		due, skipped := behind(&last, time.Now())
		for _, t := range tracks {
			t.tick(due, skipped)
		}
	}
}

// behind returns how many frames are due since last, which it moves on, and how
// many more are given up.
func behind(last *time.Time, now time.Time) (due, skipped int) {
	// A tick that comes a little early counts: it is the one that was meant.
	due = int((now.Sub(*last) + frameTime/4) / frameTime)
	*last = last.Add(time.Duration(due) * frameTime)
	if due > maxBehind {
		due, skipped = maxBehind, due-maxBehind
	}
	return due, skipped
}
