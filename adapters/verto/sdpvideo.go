package verto

import (
	"errors"
	"slices"
	"strings"
)

// What follows is for calls with video: FreeSWITCH has a transport for each medium
// and bundles none, a PeerConnection of pion has one transport. So there is a
// PeerConnection for each medium, its descriptions are cut out of the server's, and
// ours are joined for it (section 16.2 of the protocol reference).

// The media that we know, as an m= line begins.
const (
	mediumAudio = "m=audio "
	mediumVideo = "m=video "
)

// sections are a description, cut where its media begin.
type sections struct {
	session []string
	media   [][]string // each begins with its m= line
}

func cutSections(sdp string) sections {
	var s sections
	for _, l := range splitLines(sdp) {
		switch n := len(s.media); {
		case strings.HasPrefix(l, "m="):
			s.media = append(s.media, []string{l})
		case n == 0:
			s.session = append(s.session, l)
		default:
			s.media[n-1] = append(s.media[n-1], l)
		}
	}
	return s
}

// layout returns the m= lines, whose number and order an answer and every later
// offer keep (RFC 3264, sections 6 and 8).
func (s sections) layout() []string {
	lines := make([]string, len(s.media))
	for i, m := range s.media {
		lines[i] = m[0]
	}
	return lines
}

// find returns the first section of a medium that is not refused, nil where there
// is none.
func (s sections) find(medium string) []string {
	for _, m := range s.media {
		if mediumOf(m[0]) == medium && !refused(m[0]) {
			return m
		}
	}
	return nil
}

// only returns the description of one medium alone, empty where it is not there or
// refused. A group would be one with media that are not there any more.
func (s sections) only(medium string) string {
	m := s.find(medium)
	if m == nil {
		return ""
	}
	return joinLines(slices.Concat(dropLines(s.session, "a=group:"), m))
}

// offersVideo reports whether a description has video that is not refused.
func offersVideo(sdp string) bool { return cutSections(sdp).find(mediumVideo) != nil }

// takesMedia reports whether whoever describes a medium so wants to receive it.
func takesMedia(description string) bool {
	lines := splitLines(description)
	return !slices.Contains(lines, "a=sendonly") && !slices.Contains(lines, "a=inactive")
}

// errNoAudio is returned for a description without audio, which no call is.
var errNoAudio = errors.New("verto: no audio in the description")

// audio returns what the PeerConnection of the audio is given of sdp: all of it where
// there is nothing else.
func (s sections) audio(sdp string) (string, error) {
	if len(s.media) == 0 || len(s.media) == 1 && mediumOf(s.media[0][0]) == mediumAudio {
		return sdp, nil
	}
	if audio := s.only(mediumAudio); audio != "" {
		return audio, nil
	}
	return "", errNoAudio
}

// joinMedia makes one description of that of the audio and that of the video, which
// is empty where the video is refused, with the media of the layout. Neither
// bundles with the other, so that what is joined names no group and no section:
// FreeSWITCH needs neither. A description of audio alone stays as it is.
func joinMedia(layout []string, audio, video string) string {
	if len(layout) == 1 {
		return audio
	}
	of := cutSections(audio)
	parts := map[string][]string{mediumAudio: of.find(mediumAudio), mediumVideo: cutSections(video).find(mediumVideo)}
	address := addressOf(parts[mediumAudio])
	lines := dropLines(of.session, "a=group:")
	for _, m := range layout {
		medium := mediumOf(m)
		if part := parts[medium]; part != nil && !refused(m) {
			delete(parts, medium)
			lines = append(lines, dropLines(part, "a=mid:")...)
			continue
		}
		lines = append(lines, refusal(m))
		if address != "" { // the session names none
			lines = append(lines, address)
		}
	}
	return joinLines(lines)
}

// mediumOf returns the beginning of an m= line, as mediumAudio is.
func mediumOf(m string) string {
	medium, _, _ := strings.Cut(m, " ")
	return medium + " "
}

func refused(m string) bool { return strings.HasPrefix(m, mediumOf(m)+"0 ") }

// refusal is an m= line with port 0 (RFC 3264, section 6).
func refusal(m string) string {
	f := strings.SplitN(m, " ", 3)
	if len(f) < 3 {
		return f[0] + " 0 RTP/AVP 0"
	}
	return f[0] + " 0 " + f[2]
}

// addressOf returns the c= line of a section.
func addressOf(section []string) string {
	for _, l := range section {
		if strings.HasPrefix(l, "c=") {
			return l
		}
	}
	return ""
}

// dropLines returns a copy of lines without those that begin so.
func dropLines(lines []string, prefix string) []string {
	kept := make([]string, 0, len(lines))
	for _, l := range lines {
		if !strings.HasPrefix(l, prefix) {
			kept = append(kept, l)
		}
	}
	return kept
}
