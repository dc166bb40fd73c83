package verto

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-audio/audio"
	"github.com/go-audio/wav"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media/oggwriter"
)

// recorder keeps what a call receives in a file: Ogg for Opus, WAV (G.711 as it
// came) for PCMU and PCMA. The file is made when the first packet comes. A
// recording that fails ends; the call goes on.
type recorder struct {
	path string // without its extension
	log  *slog.Logger

	mu   sync.Mutex
	mime string
	sink interface {
		write(p *rtp.Packet) error
		close() error
	}
	ended bool
}

// newRecorder records to a new file in a folder.
func newRecorder(folder, callID string, at time.Time, log *slog.Logger) *recorder {
	name := at.UTC().Format("20060102T150405.000Z") + "-" + safeName(callID)
	return &recorder{path: filepath.Join(folder, name), log: log}
}

// safeName keeps what a server chose from leaving the folder.
func safeName(id string) string {
	b := []byte(id)
	for i, c := range b {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '-':
		default:
			b[i] = '_'
		}
	}
	return string(b[:min(len(b), 64)])
}

func (r *recorder) write(mime string, p *rtp.Packet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || len(p.Payload) == 0 || silence[mime] == nil {
		return
	}
	if r.sink == nil {
		r.fail(r.open(mime))
	}
	if r.sink != nil && mime == r.mime {
		r.fail(r.sink.write(p))
	}
}

// fail ends the recording on an error.
func (r *recorder) fail(err error) {
	if err == nil {
		return
	}
	r.ended = true
	r.log.Error("recording stopped", "file", r.path, "err", err)
}

// open makes the file, which only its owner can read.
func (r *recorder) open(mime string) error {
	r.mime = mime
	name := r.path + ".wav"
	if mime == webrtc.MimeTypeOpus {
		name = r.path + ".ogg"
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make the recording: %w", err)
	}
	if mime == webrtc.MimeTypeOpus {
		_ = f.Close() // the writer opens what is there
		w, err := oggwriter.New(name, 48000, 2)
		if err != nil {
			return fmt.Errorf("make the recording: %w", err)
		}
		r.sink = oggSink{w}
		return nil
	}
	format := formatALaw
	if mime == webrtc.MimeTypePCMU {
		format = formatMuLaw
	}
	r.sink = &wavSink{f: f, w: wav.NewEncoder(f, 8000, 8, 1, format)}
	return nil
}

func (r *recorder) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sink != nil {
		if err := r.sink.close(); err != nil {
			r.log.Error("recording incomplete", "file", r.path, "err", err)
		}
		r.sink = nil
	}
	r.ended = true
}

type oggSink struct{ *oggwriter.OggWriter }

func (s oggSink) write(p *rtp.Packet) error { return s.WriteRTP(p) }
func (s oggSink) close() error              { return s.Close() }

// The formats of G.711 in WAV (RFC 2361).
const (
	formatALaw  = 6
	formatMuLaw = 7
)

type wavSink struct {
	f   *os.File
	w   *wav.Encoder
	buf audio.IntBuffer
}

func (s *wavSink) write(p *rtp.Packet) error {
	s.buf.Format = &audio.Format{NumChannels: 1, SampleRate: 8000}
	s.buf.SourceBitDepth = 8
	s.buf.Data = s.buf.Data[:0]
	for _, b := range p.Payload {
		s.buf.Data = append(s.buf.Data, int(b))
	}
	return s.w.Write(&s.buf)
}

func (s *wavSink) close() error {
	err := s.w.Close()
	if cerr := s.f.Close(); err == nil {
		err = cerr
	}
	return err
}
