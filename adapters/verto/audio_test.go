package verto

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-audio/audio"
	"github.com/go-audio/wav"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media/oggwriter"
	"github.com/zaf/g711"
)

// writeWAV makes a WAV file of n samples.
func writeWAV(t *testing.T, rate, channels, n int) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "a.wav")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := wav.NewEncoder(f, rate, 16, channels, 1)
	buf := &audio.IntBuffer{Format: &audio.Format{NumChannels: channels, SampleRate: rate}, SourceBitDepth: 16}
	for i := range n * channels {
		buf.Data = append(buf.Data, (i*997)%20000-10000)
	}
	if err := w.Write(buf); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

// writeOgg makes an Ogg file of Opus packets.
func writeOgg(t *testing.T, packets ...[]byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "a.ogg")
	w, err := oggwriter.New(name, 48000, 2)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range packets {
		if err := w.WriteRTP(&rtp.Packet{Header: rtp.Header{Version: 2, Timestamp: uint32(960 * i)}, Payload: p}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestReadWAV(t *testing.T) {
	c, err := readClip(writeWAV(t, 8000, 1, 8000+80))
	if err != nil {
		t.Fatal(err)
	}
	for _, mime := range []string{webrtc.MimeTypePCMU, webrtc.MimeTypePCMA} {
		if len(c[mime]) != 50 {
			t.Errorf("%s: %d frames, want 50 of the second and none of the rest", mime, len(c[mime]))
		}
		for _, f := range c[mime] {
			if len(f) != 160 {
				t.Errorf("%s: a frame of %d bytes", mime, len(f))
			}
		}
	}
	first := -10000
	if got := int(int16(g711.DecodeUlawFrame(c[webrtc.MimeTypePCMU][0][0]))); got < first-400 || got > first+400 {
		t.Errorf("the first sample is %d, want about %d", got, first)
	}
	if c[webrtc.MimeTypeOpus] != nil {
		t.Error("there is no Opus encoder")
	}
}

func TestReadOgg(t *testing.T) {
	one, two := []byte{0xFC, 1, 2, 3}, []byte{0xF8, 0xFF, 0xFE}
	c, err := readClip(writeOgg(t, one, two))
	if err != nil {
		t.Fatal(err)
	}
	got := c[webrtc.MimeTypeOpus]
	if len(got) != 2 || !bytes.Equal(got[0], one) || !bytes.Equal(got[1], two) {
		t.Errorf("packets %v", got)
	}
}

func TestReadClipSaysWhatIsWrong(t *testing.T) {
	text, other := filepath.Join(t.TempDir(), "a.wav"), filepath.Join(t.TempDir(), "a.mp3")
	for _, file := range []string{text, other} {
		if err := os.WriteFile(file, []byte("no audio"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for want, file := range map[string]string{
		"sox":               writeWAV(t, 44100, 2, 1000),
		"shorter than":      writeWAV(t, 8000, 1, 10),
		"not a WAV file":    text,
		"no such file":      filepath.Join(t.TempDir(), "b.ogg"),
		"neither .wav":      other,
		"a packet of 10ms":  writeOgg(t, []byte{0xF0, 1}),
		"no audio in it":    writeOgg(t),
		"a packet of 120ms": writeOgg(t, []byte{0xFB, 6, 1}),
	} {
		_, err := readClip(file)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want something with %q", err, want)
		}
	}
}

func TestOpusDuration(t *testing.T) {
	for _, tt := range []struct {
		packet []byte
		want   time.Duration
	}{
		{[]byte{0 << 3}, 10 * time.Millisecond},       // SILK NB
		{[]byte{11 << 3}, 60 * time.Millisecond},      // SILK WB
		{[]byte{13 << 3}, 20 * time.Millisecond},      // hybrid SWB
		{[]byte{16 << 3}, 2500 * time.Microsecond},    // CELT NB
		{[]byte{31 << 3}, 20 * time.Millisecond},      // CELT FB
		{[]byte{31<<3 | 1}, 40 * time.Millisecond},    // two equal frames
		{[]byte{30<<3 | 2}, 20 * time.Millisecond},    // two of 10 ms
		{[]byte{31<<3 | 3, 3}, 60 * time.Millisecond}, // three
		{[]byte{31<<3 | 3}, 0},                        // how many?
	} {
		if got := opusDuration(tt.packet); got != tt.want {
			t.Errorf("%x lasts %s, want %s", tt.packet, got, tt.want)
		}
	}
}

func TestRecorderKeepsWhatCame(t *testing.T) {
	dir := t.TempDir()
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	log := slog.New(slog.DiscardHandler)

	r := newRecorder(dir, "../a", at, log)
	packet := slices.Repeat([]byte{0x55}, 160)
	for i := range 3 {
		r.write(webrtc.MimeTypePCMA, &rtp.Packet{Header: rtp.Header{Timestamp: uint32(160 * i)}, Payload: packet})
	}
	r.write(webrtc.MimeTypeOpus, &rtp.Packet{Payload: []byte{0xFC}}) // another codec in one file
	r.close()
	r.write(webrtc.MimeTypePCMA, &rtp.Packet{Payload: packet}) // too late
	b, err := os.ReadFile(filepath.Join(dir, "20300102T030405.000Z-___a.wav"))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b, packet); n != 3 {
		t.Errorf("%d packets in the file, want 3", n)
	}
	if b[20] != formatALaw {
		t.Errorf("format %d, want A-law", b[20])
	}

	r = newRecorder(dir, "b", at, log)
	r.write(webrtc.MimeTypeOpus, &rtp.Packet{Payload: []byte{0xFC, 7, 7}})
	r.close()
	c, err := readClip(filepath.Join(dir, "20300102T030405.000Z-b.ogg"))
	if err != nil || len(c[webrtc.MimeTypeOpus]) != 1 {
		t.Errorf("%v, %v", c, err)
	}

	if info, err := os.Stat(filepath.Join(dir, "20300102T030405.000Z-b.ogg")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others can read it: %v, %v", info.Mode(), err)
	}

	r = newRecorder(filepath.Join(dir, "none"), "c", at, log)
	r.write(webrtc.MimeTypePCMU, &rtp.Packet{Payload: packet}) // fails, and the call goes on
	r.write(webrtc.MimeTypePCMU, &rtp.Packet{Payload: packet})
	r.close()
	if !r.ended {
		t.Error("it did not end")
	}
}

func TestEchoLine(t *testing.T) {
	var e echoLine
	if e.take(0) != nil {
		t.Error("something out of nothing")
	}
	for i := range 6 { // two more than it keeps
		e.put(0, []byte{byte(i)})
	}
	e.put(8, []byte{9})
	for _, want := range []byte{3, 4, 5} {
		if p := e.take(0); len(p) != 1 || p[0] != want {
			t.Fatalf("%v, want %d", p, want)
		}
	}
	if p := e.take(0); p != nil {
		t.Errorf("%v of another codec", p)
	}
}
