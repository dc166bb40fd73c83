package verto

import (
	"net/netip"
	"time"

	"github.com/pion/webrtc/v4"
)

// NewImpatientMedia returns media whose ICE fails soon.
func NewImpatientMedia() (*Media, error) {
	return newMedia(netip.MustParseAddr("127.0.0.1"), nil, func(s *webrtc.SettingEngine) {
		s.SetICETimeouts(300*time.Millisecond, 300*time.Millisecond, 100*time.Millisecond)
	})
}
