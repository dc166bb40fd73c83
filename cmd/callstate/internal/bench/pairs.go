package bench

import (
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// pairs are pairs of bare PeerConnections that send each other 50 packets of PCMU a
// second. One ticker drives all, RTP and RTCP are read, and nothing else is done.
type pairs struct {
	received atomic.Uint64
	done     chan struct{}
	running  sync.WaitGroup

	mu     sync.Mutex // guards what follows
	pcs    []*webrtc.PeerConnection
	tracks []*webrtc.TrackLocalStaticRTP
}

func newPairs(int) *pairs {
	p := &pairs{done: make(chan struct{})}
	p.running.Go(p.send)
	return p
}

func (p *pairs) send() {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	packet := rtp.Packet{Header: rtp.Header{Version: 2}, Payload: slices.Repeat([]byte{0xff}, 160)}
	for {
		select {
		case <-ticker.C:
		case <-p.done:
			return
		}
		packet.SequenceNumber++
		packet.Timestamp += 160
		p.mu.Lock()
		tracks := slices.Clone(p.tracks)
		p.mu.Unlock()
		for _, t := range tracks {
			_ = t.WriteRTP(&packet) // fails until the transport is up
		}
	}
}

func (p *pairs) setUp(ctx context.Context, _ int) error {
	offerer, up, err := p.peer()
	if err != nil {
		return err
	}
	answerer, answererUp, err := p.peer()
	if err != nil {
		return err
	}
	offer, err := offerer.CreateOffer(nil)
	if err != nil {
		return err
	}
	if offer, err = local(offerer, offer); err != nil {
		return err
	}
	if err := answerer.SetRemoteDescription(offer); err != nil {
		return err
	}
	answer, err := answerer.CreateAnswer(nil)
	if err != nil {
		return err
	}
	if answer, err = local(answerer, answer); err != nil {
		return err
	}
	if err := offerer.SetRemoteDescription(answer); err != nil {
		return err
	}
	if err := await(ctx, up); err != nil {
		return err
	}
	return await(ctx, answererUp)
}

// local sets a description and returns it with its candidates.
func local(pc *webrtc.PeerConnection, d webrtc.SessionDescription) (webrtc.SessionDescription, error) {
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(d); err != nil {
		return d, err
	}
	<-gathered
	return *pc.LocalDescription(), nil
}

// bareAPI is pion with what any end of such a call needs.
var bareAPI = sync.OnceValues(func() (*webrtc.API, error) {
	engine := new(webrtc.MediaEngine)
	for _, c := range []webrtc.RTPCodecParameters{
		{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypePCMU, ClockRate: 8000}, PayloadType: 0},
		{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypePCMA, ClockRate: 8000}, PayloadType: 8},
		{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: "audio/telephone-event", ClockRate: 8000}, PayloadType: 101},
	} {
		if err := engine.RegisterCodec(c, webrtc.RTPCodecTypeAudio); err != nil {
			return nil, err
		}
	}
	reports := new(interceptor.Registry)
	if err := webrtc.ConfigureRTCPReports(reports); err != nil {
		return nil, err
	}
	var s webrtc.SettingEngine
	s.SetIncludeLoopbackCandidate(true)
	s.SetIPFilter(net.IP.IsLoopback)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	return webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithInterceptorRegistry(reports), webrtc.WithSettingEngine(s)), nil
})

// peer makes one end; up is closed when it has connected.
func (p *pairs) peer() (pc *webrtc.PeerConnection, up <-chan struct{}, err error) {
	api, err := bareAPI()
	if err != nil {
		return nil, nil, err
	}
	if pc, err = api.NewPeerConnection(webrtc.Configuration{}); err != nil {
		return nil, nil, err
	}
	connected := make(chan struct{})
	once := sync.OnceFunc(func() { close(connected) })
	pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateConnected {
			once()
		}
	})
	track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypePCMU}, "audio", "bare")
	if err != nil {
		return nil, nil, err
	}
	sender, err := pc.AddTrack(track)
	if err != nil {
		return nil, nil, err
	}
	p.running.Go(func() { drain(sender.Read) })
	pc.OnTrack(func(t *webrtc.TrackRemote, r *webrtc.RTPReceiver) {
		go drain(r.Read)
		b := make([]byte, 1500)
		for {
			if _, _, err := t.Read(b); err != nil {
				return
			}
			p.received.Add(1)
		}
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pcs, p.tracks = append(p.pcs, pc), append(p.tracks, track)
	return pc, connected, nil
}

// drain reads RTCP: the interceptors see only what is read.
func drain(read func([]byte) (int, interceptor.Attributes, error)) {
	b := make([]byte, 1500)
	for {
		if _, _, err := read(b); err != nil {
			return
		}
	}
}

func (p *pairs) packets() uint64 { return p.received.Load() }

func (p *pairs) close() {
	close(p.done)
	for _, pc := range p.pcs {
		_ = pc.GracefulClose()
	}
	p.running.Wait()
}
