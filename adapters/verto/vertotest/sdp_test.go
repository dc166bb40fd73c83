package vertotest

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/pion/webrtc/v4"

	"github.com/callstate/callstate/adapters/verto"
	"github.com/callstate/callstate/testdata/captures"
)

// clientOffers are the descriptions that the recorded client sent.
func clientOffers(tb testing.TB) []string {
	tb.Helper()
	names, err := captures.List("verto/*.jsonl")
	if err != nil {
		tb.Fatal(err)
	}
	var sdps []string
	for _, name := range names {
		lines, err := captures.Transcript(name)
		if err != nil {
			tb.Fatal(err)
		}
		for _, l := range lines {
			f, err := verto.Decode(l.Frame)
			if err != nil || l.Dir != "out" || f.Kind != verto.KindRequest {
				continue
			}
			var p verto.CallRequest
			if verto.Read(f.Params, &p) == nil && p.SDP != "" {
				sdps = append(sdps, p.SDP)
			}
		}
	}
	if len(sdps) < 20 {
		tb.Fatalf("%d descriptions in the recordings", len(sdps))
	}
	return sdps
}

// goodOffer is a recorded one that was taken.
func goodOffer(tb testing.TB) string {
	tb.Helper()
	for _, sdp := range clientOffers(tb) {
		if strings.Contains(sdp, "a=setup:actpass") && strings.Contains(sdp, "a=candidate") {
			return sdp
		}
	}
	tb.Fatal("none in the recordings")
	return ""
}

func TestReadOfferedRefusesWhatFreeSWITCHRefuses(t *testing.T) {
	good := goodOffer(t)
	cut := func(prefix string) string {
		var kept []string
		for line := range strings.SplitAfterSeq(good, "\r\n") {
			if !strings.HasPrefix(line, prefix) {
				kept = append(kept, line)
			}
		}
		return strings.Join(kept, "")
	}
	private := strings.ReplaceAll(good, "127.0.0.1", "192.168.1.7")
	for _, tt := range []struct {
		name, sdp string
		err       error
	}{
		{"as recorded", good, nil},
		{"without mid and group", strings.ReplaceAll(cut("a=mid"), "a=group:BUNDLE 0\r\n", ""), nil},
		{"port 9", good[:strings.Index(good, "m=audio")] + "m=audio 9 " + good[strings.Index(good, "UDP/TLS"):], nil},
		{"port 0", good[:strings.Index(good, "m=audio")] + "m=audio 0 " + good[strings.Index(good, "UDP/TLS"):], errRefused},
		{"no candidate", cut("a=candidate"), errNoCandidate},
		{"only a name", strings.ReplaceAll(good, "2130706431 127.0.0.1", "2130706431 a-b-c.local"), errNoCandidate},
		{"a private address", private, errNoCandidate},
		{"no fingerprint", cut("a=fingerprint"), errNoCrypto},
		{"no audio", strings.ReplaceAll(good, "m=audio", "m=video"), errNoCodec},
	} {
		o, err := readOffered(tt.sdp)
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
		if err == nil && (!strings.Contains(o.text, "a=mid:0") || !strings.Contains(o.text, "a=group:BUNDLE 0")) {
			t.Errorf("%s: pion would not take\n%s", tt.name, o.text)
		}
	}
	if o, err := readOffered(strings.ReplaceAll(good, "c=IN IP4 127.0.0.1", "c=IN IP4 0.0.0.0")); err != nil || !o.zero {
		t.Errorf("zero address: %v, %v; want it seen", o.zero, err)
	}
}

// withVideo adds video to a description, with the transport of its audio.
func withVideo(sdp string) string {
	_, medium, _ := strings.Cut(sdp, "m=audio")
	_, attributes, _ := strings.Cut(medium, "\r\n")
	return sdp + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\n" + attributes
}

func TestReadOfferedKnowsVideo(t *testing.T) {
	audio := goodOffer(t)
	both := withVideo(audio)
	for name, tt := range map[string]struct {
		sdp           string
		names, usable bool
	}{
		"none":         {audio, false, false},
		"video":        {both, true, true},
		"refused":      {strings.Replace(both, "m=video 9", "m=video 0", 1), true, false},
		"no transport": {audio + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\n", true, false},
	} {
		o, err := readOffered(tt.sdp)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if o.names != tt.names || (o.video != "") != tt.usable {
			t.Errorf("%s: named %v, video\n%s", name, o.names, o.video)
		}
		if strings.Contains(o.text, "m=video") || strings.Contains(o.video, "m=audio") {
			t.Errorf("%s: pion would bundle\n%s", name, o.text+o.video)
		}
		if tt.usable && (len(o.videoCodecs) == 0 || o.videoCodecs[0].MimeType != webrtc.MimeTypeVP8) {
			t.Errorf("%s: codecs %v", name, o.videoCodecs)
		}
	}
}

// A call with video is offered as FreeSWITCH does it: a transport for each medium,
// neither named nor bundled.
func TestVideoIsOfferedWithATransportOfItsOwn(t *testing.T) {
	s := newServer(t, Options{})
	p := dial(t, s)
	p.login(t, "1001@demo.local", uuid.NewString())
	p.request(t, verto.MethodClientReady)
	if _, err := s.Originate("1001@demo.local", Call{Video: true}); err != nil {
		t.Fatal(err)
	}
	var call verto.Call
	f := p.request(t, verto.MethodInvite)
	if err := verto.Read(f.Params, &call); err != nil {
		t.Fatal(err)
	}
	media := strings.Split(call.SDP, "\r\nm=")
	if len(media) != 3 || strings.Contains(call.SDP, "a=mid") || strings.Contains(call.SDP, "a=group") {
		t.Fatalf("offered\n%s", call.SDP)
	}
	own := map[string]bool{}
	for _, m := range media[1:] {
		for _, name := range []string{"a=rtcp:", "a=ice-ufrag:", "a=ice-pwd:", "a=candidate:", "a=ssrc:"} {
			_, rest, ok := strings.Cut(m, name)
			value, _, _ := strings.Cut(rest, "\r\n")
			if !ok || own[name+value] {
				t.Errorf("%s%s is not there, or of both media", name, value)
			}
			own[name+value] = true
		}
	}
	if !strings.HasPrefix(media[1], "audio ") || !strings.HasPrefix(media[2], "video ") || !strings.Contains(media[2], "a=rtpmap:99 VP8/90000\r\na=rtcp-fb:99 ccm fir") || strings.Contains(media[2], "ptime") {
		t.Errorf("offered\n%s", call.SDP)
	}
}

func TestChooseTakesTheFirstCommonCodec(t *testing.T) {
	const offer = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 8 0 101 110\r\n" +
		"a=fingerprint:sha-256 00\r\na=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n" +
		"a=rtpmap:111 opus/48000/2\r\na=rtpmap:101 telephone-event/8000\r\na=rtpmap:110 telephone-event/48000\r\n"
	o, err := readOffered(offer)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		ours         []Codec
		audio, event int
	}{
		{[]Codec{PCMU, PCMA}, 8, 101},
		{[]Codec{PCMU}, 0, 101},
		{[]Codec{PCMU, Opus}, 111, 110},
	} {
		got, err := choose(o.codecs, tt.ours)
		if err != nil || len(got) != 2 || int(got[0].PayloadType) != tt.audio || int(got[1].PayloadType) != tt.event {
			t.Errorf("%v: %v, %v; want payload types %d and %d", tt.ours, got, err, tt.audio, tt.event)
		}
	}
	if _, err := choose(o.codecs[:1], []Codec{PCMU}); !errors.Is(err, errNoCodec) {
		t.Errorf("nothing in common: %v", err)
	}
}

func FuzzReadOffered(f *testing.F) {
	for _, sdp := range clientOffers(f) {
		f.Add(sdp)
	}
	f.Add(withVideo(goodOffer(f)))
	f.Fuzz(func(t *testing.T, sdp string) {
		o, err := readOffered(sdp)
		if err != nil {
			return
		}
		again, err := readOffered(o.text)
		if err != nil || again.names {
			t.Errorf("what was taken is not taken again, or not alone: %v\n%s", err, o.text)
		}
	})
}
