package vertotest

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/webrtc/v4"
	pionmedia "github.com/pion/webrtc/v4/pkg/media"

	"github.com/callstate/callstate/adapters/verto"
)

const patience = 30 * time.Second

// newServer starts a server that the test closes, and that waits for nothing
// longer than it must.
func newServer(t *testing.T, opts Options) *Server {
	t.Helper()
	if opts.HoldDelay == 0 {
		opts.HoldDelay = -1
	}
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// within waits for a condition.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s", what)
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// probe is a client that answers nothing by itself and keeps what it receives.
type probe struct {
	ws *websocket.Conn

	mu       sync.Mutex // guards what follows
	answers  []verto.Frame
	requests []verto.Frame
	code     int // of the close; 0 while open
}

func dial(t *testing.T, s *Server) *probe {
	t.Helper()
	d := websocket.Dialer{WriteBufferSize: 64 << 10}
	ws, _, err := d.DialContext(t.Context(), s.URL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &probe{ws: ws}
	var wg sync.WaitGroup
	wg.Go(func() { p.read(t) })
	t.Cleanup(func() {
		ws.Close()
		wg.Wait()
	})
	return p
}

func (p *probe) read(t *testing.T) {
	for {
		_, b, err := p.ws.ReadMessage()
		if err != nil {
			code := websocket.CloseAbnormalClosure
			if ce := (*websocket.CloseError)(nil); errors.As(err, &ce) {
				code = ce.Code
			}
			p.mu.Lock()
			p.code = code
			p.mu.Unlock()
			return
		}
		f, err := verto.Decode(b)
		if err != nil {
			t.Errorf("decode %s: %v", b, err)
			continue
		}
		p.mu.Lock()
		if f.Kind == verto.KindRequest {
			p.requests = append(p.requests, f)
		} else {
			p.answers = append(p.answers, f)
		}
		p.mu.Unlock()
	}
}

func (p *probe) write(t *testing.T, b []byte) {
	t.Helper()
	if err := p.ws.WriteMessage(websocket.TextMessage, b); err != nil {
		t.Fatal(err)
	}
}

// answer waits for the answer to a request.
func (p *probe) answer(t *testing.T, id string) verto.Frame {
	t.Helper()
	var f verto.Frame
	within(t, "answer to "+id, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for i := range p.answers {
			if string(p.answers[i].ID) == id {
				f = p.answers[i]
				return true
			}
		}
		return false
	})
	return f
}

// request waits for the next request of the server, and takes it.
func (p *probe) request(t *testing.T, method string) verto.Frame {
	t.Helper()
	var f verto.Frame
	within(t, method, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.requests) == 0 {
			return false
		}
		f, p.requests = p.requests[0], p.requests[1:]
		return true
	})
	if f.Method != method {
		t.Fatalf("got %s %s, want %s", f.Method, f.Params, method)
	}
	return f
}

// call sends a request and returns its answer.
func (p *probe) call(t *testing.T, id, method string, params verto.Object) verto.Frame {
	t.Helper()
	f := verto.Frame{Kind: verto.KindRequest, Version: verto.Version, ID: json.RawMessage(id), Method: method}
	b, err := verto.EncodeResult(nil, params)
	if err != nil {
		t.Fatal(err)
	}
	var r struct{ Result json.RawMessage }
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	f.Params = r.Result
	if b, err = f.Encode(); err != nil {
		t.Fatal(err)
	}
	p.write(t, b)
	return p.answer(t, id)
}

func (p *probe) login(t *testing.T, user, sessid string) {
	t.Helper()
	number, _, _ := strings.Cut(user, "@")
	f := p.call(t, "1", verto.MethodLogin, &verto.Login{SessID: sessid, Login: user, Passwd: verto.Secret(number)})
	if f.Kind != verto.KindResult {
		t.Fatalf("login: %v", f.Error)
	}
}

// peer is a bare pion client's end of a call.
type peer struct {
	pc       *webrtc.PeerConnection
	track    *webrtc.TrackLocalStaticSample
	received atomic.Uint64
	wg       sync.WaitGroup
	done     chan struct{}
}

// newPeer makes one; events says whether it knows telephone-event.
func newPeer(t *testing.T, mime string, events bool) *peer {
	t.Helper()
	var se webrtc.SettingEngine
	se.SetIncludeLoopbackCandidate(true)
	se.SetIPFilter(loopback)
	se.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	engine := &webrtc.MediaEngine{}
	if err := engine.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	if events {
		err := engine.RegisterCodec(webrtc.RTPCodecParameters{
			RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: telephoneEvent, ClockRate: 8000}, PayloadType: 101,
		}, webrtc.RTPCodecTypeAudio)
		if err != nil {
			t.Fatal(err)
		}
	}
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(se), webrtc.WithMediaEngine(engine)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{pc: pc, done: make(chan struct{})}
	capability := webrtc.RTPCodecCapability{MimeType: mime}
	if p.track, err = webrtc.NewTrackLocalStaticSample(capability, "audio", "probe"); err != nil {
		t.Fatal(err)
	}
	if _, err = pc.AddTrack(p.track); err != nil {
		t.Fatal(err)
	}
	pc.OnTrack(func(tr *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			if _, _, err := tr.ReadRTP(); err != nil {
				return
			}
			p.received.Add(1)
		}
	})
	p.wg.Go(func() {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				_ = p.track.WriteSample(pionmedia.Sample{Data: make([]byte, 160), Duration: 20 * time.Millisecond})
			case <-p.done:
				return
			}
		}
	})
	t.Cleanup(p.close)
	return p
}

func (p *peer) close() {
	select {
	case <-p.done:
		return
	default:
	}
	close(p.done)
	p.wg.Wait()
	_ = p.pc.GracefulClose()
}

func (p *peer) local(t *testing.T, d webrtc.SessionDescription, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(p.pc)
	if err := p.pc.SetLocalDescription(d); err != nil {
		t.Fatal(err)
	}
	<-gathered
	return strings.ReplaceAll(p.pc.LocalDescription().SDP, "c=IN IP4 0.0.0.0", "c=IN IP4 127.0.0.1")
}

func (p *peer) offer(t *testing.T) string {
	t.Helper()
	d, err := p.pc.CreateOffer(nil)
	return p.local(t, d, err)
}

// adapted is a description of FreeSWITCH's with what pion cannot do without.
func adapted(sdp string) string {
	sdp = strings.Replace(sdp, "t=0 0\r\n", "t=0 0\r\na=group:BUNDLE 0\r\n", 1)
	head, tail, _ := strings.Cut(sdp, "m=audio")
	line, rest, _ := strings.Cut(tail, "\r\n")
	return head + "m=audio" + line + "\r\na=mid:0\r\n" + rest
}

// answer answers an offer of the server.
func (p *peer) answer(t *testing.T, sdp string) string {
	t.Helper()
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: adapted(sdp)}); err != nil {
		t.Fatalf("%v\n%s", err, sdp)
	}
	d, err := p.pc.CreateAnswer(nil)
	return p.local(t, d, err)
}

// accept takes the server's answer.
func (p *peer) accept(t *testing.T, sdp string) {
	t.Helper()
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: adapted(sdp)}); err != nil {
		t.Fatalf("%v\n%s", err, sdp)
	}
}

func readCall(t *testing.T, f verto.Frame) verto.Call {
	t.Helper()
	var c verto.Call
	if err := verto.Read(f.Params, &c); err != nil {
		t.Fatal(err)
	}
	return c
}
