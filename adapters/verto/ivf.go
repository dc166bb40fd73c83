package verto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	rtpcodecs "github.com/pion/rtp/codecs"
)

// videoClip is video that was read from a file, cut into what RTP packets carry.
// Its calls share it, each from its beginning and over again at its end. The first
// frame is a key frame.
type videoClip []videoFrame

type videoFrame struct {
	packets [][]byte      // payloads of RTP (RFC 7741)
	lasts   time.Duration // until the next frame
	key     bool          // can be shown without what came before
}

const (
	// maxVideoFile bounds what a file may take of memory; at 500 kbit/s it is eight
	// minutes.
	maxVideoFile = 32 << 20
	// videoPayload is what a packet may carry, so that with RTP's header and SRTP's
	// tag it passes where an MTU is as low as 1280.
	videoPayload = 1188
)

// readVideoClip reads an IVF file of VP8.
func readVideoClip(name string) (videoClip, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("video: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxVideoFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("video: %w", err)
	case len(b) > maxVideoFile:
		return nil, fmt.Errorf("video: %s has more than %d bytes, which is all that can be used", name, maxVideoFile)
	}
	c, err := parseIVF(b)
	if err != nil {
		return nil, fmt.Errorf("video: %s: %w", name, err)
	}
	return c, nil
}

// The headers of IVF, of the file and of a frame. All numbers are little-endian.
const (
	ivfHeader      = 32 // "DKIF", version, length of the header, codec, size, time base, frames
	ivfFrameHeader = 12 // length of the frame, its time in units of the time base
)

// parseIVF takes an IVF file of VP8 apart. Frames without a byte, which an encoder
// makes of what it dropped, prolong the one before.
func parseIVF(b []byte) (videoClip, error) {
	if len(b) < ivfHeader || string(b[:4]) != "DKIF" {
		return nil, errors.New("not an IVF file")
	}
	if codec := string(b[8:12]); codec != "VP80" {
		return nil, fmt.Errorf("codec %q; needed is VP8 (ffmpeg -i in.mp4 -an -c:v libvpx -g 25 out.ivf)", codec)
	}
	rate, scale := binary.LittleEndian.Uint32(b[16:]), binary.LittleEndian.Uint32(b[20:])
	header := int(binary.LittleEndian.Uint16(b[6:]))
	if rate == 0 || scale == 0 || header < ivfHeader || header > len(b) {
		return nil, errors.New("its header makes no sense")
	}
	unit := float64(scale) / float64(rate) // seconds
	var c videoClip
	var at, began time.Duration
	for b = b[header:]; len(b) > 0; {
		if len(b) < ivfFrameHeader || uint64(len(b)-ivfFrameHeader) < uint64(binary.LittleEndian.Uint32(b)) {
			return nil, fmt.Errorf("frame %d is cut short", len(c))
		}
		frame := b[ivfFrameHeader : ivfFrameHeader+int(binary.LittleEndian.Uint32(b))]
		seconds := unit * float64(binary.LittleEndian.Uint64(b[4:]))
		b = b[ivfFrameHeader+len(frame):]
		if len(frame) == 0 {
			continue
		}
		if seconds > maxVideoTime.Seconds() {
			return nil, fmt.Errorf("frame %d is of %.0f s after the beginning", len(c), seconds)
		}
		now := time.Duration(seconds * float64(time.Second))
		if n := len(c); n > 0 {
			if c[n-1].lasts = now - at; c[n-1].lasts < time.Millisecond {
				return nil, fmt.Errorf("frame %d comes %s after the one before; needed is a millisecond", n, c[n-1].lasts)
			}
		} else {
			began = now
		}
		at = now
		c = append(c, videoFrame{packets: new(rtpcodecs.VP8Payloader).Payload(videoPayload, frame), key: isKeyFrame(frame)})
	}
	if len(c) == 0 || !c[0].key {
		return nil, errors.New("it does not begin with a key frame")
	}
	// How long the last one is to last nobody says: as long as the others.
	last := &c[len(c)-1]
	last.lasts = max(time.Millisecond, time.Duration(unit*float64(time.Second)))
	if n := len(c) - 1; n > 0 {
		last.lasts = (at - began) / time.Duration(n)
	}
	return c, nil
}

// maxVideoTime is beyond every clip of maxVideoFile, and well within a Duration.
const maxVideoTime = 24 * time.Hour

// isKeyFrame reads the frame tag of VP8 (RFC 6386, section 9.1).
func isKeyFrame(frame []byte) bool { return frame[0]&1 == 0 }
