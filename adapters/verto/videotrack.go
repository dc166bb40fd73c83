package verto

import (
	"errors"
	"math/rand/v2"
	"time"

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
	localTrack

	clip videoClip
	base uint32 // RTP's time at the beginning

	// mu guards what follows.
	muted     bool
	connected bool
	clock     time.Duration // since the beginning, also while nothing is sent
	due       time.Duration // when the next frame is
	next      int           // of clip
}

func newVideoTrack(id string, c videoClip, muted bool) *videoTrack {
	return &videoTrack{localTrack: localTrack{stream: id}, clip: c, muted: muted, base: rand.Uint32()}
}

// Bind implements [webrtc.TrackLocal].
func (t *videoTrack) Bind(ctx webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	for _, c := range ctx.CodecParameters() {
		if c.MimeType != webrtc.MimeTypeVP8 {
			continue
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.bindLocked(ctx, &c)
		return c, nil
	}
	return webrtc.RTPCodecParameters{}, errNoVideoCodec
}

// ID implements [webrtc.TrackLocal].
func (t *videoTrack) ID() string { return t.stream + "-video" }

// Kind implements [webrtc.TrackLocal].
func (*videoTrack) Kind() webrtc.RTPCodecType { return webrtc.RTPCodecTypeVideo }

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
		t.frameLocked(f, now)
		t.due += f.lasts
		t.next = (t.next + 1) % len(t.clip)
	}
}

func (t *videoTrack) frameLocked(f *videoFrame, now time.Time) {
	t.header.Timestamp = t.base + uint32(int64(t.due)*(videoClock/1000)/int64(time.Millisecond))
	for i, payload := range f.packets {
		t.header.Marker = i == len(f.packets)-1
		t.sendLocked(payload, now)
	}
}
