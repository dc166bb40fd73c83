package verto

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/logging"
	"github.com/pion/webrtc/v4"
)

// Media is what all phones of a process share: pion's API, and the one ticker that
// paces the media of all calls.
type Media struct {
	api   *webrtc.API
	pacer pacer
	began time.Time
}

// NewMedia returns the media for calls over one local address. One it must be:
// with two, FreeSWITCH follows the wrong one for seconds (protocol 8.2).
// [LocalAddress] finds it. A nil logger discards.
func NewMedia(local netip.Addr, logger *slog.Logger) (*Media, error) {
	return newMedia(local, logger, func(*webrtc.SettingEngine) {})
}

func newMedia(local netip.Addr, logger *slog.Logger, tune func(*webrtc.SettingEngine)) (*Media, error) {
	if !local.IsValid() || local.IsUnspecified() {
		return nil, fmt.Errorf("%w: %q is no local address for media", ErrArgument, local)
	}
	m := &Media{
		pacer: pacer{tracks: make(map[paced]struct{}), wake: make(chan struct{}, 1)},
		began: time.Now(),
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	log := pionLog{logger.With("adapter", adapterName)}
	codecs := new(webrtc.MediaEngine)
	for _, c := range audioCodecs {
		if err := codecs.RegisterCodec(c, webrtc.RTPCodecTypeAudio); err != nil {
			return nil, fmt.Errorf("verto: register %s: %w", c.MimeType, err)
		}
	}
	if err := codecs.RegisterCodec(vp8, webrtc.RTPCodecTypeVideo); err != nil {
		return nil, fmt.Errorf("verto: register %s: %w", vp8.MimeType, err)
	}
	engine := settings(local.Unmap(), log)
	tune(&engine)
	// Without a registry of its own it would have all interceptors of pion.
	m.api = webrtc.NewAPI(webrtc.WithMediaEngine(codecs), webrtc.WithInterceptorRegistry(new(interceptor.Registry)),
		webrtc.WithSettingEngine(engine))
	return m, nil
}

// audioCodecs are what we offer, in the order of our liking.
var audioCodecs = []webrtc.RTPCodecParameters{
	audioCodec(webrtc.MimeTypeOpus, 48000, 2, "minptime=10;useinbandfec=1", 111),
	audioCodec(webrtc.MimeTypePCMU, 8000, 0, "", 0),
	audioCodec(webrtc.MimeTypePCMA, 8000, 0, "", 8),
	audioCodec(mimeTelephoneEvent, 8000, 0, "", 101),
	audioCodec(mimeTelephoneEvent, 48000, 0, "", 110),
}

const mimeTelephoneEvent = "audio/telephone-event"

func audioCodec(mime string, rate uint32, channels uint16, fmtp string, pt webrtc.PayloadType) webrtc.RTPCodecParameters {
	return webrtc.RTPCodecParameters{
		RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: mime, ClockRate: rate, Channels: channels, SDPFmtpLine: fmtp},
		PayloadType:        pt,
	}
}

func settings(local netip.Addr, log logging.LoggerFactory) webrtc.SettingEngine {
	s := webrtc.SettingEngine{LoggerFactory: log}
	s.SetIPFilter(func(ip net.IP) bool {
		a, ok := netip.AddrFromSlice(ip)
		return ok && a.Unmap() == local
	})
	network := webrtc.NetworkTypeUDP4
	if local.Is6() {
		network = webrtc.NetworkTypeUDP6
	}
	s.SetNetworkTypes([]webrtc.NetworkType{network})
	s.SetIncludeLoopbackCandidate(local.IsLoopback())
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetSDPMediaLevelFingerprints(true)
	return s
}

// Run paces the media until ctx ends.
func (m *Media) Run(ctx context.Context) error {
	m.pacer.run(ctx.Done())
	return nil
}

// LocalAddress returns the address from which the host of a URL is reached. No
// packet is sent.
func LocalAddress(ctx context.Context, server string) (netip.Addr, error) {
	u, err := url.Parse(server)
	if err != nil || u.Hostname() == "" {
		return netip.Addr{}, fmt.Errorf("%w: no host in the address of the Verto server", ErrArgument)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", net.JoinHostPort(u.Hostname(), "9"))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("verto: find the local address towards %s: %w", u.Hostname(), err)
	}
	defer c.Close()
	ap, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return netip.Addr{}, fmt.Errorf("verto: local address: %w", err)
	}
	return ap.Addr().Unmap().WithZone(""), nil
}

// errNoCandidate is returned when the local address cannot be used.
var errNoCandidate = errors.New("verto: no candidate: is the media address one of this host?")

// describe gathers all candidates, since Verto has no way to send one later, and
// returns the local description for FreeSWITCH.
func (m *Media) describe(ctx context.Context, pc *webrtc.PeerConnection, d webrtc.SessionDescription) (string, error) {
	done := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(d); err != nil {
		return "", fmt.Errorf("set the local description: %w", err)
	}
	select {
	case <-done: // in milliseconds: there is one local address, and no STUN server
	case <-ctx.Done():
		return "", ctx.Err()
	}
	sdp := pc.LocalDescription().SDP
	if candidateAddress(splitLines(sdp)) == "" {
		return "", errNoCandidate
	}
	return forServer(sdp), nil
}
