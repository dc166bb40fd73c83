package verto

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// peer is one PeerConnection of a call: one attempt.
type peer struct {
	media *Media
	pc    *webrtc.PeerConnection
	out   *outTrack
	to    peerEvents
	rec   *recorder // nil: none

	in        inbound
	roundTrip atomic.Int64 // in nanoseconds, by the last report of the far end; 0: none
	paired    atomic.Bool  // ICE has a candidate pair
	readers   sync.WaitGroup

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
	p := &peer{media: m, pc: pc, out: out, to: to, rec: rec}
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
	p.readers.Go(func() { p.reports(sender) })
	m.pacer.add(out)
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

// offer returns our offer.
func (p *peer) offer(ctx context.Context) (string, error) {
	d, err := p.pc.CreateOffer(nil)
	if err != nil {
		return "", fmt.Errorf("make an offer: %w", err)
	}
	return p.media.describe(ctx, p.pc, d)
}

// restart returns an offer that finds a way for the media anew (RFC 8445, 9).
func (p *peer) restart(ctx context.Context) (string, error) {
	d, err := p.pc.CreateOffer(&webrtc.OfferOptions{ICERestart: true})
	if err != nil {
		return "", fmt.Errorf("make an offer: %w", err)
	}
	return p.media.describe(ctx, p.pc, d)
}

// answer takes the server's offer and returns our answer.
func (p *peer) answer(ctx context.Context, offer string) (string, error) {
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: fromServer(offer)}); err != nil {
		return "", fmt.Errorf("read the offer: %w", err)
	}
	d, err := p.pc.CreateAnswer(nil)
	if err != nil {
		return "", fmt.Errorf("make an answer: %w", err)
	}
	return p.media.describe(ctx, p.pc, d)
}

// accept takes the server's answer to our offer. A second one is ignored: FreeSWITCH
// may send the same in verto.media and in verto.answer.
func (p *peer) accept(answer string) error {
	if p.pc.SignalingState() == webrtc.SignalingStateStable {
		return nil
	}
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: fromServer(answer)}); err != nil {
		return fmt.Errorf("read the answer: %w", err)
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
	p.readers.Go(func() { drain(r) })
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

// drain reads RTCP of what comes in until the connection is closed: the report
// interceptor sees only what is read.
func drain(r *webrtc.RTPReceiver) {
	buf := make([]byte, 1500)
	for {
		if _, _, err := r.Read(buf); err != nil {
			return
		}
	}
}

// reports reads RTCP of what we send until the connection is closed: the far end
// tells in it how our packets arrive.
func (p *peer) reports(s *webrtc.RTPSender) {
	buf := make([]byte, 1500)
	for {
		n, _, err := s.Read(buf)
		if err != nil {
			return
		}
		now := time.Now()
		packets, err := rtcp.Unmarshal(buf[:n])
		if err != nil {
			continue
		}
		for _, packet := range packets {
			switch packet := packet.(type) {
			case *rtcp.SenderReport:
				p.reported(now, packet.Reports)
			case *rtcp.ReceiverReport:
				p.reported(now, packet.Reports)
			}
		}
	}
}

// reported takes the blocks of one report.
func (p *peer) reported(now time.Time, blocks []rtcp.ReceptionReport) {
	for i := range blocks {
		if blocks[i].SSRC != p.out.ssrc.Load() {
			continue
		}
		if d, ok := roundTrip(now, &blocks[i]); ok {
			p.roundTrip.Store(int64(d))
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
	err := p.pc.GracefulClose()
	p.readers.Wait()
	return err
}
