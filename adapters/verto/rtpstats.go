package verto

import (
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

// inbound counts what comes in of one peer, whatever sources it comes from in
// turn: a server that changes its SSRC begins a new one, and the sums go on. The
// zero value is ready.
type inbound struct {
	mu     sync.Mutex // guards what follows
	source rtpSource
	jitter jitter
	epoch  time.Time // from which arrivals are counted
	before struct {  // sources that are over
		expected, received int64
	}
	bytes int64 // of payload

	heard struct { // the source's last sender report
		middle uint32 // of its NTP timestamp; 0: none
		at     time.Time
	}
}

// inboundFigures are what [inbound] has counted.
type inboundFigures struct {
	packets int64         // received: late ones and duplicates too (RFC 3550, A.3)
	lost    int64         // expected less received; below 0 with more duplicates than losses
	bytes   int64         // of payload
	jitter  time.Duration // of the present source
}

// packet counts a packet that came at now. rate is the clock of its audio in
// hertz, and 0 says that it is none: a telephone-event keeps the timestamp of the
// event's beginning in each of its packets (RFC 4733, section 2.2.1), which
// therefore say nothing of the transit.
func (in *inbound) packet(now time.Time, p *rtp.Packet, rate uint32) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.epoch.IsZero():
		in.epoch = now
		in.source.begin(p.SSRC, p.SequenceNumber)
	case p.SSRC != in.source.ssrc:
		in.over()
		in.jitter, in.heard.middle = jitter{}, 0
		in.source.begin(p.SSRC, p.SequenceNumber)
	}
	switch in.source.update(p.SequenceNumber) {
	case sequenceBad:
		return
	case sequenceAnew:
		in.over()
		in.jitter.known = false
		in.source.begin(p.SSRC, p.SequenceNumber)
	case sequenceGood:
	}
	in.source.received++
	in.bytes += int64(len(p.Payload))
	if rate > 0 {
		in.jitter.packet(units(now.Sub(in.epoch), rate), p.Timestamp, rate, p.Marker)
	}
}

// over adds the present source to those that are over.
func (in *inbound) over() {
	in.before.expected += in.source.expected()
	in.before.received += int64(in.source.received)
}

// reported takes a sender report.
func (in *inbound) reported(now time.Time, sr *rtcp.SenderReport) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.source.begun && in.source.ssrc == sr.SSRC {
		in.heard.middle, in.heard.at = ntpMiddle(sr.NTPTime), now
	}
}

// report returns the block of a report (RFC 3550, 6.4.1 and A.3), and that there is
// one: there is for a source that sent something since the last.
func (in *inbound) report(now time.Time) (rtcp.ReceptionReport, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	s := &in.source
	if s.received == s.receivedPrior {
		return rtcp.ReceptionReport{}, false
	}
	expected := s.expected()
	block := rtcp.ReceptionReport{
		SSRC:               s.ssrc,
		TotalLost:          uint32(max(-1<<23, min(1<<23-1, expected-int64(s.received)))) & (1<<24 - 1),
		LastSequenceNumber: s.cycles + uint32(s.maxSeq),
		Jitter:             in.jitter.scaled >> 4,
	}
	since := expected - s.expectedPrior
	if lost := since - int64(s.received-s.receivedPrior); lost > 0 {
		block.FractionLost = uint8(lost << 8 / since)
	}
	s.expectedPrior, s.receivedPrior = expected, s.received
	if in.heard.middle != 0 {
		block.LastSenderReport, block.Delay = in.heard.middle, units(now.Sub(in.heard.at), ntpUnit)
	}
	return block, true
}

// figures returns what was counted so far.
func (in *inbound) figures() inboundFigures {
	in.mu.Lock()
	defer in.mu.Unlock()
	f := inboundFigures{packets: in.before.received + int64(in.source.received), bytes: in.bytes, jitter: in.jitter.duration()}
	f.lost = in.before.expected + in.source.expected() - f.packets
	return f
}

// rtpSource is what is kept of one SSRC to count its packets (RFC 3550, A.1), with
// the names from there. There is no probation: SRTP has told already that a packet
// is of the far end.
type rtpSource struct {
	ssrc     uint32
	maxSeq   uint16 // the highest sequence number
	cycles   uint32 // 65536 for each time that it has wrapped around
	baseSeq  uint32
	badSeq   uint32 // what follows a jump, if the source has begun anew
	received uint32
	begun    bool

	expectedPrior int64 // at the last report
	receivedPrior uint32
}

// Of RFC 3550, A.1.
const (
	seqMod      = 1 << 16
	maxDropout  = 3000 // so many may be lost in a row
	maxMisorder = 100  // so late may one come
)

// sequence is what a sequence number says.
type sequence int

const (
	// sequenceGood is of a packet in the sequence, late, or twice.
	sequenceGood sequence = iota
	// sequenceBad is of one that is far off; it is not counted.
	sequenceBad
	// sequenceAnew is of the second in a row: the source has begun anew.
	sequenceAnew
)

func (s *rtpSource) begin(ssrc uint32, seq uint16) {
	*s = rtpSource{ssrc: ssrc, maxSeq: seq, baseSeq: uint32(seq), badSeq: seqMod + 1, begun: true}
}

func (s *rtpSource) update(seq uint16) sequence {
	switch delta := seq - s.maxSeq; {
	case delta < maxDropout:
		if seq < s.maxSeq {
			s.cycles += seqMod
		}
		s.maxSeq = seq
	case delta <= seqMod-maxMisorder:
		if uint32(seq) == s.badSeq {
			return sequenceAnew
		}
		s.badSeq = uint32(seq + 1)
		return sequenceBad
	}
	return sequenceGood
}

// expected is how many packets there should be, by their numbers (A.3).
func (s *rtpSource) expected() int64 {
	if !s.begun {
		return 0
	}
	return int64(s.cycles+uint32(s.maxSeq)) - int64(s.baseSeq) + 1
}

// jitter is the interarrival jitter of RFC 3550, 6.4.1, in integers as in A.8. Two
// things the formula leaves to those who use it:
//
// It measures the network only between packets of one time base. The timestamp
// must come from "a clock that increments monotonically and linearly in time to
// allow synchronization and jitter calculations" (section 5.1), and that of a
// server that holds a call stands still meanwhile; what the formula would make of
// the pause is its length. So a transit that leaps is not counted but taken as the
// first of a new base. A leap is half a second, which beats what a network does to
// packets; at the begin of a talkspurt, which the marker bit tells and where a
// receiver adapts its playout anyway (RFC 3551, 4.1), it is three packets.
//
// A source that changes its clock rate (RFC 7160) begins a new base too, and the
// estimate so far is carried over in time.
type jitter struct {
	rate    uint32 // hertz
	transit uint32 // of the last packet: arrival less timestamp, of no meaning alone
	scaled  uint32 // sixteen times the estimate, in units of the clock
	known   bool   // there was a last packet
}

const (
	transitLeap = 500 * time.Millisecond
	spurtLeap   = 3 * frameTime
)

// packet takes one in the order of arrival, not of sequence (6.4.1). arrival and
// timestamp are in units of the clock.
func (j *jitter) packet(arrival, timestamp, rate uint32, marker bool) {
	transit := arrival - timestamp
	if rate != j.rate {
		if j.rate != 0 {
			j.scaled = uint32(uint64(j.scaled) * uint64(rate) / uint64(j.rate))
		}
		j.rate, j.known = rate, false
	}
	d := transit - j.transit
	if int32(d) < 0 {
		d = -d
	}
	leap := transitLeap
	if marker {
		leap = spurtLeap
	}
	if j.known && d < units(leap, rate) {
		j.scaled += d - (j.scaled+8)>>4
	}
	j.transit, j.known = transit, true
}

func (j *jitter) duration() time.Duration {
	if j.rate == 0 {
		return 0
	}
	return time.Duration(j.scaled) * time.Second / time.Duration(16*int64(j.rate))
}

// units are a time in units of a clock, modulo 2^32 as timestamps are.
func units(d time.Duration, rate uint32) uint32 {
	s, rest := d/time.Second, d%time.Second
	return uint32(int64(s)*int64(rate) + int64(rest)*int64(rate)/int64(time.Second))
}
