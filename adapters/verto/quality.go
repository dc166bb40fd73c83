package verto

import (
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/callstate/callstate/events"
)

// stats returns the figures of this attempt.
func (p *peer) stats() events.WebRTCStats {
	in, out, far := p.in.figures(), p.out.figures(), p.reports.figures()
	if far.roundTrip == 0 { // no report of the far end yet
		far.roundTrip = p.iceRoundTrip()
	}
	return events.WebRTCStats{
		PacketsReceived: in.packets, PacketsLost: max(0, in.lost), BytesReceived: in.bytes,
		PacketsSent: out.packets, BytesSent: out.bytes,
		JitterMs: milliseconds(in.jitter), RoundTripMs: milliseconds(far.roundTrip),
		PacketsSentLost: max(0, far.lost), SentLoss: far.fraction, SentJitterMs: milliseconds(far.jitter),
		Codec: codecName(out.mime),
	}
}

func milliseconds(d time.Duration) float64 {
	return float64(d) / float64(time.Millisecond)
}

// iceRoundTrip is the time of the last check of the selected candidate pair, 0
// where there is none. pion must not be asked before ICE has begun nor after its
// end: it reads then what it is about to set, and reports what is no error.
func (p *peer) iceRoundTrip() time.Duration {
	if !p.paired.Load() {
		return 0
	}
	for _, s := range p.pc.GetSenders() {
		if t := s.Transport(); t != nil {
			if pair, ok := t.ICETransport().GetSelectedCandidatePairStats(); ok {
				return time.Duration(pair.CurrentRoundTripTime * float64(time.Second))
			}
		}
	}
	return 0
}

func codecName(mime string) string {
	switch mime {
	case webrtc.MimeTypeOpus:
		return "opus"
	case webrtc.MimeTypePCMU:
		return "PCMU"
	case webrtc.MimeTypePCMA:
		return "PCMA"
	case webrtc.MimeTypeVP8:
		return "VP8"
	}
	return ""
}

// total adds what earlier attempts counted to the present figures.
func total(before, now events.WebRTCStats) events.WebRTCStats {
	now.PacketsReceived += before.PacketsReceived
	now.PacketsLost += before.PacketsLost
	now.BytesReceived += before.BytesReceived
	now.PacketsSent += before.PacketsSent
	now.BytesSent += before.BytesSent
	now.PacketsSentLost += before.PacketsSentLost
	if now.Codec == "" {
		now.Codec = before.Codec
	}
	return now
}

// The parts of the E-model that the estimate needs.
const (
	// defaultR is R with all parameters at their defaults (ITU-T G.107, 06/2015,
	// section 7.7).
	defaultR = 93.2
	// lossRobustness is Bpl, and 0 is Ie, of G.711 with packet loss concealment
	// (ITU-T G.113, Appendix I). Opus has no value there and conceals better, so
	// that its estimate errs downwards.
	lossRobustness = 25.1
)

// opusLookAhead is what the encoder of Opus looks ahead beyond its frame (RFC
// 6716, section 2).
const opusLookAhead = 6500 * time.Microsecond

// estimateMOS estimates how what we receive sounds: a number from 1 to 4.41, or 0
// where nothing came. It is the E-model of ITU-T G.107 (06/2015), simplified as by
// Cole and Rosenbluth ("Voice over IP performance monitoring", ACM SIGCOMM CCR
// 31(2), 2001):
//
//	R   = 93.2 - Id - Ie,eff
//	Id  = 0.024 d + 0.11 (d - 177.3) [d > 177.3]      d: one-way delay in ms
//	Ie,eff = Ie + (95 - Ie) Ppl / (Ppl + Bpl)         random loss, G.107, 7.5
//	MOS = 1 + 0.035 R + R (R - 60) (100 - R) 7e-6     G.107, Annex B
//
// The delay is half the round trip, the packet, and a jitter buffer of twice the
// jitter.
func estimateMOS(s events.WebRTCStats) float64 {
	expected := s.PacketsReceived + s.PacketsLost
	if s.PacketsReceived == 0 || expected <= 0 {
		return 0
	}
	d := s.RoundTripMs/2 + float64(frameTime)/float64(time.Millisecond) + 2*s.JitterMs
	if s.Codec == "opus" {
		d += float64(opusLookAhead) / float64(time.Millisecond)
	}
	id := 0.024 * d
	if d > 177.3 {
		id += 0.11 * (d - 177.3)
	}
	loss := 100 * float64(s.PacketsLost) / float64(expected)
	r := defaultR - id - 95*loss/(loss+lossRobustness)
	if r <= 0 {
		return 1
	}
	return max(1, 1+0.035*r+r*(r-60)*(100-r)*7e-6)
}
