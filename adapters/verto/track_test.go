package verto

import (
	"bytes"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// binding is a TrackLocalContext that keeps what is written.
type binding struct {
	codecs []webrtc.RTPCodecParameters
	sent   chan struct{} // told of each packet, if somebody listens; nil: nobody does

	packets []rtp.Packet
}

func (b *binding) CodecParameters() []webrtc.RTPCodecParameters         { return b.codecs }
func (*binding) HeaderExtensions() []webrtc.RTPHeaderExtensionParameter { return nil }
func (*binding) SSRC() webrtc.SSRC                                      { return 7 }
func (*binding) SSRCRetransmission() webrtc.SSRC                        { return 0 }
func (*binding) SSRCForwardErrorCorrection() webrtc.SSRC                { return 0 }
func (b *binding) WriteStream() webrtc.TrackLocalWriter                 { return b }
func (*binding) ID() string                                             { return "b" }
func (*binding) RTCPReader() interceptor.RTCPReader                     { return nil }
func (b *binding) Write([]byte) (int, error)                            { panic("not used") }
func (b *binding) WriteRTP(h *rtp.Header, payload []byte) (int, error) {
	b.packets = append(b.packets, rtp.Packet{Header: *h, Payload: bytes.Clone(payload)})
	select {
	case b.sent <- struct{}{}:
	default:
	}
	return len(payload), nil
}

func codecs(mimes ...string) []webrtc.RTPCodecParameters {
	var list []webrtc.RTPCodecParameters
	for _, m := range mimes {
		i := slices.IndexFunc(audioCodecs, func(c webrtc.RTPCodecParameters) bool { return c.MimeType == m })
		list = append(list, audioCodecs[i])
	}
	return list
}

func TestTrackTakesACodecThatItCanSend(t *testing.T) {
	song := clip{webrtc.MimeTypePCMA: {slices.Repeat([]byte{1}, 160), slices.Repeat([]byte{2}, 160)}}
	for _, tt := range []struct {
		clip   clip
		agreed []string
		want   string
	}{
		{nil, []string{webrtc.MimeTypeOpus, webrtc.MimeTypePCMU}, webrtc.MimeTypeOpus},
		{nil, []string{mimeTelephoneEvent, webrtc.MimeTypePCMU}, webrtc.MimeTypePCMU},
		{song, []string{webrtc.MimeTypeOpus, webrtc.MimeTypePCMA}, webrtc.MimeTypePCMA},
		{song, []string{webrtc.MimeTypeOpus}, webrtc.MimeTypeOpus}, // silent, and there
		{nil, []string{mimeTelephoneEvent}, ""},
	} {
		track := newOutTrack("t", tt.clip, false)
		c, err := track.Bind(&binding{codecs: codecs(tt.agreed...)})
		if c.MimeType != tt.want || (err != nil) != (tt.want == "") || track.figures().mime != tt.want {
			t.Errorf("of %v it took %q, %v, want %q", tt.agreed, c.MimeType, err, tt.want)
		}
	}
}

func TestTrackSendsWithoutGaps(t *testing.T) {
	song := clip{webrtc.MimeTypePCMU: {[]byte{1}, []byte{2}}}
	track, b := newOutTrack("t", song, false), &binding{codecs: codecs(webrtc.MimeTypePCMU)}
	track.tick(1, 0) // before it is bound: nothing
	if _, err := track.Bind(b); err != nil {
		t.Fatal(err)
	}
	track.tick(2, 0)
	track.tick(1, 10) // it was late by eleven: one is sent, ten are given up
	if err := track.Unbind(b); err != nil {
		t.Fatal(err)
	}
	track.tick(1, 0)
	if len(b.packets) != 3 {
		t.Fatalf("%d packets, want 3", len(b.packets))
	}
	for i, p := range b.packets {
		first := b.packets[0]
		steps := []uint32{0, 1, 12}[i]
		if p.SequenceNumber != first.SequenceNumber+uint16(i) || p.Timestamp != first.Timestamp+160*steps {
			t.Errorf("packet %d: sequence %d, timestamp %d after %d, %d", i, p.SequenceNumber, p.Timestamp, first.SequenceNumber, first.Timestamp)
		}
		if p.SSRC != 7 || p.PayloadType != 0 || p.Marker != (i != 1) || p.Payload[0] != []byte{1, 2, 1}[i] {
			t.Errorf("packet %d: %+v", i, p)
		}
	}
}

func TestTrackEchoes(t *testing.T) {
	track, b := newOutTrack("t", nil, true), &binding{codecs: codecs(webrtc.MimeTypePCMU)}
	if _, err := track.Bind(b); err != nil {
		t.Fatal(err)
	}
	track.echo.put(0, []byte{5})
	track.tick(2, 0)
	if got := b.packets[0].Payload; !bytes.Equal(got, []byte{5}) {
		t.Errorf("echo %v", got)
	}
	if got := b.packets[1].Payload; !bytes.Equal(got, silence[webrtc.MimeTypePCMU]) {
		t.Errorf("with nothing to say it says %v", got)
	}
}

func TestTrackDoesNotAllocate(t *testing.T) {
	track := newOutTrack("t", nil, false)
	if _, err := track.Bind(&discarding{binding{codecs: codecs(webrtc.MimeTypeOpus)}}); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { track.tick(1, 0) }); n > 0 {
		t.Errorf("%.0f allocations a packet", n)
	}
}

type discarding struct{ binding }

func (d *discarding) WriteStream() webrtc.TrackLocalWriter    { return d }
func (*discarding) WriteRTP(*rtp.Header, []byte) (int, error) { return 0, nil }

func TestPacerMakesUpForLateTicks(t *testing.T) {
	begin := time.Unix(0, 0)
	last := begin
	sent := 0
	for _, tt := range []struct {
		at           time.Duration
		due, skipped int
	}{
		{20 * time.Millisecond, 1, 0},
		{39 * time.Millisecond, 1, 0},  // a little early
		{60 * time.Millisecond, 1, 0},  // in time
		{75 * time.Millisecond, 1, 0},  // at the edge
		{78 * time.Millisecond, 0, 0},  // twice in one
		{125 * time.Millisecond, 2, 0}, // one was lost
		{time.Second, 5, 39},           // the process stood still
		{1020 * time.Millisecond, 1, 0},
	} {
		due, skipped := behind(&last, begin.Add(tt.at))
		if due != tt.due || skipped != tt.skipped {
			t.Errorf("at %s: %d due, %d skipped, want %d, %d", tt.at, due, skipped, tt.due, tt.skipped)
		}
		sent += due + skipped
	}
	if sent != 51 {
		t.Errorf("%d frames in 1.02 s", sent)
	}
}

// The pacer sends to those that are there, and sleeps when nobody is.
func TestPacer(t *testing.T) {
	p := pacer{tracks: make(map[paced]struct{}), wake: make(chan struct{}, 1)}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { p.run(done) })
	defer wg.Wait()
	defer close(done)
	for range 2 { // again after it slept
		b := &binding{codecs: codecs(webrtc.MimeTypeOpus), sent: make(chan struct{})}
		track := newOutTrack("t", nil, false)
		if _, err := track.Bind(b); err != nil {
			t.Fatal(err)
		}
		p.add(track)
		for range 3 {
			select {
			case <-b.sent:
			case <-time.After(20 * time.Second):
				t.Fatal("nothing is sent")
			}
		}
		p.remove(track)
	}
}
