package verto

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// videoPeer is the PeerConnection of a call's video: one attempt. The call does not
// depend on it: when its transport fails, the log says so and nothing is sent.
type videoPeer struct {
	negotiation

	out  *videoTrack
	seen func(codec string) // video comes; on a goroutine of pion, it must not wait
	log  *slog.Logger

	in      inbound
	reports *reports

	wanted  bool // the server takes it; belongs to the session's goroutine
	failed  atomic.Bool
	readers sync.WaitGroup

	mu     sync.Mutex // guards closed
	closed bool
}

// newVideoPeer makes a PeerConnection that sends out. Whoever gets one closes it.
func newVideoPeer(m *Media, out *videoTrack, seen func(codec string), log *slog.Logger) (*videoPeer, error) {
	pc, err := m.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return nil, fmt.Errorf("make a PeerConnection: %w", err)
	}
	p := &videoPeer{negotiation: negotiation{m, pc}, out: out, seen: seen, log: log}
	p.reports = newReports(m.began, pc, out.StreamID(), &p.in, out)
	sender, err := pc.AddTrack(out)
	if err != nil {
		_ = pc.Close()
		return nil, fmt.Errorf("add the track: %w", err)
	}
	pc.OnConnectionStateChange(func(webrtc.PeerConnectionState) { p.changed() })
	pc.OnTrack(p.track)
	p.readers.Go(func() { readRTCP(sender.Read, p.ofOurs) })
	m.pacer.add(out)
	m.pacer.add(p.reports)
	return p, nil
}

// changed follows the transport. It is not told in order, so that it asks.
func (p *videoPeer) changed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
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
// comes, for the reports: nobody looks at it. It runs on a goroutine of pion, which close waits
// for.
func (p *videoPeer) track(t *webrtc.TrackRemote, r *webrtc.RTPReceiver) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.readers.Add(1)
	p.readers.Go(func() { readRTCP(r.Read, p.reports.ofTheirs) })
	p.seen(codecName(t.Codec().MimeType))
	p.mu.Unlock()
	defer p.readers.Done()
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

// mute ends what is told.
func (p *videoPeer) mute() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
}

// close ends the connection and waits for what read from it.
func (p *videoPeer) close() error {
	p.mute()
	p.media.pacer.remove(p.out)
	p.media.pacer.remove(p.reports)
	err := p.pc.GracefulClose()
	p.readers.Wait()
	return err
}
