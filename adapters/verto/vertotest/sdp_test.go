package vertotest

import (
	"errors"
	"strings"
	"testing"

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

func TestReadOfferedRefusesWhatFreeSWITCHRefuses(t *testing.T) {
	var good string
	for _, sdp := range clientOffers(t) {
		if strings.Contains(sdp, "a=setup:actpass") && strings.Contains(sdp, "a=candidate") {
			good = sdp
			break
		}
	}
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
	f.Fuzz(func(t *testing.T, sdp string) {
		o, err := readOffered(sdp)
		if err != nil {
			return
		}
		if _, err := readOffered(o.text); err != nil {
			t.Errorf("what was taken is not taken again: %v\n%s", err, o.text)
		}
	})
}
