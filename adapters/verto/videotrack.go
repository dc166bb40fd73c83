package verto

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// vp8 is the only codec of our video. What it asks of the far end's feedback is
// what is heard: requests for key frames (RFC 4585 and RFC 5104).
var vp8 = webrtc.RTPCodecParameters{
	RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeVP8, ClockRate: videoClock,
		RTCPFeedback: []webrtc.RTCPFeedback{{Type: "ccm", Parameter: "fir"}, {Type: "nack", Parameter: "pli"}},
	},
	PayloadType: 96,
}

const videoClock = 90000 // of RTP (RFC 7741, section 4.1)

// errNoVideoCodec is returned when VP8 was not agreed.
var errNoVideoCodec = errors.New("verto: no video codec in common")

// videoTrack is the video that a call sends: a clip over and over, while the
// transport is up and nobody has muted it. Whenever it begins again, it does so with
// a key frame.
type videoTrack struct {
	id   string
	clip videoClip

	mu        sync.Mutex // guards what follows
	writer    webrtc.TrackLocalWriter
	header    rtp.Header
	base      uint32 // RTP's time at the beginning
	muted     bool
	connected bool
	clock     time.Duration // since the beginning, also while nothing is sent
	due       time.Duration // when the next frame is
	next      int           // of clip
	sent      outboundFigures
}

func newVideoTrack(id string, c videoClip, muted bool) *videoTrack {
	return &videoTrack{id: id, clip: c, muted: muted, base: rand.Uint32()}
}

// Bind implements [webrtc.TrackLocal].
func (t *videoTrack) Bind(ctx webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	for _, c := range ctx.CodecParameters() {
		if c.MimeType != webrtc.MimeTypeVP8 {
			continue
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.writer = ctx.WriteStream()
		t.sent.mime, t.sent.ssrc, t.sent.rate = c.MimeType, uint32(ctx.SSRC()), c.ClockRate
		t.header = rtp.Header{
			Version: 2, PayloadType: uint8(c.PayloadType), SSRC: uint32(ctx.SSRC()), SequenceNumber: uint16(rand.Uint32()),
		}
		return c, nil
	}
	return webrtc.RTPCodecParameters{}, errNoVideoCodec
}

// Unbind implements [webrtc.TrackLocal].
func (t *videoTrack) Unbind(webrtc.TrackLocalContext) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.writer = nil
	return nil
}

// ID implements [webrtc.TrackLocal].
func (t *videoTrack) ID() string { return t.id + "-video" }

// RID implements [webrtc.TrackLocal].
func (*videoTrack) RID() string { return "" }

// StreamID implements [webrtc.TrackLocal].
func (t *videoTrack) StreamID() string { return t.id }

// Kind implements [webrtc.TrackLocal].
func (*videoTrack) Kind() webrtc.RTPCodecType { return webrtc.RTPCodecTypeVideo }

// figures returns what was sent so far.
func (t *videoTrack) figures() outboundFigures {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sent
}

// mute stops the video, or goes on with it.
func (t *videoTrack) mute(muted bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.muted && !muted {
		t.keyFrameLocked()
	}
	t.muted = muted
}

// connect says whether there is a transport.
func (t *videoTrack) connect(connected bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if connected && !t.connected {
		t.keyFrameLocked()
	}
	t.connected = connected
}

// keyFrame goes on with the clip's next key frame.
func (t *videoTrack) keyFrame() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keyFrameLocked()
}

func (t *videoTrack) keyFrameLocked() {
	for !t.clip[t.next].key {
		t.next = (t.next + 1) % len(t.clip)
	}
	t.due = max(t.due, t.clock)
}

// tick implements [paced]. What was skipped leaves nothing that the frames after it
// could build upon.
func (t *videoTrack) tick(n, skipped int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clock += time.Duration(n+skipped) * frameTime
	if t.writer == nil || t.muted || !t.connected {
		return
	}
	if skipped > 0 {
		t.keyFrameLocked()
	}
	now := time.Now()
	for t.due <= t.clock {
		f := &t.clip[t.next]
		t.sendLocked(f, now)
		t.due += f.lasts
		t.next = (t.next + 1) % len(t.clip)
	}
}

func (t *videoTrack) sendLocked(f *videoFrame, now time.Time) {
	t.header.Timestamp = t.base + uint32(int64(t.due)*(videoClock/1000)/int64(time.Millisecond))
	for i, payload := range f.packets {
		t.header.Marker = i == len(f.packets)-1
		// Nothing is written when the transport is not up any more; pion tells that by
		// its states.
		if n, err := t.writer.WriteRTP(&t.header, payload); err == nil && n > 0 {
			t.sent.packets++
			t.sent.bytes += int64(len(payload))
			t.sent.timestamp, t.sent.at = t.header.Timestamp, now
		}
		t.header.SequenceNumber++
	}
}
