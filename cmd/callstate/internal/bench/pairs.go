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
// second. All offerers have one clock and all answerers another, as the ends of a
// call have; RTP and RTCP are read, and nothing else is done.
type pairs struct {
	ends    [2]pairEnds
	done    chan struct{}
	running sync.WaitGroup
}

// pairEnds are the offerers or the answerers.
type pairEnds struct {
	received atomic.Uint64

	mu     sync.Mutex // guards what follows
	pcs    []*webrtc.PeerConnection
	tracks []*webrtc.TrackLocalStaticRTP
}

func newPairs() *pairs {
	p := &pairs{done: make(chan struct{})}
	for i := range p.ends {
		p.running.Go(func() { p.send(&p.ends[i]) })
	}
	return p
}

// send sends from one end of all, and makes up for late ticks.
func (p *pairs) send(e *pairEnds) {
	const every = 20 * time.Millisecond
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	next := time.Now().Add(every)
	packet := rtp.Packet{Header: rtp.Header{Version: 2}, Payload: slices.Repeat([]byte{0xff}, 160)}
	for {
		select {
		case <-ticker.C:
		case <-p.done:
			return
		}
		e.mu.Lock()
		tracks := slices.Clip(e.tracks)
		e.mu.Unlock()
		for ; !next.After(time.Now()); next = next.Add(every) {
			packet.SequenceNumber++
			packet.Timestamp += 160
			for _, t := range tracks {
				_ = t.WriteRTP(&packet) // fails until the transport is up
			}
		}
	}
}

func (p *pairs) setUp(ctx context.Context, _ int) error {
	offerer, up, err := p.peer(&p.ends[0])
	if err != nil {
		return err
	}
	answerer, answererUp, err := p.peer(&p.ends[1])
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

// peer makes one of these ends; up is closed when it has connected.
func (p *pairs) peer(e *pairEnds) (pc *webrtc.PeerConnection, up <-chan struct{}, err error) {
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
			e.received.Add(1)
		}
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pcs, e.tracks = append(e.pcs, pc), append(e.tracks, track)
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

func (p *pairs) packets() [2]uint64 {
	return [2]uint64{p.ends[1].received.Load(), p.ends[0].received.Load()}
}

func (p *pairs) close() {
	close(p.done)
	for i := range p.ends {
		for _, pc := range p.ends[i].pcs {
			_ = pc.GracefulClose()
		}
	}
	p.running.Wait()
}
