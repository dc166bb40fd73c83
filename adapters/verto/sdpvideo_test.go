package verto

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

// withVideo is an offer of FreeSWITCH with a port, ICE and DTLS for each medium: a
// recorded one of audio, and video in the same shape.
func withVideo(t testing.TB) (offer, audio string) {
	t.Helper()
	audio = recordedSDP(t, "verto/04-incoming.jsonl", "in", MethodInvite)[0]
	video := "m=video 29000 RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\n" + audio[strings.Index(audio, "a=fingerprint"):]
	return audio + video, audio
}

// testPeers are those of a call that sends one frame of video.
func testPeers(t testing.TB, m *Media, video bool) *peers {
	t.Helper()
	audio, err := newPeer(m, newOutTrack("a", nil, false), silentEvents{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &peers{audio: audio, log: slog.New(slog.DiscardHandler)}
	if video {
		out := newVideoTrack("a", videoClip{{packets: [][]byte{{0x10, 0}}, lasts: frameTime, key: true}}, false)
		if p.video, err = newVideoPeer(m, out, func(string) {}, p.log); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// isWhole reports what a medium that is not refused lacks of a transport of its own.
func isWhole(section []string) error {
	for _, want := range []string{"c=IN IP4 127.0.0.1", "a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=setup:", "a=candidate:", "a=rtcp-mux"} {
		if !slices.ContainsFunc(section, func(l string) bool { return strings.HasPrefix(l, want) }) {
			return fmt.Errorf("no %s in %q", want, section)
		}
	}
	return nil
}

func TestVideoIsRefusedAndAudioTaken(t *testing.T) {
	offer, _ := withVideo(t)
	answer, err := testPeers(t, loopbackMedia(t), false).answer(t.Context(), offer)
	if err != nil {
		t.Fatal(err)
	}
	s := cutSections(answer)
	if len(s.media) != 2 || s.find(mediumVideo) != nil || isWhole(s.find(mediumAudio)) != nil {
		t.Errorf("answered by\n%s", answer)
	}
	if l := line(answer, "m=video"); l != "m=video 0 RTP/SAVPF 96" {
		t.Errorf("video is answered by %q", l)
	}
}

// Each medium is answered, and offered, with a transport of its own, and nothing is
// said of a group.
func TestMediaHaveATransportEach(t *testing.T) {
	m := loopbackMedia(t)
	offer, _ := withVideo(t)
	p := testPeers(t, m, true)
	answer, err := p.answer(t.Context(), offer)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := testPeers(t, m, true).offer(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	for what, sdp := range map[string]string{"answer": answer, "offer": ours} {
		s := cutSections(sdp)
		audio, video := s.find(mediumAudio), s.find(mediumVideo)
		if len(s.media) != 2 || audio == nil || video == nil {
			t.Fatalf("%s:\n%s", what, sdp)
		}
		for _, section := range s.media {
			if err := isWhole(section); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		for _, own := range []string{"a=ice-ufrag:", "a=fingerprint:", "a=candidate:"} {
			if a, v := line(joinLines(audio), own), line(joinLines(video), own); a == v {
				t.Errorf("%s: both media have %s", what, a)
			}
		}
		if strings.Contains(sdp, "a=group:") || strings.Contains(sdp, "a=mid:") {
			t.Errorf("%s: media are bundled, or named:\n%s", what, sdp)
		}
	}
	if !p.sendsVideo() {
		t.Error("the video of an answer is not agreed")
	}
	_, audio := withVideo(t)
	for _, oneWay := range []string{"a=sendonly", "a=inactive"} {
		deaf := testPeers(t, m, true)
		if _, err := deaf.answer(t.Context(), audio+strings.Replace(offer[len(audio):], "a=sendrecv", oneWay, 1)); err != nil {
			t.Fatal(err)
		}
		if deaf.sendsVideo() {
			t.Errorf("with %s the server takes video", oneWay)
		}
	}
}

// What is wrong with the video leaves the audio alone: the video is refused, now and
// in every later offer.
func TestVideoThatCannotBeIsRefused(t *testing.T) {
	m := loopbackMedia(t)
	offer, _ := withVideo(t)
	for what, spoilt := range map[string]string{
		"no codec in common": strings.ReplaceAll(offer, "VP8/90000", "H264/90000"),
		"no ICE":             offer[:strings.Index(offer, "m=video")] + "m=video 29000 RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\n",
	} {
		p := testPeers(t, m, true)
		answer, err := p.answer(t.Context(), spoilt)
		if err != nil {
			t.Fatal(err)
		}
		s := cutSections(answer)
		if isWhole(s.find(mediumAudio)) != nil || s.find(mediumVideo) != nil || len(s.media) != 2 || p.sendsVideo() {
			t.Errorf("%s: answered by\n%s", what, answer)
		}
		again, err := p.offer(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		if s := cutSections(again); len(s.media) != 2 || !refused(s.media[1][0]) {
			t.Errorf("%s: then offered\n%s", what, again)
		}
	}

	offerer := testPeers(t, m, true)
	if _, err := offerer.offer(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := offerer.accept(recordedSDP(t, "", "in", MethodAnswer)[0]); err != nil {
		t.Fatal(err)
	}
	if offerer.sendsVideo() {
		t.Error("an answer without video agrees to it")
	}
}

// Without video nothing is changed that was proven by recordings.
func TestAudioAloneStaysAsItIs(t *testing.T) {
	for _, sdp := range recordedSDP(t, "", "in", MethodInvite) {
		s := cutSections(sdp)
		if audio, err := s.audio(sdp); err != nil || audio != sdp || joinMedia(s.layout(), sdp, "") != sdp {
			t.Errorf("changed:\n%s", sdp)
		}
	}
	offer, audio := withVideo(t)
	if got := cutSections(offer).only(mediumAudio); got != audio {
		t.Errorf("the audio of\n%s\nis\n%s", offer, got)
	}
	if _, err := cutSections(strings.ReplaceAll(audio, "m=audio", "m=video")).audio(audio); err == nil {
		t.Error("a description of video alone is taken")
	}
}

// Whatever a server sends: no panic, an answer has its media in their order, none is
// taken that was refused or is not known, and no line of another medium gets into
// the description of one.
func FuzzSections(f *testing.F) {
	offer, audio := withVideo(f)
	f.Add(offer, audio, offer)
	f.Add("v=0\nm=video 0 X 96\nm=video 9 X 96\nm=audio 9 X 0\nm=message 5 Y *", audio, offer)
	f.Add("m=", "m=audio", "a=group:BUNDLE 0\nm=video 1 X\na=mid:0")
	f.Fuzz(func(t *testing.T, offer, audio, video string) {
		s := cutSections(offer)
		whole := slices.Clone(s.session)
		for _, m := range s.media {
			whole = append(whole, m...)
		}
		if !slices.Equal(whole, splitLines(offer)) {
			t.Errorf("lost or moved: %q of %q", whole, offer)
		}
		for _, medium := range []string{mediumAudio, mediumVideo} {
			one := s.only(medium)
			if one == "" {
				continue
			}
			if o := cutSections(one); len(o.media) != 1 || o.find(medium) == nil {
				t.Errorf("%s of %q is %q", medium, offer, one)
			}
		}
		if len(s.media) < 2 {
			return
		}
		got := cutSections(joinMedia(s.layout(), audio, video))
		if len(got.media) != len(s.media) {
			t.Fatalf("%d media for %d", len(got.media), len(s.media))
		}
		taken := map[string]bool{}
		for i, m := range got.media {
			medium := mediumOf(s.media[i][0])
			if mediumOf(m[0]) != medium {
				t.Errorf("%q answers %q", m[0], s.media[i][0])
			}
			if refused(m[0]) {
				continue
			}
			if refused(s.media[i][0]) || taken[medium] || medium != mediumAudio && medium != mediumVideo {
				t.Errorf("%q is taken", s.media[i][0])
			}
			taken[medium] = true
		}
	})
}
