package vertotest

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// Codec is a codec of the server.
type Codec string

// The codecs. The server encodes no Opus: what is to be sent in it is silence, or
// what came in.
const (
	PCMU Codec = "PCMU"
	PCMA Codec = "PCMA"
	Opus Codec = "opus"
)

var codecParameters = map[Codec]webrtc.RTPCodecParameters{
	PCMU: {RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypePCMU, ClockRate: 8000}, PayloadType: 0},
	PCMA: {RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypePCMA, ClockRate: 8000}, PayloadType: 8},
	Opus: {RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "useinbandfec=1",
	}, PayloadType: 102},
}

// FarEnd is what the client talks to.
type FarEnd uint8

// The far ends.
const (
	Tone  FarEnd = iota // a tone of 400 Hz, 50 packets a second
	Echo                // each packet comes back
	Quiet               // nothing is sent
)

// Counts are the RTP packets of a leg, over all its reattachments.
type Counts struct {
	Sent, Received uint64 // of the audio
	Lost           uint64 // gaps in the sequence of what was received
	Digits         string // received as telephone-event (RFC 4733)
	Video          VideoCounts
}

// VideoCounts are the RTP packets of a leg's video.
type VideoCounts struct {
	Sent, Received, Lost uint64
	KeyFrames            uint64 // received
	Requests             uint64 // of the client, for key frames
}

// counters are shared by all media of one kind that a leg has in turn.
type counters struct {
	sent, received, lost atomic.Uint64
	keyFrames, requests  atomic.Uint64 // of video

	mu     sync.Mutex // guards what follows
	digits []byte
}

// source is what the client gets of a medium.
type source interface {
	webrtc.TrackLocal
	tick()                   // sends what is due in these 20 ms
	heard(*inbound)          // a packet of the client
	requested([]rtcp.Packet) // what the client says of it
}

// media is one PeerConnection of a leg: FreeSWITCH has one for each medium.
type media struct {
	s      *Server
	pc     *webrtc.PeerConnection
	net    *network
	source source
	counts *counters
	open   atomic.Bool // RTP goes to the client
	hears  atomic.Bool // what comes is counted

	mu      sync.Mutex // guards what follows
	closed  bool
	readers sync.WaitGroup
}

// newMedia builds a PeerConnection with these payload types for what of makes. up is
// called when DTLS has connected.
func (s *Server) newMedia(n *network, codecs []webrtc.RTPCodecParameters, ssrc uint32, c *counters, of func(*media) source, up func()) (*media, error) {
	m := &media{s: s, net: n, counts: c}
	m.source = of(m)
	engine := &webrtc.MediaEngine{}
	for _, codec := range codecs {
		if err := engine.RegisterCodec(codec, m.source.Kind()); err != nil {
			return nil, fmt.Errorf("register %s: %w", codec.MimeType, err)
		}
	}
	reports := &interceptor.Registry{}
	if err := webrtc.ConfigureRTCPReports(reports); err != nil {
		return nil, fmt.Errorf("set RTCP up: %w", err)
	}
	var se webrtc.SettingEngine
	se.SetNet(n)
	se.SetIncludeLoopbackCandidate(true)
	se.SetIPFilter(loopback)
	se.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	se.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	se.SetSDPMediaLevelFingerprints(true)
	se.DisableMediaEngineCopy(true) // it is this leg's own
	api := webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithInterceptorRegistry(reports), webrtc.WithSettingEngine(se))
	pc, err := api.NewPeerConnection(webrtc.Configuration{Certificates: s.certificates})
	if err != nil {
		return nil, fmt.Errorf("make a PeerConnection: %w", err)
	}
	m.pc = pc
	transceiver, err := pc.AddTransceiverFromTrack(m.source, webrtc.RTPTransceiverInit{
		Direction:     webrtc.RTPTransceiverDirectionSendrecv,
		SendEncodings: []webrtc.RTPEncodingParameters{{RTPCodingParameters: webrtc.RTPCodingParameters{SSRC: webrtc.SSRC(ssrc)}}},
	})
	if err != nil {
		m.close(true)
		return nil, fmt.Errorf("add the track: %w", err)
	}
	m.readers.Go(func() { m.listen(transceiver.Sender()) })
	pc.OnTrack(m.read)
	pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateConnected {
			up()
		}
	})
	return m, nil
}

// offer makes a description for the client.
func (m *media) offer() (string, error) {
	d, err := m.pc.CreateOffer(nil)
	if err != nil {
		return "", fmt.Errorf("make an offer: %w", err)
	}
	return m.local(d)
}

// answer takes a client's offer.
func (m *media) answer(offer string) (string, error) {
	if err := m.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		return "", fmt.Errorf("take the offer: %w", err)
	}
	d, err := m.pc.CreateAnswer(nil)
	if err != nil {
		return "", fmt.Errorf("make an answer: %w", err)
	}
	return m.local(d)
}

// accept takes a client's answer.
func (m *media) accept(answer string) error {
	if err := m.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		return fmt.Errorf("take the answer: %w", err)
	}
	return nil
}

// local sets a description and waits for its candidates: Verto has no trickle.
func (m *media) local(d webrtc.SessionDescription) (string, error) {
	gathered := webrtc.GatheringCompletePromise(m.pc)
	if err := m.pc.SetLocalDescription(d); err != nil {
		return "", fmt.Errorf("set the own description: %w", err)
	}
	select {
	case <-gathered:
		return m.pc.LocalDescription().SDP, nil
	case <-m.s.done:
		return "", ErrClosed
	}
}

// close ends the PeerConnection and waits for its readers. In silence the client
// hears nothing of it, as FreeSWITCH leaves it; otherwise DTLS says so.
func (m *media) close(silent bool) {
	if silent {
		m.net.cut.Store(true)
	}
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.s.stopPacing(m)
	if err := m.pc.GracefulClose(); err != nil {
		m.s.log.Debug("close of a PeerConnection", "err", err)
	}
	m.readers.Wait()
	m.net.cut.Store(false) // for the leg's next one
}

// read counts what comes in.
func (m *media) read(t *webrtc.TrackRemote, r *webrtc.RTPReceiver) {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return
	}
	m.readers.Add(2)
	m.mu.Unlock()
	defer m.readers.Done()
	go func() { // the report interceptor sees only what is read
		defer m.readers.Done()
		b := make([]byte, 1500)
		for {
			if _, _, err := r.Read(b); err != nil {
				return
			}
		}
	}()
	b := make([]byte, 1500)
	var in inbound
	for {
		n, _, err := t.Read(b)
		if err != nil {
			return
		}
		if m.hears.Load() {
			m.received(&in, b[:n])
		}
	}
}

// listen hands on what the client says by RTCP of what it gets.
func (m *media) listen(sender *webrtc.RTPSender) {
	b := make([]byte, 1500)
	for {
		n, _, err := sender.Read(b)
		if err != nil {
			return
		}
		if packets, err := rtcp.Unmarshal(b[:n]); err == nil {
			m.source.requested(packets)
		}
	}
}

// inbound is what is known of one stream.
type inbound struct {
	packet rtp.Packet
	begun  bool
	next   uint16 // sequence number
	event  uint32 // timestamp of the last digit
	digit  bool   // there was one
}

func (m *media) received(in *inbound, b []byte) {
	p := &in.packet
	if p.Unmarshal(b) != nil {
		return
	}
	c := m.counts
	c.received.Add(1)
	switch gap := int16(p.SequenceNumber - in.next); {
	case !in.begun:
		in.begun, in.next = true, p.SequenceNumber+1
	case gap >= 0:
		c.lost.Add(uint64(gap))
		in.next = p.SequenceNumber + 1
	case c.lost.Load() > 0: // late, not lost
		c.lost.Add(^uint64(0))
	}
	m.source.heard(in)
}

// eventDigits are the DTMF events of RFC 4733, table 4, by number.
const eventDigits = "0123456789*#ABCD"
