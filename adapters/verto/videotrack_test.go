package verto

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
)

// ivfFile is an IVF file of 1/rate s a unit with frames at those times. Each holds
// its number, the first and every fifth is a key frame, and the first of all needs
// three packets.
func ivfFile(codec string, rate uint32, times ...uint64) []byte {
	b := make([]byte, ivfHeader)
	copy(b, "DKIF")
	copy(b[8:], codec)
	binary.LittleEndian.PutUint16(b[6:], ivfHeader)
	binary.LittleEndian.PutUint32(b[16:], rate)
	binary.LittleEndian.PutUint32(b[20:], 1)
	for i, at := range times {
		frame := []byte{1, byte(i)}
		if i%5 == 0 {
			frame[0] = 0
		}
		if i == 0 {
			frame = append(frame, make([]byte, 2*videoPayload)...)
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
		b = binary.LittleEndian.AppendUint64(b, at)
		b = append(b, frame...)
	}
	return b
}

func testVideo(t testing.TB, rate uint32, times ...uint64) videoClip {
	t.Helper()
	c, err := parseIVF(ivfFile("VP80", rate, times...))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParseIVF(t *testing.T) {
	c := testVideo(t, 1000, 100, 140, 180, 240, 260, 300)
	want := []time.Duration{40, 40, 60, 20, 40, 40} // the last as long as the others
	for i, f := range c {
		if f.lasts != want[i]*time.Millisecond || f.key != (i%5 == 0) {
			t.Errorf("frame %d lasts %s, key %v", i, f.lasts, f.key)
		}
	}
	if len(c) != len(want) || len(c[0].packets) != 3 || len(c[1].packets) != 1 {
		t.Fatalf("%d frames, %d and %d packets", len(c), len(c[0].packets), len(c[1].packets))
	}
	for i, p := range c[0].packets {
		if len(p) > videoPayload || (p[0] == 0x10) != (i == 0) { // the descriptor's S: a frame begins
			t.Errorf("packet %d of %d bytes begins with %#x", i, len(p), p[0])
		}
	}
	if one := testVideo(t, 25, 7); len(one) != 1 || one[0].lasts != 40*time.Millisecond {
		t.Errorf("a still is %v", one)
	}
	empty := ivfFile("VP80", 25, 0, 1)
	empty = append(empty, make([]byte, ivfFrameHeader)...) // an encoder dropped it
	if c, err := parseIVF(empty); err != nil || len(c) != 2 {
		t.Errorf("%d frames, %v; want the empty one left out", len(c), err)
	}
}

func TestReadVideoClipSaysWhatIsWrong(t *testing.T) {
	good := ivfFile("VP80", 25, 0, 1, 2)
	inter := slices.Clone(good)
	inter[ivfHeader+ivfFrameHeader] |= 1
	for want, b := range map[string][]byte{
		"not an IVF file":    []byte("RIFF"),
		`codec "VP90"`:       ivfFile("VP90", 25, 0),
		"makes no sense":     ivfFile("VP80", 0, 0),
		"frame 2 is cut":     good[:len(good)-1],
		"with a key frame":   inter,
		"begin with":         good[:ivfHeader],
		"0s after the one":   ivfFile("VP80", 25, 0, 0),
		"-40ms after":        ivfFile("VP80", 25, 1, 0),
		"after the beginnin": ivfFile("VP80", 1, 1<<60),
	} {
		name := filepath.Join(t.TempDir(), "clip.ivf")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readVideoClip(name); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%v; want %q and the file's name", err, want)
		}
	}
	if _, err := readVideoClip(filepath.Join(t.TempDir(), "none.ivf")); err == nil {
		t.Error("a file that is not there")
	}
}

// Whatever the file: no panic, and a clip that is taken can be sent: it begins with a
// key frame, and takes its time.
func FuzzParseIVF(f *testing.F) {
	// Short ones: long ones take the fuzzer its time to make shorter.
	one := ivfFile("VP80", 25, 0)[:ivfHeader+ivfFrameHeader+1]
	binary.LittleEndian.PutUint32(one[ivfHeader:], 1)
	f.Add(one)
	f.Add(slices.Concat(one, []byte{1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1}))
	f.Add(one[:len(one)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseIVF(b)
		if err != nil {
			return
		}
		if len(c) == 0 || !c[0].key {
			t.Fatal("it does not begin with a key frame")
		}
		for i, v := range c {
			if v.lasts < time.Millisecond || len(v.packets) == 0 {
				t.Errorf("frame %d lasts %s and has %d packets", i, v.lasts, len(v.packets))
			}
		}
	})
}

// shown is a videoTrack and what it sends, as the numbers of the frames that begin.
type shown struct {
	*videoTrack
	*binding
}

func show(t testing.TB, c videoClip) shown {
	t.Helper()
	s := shown{newVideoTrack("t", c, false), &binding{codecs: []webrtc.RTPCodecParameters{vp8}}}
	if _, err := s.Bind(s.binding); err != nil {
		t.Fatal(err)
	}
	return s
}

// sees has the track tick and returns the frames of that time.
func (s shown) sees(n, skipped int) []byte {
	s.packets = nil
	s.tick(n, skipped)
	var frames []byte
	for _, p := range s.packets {
		if p.Payload[0] == 0x10 {
			frames = append(frames, p.Payload[2])
		}
	}
	return frames
}

func TestVideoIsSentAtTheClipsPace(t *testing.T) {
	s := show(t, testVideo(t, 50, 0, 2, 4, 6, 8, 10, 12)) // 25 a second, key frames 0 and 5
	if got := s.sees(10, 0); got != nil {
		t.Errorf("without a transport %v is sent", got)
	}
	s.connect(true)
	if got := s.sees(5, 0); !slices.Equal(got, []byte{0, 1, 2}) {
		t.Errorf("in 100 ms %v is sent", got)
	}
	for i, p := range s.packets {
		if p.Marker != (i >= 2) || p.SequenceNumber != s.packets[0].SequenceNumber+uint16(i) || p.PayloadType != 96 || p.SSRC != 7 {
			t.Errorf("packet %d is %+v", i, p.Header)
		}
		if frame := max(0, i-2); p.Timestamp != s.packets[0].Timestamp+uint32(frame)*3600 {
			t.Errorf("packet %d at %d", i, p.Timestamp-s.packets[0].Timestamp)
		}
	}
	f := s.figures()
	if f.packets != 5 || f.bytes < 2*videoPayload || f.ssrc != 7 || f.rate != videoClock || f.timestamp != s.packets[4].Timestamp || f.at.IsZero() {
		t.Errorf("figures %+v", f)
	}
	if got := s.sees(10, 0); !slices.Equal(got, []byte{3, 4, 5, 6, 0}) {
		t.Errorf("at the end %v is sent", got)
	}
	if got := s.sees(1, 50); !slices.Equal(got, []byte{5}) {
		t.Errorf("after what was skipped %v is sent", got)
	}
}

func TestVideoGoesOnWithAKeyFrame(t *testing.T) {
	s := show(t, testVideo(t, 50, 0, 1, 2, 3, 4, 5, 6)) // a frame a tick
	s.connect(true)
	s.sees(2, 0) // 0, 1, and the one that is due
	s.mute(true)
	before := s.header.Timestamp
	if got := s.sees(100, 0); got != nil {
		t.Errorf("muted, and sends %v", got)
	}
	s.mute(false)
	if got := s.sees(1, 0); !slices.Equal(got, []byte{5, 6}) {
		t.Errorf("unmuted, and sends %v", got)
	}
	if d := s.packets[0].Timestamp - before; d < 100*1800-3600 || d > 101*1800 {
		t.Errorf("%d of RTP's time have gone in two seconds", d)
	}
	s.mute(false)
	s.connect(true)
	if got := s.sees(2, 0); !slices.Equal(got, []byte{0, 1}) {
		t.Errorf("told again to do what it does, it sends %v", got)
	}
	s.keyFrame() // the far end asks
	if got := s.sees(1, 0); !slices.Equal(got, []byte{5}) {
		t.Errorf("asked for a key frame, it sends %v", got)
	}
	s.connect(false)
	if got := s.sees(10, 0); got != nil {
		t.Errorf("without a transport %v is sent", got)
	}
	if err := s.Unbind(s.binding); err != nil {
		t.Fatal(err)
	}
	s.connect(true)
	if got := s.sees(10, 0); got != nil {
		t.Errorf("unbound, and sends %v", got)
	}
}

// Five days on, RTP's time has gone round, and the pace is the same.
func TestVideoLastsLong(t *testing.T) {
	s := show(t, testVideo(t, 25, 0))
	s.connect(true)
	s.sees(1, 5*24*3600*50)
	first := s.packets[0].Timestamp
	if got := s.sees(4, 0); len(got) != 2 || s.packets[5].Timestamp-first != 2*3600 {
		t.Errorf("%d frames, %d apart", len(got), s.packets[len(s.packets)-1].Timestamp-first)
	}
}

func TestVideoTakesVP8Alone(t *testing.T) {
	track := newVideoTrack("t", testVideo(t, 25, 0), false)
	if _, err := track.Bind(&binding{codecs: codecs(webrtc.MimeTypeOpus)}); err == nil {
		t.Error("no video codec, and no error")
	}
}

func TestVideoDoesNotAllocate(t *testing.T) {
	s := newVideoTrack("t", testVideo(t, 50, 0, 1, 2), false)
	if _, err := s.Bind(&discarding{binding{codecs: []webrtc.RTPCodecParameters{vp8}}}); err != nil {
		t.Fatal(err)
	}
	s.connect(true)
	if n := testing.AllocsPerRun(100, func() { s.tick(1, 0) }); n != 0 {
		t.Errorf("%v allocations a tick", n)
	}
}
