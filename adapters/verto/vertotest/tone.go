package vertotest

import (
	"math"
	"strings"

	"github.com/pion/webrtc/v4"
	"github.com/zaf/g711"
)

// toneFrame is 20 ms of 400 Hz, which is eight whole periods: repeated, it is a
// tone without clicks. In Opus it is silence, in a form that any decoder knows.
func toneFrame(mimeType string) []byte {
	encode := g711.EncodeUlawFrame
	switch {
	case strings.EqualFold(mimeType, webrtc.MimeTypeOpus):
		return []byte{0xf8, 0xff, 0xfe}
	case strings.EqualFold(mimeType, webrtc.MimeTypePCMA):
		encode = g711.EncodeAlawFrame
	}
	frame := make([]byte, 8000/packetsPerSecond)
	for i := range frame {
		frame[i] = encode(int16(8000 * math.Sin(2*math.Pi*400*float64(i)/8000)))
	}
	return frame
}
