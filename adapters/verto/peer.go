package verto

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// peer is the PeerConnection of a call's audio: one attempt.
type peer struct {
	negotiation

	out *outTrack
	to  peerEvents
	rec *recorder // nil: none

	in      inbound
	reports *reports
	paired  atomic.Bool // ICE has a candidate pair
	readers sync.WaitGroup

	mu     sync.Mutex // guards closed
	closed bool
}

// peerEvents is told what happens to a peer, on goroutines of pion. It must not
// wait.
type peerEvents interface {
	transportState(layer, state string)
	digit(digit byte, d time.Duration)
}

// newPeer makes a PeerConnection that sends out. Whoever gets one closes it.
func newPeer(m *Media, out *outTrack, to peerEvents, rec *recorder) (*peer, error) {
	pc, err := m.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return nil, fmt.Errorf("make a PeerConnection: %w", err)
	}
	p := &peer{negotiation: negotiation{m, pc}, out: out, to: to, rec: rec}
	p.reports = newReports(m.began, pc, out.StreamID(), &p.in, out)
	sender, err := pc.AddTrack(out)
	if err == nil {
		err = preferCodecs(pc, out.clip)
	}
	if err != nil {
		_ = pc.Close()
		return nil, fmt.Errorf("add the track: %w", err)
	}
	pc.OnICEConnectionStateChange(func(s webrtc.ICEConnectionState) {
		p.paired.Store(s == webrtc.ICEConnectionStateConnected || s == webrtc.ICEConnectionStateCompleted ||
			s == webrtc.ICEConnectionStateDisconnected)
		p.state("ice", s.String())
	})
	sender.Transport().OnStateChange(func(s webrtc.DTLSTransportState) {
		p.state("dtls", s.String())
	})
	pc.OnTrack(p.track)
	p.readers.Go(func() { readRTCP(sender.Read, p.reports.ofOurs) })
	m.pacer.add(out)
	m.pacer.add(p.reports)
	return p, nil
}

// preferCodecs offers first what the clip can be played in.
func preferCodecs(pc *webrtc.PeerConnection, c clip) error {
	if c == nil {
		return nil
	}
	first := make([]webrtc.RTPCodecParameters, 0, len(audioCodecs))
	var rest []webrtc.RTPCodecParameters
	for _, codec := range audioCodecs {
		if _, has := c[codec.MimeType]; has {
			first = append(first, codec)
		} else {
			rest = append(rest, codec)
		}
	}
	for _, t := range pc.GetTransceivers() {
		if err := t.SetCodecPreferences(append(first, rest...)); err != nil {
			return err
		}
	}
	return nil
}

func (p *peer) state(layer, state string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.to.transportState(layer, state)
	}
}

// track reads what comes in. It runs on a goroutine of pion, which close waits for.
func (p *peer) track(t *webrtc.TrackRemote, r *webrtc.RTPReceiver) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.readers.Add(1)
	p.readers.Go(func() { readRTCP(r.Read, p.reports.ofTheirs) })
	p.mu.Unlock()
	defer p.readers.Done()

	rates, events := make(map[uint8]uint32), make(map[uint8]*digitReader)
	for _, c := range r.GetParameters().Codecs {
		if c.MimeType == mimeTelephoneEvent {
			events[uint8(c.PayloadType)] = &digitReader{clockRate: c.ClockRate}
		} else {
			rates[uint8(c.PayloadType)] = c.ClockRate
		}
	}
	var pkt rtp.Packet
	buf := make([]byte, 1500)
	for {
		n, _, err := t.Read(buf)
		if err != nil {
			return
		}
		if n < 12 || pkt.Unmarshal(buf[:n]) != nil {
			continue
		}
		p.in.packet(time.Now(), &pkt, rates[pkt.PayloadType])
		if reader := events[pkt.PayloadType]; reader != nil {
			if digit, d, ok := reader.packet(pkt.Timestamp, pkt.Payload); ok {
				p.to.digit(digit, d)
			}
			continue
		}
		if p.out.echo != nil {
			p.out.echo.put(pkt.PayloadType, pkt.Payload)
		}
		if p.rec != nil {
			p.rec.write(t.Codec().MimeType, &pkt)
		}
	}
}

// mute ends what is told.
func (p *peer) mute() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
}

// close ends the connection and waits for what read from it. Nothing is told
// after it began.
func (p *peer) close() error {
	p.mute()
	p.media.pacer.remove(p.out)
	p.media.pacer.remove(p.reports)
	err := p.pc.GracefulClose()
	p.readers.Wait()
	return err
}
