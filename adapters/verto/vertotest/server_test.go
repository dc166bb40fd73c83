package vertotest

import (
	"encoding/binary"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/pion/webrtc/v4"

	"github.com/callstate/callstate/adapters/verto"
)

func TestPlacedCallCarriesMediaBothWays(t *testing.T) {
	for _, tt := range []struct {
		codec Codec
		mime  string
		far   FarEnd
	}{
		{PCMU, webrtc.MimeTypePCMU, Tone},
		{PCMA, webrtc.MimeTypePCMA, Echo},
		{Opus, webrtc.MimeTypeOpus, Echo},
		{Opus, webrtc.MimeTypeOpus, Tone},
	} {
		t.Run(string(tt.codec), func(t *testing.T) {
			s := newServer(t, Options{
				Codecs:   []Codec{tt.codec},
				Dialplan: func(*Leg) Route { return Route{Far: tt.far, Bridged: true} },
			})
			p := dial(t, s)
			p.login(t, "1001@demo.local", uuid.NewString())
			p.request(t, verto.MethodClientReady)
			peer := newPeer(t, tt.mime, true)
			id := uuid.NewString()
			f := p.call(t, "2", verto.MethodInvite, &verto.CallRequest{
				SDP: peer.offer(t), Dialog: verto.Dialog{CallID: id, DestinationNumber: "1002"},
			})
			if f.Kind != verto.KindResult {
				t.Fatal(f.Error)
			}
			c := readCall(t, p.request(t, verto.MethodAnswer))
			peer.accept(t, c.SDP)
			l := s.Leg(id)
			within(t, "media both ways", func() bool {
				n := l.Counts()
				return n.Received > 20 && peer.received.Load() > 20 && n.Sent >= peer.received.Load()
			})
			if c := readCall(t, p.request(t, verto.MethodDisplay)); c.DisplayNumber != "1002" {
				t.Errorf("display of %q, want the callee", c.DisplayNumber)
			}
			p.call(t, "3", verto.MethodBye, &verto.CallRequest{Dialog: verto.Dialog{CallID: id}})
			if !closed(l.Ended()) || l.Cause() != "NORMAL_CLEARING" || s.Leg(id) != nil {
				t.Errorf("ended %v with %q", closed(l.Ended()), l.Cause())
			}
			if n := l.Counts(); n.Lost != 0 {
				t.Errorf("lost %d packets on loopback", n.Lost)
			}
		})
	}
}

func TestReceivedCallCarriesMediaBothWays(t *testing.T) {
	s := newServer(t, Options{})
	p := dial(t, s)
	p.login(t, "1001@demo.local", uuid.NewString())
	p.request(t, verto.MethodClientReady)
	legs, err := s.Originate("1001@demo.local", Call{CallerNumber: "1002", RefuseAnswers: 1})
	if err != nil {
		t.Fatal(err)
	}
	l := legs[0]
	c := readCall(t, p.request(t, verto.MethodInvite))
	peer := newPeer(t, webrtc.MimeTypePCMU, true)
	answer := &verto.CallRequest{SDP: peer.answer(t, c.SDP), Dialog: verto.Dialog{CallID: c.CallID}}
	if f := p.call(t, "2", verto.MethodAnswer, answer); f.Kind != verto.KindError || f.Error.Message != "CODEC ERROR" {
		t.Fatalf("first answer: %+v, want it refused", f)
	}
	if f := p.call(t, "3", verto.MethodAnswer, answer); f.Kind != verto.KindResult {
		t.Fatalf("second answer: %v", f.Error)
	}
	if c := readCall(t, p.request(t, verto.MethodDisplay)); c.DisplayNumber != "1002" {
		t.Errorf("display of %q, want the caller", c.DisplayNumber)
	}
	within(t, "media both ways", func() bool { return l.Counts().Received > 20 && peer.received.Load() > 20 })
	l.Hangup("USER_BUSY")
	if c := readCall(t, p.request(t, verto.MethodBye)); c.Cause != "USER_BUSY" || c.CauseCode != 17 {
		t.Errorf("bye with %s %d", c.Cause, c.CauseCode)
	}
}

// incoming puts a call to 1001 up, with media.
func incoming(t *testing.T, s *Server, p *probe) (*Leg, *peer) {
	t.Helper()
	legs, err := s.Originate("1001@demo.local", Call{CallerNumber: "1002"})
	if err != nil {
		t.Fatal(err)
	}
	peer := newPeer(t, webrtc.MimeTypePCMU, true)
	sdp := peer.answer(t, readCall(t, p.request(t, verto.MethodInvite)).SDP)
	p.call(t, "2", verto.MethodAnswer, &verto.CallRequest{SDP: sdp, Dialog: verto.Dialog{CallID: legs[0].ID()}})
	p.request(t, verto.MethodDisplay)
	within(t, "media both ways", func() bool { return legs[0].Counts().Received > 5 && peer.received.Load() > 5 })
	return legs[0], peer
}

func TestReattachKeepsPortFingerprintAndSSRC(t *testing.T) {
	for name, style := range map[string]Ready{
		"listed": ReadyListed, "first": ReadyFirst, "sessid": ReadySessid, "empty": ReadyEmpty, "never": ReadyNever,
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, Options{Ready: style})
			p, sessid := dial(t, s), uuid.NewString()
			p.login(t, "1001@demo.local", sessid)
			if style != ReadyNever {
				p.request(t, verto.MethodClientReady)
			}
			l, old := incoming(t, s, p)
			before, err := factsOf(l.media.pc.LocalDescription().SDP)
			if err != nil {
				t.Fatal(err)
			}
			s.Drop("1001@demo.local")
			within(t, "end of the socket", func() bool { return s.Sockets("") == 0 })
			within(t, "no more media", func() bool { return !l.media.open.Load() })
			old.close()
			p = dial(t, s)
			p.login(t, "1001@demo.local", sessid)
			var ready verto.Ready
			hear := func() {
				if style == ReadyNever {
					return
				}
				if err := verto.Read(p.request(t, verto.MethodClientReady).Params, &ready); err != nil {
					t.Fatal(err)
				}
			}
			if style == ReadyFirst {
				hear()
			}
			c := readCall(t, p.request(t, verto.MethodAttach))
			if style != ReadyFirst {
				hear()
			}
			want := map[Ready][]string{ReadyListed: {l.ID()}, ReadyFirst: {l.ID()}, ReadySessid: {sessid}, ReadyEmpty: {}}[style]
			if !slices.Equal(ready.ReattachedSessions, want) {
				t.Errorf("reattached_sessions %v, want %v", ready.ReattachedSessions, want)
			}
			after, err := factsOf(c.SDP)
			if err != nil {
				t.Fatal(err)
			}
			if before.host != after.host || before.fingerprint != after.fingerprint || before.ssrc != after.ssrc {
				t.Errorf("offer of the same call: %+v, was %+v", after, before)
			}
			if before.ufrag == after.ufrag {
				t.Error("ICE credentials are the old ones")
			}
			fresh, received := newPeer(t, webrtc.MimeTypePCMU, true), l.Counts().Received
			sdp := fresh.answer(t, c.SDP)
			p.call(t, "2", verto.MethodAttach, &verto.CallRequest{SDP: sdp, Dialog: verto.Dialog{CallID: l.ID()}})
			within(t, "media again", func() bool { return l.Counts().Received > received+5 && fresh.received.Load() > 5 })
		})
	}
}

func TestHangupLeavesDTLSOpenAndCloseDTLSDoesNot(t *testing.T) {
	s := newServer(t, Options{})
	p := dial(t, s)
	p.login(t, "1001@demo.local", uuid.NewString())
	p.request(t, verto.MethodClientReady)
	l, peer := incoming(t, s, p)
	l.CloseDTLS()
	within(t, "end of the PeerConnection", func() bool { return peer.pc.ConnectionState() == webrtc.PeerConnectionStateClosed })
	if l.State() != Up {
		t.Error("the call ended with its media")
	}
	l.Hangup("NORMAL_CLEARING")
	p.request(t, verto.MethodBye)

	l, peer = incoming(t, s, p)
	l.Hangup("NORMAL_CLEARING")
	p.request(t, verto.MethodBye)
	if st := peer.pc.ConnectionState(); st != webrtc.PeerConnectionStateConnected {
		t.Errorf("PeerConnection %s after the bye, want it connected as with FreeSWITCH", st)
	}
}

func TestFrozenSocketStaysOpenAndSilent(t *testing.T) {
	s := newServer(t, Options{KeepAlive: 300 * time.Millisecond})
	p := dial(t, s)
	p.login(t, "1001@demo.local", uuid.NewString())
	s.Freeze("1001@demo.local")
	p.write(t, []byte(`{"jsonrpc":"2.0","id":2,"method":"verto.ping","params":{}}`))
	q := dial(t, s) // whose answer is the clock
	q.login(t, "1002@demo.local", uuid.NewString())
	q.request(t, verto.MethodClientReady)
	q.request(t, verto.MethodPing)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.answers) != 1 || p.code != 0 || s.Sockets("1001@demo.local") != 1 {
		t.Errorf("%d answers, code %d", len(p.answers), p.code)
	}
}

func TestStrictServerKeepsASessidWithItsUser(t *testing.T) {
	s := newServer(t, Options{Strict: true})
	p, q, sessid := dial(t, s), dial(t, s), uuid.NewString()
	p.login(t, "1001@demo.local", sessid)
	f := q.call(t, "1", verto.MethodLogin, &verto.Login{SessID: sessid, Login: "1002@demo.local", Passwd: "1002"})
	if f.Error == nil || f.Error.Message != "Session in use" {
		t.Errorf("%+v, want it refused", f)
	}
	within(t, "end of the second socket", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.code != 0
	})
	p.call(t, "2", verto.MethodPing, &verto.Ping{})
}

func TestExpiredLoginClosesTheSocket(t *testing.T) {
	users := DemoUsers()
	users[0].AuthExpires = 1
	s := newServer(t, Options{Users: users})
	p := dial(t, s)
	p.login(t, users[0].Login, uuid.NewString())
	within(t, "end of the socket", func() bool { return s.Sockets("") == 0 })
}

func TestDigitsAreSentAsTelephoneEvents(t *testing.T) {
	s := newServer(t, Options{Dialplan: func(*Leg) Route { return Route{} }})
	p := dial(t, s)
	p.login(t, "1001@demo.local", uuid.NewString())
	p.request(t, verto.MethodClientReady)
	peer, id := newPeer(t, webrtc.MimeTypePCMU, true), uuid.NewString()
	var digits atomic.Value
	digits.Store("")
	peer.pc.OnTrack(func(tr *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		var last uint32
		for {
			packet, _, err := tr.ReadRTP()
			if err != nil {
				return
			}
			if packet.PayloadType == 101 && packet.Payload[1]&0x80 != 0 && packet.Timestamp != last {
				last = packet.Timestamp
				if d := binary.BigEndian.Uint16(packet.Payload[2:]); d != 800 {
					t.Errorf("duration %d, want 100 ms", d)
				}
				digits.Store(digits.Load().(string) + string(eventDigits[packet.Payload[0]]))
			}
		}
	})
	p.call(t, "2", verto.MethodInvite, &verto.CallRequest{
		SDP: peer.offer(t), Dialog: verto.Dialog{CallID: id, DestinationNumber: "8001"},
	})
	peer.accept(t, readCall(t, p.request(t, verto.MethodAnswer)).SDP)
	l := s.Leg(id)
	if !l.SendDigits("15#") {
		t.Fatal("the client offered telephone-event, and the leg does not know it")
	}
	within(t, "three digits", func() bool { return digits.Load().(string) == "15#" })
}
