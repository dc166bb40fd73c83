package vertotest

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
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
	Sent, Received uint64
	Lost           uint64 // gaps in the sequence of what was received
	Digits         string // received as telephone-event (RFC 4733)
}

// counters are shared by all media that a leg has in turn.
type counters struct {
	sent, received, lost atomic.Uint64

	mu     sync.Mutex // guards what follows
	digits []byte
}

// media is one PeerConnection of a leg.
type media struct {
	s      *Server
	pc     *webrtc.PeerConnection
	net    *network
	track  *track
	counts *counters
	open   atomic.Bool // RTP goes to the client
	hears  atomic.Bool // what comes is counted

	mu      sync.Mutex // guards what follows
	closed  bool
	readers sync.WaitGroup
}

// newMedia builds a PeerConnection with these payload types. up is called when
// DTLS has connected.
func (s *Server) newMedia(n *network, codecs []webrtc.RTPCodecParameters, ssrc uint32, far FarEnd, c *counters, up func()) (*media, error) {
	m := &media{s: s, net: n, counts: c}
	m.track = &track{m: m, far: far, ts: ssrc}
	engine := &webrtc.MediaEngine{}
	for _, codec := range codecs {
		if err := engine.RegisterCodec(codec, webrtc.RTPCodecTypeAudio); err != nil {
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
	_, err = pc.AddTransceiverFromTrack(m.track, webrtc.RTPTransceiverInit{
		Direction:     webrtc.RTPTransceiverDirectionSendrecv,
		SendEncodings: []webrtc.RTPEncodingParameters{{RTPCodingParameters: webrtc.RTPCodingParameters{SSRC: webrtc.SSRC(ssrc)}}},
	})
	if err != nil {
		m.close(true)
		return nil, fmt.Errorf("add the track: %w", err)
	}
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
	if m.track.isEvent(p.PayloadType) {
		if end := len(p.Payload) >= 4 && p.Payload[1]&0x80 != 0; end && (!in.digit || in.event != p.Timestamp) {
			in.digit, in.event = true, p.Timestamp
			if int(p.Payload[0]) < len(eventDigits) {
				c.mu.Lock()
				c.digits = append(c.digits, eventDigits[p.Payload[0]])
				c.mu.Unlock()
			}
		}
		return
	}
	if m.track.far == Echo {
		m.track.send(p.Payload, p.Timestamp)
	}
}

// eventDigits are the DTMF events of RFC 4733, table 4, by number.
const eventDigits = "0123456789*#ABCD"

// track is what the client hears.
type track struct {
	m   *media
	far FarEnd

	mu     sync.Mutex // guards what follows
	w      webrtc.TrackLocalWriter
	header rtp.Header // of the last packet
	audio  uint8      // payload type
	ts     uint32     // of the next audio
	step   uint32     // timestamp units of 20 ms
	frame  []byte     // 20 ms of the tone
	event  webrtc.RTPCodecParameters
	digits []byte // still to be sent; the first is under way if at > 0
	at     uint32 // ticks since the first digit began
}

// Bind takes the negotiated payload types.
func (t *track) Bind(ctx webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var audio *webrtc.RTPCodecParameters
	for i, c := range ctx.CodecParameters() {
		switch event := strings.EqualFold(c.MimeType, telephoneEvent); {
		case event && t.event.ClockRate == 0:
			t.event = c
		case !event && audio == nil:
			audio = &ctx.CodecParameters()[i]
		}
	}
	if audio == nil {
		return webrtc.RTPCodecParameters{}, webrtc.ErrUnsupportedCodec
	}
	t.w, t.step = ctx.WriteStream(), audio.ClockRate/packetsPerSecond
	t.audio = uint8(audio.PayloadType)
	t.header = rtp.Header{Version: 2, SSRC: uint32(ctx.SSRC()), SequenceNumber: uint16(t.ts)}
	t.frame = toneFrame(audio.MimeType)
	return *audio, nil
}

// Unbind forgets the stream.
func (t *track) Unbind(webrtc.TrackLocalContext) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.w = nil
	return nil
}

// ID, RID, StreamID and Kind are for pion; FreeSWITCH's names are written later.
func (t *track) ID() string                { return "a0" }
func (t *track) RID() string               { return "" }
func (t *track) StreamID() string          { return "vertotest" }
func (t *track) Kind() webrtc.RTPCodecType { return webrtc.RTPCodecTypeAudio }

func (t *track) isEvent(pt uint8) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.event.ClockRate != 0 && pt == uint8(t.event.PayloadType)
}

// queue adds digits to be sent as telephone-event, and reports whether the client
// knows them.
func (t *track) queue(digits string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.event.ClockRate == 0 {
		return false
	}
	t.digits = append(t.digits, digits...)
	return true
}

// send sends one packet of audio with a timestamp of its own.
func (t *track) send(payload []byte, ts uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ts = ts
	t.writeLocked(payload, t.audio, ts, false)
}

// tick sends what is due in these 20 ms.
func (t *track) tick() {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.w == nil || !t.m.open.Load():
		return
	case len(t.digits) > 0:
		t.eventLocked()
	case t.far == Tone:
		t.writeLocked(t.frame, t.audio, t.ts, false)
	}
	t.ts += t.step
}

// Times of a digit in ticks of 20 ms.
const (
	eventTicks = 5
	pauseTicks = 3
)

// eventLocked sends the next packet of a digit: the timestamp stands still, the
// duration grows, and the end is said three times (RFC 4733, 2.5.1).
func (t *track) eventLocked() {
	t.at++
	if t.at > eventTicks {
		if t.at == eventTicks+pauseTicks {
			t.digits, t.at = t.digits[1:], 0
		}
		return
	}
	var b [4]byte
	b[0], b[1] = byte(strings.IndexByte(eventDigits, t.digits[0])), 10
	binary.BigEndian.PutUint16(b[2:], uint16(t.at*t.event.ClockRate/packetsPerSecond))
	began, copies := t.ts-(t.at-1)*t.step, 1
	if t.at == eventTicks {
		b[1] |= 0x80
		copies = 3
	}
	for range copies {
		t.writeLocked(b[:], uint8(t.event.PayloadType), began, t.at == 1)
	}
}

func (t *track) writeLocked(payload []byte, pt uint8, ts uint32, marker bool) {
	if t.w == nil || !t.m.open.Load() {
		return
	}
	h := &t.header
	h.SequenceNumber++
	h.PayloadType, h.Timestamp, h.Marker = pt, ts, marker
	if _, err := t.w.WriteRTP(h, payload); err == nil {
		t.m.counts.sent.Add(1)
	}
}

const packetsPerSecond = 50

// startPacing has the server's one clock drive a medium, and stopPacing ends
// that. The clock runs while there is one to drive.
func (s *Server) startPacing(m *media) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.paced[m] = struct{}{}
	if len(s.paced) == 1 {
		s.wg.Go(s.pace)
	}
}

func (s *Server) stopPacing(m *media) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.paced, m)
}

func (s *Server) pace() {
	ticker := time.NewTicker(time.Second / packetsPerSecond)
	defer ticker.Stop()
	var due []*media
	for {
		select {
		case <-ticker.C:
		case <-s.done:
			return
		}
		due = due[:0]
		s.mu.Lock()
		for m := range s.paced {
			due = append(due, m)
		}
		s.mu.Unlock()
		if len(due) == 0 {
			return
		}
		for _, m := range due {
			m.track.tick()
		}
	}
}
