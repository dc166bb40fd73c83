package vertotest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"
)

// form says which of FreeSWITCH's descriptions is written. They differ in profile,
// setup, candidates and order of lines.
type form uint8

const (
	inviteForm form = iota + 1 // the offer of a call to the client
	answerForm                 // the answer to a client's offer
	attachForm                 // the offer of a call that is taken up again
)

// origin is what FreeSWITCH keeps of a leg from one description to the next.
type origin struct {
	id       int64  // of the o= line
	version  int64  // of the o= line, goes up with each description
	stream   string // msid
	cname    string
	sendonly bool // after an answer with a zero address: every later offer says so
}

// facts are what a description of pion's says of the only medium in it.
type facts struct {
	kind        string // "audio", "video"
	codecs      []webrtc.RTPCodecParameters
	fingerprint string
	setup       string
	ufrag, pwd  string
	host        netip.AddrPort // of the first candidate
	ssrc        string
}

// describe writes local descriptions of pion's, one for each medium, as FreeSWITCH
// would: without mid, BUNDLE and all that a browser adds, and each line in
// FreeSWITCH's own place (captures verto/03, 04 and 09; of video from its source,
// switch_core_media.c). An empty one is video that is refused.
func describe(f form, o *origin, locals ...string) (string, error) {
	o.version++
	d := description{form: f, origin: o}
	for i, local := range locals {
		if local == "" {
			d.line("m=video 0 UDP/TLS/RTP/SAVPF 19")
			continue
		}
		var err error
		if d.facts, err = factsOf(local); err != nil {
			return "", err
		}
		if i == 0 {
			d.session()
		}
		d.whole()
	}
	return d.String(), nil
}

// description is one that is being written.
type description struct {
	strings.Builder
	facts

	form   form
	origin *origin
}

func (d *description) line(format string, args ...any) { fmt.Fprintf(d, format+"\r\n", args...) }

// whole writes a medium with all that is its own.
func (d *description) whole() {
	d.medium()
	if d.form != inviteForm {
		d.direction()
	}
	d.line("a=fingerprint:%s", d.fingerprint)
	d.line("a=setup:%s", d.setup)
	d.line("a=rtcp-mux")
	d.line("a=rtcp:%d IN IP4 %s", d.host.Port(), d.host.Addr())
	if d.form == inviteForm {
		d.source()
	}
	d.line("a=ice-ufrag:%s", d.ufrag)
	d.line("a=ice-pwd:%s", d.pwd)
	d.candidates()
	if d.form == inviteForm {
		d.direction()
	} else {
		d.line("a=end-of-candidates")
		d.source()
	}
}

func (d *description) session() {
	ip := d.host.Addr()
	d.line("v=0")
	d.line("o=FreeSWITCH %d %d IN IP4 %s", d.origin.id, d.origin.version, ip)
	d.line("s=FreeSWITCH")
	d.line("c=IN IP4 %s", ip)
	d.line("t=0 0")
	d.line("a=msid-semantic: WMS %s", d.origin.stream)
}

func (d *description) medium() {
	profile, numbers := "UDP/TLS/RTP/SAVPF", make([]string, len(d.codecs))
	if d.form == inviteForm {
		profile = "RTP/SAVPF"
	}
	for i, c := range d.codecs {
		numbers[i] = strconv.Itoa(int(c.PayloadType))
	}
	d.line("m=%s %d %s %s", d.kind, d.host.Port(), profile, strings.Join(numbers, " "))
	for _, c := range d.codecs {
		d.line("a=rtpmap:%d %s", c.PayloadType, rtpmap(c))
		if c.SDPFmtpLine != "" {
			d.line("a=fmtp:%d %s", c.PayloadType, c.SDPFmtpLine)
		}
		if d.kind == video {
			for _, feedback := range []string{"ccm fir", "ccm tmmbr", "nack", "nack pli"} {
				d.line("a=rtcp-fb:%d %s", c.PayloadType, feedback)
			}
		}
	}
}

func (d *description) direction() {
	if d.kind == audio {
		d.line("a=silenceSupp:off - - - -")
		d.line("a=ptime:20")
	}
	if d.origin.sendonly && d.form == attachForm {
		d.line("a=sendonly")
	} else {
		d.line("a=sendrecv")
	}
}

func (d *description) source() {
	label := d.kind[:1] + "0"
	d.line("a=ssrc:%s cname:%s", d.ssrc, d.origin.cname)
	d.line("a=ssrc:%s msid:%s %s", d.ssrc, d.origin.stream, label)
	d.line("a=ssrc:%s mslabel:%s", d.ssrc, d.origin.stream)
	d.line("a=ssrc:%s label:%s%s", d.ssrc, d.origin.stream, label)
}

// candidates writes that of component 1 and, in offers, the same of component 2.
func (d *description) candidates() {
	foundation := (d.origin.id*7919 + d.origin.version) % 1e10
	candidate := func(component, priority int) {
		d.line("a=candidate:%010d %d udp %d %s %d typ host generation 0",
			foundation, component, priority, d.host.Addr(), d.host.Port())
	}
	candidate(1, 2130706431)
	switch d.form {
	case inviteForm:
		candidate(2, 2130706431)
	case attachForm:
		candidate(2, 2130706430)
	}
}

// rtpmap is a codec's name as FreeSWITCH writes it.
func rtpmap(c webrtc.RTPCodecParameters) string {
	_, name, _ := strings.Cut(c.MimeType, "/")
	s := fmt.Sprintf("%s/%d", name, c.ClockRate)
	if c.Channels > 1 {
		s += "/" + strconv.Itoa(int(c.Channels))
	}
	return s
}

// factsOf reads a description that has one medium.
func factsOf(text string) (facts, error) {
	var d sdp.SessionDescription
	if err := d.UnmarshalString(text); err != nil {
		return facts{}, err
	}
	if len(d.MediaDescriptions) == 0 {
		return facts{}, errors.New("no medium")
	}
	m := d.MediaDescriptions[0]
	get := func(key string) string {
		v, ok := m.Attribute(key)
		if !ok {
			v, _ = d.Attribute(key)
		}
		return v
	}
	f := facts{
		kind: m.MediaName.Media, codecs: codecsOf(m), fingerprint: get("fingerprint"), setup: get("setup"),
		ufrag: get("ice-ufrag"), pwd: get("ice-pwd"),
	}
	f.ssrc, _, _ = strings.Cut(get("ssrc"), " ")
	for _, a := range m.Attributes {
		if host, ok := candidate(a); ok {
			f.host = host
			break
		}
	}
	return f, nil
}

// candidate returns the address of a candidate that FreeSWITCH could use: UDP and
// a literal address.
func candidate(a sdp.Attribute) (netip.AddrPort, bool) {
	if a.Key != "candidate" {
		return netip.AddrPort{}, false
	}
	w := strings.Fields(a.Value)
	if len(w) < 8 || !strings.EqualFold(w[2], "udp") {
		return netip.AddrPort{}, false
	}
	host, err := netip.ParseAddrPort(w[4] + ":" + w[5])
	return host, err == nil
}

// codecsOf reads the payload types of a medium in their order.
func codecsOf(m *sdp.MediaDescription) []webrtc.RTPCodecParameters {
	names, params := make(map[string]string), make(map[string]string)
	for _, a := range m.Attributes {
		pt, v, _ := strings.Cut(a.Value, " ")
		switch a.Key {
		case "rtpmap":
			names[pt] = v
		case "fmtp":
			params[pt] = v
		}
	}
	static := map[string]string{"0": "PCMU/8000", "8": "PCMA/8000"} // RFC 3551, table 4
	var codecs []webrtc.RTPCodecParameters
	for _, pt := range m.MediaName.Formats {
		name := names[pt]
		if name == "" {
			name = static[pt]
		}
		parts := strings.Split(name, "/")
		n, err := strconv.ParseUint(pt, 10, 7)
		if err != nil || len(parts) < 2 {
			continue
		}
		c := webrtc.RTPCodecParameters{PayloadType: webrtc.PayloadType(n)}
		c.MimeType, c.SDPFmtpLine = m.MediaName.Media+"/"+parts[0], params[pt]
		rate, err := strconv.ParseUint(parts[1], 10, 32)
		if err != nil {
			continue
		}
		c.ClockRate = uint32(rate)
		if len(parts) > 2 {
			channels, err := strconv.ParseUint(parts[2], 10, 16)
			if err != nil {
				continue
			}
			c.Channels = uint16(channels)
		}
		codecs = append(codecs, c)
	}
	return codecs
}

// Why a client's description is not taken.
var (
	errRefused     = errors.New("the client refuses the medium: port 0")
	errNoCandidate = errors.New("no candidate that could be used")
	errNoCrypto    = errors.New("no fingerprint")
	errNoCodec     = errors.New("no codec in common")
	errLineEnd     = errors.New("a CR without an LF, which ends no line (RFC 8866, section 5)")
)

// The media, as SDP names them.
const (
	audio = "audio"
	video = "video"
)

// offered is a client's description as FreeSWITCH understands it.
type offered struct {
	text   string // of the audio alone, as pion takes it
	codecs []webrtc.RTPCodecParameters
	zero   bool // c=IN IP4 0.0.0.0, which FreeSWITCH takes for a hold

	names       bool   // there is a medium of video, refused or not
	video       string // of the video alone; empty: none, or none that can be used
	videoCodecs []webrtc.RTPCodecParameters
}

// readOffered reads a client's description, and refuses what FreeSWITCH refuses.
func readOffered(text string) (offered, error) {
	var d sdp.SessionDescription
	if strings.Count(text, "\r") != strings.Count(text, "\r\n") {
		return offered{}, errLineEnd
	}
	if err := d.UnmarshalString(text); err != nil {
		return offered{}, fmt.Errorf("read the description: %w", err)
	}
	m := mediumOf(&d, audio)
	if m == nil {
		return offered{}, errNoCodec
	}
	if err := complete(&d, m); err != nil {
		return offered{}, err
	}
	o := offered{codecs: codecsOf(m)}
	for _, c := range []*sdp.ConnectionInformation{d.ConnectionInformation, m.ConnectionInformation} {
		if c != nil && c.Address != nil {
			o.zero = c.Address.Address == "0.0.0.0" // the medium's own wins
		}
	}
	var err error
	if o.text, err = alone(d, m); err != nil {
		return offered{}, err
	}
	if v := mediumOf(&d, video); v != nil {
		o.names = true
		if complete(&d, v) == nil {
			o.videoCodecs = codecsOf(v)
			o.video, err = alone(d, v)
		}
	}
	return o, err
}

// mediumOf returns the first medium of a kind, nil where there is none.
func mediumOf(d *sdp.SessionDescription, kind string) *sdp.MediaDescription {
	i := slices.IndexFunc(d.MediaDescriptions, func(m *sdp.MediaDescription) bool { return m.MediaName.Media == kind })
	if i < 0 {
		return nil
	}
	return d.MediaDescriptions[i]
}

// complete reports what a medium lacks of a transport.
func complete(d *sdp.SessionDescription, m *sdp.MediaDescription) error {
	if m.MediaName.Port.Value == 0 {
		return errRefused
	}
	if !slices.ContainsFunc(m.Attributes, usable) {
		return errNoCandidate
	}
	_, ofMedium := m.Attribute("fingerprint")
	if _, ofSession := d.Attribute("fingerprint"); !ofMedium && !ofSession {
		return errNoCrypto
	}
	return nil
}

// alone writes the description of one medium. FreeSWITCH needs neither mid nor
// BUNDLE; pion needs both.
func alone(d sdp.SessionDescription, m *sdp.MediaDescription) (string, error) {
	mid, ok := m.Attribute("mid")
	if !ok {
		mid = "0"
		m.WithValueAttribute("mid", mid)
	}
	d.MediaDescriptions = []*sdp.MediaDescription{m}
	d.Attributes = slices.DeleteFunc(slices.Clone(d.Attributes), func(a sdp.Attribute) bool { return a.Key == "group" })
	d.WithValueAttribute("group", "BUNDLE "+mid)
	b, err := d.Marshal()
	if err != nil {
		return "", fmt.Errorf("write the description: %w", err)
	}
	return string(b), nil
}

// usable reports whether the ACL wan.auto, which is in force where none is set,
// lets a candidate pass: private addresses do not, loopback does.
func usable(a sdp.Attribute) bool {
	host, ok := candidate(a)
	if !ok {
		return false
	}
	ip, shared := host.Addr(), netip.MustParsePrefix("100.64.0.0/10")
	return !ip.IsPrivate() && !ip.IsLinkLocalUnicast() && !shared.Contains(ip)
}

const telephoneEvent = "audio/telephone-event"

// choose returns what FreeSWITCH answers with: the first codec of the client that
// it has too, and the client's telephone-event of that rate, else its first.
func choose(theirs []webrtc.RTPCodecParameters, ours []Codec) ([]webrtc.RTPCodecParameters, error) {
	var chosen []webrtc.RTPCodecParameters
	for _, c := range theirs {
		if slices.ContainsFunc(ours, func(o Codec) bool { return strings.EqualFold(c.MimeType, "audio/"+string(o)) }) {
			chosen = append(chosen, c)
			break
		}
	}
	if len(chosen) == 0 {
		return nil, errNoCodec
	}
	event := -1
	for i, c := range theirs {
		if !strings.EqualFold(c.MimeType, telephoneEvent) {
			continue
		}
		if event < 0 || c.ClockRate == chosen[0].ClockRate && theirs[event].ClockRate != chosen[0].ClockRate {
			event = i
		}
	}
	if event >= 0 {
		chosen = append(chosen, theirs[event])
	}
	return chosen, nil
}
