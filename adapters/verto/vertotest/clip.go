package vertotest

import "encoding/binary"

// Clip returns an IVF file of two seconds of VP8, 25 frames a second, of which the
// first alone is a key frame. It needs two packets. RTP carries it as it carries any;
// a decoder would make no picture of it.
func Clip() []byte {
	const rate, frames = 25, 50
	b := make([]byte, 32)
	copy(b, "DKIF\x00\x00\x20\x00VP80") // version 0, a header of 32 bytes
	binary.LittleEndian.PutUint32(b[16:], rate)
	binary.LittleEndian.PutUint32(b[20:], 1)
	binary.LittleEndian.PutUint32(b[24:], frames)
	for i := range frames {
		frame := []byte{1, byte(i)} // RFC 6386, section 9.1: the lowest bit tells it from a key frame
		if i == 0 {
			frame = make([]byte, 2000)
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
		b = binary.LittleEndian.AppendUint64(b, uint64(i))
		b = append(b, frame...)
	}
	return b
}
