package verto

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-audio/wav"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media/oggreader"
	"github.com/zaf/g711"
)

// What a phone sends, as User.Audio; any other text names a file.
const (
	AudioSilence = "silence" // the default
	AudioEcho    = "echo"    // what comes in
)

// frameTime is what every packet carries (ptime 20).
const frameTime = 20 * time.Millisecond

// maxAudioFile bounds what a file may take of memory; of WAV it is half an hour.
const maxAudioFile = 32 << 20

// silence is one frame of each codec that is heard as nothing: a CELT frame of
// digital silence (RFC 6716, section 3.1), and the zero of each law (G.711).
var silence = map[string][]byte{
	webrtc.MimeTypeOpus: {0xF8, 0xFF, 0xFE},
	webrtc.MimeTypePCMU: slices.Repeat([]byte{0xFF}, 160),
	webrtc.MimeTypePCMA: slices.Repeat([]byte{0xD5}, 160),
}

// clip is audio that was read from a file, in frames of 20 ms per codec. Its calls
// share it, each from its beginning and over again at its end.
type clip map[string][][]byte

// readClip reads a WAV file (PCM, 16 bit, one channel, 8 kHz) or an Ogg file of
// Opus packets of 20 ms. There is no Opus encoder here, nor a decoder, so that a
// WAV file is heard only over G.711 and an Ogg file only over Opus.
func readClip(name string) (clip, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("audio: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("audio: %w", err)
	case info.Size() > maxAudioFile:
		return nil, fmt.Errorf("audio: %s has %d bytes, at most %d can be used", name, info.Size(), maxAudioFile)
	}
	var c clip
	switch strings.ToLower(filepath.Ext(name)) {
	case ".wav":
		c, err = readWAV(f)
	case ".ogg", ".opus":
		c, err = readOgg(f)
	default:
		err = errors.New("neither .wav nor .ogg nor .opus")
	}
	if err != nil {
		return nil, fmt.Errorf("audio: %s: %w", name, err)
	}
	return c, nil
}

func readWAV(r io.ReadSeeker) (clip, error) {
	d := wav.NewDecoder(r)
	if !d.IsValidFile() {
		return nil, errors.New("not a WAV file")
	}
	if d.WavAudioFormat != 1 || d.NumChans != 1 || d.SampleRate != 8000 || d.BitDepth != 16 {
		return nil, fmt.Errorf("format %d, %d channels, %d Hz, %d bit; needed is PCM (1), 1 channel, 8000 Hz, 16 bit (sox in.wav -r 8000 -c 1 -b 16 out.wav)",
			d.WavAudioFormat, d.NumChans, d.SampleRate, d.BitDepth)
	}
	pcm, err := d.FullPCMBuffer()
	if err != nil {
		return nil, err
	}
	lpcm := make([]byte, 0, 2*len(pcm.Data))
	for _, s := range pcm.Data {
		lpcm = append(lpcm, byte(s), byte(s>>8))
	}
	const frame = 2 * 160
	if len(lpcm) < frame {
		return nil, errors.New("shorter than 20 ms")
	}
	lpcm = lpcm[:len(lpcm)/frame*frame]
	return clip{
		webrtc.MimeTypePCMU: slices.Collect(slices.Chunk(g711.EncodeUlaw(lpcm), 160)),
		webrtc.MimeTypePCMA: slices.Collect(slices.Chunk(g711.EncodeAlaw(lpcm), 160)),
	}, nil
}

func readOgg(r io.Reader) (clip, error) {
	ogg, err := oggreader.NewWithOptions(r, oggreader.WithDoChecksum(true))
	if err != nil {
		return nil, err
	}
	var packets [][]byte
	for n := 0; ; n++ {
		page, header, err := ogg.ParseNextPage()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("page %d: %w", n, err)
		}
		if _, is := header.HeaderType(page); is {
			continue
		}
		if len(page) == 0 {
			continue // the end of the stream
		}
		if ms := opusDuration(page); ms != frameTime {
			return nil, fmt.Errorf("page %d holds a packet of %s; needed are packets of 20 ms, one a page (opusenc --framesize 20 --max-delay 20)", n, ms)
		}
		packets = append(packets, page)
	}
	if len(packets) == 0 {
		return nil, errors.New("no audio in it")
	}
	return clip{webrtc.MimeTypeOpus: packets}, nil
}

// opusDuration reads the table of contents of a packet (RFC 6716, section 3.1); 0
// for one that is not valid.
func opusDuration(packet []byte) time.Duration {
	toc := packet[0]
	var frame time.Duration
	switch config := toc >> 3; {
	case config < 12: // SILK
		frame = []time.Duration{10, 20, 40, 60}[config&3] * time.Millisecond
	case config < 16: // hybrid
		frame = []time.Duration{10, 20}[config&1] * time.Millisecond
	default: // CELT
		frame = []time.Duration{2500, 5000, 10000, 20000}[config&3] * time.Microsecond
	}
	switch toc & 3 {
	case 0:
		return frame
	case 1, 2:
		return 2 * frame
	}
	if len(packet) < 2 {
		return 0
	}
	return time.Duration(packet[1]&0x3F) * frame
}
