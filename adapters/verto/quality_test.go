package verto

import (
	"math"
	"testing"

	"github.com/callstate/callstate/events"
)

func TestEstimateMOS(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    events.WebRTCStats
		want float64
	}{
		{"nothing came", events.WebRTCStats{PacketsLost: 3}, 0},
		// R 92.72: Id is that of the packet alone.
		{"perfect", events.WebRTCStats{PacketsReceived: 1000, Codec: "PCMU"}, 4.40},
		// R 84.08: d is 380/2+20 = 210 ms, Id 5.04+3.60.
		{"a satellite", events.WebRTCStats{PacketsReceived: 1000, RoundTripMs: 380, Codec: "PCMU"}, 4.19},
		// R 76.9: Ie,eff = 95*5/(5+25.1) = 15.8.
		{"five percent lost", events.WebRTCStats{PacketsReceived: 950, PacketsLost: 50, Codec: "PCMU"}, 3.91},
		{"almost all lost", events.WebRTCStats{PacketsReceived: 1, PacketsLost: 999, RoundTripMs: 1000}, 1},
	} {
		if got := estimateMOS(tt.s); math.Abs(got-tt.want) > 0.01 {
			t.Errorf("%s: %.3f, want %.2f", tt.name, got, tt.want)
		}
	}
	if a, b := estimateMOS(events.WebRTCStats{PacketsReceived: 1}), estimateMOS(events.WebRTCStats{PacketsReceived: 1, JitterMs: 60}); a <= b {
		t.Errorf("jitter does not lower it: %.2f, %.2f", a, b)
	}
}

func TestTotalAddsAttempts(t *testing.T) {
	got := total(
		events.WebRTCStats{PacketsReceived: 1, PacketsLost: 2, BytesReceived: 3, PacketsSent: 4, BytesSent: 5, PacketsSentLost: 6, JitterMs: 9, SentLoss: 0.5, SentJitterMs: 9, Codec: "opus"},
		events.WebRTCStats{PacketsReceived: 10, PacketsLost: 20, BytesReceived: 30, PacketsSent: 40, BytesSent: 50, PacketsSentLost: 60, JitterMs: 1, SentLoss: 0.25, SentJitterMs: 2},
	)
	want := events.WebRTCStats{PacketsReceived: 11, PacketsLost: 22, BytesReceived: 33, PacketsSent: 44, BytesSent: 55, PacketsSentLost: 66, JitterMs: 1, SentLoss: 0.25, SentJitterMs: 2, Codec: "opus"}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
