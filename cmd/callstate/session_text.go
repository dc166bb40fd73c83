package main

import (
	"fmt"
	"strings"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// sessionText is what an event of a web phone's session says, for people; false
// for other events.
func sessionText(p events.Payload) (string, bool) {
	switch p := p.(type) {
	case *events.WebRTCSessionNew:
		s := join(string(p.Direction), p.Transport, "session", shortID(p.Session), p.State)
		switch {
		case p.Inferred:
			s += ", inferred from the channel"
		case p.Joined:
			s += ", told of before its leg was seen"
		}
		return s, true
	case *events.WebRTCStateChanged:
		s := join(p.Layer, p.From, "→", p.State, p.Cause)
		if p.Inferred {
			s += ", since the leg is gone"
		}
		if p.Attempt > 0 {
			s += fmt.Sprintf(", attempt %d", p.Attempt+1)
		}
		return s, true
	case *events.WebRTCVideoStarted:
		return join("session", shortID(p.Session), p.Codec), true
	case *events.WebRTCStats:
		s := qualityText(&cti.Quality{
			Codec: p.Codec, PacketsReceived: p.PacketsReceived, PacketsSent: p.PacketsSent, PacketsLost: p.PacketsLost,
			JitterMs: p.JitterMs, RoundTripMs: p.RoundTripMs, MOS: p.MOS,
		})
		if p.PacketsSentLost > 0 || p.SentJitterMs > 0 {
			s += fmt.Sprintf("; the far end lost %d, lately %.0f%%, jitter %.1f ms", p.PacketsSentLost, 100*p.SentLoss, p.SentJitterMs)
		}
		return s, true
	case *events.WebRTCSessionEnded:
		s := join("session", shortID(p.Session), p.Reason, p.Cause)
		if p.By != "" {
			s += " by " + p.By
		}
		if p.Inferred {
			s += ", inferred"
		}
		return s, true
	default:
		return "", false
	}
}

// qualityText is a session's figures so far, for people. What is not known is left
// out.
func qualityText(q *cti.Quality) string {
	parts := []string{fmt.Sprintf("%d packets received, %d lost, %d sent, jitter %.1f ms", q.PacketsReceived, q.PacketsLost, q.PacketsSent, q.JitterMs)}
	if q.Codec != "" {
		parts = append([]string{q.Codec}, parts...)
	}
	if q.RoundTripMs > 0 {
		parts = append(parts, fmt.Sprintf("round trip %.1f ms", q.RoundTripMs))
	}
	if q.MOS > 0 {
		parts = append(parts, fmt.Sprintf("MOS %.1f", q.MOS))
	}
	return strings.Join(parts, ", ")
}

// webPhoneText is a session in a column: its transport, and how it sounded.
func webPhoneText(w *cti.WebRTC) string {
	switch {
	case w == nil:
		return ""
	case w.Inferred:
		return w.Transport + " (inferred)"
	case w.Quality == nil:
		return w.Transport
	case w.Quality.MOS > 0:
		return fmt.Sprintf("%s %s MOS %.1f", w.Transport, w.Quality.Codec, w.Quality.MOS)
	default:
		return join(w.Transport, w.Quality.Codec)
	}
}

// join puts spaces between the words that are not empty.
func join(words ...string) string {
	var out []string
	for _, w := range words {
		if w != "" {
			out = append(out, w)
		}
	}
	return strings.Join(out, " ")
}
