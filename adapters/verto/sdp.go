package verto

import (
	"fmt"
	"strings"
)

// What follows are the only changes that a running FreeSWITCH proved necessary
// between its descriptions and pion's (section 16.2 of the protocol reference). Video
// needs more: sdpvideo.go.

// fromServer adapts a description of FreeSWITCH for pion. FreeSWITCH names no
// media section and bundles none: without a=mid pion refuses an offer and never
// delivers the track of an answer, without a=group:BUNDLE it refuses the audio.
func fromServer(sdp string) string {
	lines := splitLines(sdp)
	var mids []string
	hasGroup := false
	for i, l := range lines {
		switch {
		case strings.HasPrefix(l, "m="):
			mid, ok := attribute(lines, i+1, "a=mid:")
			if !ok {
				mid = fmt.Sprint(len(mids))
			}
			mids = append(mids, mid)
		case len(mids) == 0 && strings.HasPrefix(l, "a=group:BUNDLE"):
			hasGroup = true
		}
	}
	out := make([]string, 0, len(lines)+len(mids)+1)
	section := 0
	for i, l := range lines {
		media := strings.HasPrefix(l, "m=")
		if media && section == 0 && !hasGroup {
			out = append(out, "a=group:BUNDLE "+strings.Join(mids, " "))
		}
		out = append(out, l)
		if media {
			if _, ok := attribute(lines, i+1, "a=mid:"); !ok {
				out = append(out, "a=mid:"+mids[section])
			}
			section++
		}
	}
	return joinLines(out)
}

// forServer adapts a description of pion for FreeSWITCH: its connection address
// is 0.0.0.0, which FreeSWITCH reads as hold; from the next verto.attach on the
// far end would hear nothing, for good.
func forServer(sdp string) string {
	lines := splitLines(sdp)
	addr := candidateAddress(lines)
	if addr == "" {
		return joinLines(lines)
	}
	for i, l := range lines {
		if l == "c=IN IP4 0.0.0.0" {
			family := "IP4"
			if strings.Contains(addr, ":") {
				family = "IP6"
			}
			lines[i] = "c=IN " + family + " " + addr
		}
	}
	return joinLines(lines)
}

// healed turns the direction of an offer back that an earlier zero address has
// spoilt. It is for verto.attach: a phone is never meant to listen only.
func healed(sdp string) string {
	lines := splitLines(sdp)
	for i, l := range lines {
		if l == "a=sendonly" {
			lines[i] = "a=sendrecv"
		}
	}
	return joinLines(lines)
}

// candidateAddress returns the address of the best candidate: a host's, else one
// that a STUN server saw, else a relay's.
func candidateAddress(lines []string) string {
	best := ""
	for _, typ := range []string{"host", "srflx", "relay"} {
		for _, l := range lines {
			f := strings.Fields(l)
			if len(f) >= 8 && strings.HasPrefix(f[0], "a=candidate:") && f[6] == "typ" && f[7] == typ && best == "" {
				best = f[4]
			}
		}
	}
	return best
}

// attribute returns the value of an attribute in the media section that begins
// before from.
func attribute(lines []string, from int, name string) (string, bool) {
	for _, l := range lines[from:] {
		if strings.HasPrefix(l, "m=") {
			break
		}
		if v, ok := strings.CutPrefix(l, name); ok {
			return v, true
		}
	}
	return "", false
}

// splitLines accepts a bare line feed, as RFC 8866 (section 5) recommends.
func splitLines(sdp string) []string {
	lines := strings.Split(strings.ReplaceAll(sdp, "\r\n", "\n"), "\n")
	if n := len(lines); lines[n-1] == "" {
		lines = lines[:n-1]
	}
	return lines
}

func joinLines(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\r\n") + "\r\n"
}
