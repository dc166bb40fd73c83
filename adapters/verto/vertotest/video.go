package vertotest

import (
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"
)

// vp8 is what the server offers as video.
var vp8 = webrtc.RTPCodecParameters{
	RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000},
	PayloadType:        99,
}

// camera is the video of a leg. It has a PeerConnection of its own, and a port.
type camera struct {
	net    *network
	ssrc   uint32
	counts counters

	codec *webrtc.RTPCodecParameters // offered or agreed; nil: there is no video
	media *media
}

func (c *camera) counted() VideoCounts {
	return VideoCounts{
		Sent: c.counts.sent.Load(), Received: c.counts.received.Load(), Lost: c.counts.lost.Load(),
		KeyFrames: c.counts.keyFrames.Load(), Requests: c.counts.requests.Load(),
	}
}

// buildVideoLocked makes the next PeerConnection of the video in place of the one
// before.
func (l *Leg) buildVideoLocked() error {
	c := &l.camera
	l.closeVideoLocked()
	m, err := l.s.newMedia(c.net, []webrtc.RTPCodecParameters{*c.codec}, c.ssrc, &c.counts,
		func(m *media) source { return &picture{stream: stream{m: m}, far: l.far, ts: rand.Uint32(), key: true} }, func() {})
	if err != nil {
		return err
	}
	c.media = m
	return nil
}

func (l *Leg) closeVideoLocked() {
	if l.camera.media != nil {
		l.camera.media.close(true)
		l.camera.media = nil
	}
}

func (l *Leg) offerVideoLocked() (string, error) {
	if err := l.buildVideoLocked(); err != nil {
		return "", err
	}
	return l.camera.media.offer()
}

// answerVideoLocked answers what a client offers as video; empty where it is
// refused. The call goes on without.
func (l *Leg) answerVideoLocked(o *offered) string {
	c := &l.camera
	i := slices.IndexFunc(o.videoCodecs, func(c webrtc.RTPCodecParameters) bool { return strings.EqualFold(c.MimeType, webrtc.MimeTypeVP8) })
	if !l.s.opts.Video || o.video == "" || i < 0 {
		l.refuseVideoLocked()
		return ""
	}
	if c.media == nil {
		c.codec = &o.videoCodecs[i]
		if err := l.buildVideoLocked(); err != nil {
			l.s.log.Warn("build the video", "call_id", l.id, "err", err)
			l.refuseVideoLocked()
			return ""
		}
	}
	local, err := c.media.answer(o.video)
	if err != nil {
		l.s.log.Debug("video refused", "call_id", l.id, "err", err)
		l.refuseVideoLocked()
	}
	return local
}

// acceptVideoLocked takes what a client answers to the video that was offered.
func (l *Leg) acceptVideoLocked(o *offered) {
	if l.camera.media == nil {
		return
	}
	if o.video == "" {
		l.refuseVideoLocked()
		return
	}
	if err := l.camera.media.accept(o.video); err != nil {
		l.s.log.Debug("video refused", "call_id", l.id, "err", err)
		l.refuseVideoLocked()
	}
}

func (l *Leg) refuseVideoLocked() {
	l.closeVideoLocked()
	l.camera.codec = nil
}

// askForKeyFrame sends a picture loss indication (RFC 4585, section 6.3.1).
func (m *media) askForKeyFrame() bool {
	for _, r := range m.pc.GetReceivers() {
		if t := r.Track(); t != nil && t.SSRC() != 0 {
			return m.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(t.SSRC())}}) == nil
		}
	}
	return false
}

// picture is what the client sees: 25 frames a second of one packet each that no
// decoder would make a picture of; or what it sent, or nothing.
type picture struct {
	stream

	far FarEnd

	// mu guards what follows.
	pt    uint8  // payload type
	ts    uint32 // of the next frame
	ticks int
	key   bool // the next is a key frame
}

const (
	ticksPerFrame = 2
	frameStep     = 90000 / packetsPerSecond * ticksPerFrame // of RTP's time
	framesPerKey  = 50
)

// Bind takes the negotiated payload type.
func (p *picture) Bind(ctx webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := ctx.CodecParameters()
	if len(list) == 0 {
		return webrtc.RTPCodecParameters{}, webrtc.ErrUnsupportedCodec
	}
	p.w, p.pt = ctx.WriteStream(), uint8(list[0].PayloadType)
	p.header = rtp.Header{Version: 2, SSRC: uint32(ctx.SSRC()), SequenceNumber: uint16(p.ts)}
	return list[0], nil
}

// ID and Kind are for pion.
func (*picture) ID() string                { return "v0" }
func (*picture) Kind() webrtc.RTPCodecType { return webrtc.RTPCodecTypeVideo }

func (p *picture) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ticks++; p.far != Tone || p.ticks%ticksPerFrame != 0 {
		return
	}
	p.key = p.key || p.ticks/ticksPerFrame%framesPerKey == 0
	frame := make([]byte, 100) // a payload descriptor (RFC 7741, 4.2) and a frame (RFC 6386, 9.1)
	if frame[0] = 0x10; !p.key {
		frame[1] = 1
	}
	if p.writeLocked(frame, p.pt, p.ts, true) {
		p.key = false
	}
	p.ts += frameStep
}

// heard counts key frames, or sends the packet back.
func (p *picture) heard(in *inbound) {
	var v codecs.VP8Packet
	if frame, err := v.Unmarshal(in.packet.Payload); err == nil && v.S == 1 && v.PID == 0 && len(frame) > 0 && frame[0]&1 == 0 {
		p.m.counts.keyFrames.Add(1)
	}
	if p.far != Echo {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writeLocked(in.packet.Payload, p.pt, in.packet.Timestamp, in.packet.Marker)
}

// requested sends a key frame when the client asks for one.
func (p *picture) requested(packets []rtcp.Packet) {
	for _, packet := range packets {
		switch packet.(type) {
		case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
			p.m.counts.requests.Add(1)
			p.mu.Lock()
			p.key = true
			p.mu.Unlock()
		}
	}
}
