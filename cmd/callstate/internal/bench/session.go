package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
	"golang.org/x/sync/errgroup"

	"github.com/callstate/callstate/adapters/verto"
	"github.com/callstate/callstate/adapters/verto/vertotest"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// sessionCost is what calls with media take, each.
type sessionCost struct {
	heap       float64 // bytes
	cpu        float64 // ms of processor a second, at 50 packets a second each way
	goroutines float64
	setUp      float64 // calls a second, until media can flow
}

// atOnce is how many calls are being set up at a time.
const atOnce = 8

// sessions is P15 to P17: calls of a web phone, both ends of their media in this
// process, beside as many pairs of pion's PeerConnections as they come: its own
// codecs and interceptors, a track each way, and nobody who asks for more.
func (b *Bench) sessions(ctx context.Context) ([]Row, error) {
	calls, watch := pick(b, 20, 100), pick(b, 2*time.Second, 8*time.Second)
	var heaps, cpus, setUps []pair
	var ours, bare sessionCost
	for range pick(b, 1, 3) {
		var err error
		if ours, err = phoneCalls(ctx, calls, watch); err != nil {
			return nil, fmt.Errorf("calls of a web phone: %w", err)
		}
		if bare, err = barePairs(ctx, calls, watch); err != nil {
			return nil, fmt.Errorf("bare PeerConnections: %w", err)
		}
		heaps = append(heaps, pair{ours.heap, bare.heap, ours.heap / bare.heap})
		cpus = append(cpus, pair{ours.cpu, bare.cpu, ours.cpu / bare.cpu})
		setUps = append(setUps, pair{ours.setUp, bare.setUp, ours.setUp / bare.setUp})
	}
	const peer = " / two PeerConnections of pion"
	note := fmt.Sprintf("%d calls; %.0f goroutines each, against %.0f", calls, ours.goroutines, bare.goroutines)
	rows := median(heaps).row("P15", "heap a web phone's call, both ends"+peer, "B", 1.3, true, note)
	if ours.cpu > 0 {
		rows = append(rows, median(cpus).row("P16", "processor a web phone's call"+peer, "ms/s", 1.2, true, "50 packets a second each way")...)
	}
	return append(rows, median(setUps).row("P17", "calls set up by a web phone"+peer, "calls/s", 0.5, false,
		fmt.Sprintf("signalling included, %d at a time", atOnce))...), nil
}

// observe measures what set makes, and while it runs. set returns when all calls
// can have media, and what ends them.
func observe(calls int, watch time.Duration, set func() (end func() error, err error)) (c sessionCost, err error) {
	before, running := heap(), runtime.NumGoroutine()
	began := time.Now()
	end, err := set()
	if err != nil {
		return c, err
	}
	c.setUp = float64(calls) / time.Since(began).Seconds()
	time.Sleep(watch / 4) // the first packets come
	used, from := processorTime(), time.Now()
	time.Sleep(watch)
	c.cpu = float64(processorTime()-used) / float64(time.Since(from)) * 1000 / float64(calls)
	c.goroutines = float64(runtime.NumGoroutine()-running) / float64(calls)
	c.heap = float64(heap()-before) / float64(calls)
	return c, end()
}

var loopback = netip.MustParseAddr("127.0.0.1")

// connected counts the calls whose media can flow; it is a phone's sink.
type connected struct {
	n   atomic.Int64
	has chan struct{}
}

func (s *connected) Submit(_ context.Context, in engine.Input) error {
	o := in.Session
	if o != nil && (o.Kind == engine.SessionRegistered || o.Layer == events.LayerDTLS && o.State == "connected") {
		s.n.Add(1)
		select {
		case s.has <- struct{}{}:
		default:
		}
	}
	return nil
}

func (s *connected) until(ctx context.Context, n int) error {
	for s.n.Load() < int64(n) {
		select {
		case <-s.has:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d are connected: %w", s.n.Load(), n, context.Cause(ctx))
		}
	}
	return nil
}

// phoneCalls measures calls of one phone to a server in this process.
func phoneCalls(ctx context.Context, calls int, watch time.Duration) (sessionCost, error) {
	const login, number = "1001@" + domain, "1001"
	ctx, cancel := context.WithTimeout(ctx, patience+watch)
	defer cancel()
	server, err := vertotest.New(vertotest.Options{
		Users: []vertotest.User{{Login: login, Password: number}}, Domain: domain, Codecs: []vertotest.Codec{vertotest.Opus}, Tick: -1,
		Dialplan: func(*vertotest.Leg) vertotest.Route { return vertotest.Route{} },
	})
	if err != nil {
		return sessionCost{}, err
	}
	defer server.Close()
	audio, err := verto.NewMedia(loopback, nil)
	if err != nil {
		return sessionCost{}, err
	}
	sink := &connected{has: make(chan struct{}, 1)}
	phone, err := verto.NewPhone(verto.Config{ConnectionString: server.URL()}, verto.User{Login: login, Password: number}, audio, sink, nil)
	if err != nil {
		return sessionCost{}, err
	}
	var parts errgroup.Group
	defer parts.Wait() //nolint:errcheck // an end is what was asked for
	defer cancel()
	parts.Go(func() error { return audio.Run(ctx) })
	parts.Go(func() error { return phone.Run(ctx) })
	if err := sink.until(ctx, 1); err != nil {
		return sessionCost{}, err
	}
	return observe(calls, watch, func() (func() error, error) {
		var g errgroup.Group
		g.SetLimit(atOnce)
		for range calls {
			g.Go(func() error {
				_, err := phone.Call(ctx, "8001")
				return err
			})
		}
		err := errors.Join(g.Wait(), sink.until(ctx, 1+calls))
		return func() error { return nil }, err
	})
}

// barePairs measures pairs of PeerConnections.
func barePairs(ctx context.Context, pairs int, watch time.Duration) (sessionCost, error) {
	ctx, cancel := context.WithTimeout(ctx, patience+watch)
	defer cancel()
	var s webrtc.SettingEngine // on one address, as ours
	s.SetIncludeLoopbackCandidate(true)
	s.SetIPFilter(func(ip net.IP) bool { return ip.Equal(loopback.AsSlice()) })
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	codecs := new(webrtc.MediaEngine)
	if err := codecs.RegisterDefaultCodecs(); err != nil {
		return sessionCost{}, err
	}
	api := webrtc.NewAPI(webrtc.WithMediaEngine(codecs), webrtc.WithSettingEngine(s))

	var mu sync.Mutex
	var ends []*bareEnd
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	parts.Go(func() { speak(ctx, &mu, &ends) })
	return observe(pairs, watch, func() (func() error, error) {
		var g errgroup.Group
		g.SetLimit(atOnce)
		for range pairs {
			g.Go(func() error {
				a, b, err := barePair(ctx, api)
				mu.Lock()
				defer mu.Unlock()
				ends = append(ends, a, b)
				return err
			})
		}
		err := g.Wait()
		return func() error {
			mu.Lock()
			defer mu.Unlock()
			var errs []error
			for _, e := range ends {
				errs = append(errs, e.pc.GracefulClose())
				e.readers.Wait()
			}
			ends = nil
			return errors.Join(errs...)
		}, err
	})
}

// speak sends on all tracks until ctx ends.
func speak(ctx context.Context, mu *sync.Mutex, ends *[]*bareEnd) {
	frame := media.Sample{Data: []byte{0xF8, 0xFF, 0xFE}, Duration: 20 * time.Millisecond} // silence
	ticker := time.NewTicker(frame.Duration)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		mu.Lock()
		for _, e := range *ends {
			_ = e.track.WriteSample(frame) // an end that is being closed takes none
		}
		mu.Unlock()
	}
}

// bareEnd is one of a pair.
type bareEnd struct {
	pc      *webrtc.PeerConnection
	track   *webrtc.TrackLocalStaticSample
	up      chan struct{} // closed when it is connected
	readers sync.WaitGroup
}

func newBareEnd(api *webrtc.API) (*bareEnd, error) {
	pc, err := api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return nil, err
	}
	e := &bareEnd{pc: pc, up: make(chan struct{})}
	if e.track, err = webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus}, "audio", "bare"); err != nil {
		return nil, errors.Join(err, pc.Close())
	}
	sender, err := pc.AddTrack(e.track)
	if err != nil {
		return nil, errors.Join(err, pc.Close())
	}
	connected := sync.OnceFunc(func() { close(e.up) })
	pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateConnected {
			connected()
		}
	})
	pc.OnTrack(func(t *webrtc.TrackRemote, r *webrtc.RTPReceiver) {
		e.readers.Go(func() { readAll(r.Read) })
		readAll(t.Read)
	})
	e.readers.Go(func() { readAll(sender.Read) })
	return e, nil
}

func readAll[A any](read func([]byte) (int, A, error)) {
	buf := make([]byte, 1500)
	for {
		if _, _, err := read(buf); err != nil {
			return
		}
	}
}

// barePair connects two.
func barePair(ctx context.Context, api *webrtc.API) (a, b *bareEnd, err error) {
	if a, err = newBareEnd(api); err != nil {
		return nil, nil, err
	}
	if b, err = newBareEnd(api); err != nil {
		return nil, nil, errors.Join(err, a.pc.Close())
	}
	describe := func(from, to *webrtc.PeerConnection, make func() (webrtc.SessionDescription, error)) {
		if err != nil {
			return
		}
		var d webrtc.SessionDescription
		if d, err = make(); err != nil {
			return
		}
		gathered := webrtc.GatheringCompletePromise(from)
		if err = from.SetLocalDescription(d); err != nil {
			return
		}
		<-gathered
		err = to.SetRemoteDescription(*from.LocalDescription())
	}
	describe(a.pc, b.pc, func() (webrtc.SessionDescription, error) { return a.pc.CreateOffer(nil) })
	describe(b.pc, a.pc, func() (webrtc.SessionDescription, error) { return b.pc.CreateAnswer(nil) })
	for _, e := range []*bareEnd{a, b} {
		if err != nil {
			break
		}
		select {
		case <-e.up:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	return a, b, err
}
