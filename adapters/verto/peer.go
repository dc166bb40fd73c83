package verto

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// peer is the PeerConnection of a call's audio: one attempt.
type peer struct {
	mediaPeer

	out    *outTrack
	to     peerEvents
	rec    *recorder   // nil: none
	paired atomic.Bool // ICE has a candidate pair
}

// peerEvents is told what happens to a peer, on goroutines of pion. It must not
// wait.
type peerEvents interface {
	transportState(layer, state string)
	digit(digit byte, d time.Duration)
}

// newPeer makes a PeerConnection that sends out. Whoever gets one closes it.
func newPeer(m *Media, out *outTrack, to peerEvents, rec *recorder) (*peer, error) {
	p := &peer{out: out, to: to, rec: rec}
	sender, err := p.open(m, out)
	if err != nil {
		return nil, err
	}
	if err := preferCodecs(p.pc, out.clip); err != nil {
		_ = p.pc.Close()
		return nil, fmt.Errorf("add the track: %w", err)
	}
	p.pc.OnICEConnectionStateChange(func(s webrtc.ICEConnectionState) {
		p.paired.Store(s == webrtc.ICEConnectionStateConnected || s == webrtc.ICEConnectionStateCompleted ||
			s == webrtc.ICEConnectionStateDisconnected)
		p.state("ice", s.String())
	})
	sender.Transport().OnStateChange(func(s webrtc.DTLSTransportState) {
		p.state("dtls", s.String())
	})
	p.pc.OnTrack(p.track)
	p.start(sender, p.reports.ofOurs)
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
	p.tell(func() { p.to.transportState(layer, state) })
}

// track reads what comes in. It runs on a goroutine of pion, which close waits for.
func (p *peer) track(t *webrtc.TrackRemote, r *webrtc.RTPReceiver) {
	if !p.receives(r) {
		return
	}
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
