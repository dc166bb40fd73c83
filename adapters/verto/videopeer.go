package verto

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// videoPeer is the PeerConnection of a call's video: one attempt. The call does not
// depend on it: when its transport fails, the log says so and nothing is sent.
type videoPeer struct {
	mediaPeer

	out  *videoTrack
	seen func(codec string) // video comes; on a goroutine of pion, it must not wait
	log  *slog.Logger

	wanted bool // the server takes it; belongs to the session's goroutine
	failed atomic.Bool
}

// newVideoPeer makes a PeerConnection that sends out. Whoever gets one closes it.
func newVideoPeer(m *Media, out *videoTrack, seen func(codec string), log *slog.Logger) (*videoPeer, error) {
	p := &videoPeer{out: out, seen: seen, log: log}
	sender, err := p.open(m, out)
	if err != nil {
		return nil, err
	}
	p.pc.OnConnectionStateChange(func(webrtc.PeerConnectionState) { p.tell(p.changed) })
	p.pc.OnTrack(p.track)
	p.start(sender, p.ofOurs)
	return p, nil
}

// changed follows the transport. It is not told in order, so that it asks.
func (p *videoPeer) changed() {
	switch s := p.pc.ConnectionState(); s {
	case webrtc.PeerConnectionStateConnected:
		p.failed.Store(false)
		p.out.connect(true)
	case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
		if !p.failed.Swap(true) {
			p.log.Warn("the video has no transport any more; the call goes on", "state", s.String())
		}
		p.out.connect(false)
	default: // on the way, or cut off for a moment
	}
}

// track asks for a key frame, since what comes first need not be one, and counts what
// comes, for the reports: nobody looks at it. It runs on a goroutine of pion, which
// close waits for.
func (p *videoPeer) track(t *webrtc.TrackRemote, r *webrtc.RTPReceiver) {
	if !p.receives(r) {
		return
	}
	defer p.readers.Done()
	p.tell(func() { p.seen(codecName(t.Codec().MimeType)) })
	if err := p.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(t.SSRC())}}); err != nil {
		p.log.Debug("ask for a key frame", "err", err)
	}
	var pkt rtp.Packet
	buf := make([]byte, 1500)
	for {
		n, _, err := t.Read(buf)
		if err != nil {
			return
		}
		if pkt.Unmarshal(buf[:n]) == nil {
			pkt.Marker = false // of video it is the end of a frame, of audio the begin of a talkspurt
			p.in.packet(time.Now(), &pkt, videoClock)
		}
	}
}

// ofOurs takes RTCP about what we send: the far end asks in it for key frames.
func (p *videoPeer) ofOurs(now time.Time, packet rtcp.Packet) {
	switch packet.(type) {
	case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
		p.out.keyFrame()
	default:
		p.reports.ofOurs(now, packet)
	}
}
