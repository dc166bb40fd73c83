package vertotest

import (
	"testing"

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
			peer := newPeer(t, tt.mime)
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
	peer := newPeer(t, webrtc.MimeTypePCMU)
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
