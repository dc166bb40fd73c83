package verto

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
)

// recordedSDP returns the descriptions of the server's or our frames of a method,
// in one recording or, by an empty name, in all.
func recordedSDP(t testing.TB, name, dir, method string) []string {
	t.Helper()
	var list []string
	for rec, lines := range transcripts(t) {
		if name != "" && rec != name {
			continue
		}
		for _, l := range lines {
			if l.Dir != dir || !isFrame(l) {
				continue
			}
			f, err := Decode(l.Frame)
			if err != nil || f.Method != method {
				continue
			}
			var p Call // the member has the same name in both directions
			if Read(f.Params, &p) == nil && p.SDP != "" {
				list = append(list, p.SDP)
			}
		}
	}
	if len(list) == 0 {
		t.Fatalf("no description in %s %s %s", name, dir, method)
	}
	return list
}

func loopbackMedia(t testing.TB) *Media {
	t.Helper()
	m, err := NewMedia(netip.MustParseAddr("127.0.0.1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// answering gives an offer to a PeerConnection as it is.
func answering(t *testing.T, m *Media, offer string) (answer string, err error) {
	t.Helper()
	pc, err := m.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.GracefulClose() })
	if _, err := pc.AddTrack(newOutTrack("a", nil, false)); err != nil {
		t.Fatal(err)
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		return "", err
	}
	d, err := pc.CreateAnswer(nil)
	if err != nil {
		return "", err
	}
	done := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(d); err != nil {
		return "", err
	}
	<-done
	return pc.LocalDescription().SDP, nil
}

func without(sdp, prefix string) string {
	return joinLines(slices.DeleteFunc(splitLines(sdp), func(l string) bool { return strings.HasPrefix(l, prefix) }))
}

func line(sdp, prefix string) string {
	for _, l := range splitLines(sdp) {
		if strings.HasPrefix(l, prefix) {
			return l
		}
	}
	return ""
}

// Each of the adaptations is there because a recorded offer does not work without.
func TestOffersNeedMidAndGroup(t *testing.T) {
	m := loopbackMedia(t)
	offer := recordedSDP(t, "verto/04-incoming.jsonl", "in", MethodInvite)[0]
	adapted := fromServer(offer)

	if _, err := answering(t, m, without(adapted, "a=mid:")); err == nil {
		t.Error("pion takes an offer without a=mid: adding it is not needed any more")
	}
	answer, err := answering(t, m, without(adapted, "a=group:"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(line(answer, "m=audio"), "m=audio 0 ") {
		t.Error("pion answers an offer without a=group: adding it is not needed any more")
	}
	if answer, err = answering(t, m, adapted); err != nil {
		t.Fatal(err)
	}
	if l := line(answer, "m=audio"); strings.HasPrefix(l, "m=audio 0 ") {
		t.Errorf("the adapted offer is refused: %s", l)
	}
	if line(answer, "a=setup:") != "a=setup:active" {
		t.Error("our answer is not active, which FreeSWITCH's ICE needs")
	}
	if line(answer, "c=") != "c=IN IP4 0.0.0.0" {
		t.Error("pion names an address: the adaptation of answers is not needed any more")
	}
	sent := forServer(answer)
	if line(sent, "c=") != "c=IN IP4 127.0.0.1" || strings.Contains(sent, "c=IN IP4 0.0.0.0") {
		t.Errorf("FreeSWITCH would take this for hold: %s", line(sent, "c="))
	}
	if line(sent, "a=fingerprint:") == "" || line(sent[strings.Index(sent, "m="):], "a=fingerprint:") == "" {
		t.Error("no fingerprint in the media section")
	}
	if n := strings.Count(sent, "a=candidate:"); n == 0 {
		t.Error("no candidate, and there is no other way to send one")
	}
}

// A zero address that was sent once makes every later offer of that call sendonly.
func TestSpoiltOffersAreHealed(t *testing.T) {
	m := loopbackMedia(t)
	spoilt := 0
	for _, offer := range recordedSDP(t, "verto/19-zero-address-trap.jsonl", "in", MethodAttach) {
		if line(offer, "a=send") == "a=sendonly" {
			spoilt++
		}
		answer, err := answering(t, m, fromServer(healed(offer)))
		if err != nil {
			t.Fatal(err)
		}
		if line(answer, "a=sendrecv") == "" {
			t.Errorf("we would not send: %s%s", line(answer, "a=recvonly"), line(answer, "a=inactive"))
		}
	}
	if spoilt == 0 {
		t.Error("the recording has no spoilt offer")
	}
}

func TestPionTakesEveryRecordedDescription(t *testing.T) {
	m := loopbackMedia(t)
	for _, method := range []string{MethodInvite, MethodAttach} {
		for _, offer := range recordedSDP(t, "", "in", method) {
			if _, err := answering(t, m, fromServer(offer)); err != nil {
				t.Errorf("%s: %v in\n%s", method, err, offer)
			}
		}
	}
	for _, answer := range append(recordedSDP(t, "", "in", MethodAnswer), recordedSDP(t, "", "in", MethodMedia)...) {
		p, err := newPeer(m, newOutTrack("a", nil, false), silentEvents{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.offer(context.Background(), false); err != nil {
			t.Error(err)
		} else if err := p.accept(answer); err != nil {
			t.Errorf("%v in\n%s", err, answer)
		}
		if err := p.accept(answer); err != nil {
			t.Errorf("the same answer again: %v", err)
		}
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}
}

func TestForServerTakesTheBestCandidate(t *testing.T) {
	const (
		head  = "v=0\r\nm=audio 9 X 0\r\nc=IN IP4 0.0.0.0\r\n"
		srflx = "a=candidate:2 1 udp 1 198.51.100.7 4000 typ srflx raddr 10.0.0.1 rport 4000\r\n"
		host  = "a=candidate:1 1 udp 2 10.0.0.1 4000 typ host\r\n"
		six   = "a=candidate:1 1 udp 2 2001:db8::1 4000 typ host\r\n"
	)
	for sdp, want := range map[string]string{
		head + srflx + host: "c=IN IP4 10.0.0.1",
		head + srflx:        "c=IN IP4 198.51.100.7",
		head + six:          "c=IN IP6 2001:db8::1",
		head:                "c=IN IP4 0.0.0.0",
	} {
		if got := line(forServer(sdp), "c="); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// silentEvents hears nothing.
type silentEvents struct{}

func (silentEvents) transportState(string, string) {}
func (silentEvents) digit(byte, time.Duration)     {}

// Whatever a server sends: no panic, nothing of it is lost, and adapting twice is
// adapting once.
func FuzzSDP(f *testing.F) {
	for _, method := range []string{MethodInvite, MethodAttach, MethodAnswer} {
		for _, sdp := range recordedSDP(f, "", "in", method) {
			f.Add(sdp)
		}
	}
	f.Add(recordedSDP(f, "", "out", MethodAnswer)[0])
	f.Add("m=audio 0 X\na=mid:x\nm=\r\na=group:BUNDLE\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, sdp string) {
		adapted := fromServer(sdp)
		if again := fromServer(adapted); again != adapted {
			t.Errorf("adapting twice:\n%q\n%q", adapted, again)
		}
		if got, want := strings.Count("\n"+adapted, "\nm="), strings.Count("\n"+strings.ReplaceAll(sdp, "\r\n", "\n"), "\nm="); got != want {
			t.Errorf("%d media sections became %d", want, got)
		}
		kept := splitLines(adapted)
		for _, l := range splitLines(sdp) {
			i := slices.Index(kept, l)
			if i < 0 {
				t.Fatalf("lost %q", l)
			}
			kept = kept[i+1:]
		}
		sent := forServer(sdp)
		if again := forServer(sent); again != sent {
			t.Errorf("adapting twice:\n%q\n%q", sent, again)
		}
		if len(splitLines(sent)) != len(splitLines(sdp)) {
			t.Error("lines were added or lost")
		}
		_ = healed(sdp)
	})
}
