package verto

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pion/rtcp"
)

// reports are the RTCP reports of one PeerConnection (RFC 3550, 6): what we tell
// the far end, and what it tells us. pion's would do, but its jitter is not that of
// the RFC, and it runs two goroutines a PeerConnection and keeps each packet's
// header for them.
type reports struct {
	began time.Time // the clock's beginning
	pc    rtcpWriter
	cname string
	in    *inbound
	out   outboundCounter

	left int // frames until the next report; of the pacer's goroutine

	mu  sync.Mutex // guards what follows
	far farFigures
}

// farFigures are how the far end hears us, by its last report.
type farFigures struct {
	roundTrip time.Duration // 0: none yet
	lost      int64         // of all that we sent; below 0 with more duplicates than losses
	fraction  float64       // lost of what was sent between its last two reports
	jitter    time.Duration
}

// rtcpWriter is a PeerConnection.
type rtcpWriter interface {
	WriteRTCP(packets []rtcp.Packet) error
}

// outboundCounter is what counts what is sent.
type outboundCounter interface {
	figures() outboundFigures
}

// newReports makes them. began is when their clock began, cname what the local
// description calls us.
func newReports(began time.Time, pc rtcpWriter, cname string, in *inbound, out outboundCounter) *reports {
	return &reports{began: began, pc: pc, cname: cname, in: in, out: out, left: reportAfter() / 2}
}

// reportInterval is the least time between two reports; the first comes after half
// of it (RFC 3550, 6.2). With two members and the bandwidth of any audio there is
// no longer one.
const reportInterval = 5 * time.Second

// reportAfter is after how many frames the next report goes: at random between a
// half and one and a half of the interval, made up for as A.7 says.
func reportAfter() int {
	const compensation = 1.21828 // e - 3/2
	return int((0.5 + rand.Float64()) / compensation * float64(reportInterval/frameTime))
}

// tick sends a report when it is time.
func (r *reports) tick(n, skipped int) {
	if r.left -= n + skipped; r.left > 0 {
		return
	}
	r.left = reportAfter()
	if packets := r.report(time.Now()); packets != nil {
		_ = r.pc.WriteRTCP(packets) // fails as what it reports on does
	}
}

// report returns what is to be told at now, nil for nothing: a compound packet
// (section 6.1) that begins with an SR, or with an RR as long as we have sent
// nothing.
func (r *reports) report(now time.Time) []rtcp.Packet {
	out := r.out.figures()
	var blocks []rtcp.ReceptionReport
	if block, ok := r.in.report(now); ok {
		blocks = append(blocks, block)
	}
	var first rtcp.Packet
	switch {
	case out.packets > 0:
		first = &rtcp.SenderReport{
			SSRC:        out.ssrc,
			NTPTime:     r.ntp(now),
			RTPTime:     out.timestamp + units(now.Sub(out.at), out.rate),
			PacketCount: uint32(out.packets), OctetCount: uint32(out.bytes),
			Reports: blocks,
		}
	case blocks != nil:
		first = &rtcp.ReceiverReport{SSRC: out.ssrc, Reports: blocks}
	default:
		return nil
	}
	return []rtcp.Packet{first, &rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{{
		Source: out.ssrc,
		Items:  []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: r.cname}},
	}}}}
}

// ofOurs takes RTCP about what we send: in it the far end tells how it arrives.
func (r *reports) ofOurs(now time.Time, packet rtcp.Packet) {
	var blocks []rtcp.ReceptionReport
	switch packet := packet.(type) {
	case *rtcp.SenderReport:
		blocks = packet.Reports
	case *rtcp.ReceiverReport:
		blocks = packet.Reports
	}
	out := r.out.figures()
	for i := range blocks {
		if blocks[i].SSRC == out.ssrc && out.rate > 0 {
			r.heard(now, &blocks[i], out.rate)
		}
	}
}

func (r *reports) heard(now time.Time, block *rtcp.ReceptionReport, rate uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d, ok := roundTrip(r.ntp(now), block); ok {
		r.far.roundTrip = d
	}
	r.far.lost = int64(int32(block.TotalLost<<8) >> 8) // 24 bits with a sign
	r.far.fraction = float64(block.FractionLost) / 256
	r.far.jitter = time.Duration(block.Jitter) * time.Second / time.Duration(rate)
}

// figures returns how the far end hears us.
func (r *reports) figures() farFigures {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.far
}

// ofTheirs takes RTCP about what comes in.
func (r *reports) ofTheirs(now time.Time, packet rtcp.Packet) {
	if sr, ok := packet.(*rtcp.SenderReport); ok {
		r.in.reported(now, sr)
	}
}

// readRTCP reads until the connection is closed.
func readRTCP[A any](read func([]byte) (int, A, error), take func(time.Time, rtcp.Packet)) {
	buf := make([]byte, 1500)
	for {
		n, _, err := read(buf)
		if err != nil {
			return
		}
		now := time.Now()
		packets, err := rtcp.Unmarshal(buf[:n])
		if err != nil {
			continue
		}
		for _, p := range packets {
			take(now, p)
		}
	}
}

// roundTrip is the time that a report took, there and back (RFC 3550, 6.4.1: A -
// LSR - DLSR), where arrived is when it came, in NTP's format. It is false for one
// that answers no report of ours, and for one that cannot be.
func roundTrip(arrived uint64, r *rtcp.ReceptionReport) (time.Duration, bool) {
	if r.LastSenderReport == 0 {
		return 0, false
	}
	d := int32(ntpMiddle(arrived) - r.LastSenderReport - r.Delay)
	return time.Duration(d) * time.Second / ntpUnit, d > 0
}

// ntp is a time in NTP's format, 32 bits of seconds and 32 of their fraction (RFC
// 3550, 4). It goes on evenly when the machine's clock is set.
func (r *reports) ntp(now time.Time) uint64 {
	t := r.began.Add(now.Sub(r.began))
	const year1900 = 2_208_988_800 // seconds before 1970
	return uint64(t.Unix()+year1900)<<32 | uint64(t.Nanosecond())<<32/uint64(time.Second)
}

// ntpMiddle are the middle 32 bits, in units of a second's 65536th.
func ntpMiddle(ntp uint64) uint32 { return uint32(ntp >> 16) }

const ntpUnit = 1 << 16
