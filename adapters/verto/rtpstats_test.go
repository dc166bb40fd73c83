package verto

import (
	"math"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"pgregory.net/rapid"
)

const pcmuRate = 8000

// wire is a far end and a network for [inbound]: 20 ms of PCMU a packet.
type wire struct {
	in  inbound
	now time.Time
	p   rtp.Packet
}

func newWire() *wire {
	return &wire{now: time.Unix(1_700_000_000, 0), p: rtp.Packet{
		Header:  rtp.Header{Version: 2, SSRC: 1, SequenceNumber: 65_500, Timestamp: math.MaxUint32 - 1000},
		Payload: make([]byte, 160),
	}}
}

// audio delivers n packets, each after 20 ms.
func (w *wire) audio(n int) {
	for range n {
		w.after(frameTime)
	}
}

// after delivers the next packet, that long after the one before.
func (w *wire) after(d time.Duration) {
	w.now = w.now.Add(d)
	w.p.SequenceNumber++
	w.p.Timestamp += 160
	w.in.packet(w.now, &w.p, pcmuRate)
	w.p.Marker = false
}

// jitter is the estimate in units of the clock.
func (w *wire) jitter() uint32 { return w.in.jitter.scaled >> 4 }

// The steps of RFC 3550, A.8, by hand: PCMU, so that 1 ms is 8 units.
func TestJitterAsInTheRFC(t *testing.T) {
	var j jitter
	for i, step := range []struct {
		arrival, timestamp uint32
		scaled             uint32 // the one before + D - (the one before + 8)/16
	}{
		{1000, 160, 0},    // the first has nothing before it
		{1160, 320, 0},    // D 0
		{1336, 480, 16},   // 2 ms late: D 16; 0+16-0
		{1480, 640, 31},   // back in time: D 16; 16+16-1
		{1640, 800, 29},   // D 0; 31-2
		{1960, 1120, 27},  // one was lost: D 0; 29-2
		{1960, 960, 185},  // and comes after the next: D 160; 27+160-2
		{2120, 1280, 333}, // D 160; 185+160-12
	} {
		j.packet(step.arrival, step.timestamp, pcmuRate, false)
		if j.scaled != step.scaled {
			t.Fatalf("after packet %d: %d, want %d", i, j.scaled, step.scaled)
		}
	}
	// 333/16 units of 125 µs.
	if got, want := j.duration(), 333*125*time.Microsecond/16; got != want {
		t.Errorf("jitter %v, want %v", got, want)
	}
}

// A server that holds a call sends nothing, and goes on with the timestamp that
// would have come next.
func TestJitterAfterAHold(t *testing.T) {
	for _, marker := range []bool{false, true} {
		w := newWire()
		w.audio(50)
		w.p.Marker = marker
		w.after(10 * time.Second)
		if j := w.in.figures().jitter; j != 0 {
			t.Errorf("marker %t: jitter %v, want none of a pause", marker, j)
		}
		w.audio(20)
		w.after(frameTime + 16*time.Millisecond)
		if j := w.in.figures().jitter; j != time.Millisecond {
			t.Errorf("marker %t: jitter %v of 16 ms late, want 1 ms", marker, j)
		}
	}
}

// A talkspurt may begin at any timestamp, and says so; a late packet is jitter
// whether it is marked or not.
func TestJitterAtATalkspurt(t *testing.T) {
	w := newWire()
	w.audio(10)
	w.p.Marker = true
	w.after(300 * time.Millisecond) // 280 ms of silence that the timestamp knows nothing of
	if j := w.jitter(); j != 0 {
		t.Errorf("jitter %d units of a marked pause", j)
	}
	w.p.Marker = true
	w.after(frameTime + 32*time.Millisecond)
	if j := w.jitter(); j != 16 { // 256/16
		t.Errorf("jitter %d units of a marked packet that was 32 ms late, want 16", j)
	}
	w = newWire()
	w.audio(10)
	w.after(300 * time.Millisecond) // unmarked, it is the network's: 2240/16
	if j := w.jitter(); j != 140 {
		t.Errorf("jitter %d units of an unmarked stall of 280 ms, want 140", j)
	}
}

// The packets of a telephone-event have the timestamp of its beginning.
func TestJitterLeavesEventsOut(t *testing.T) {
	w := newWire()
	w.audio(50)
	audio := w.p.Timestamp
	for range 12 { // 240 ms of a digit, while the audio pauses
		w.now = w.now.Add(frameTime)
		w.p.SequenceNumber++
		w.in.packet(w.now, &w.p, 0)
	}
	w.p.Timestamp = audio + 12*160
	w.audio(50)
	if f := w.in.figures(); f.jitter != 0 || f.packets != 112 || f.lost != 0 {
		t.Errorf("%+v, want 112 packets without jitter", f)
	}
}

func TestJitterIsKeptAcrossClockRates(t *testing.T) {
	var j jitter
	j.packet(0, 0, 8000, false)
	j.packet(160+160, 160, 8000, false)
	if j.duration() != 1250*time.Microsecond { // 20 ms / 16
		t.Fatalf("jitter %v", j.duration())
	}
	j.packet(960*3, 99, 48_000, false)
	j.packet(960*4, 99+960, 48_000, false)
	// 960 units of six times the rate, less a sixteenth.
	if got, want := j.scaled, uint32(960-60); got != want {
		t.Errorf("%d after the clock changed, want %d", got, want)
	}
}

// RFC 3550, A.1 and A.3, by hand.
func TestCounts(t *testing.T) {
	type figures struct{ packets, lost int64 }
	for _, tt := range []struct {
		name string
		seqs []uint16
		want figures
	}{
		{"nothing", nil, figures{}},
		{"one", []uint16{7}, figures{1, 0}},
		{"two lost", []uint16{1, 2, 5, 6}, figures{4, 2}},
		{"around", []uint16{65_534, 65_535, 0, 2}, figures{4, 1}},
		{"late", []uint16{1, 3, 2, 4}, figures{4, 0}},
		{"late from before the turn", []uint16{65_534, 0, 65_535, 1}, figures{4, 0}},
		{"twice", []uint16{1, 2, 2, 3}, figures{4, -1}},
		{"as many lost as may be", []uint16{1, 3000}, figures{2, 2998}},
		{"a stray", []uint16{1, 2, 30_000, 3}, figures{3, 0}},
		{"strays that do not follow each other", []uint16{1, 2, 30_000, 40_000, 3}, figures{3, 0}},
		{"begun anew", []uint16{1, 2, 4, 30_000, 30_001, 30_003}, figures{5, 2}},
		{"begun anew at the turn", []uint16{30_000, 65_535, 0, 1}, figures{3, 0}},
		{"begun anew from before", []uint16{500, 501, 10, 11}, figures{3, 0}},
		{"as late as may be", []uint16{500, 501, 402}, figures{3, -1}},
	} {
		var in inbound
		for i, seq := range tt.seqs {
			in.packet(time.Unix(int64(i), 0), &rtp.Packet{Header: rtp.Header{SSRC: 1, SequenceNumber: seq}}, 0)
		}
		if f := in.figures(); (figures{f.packets, f.lost}) != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, f, tt.want)
		}
	}
}

// The sums are of all sources; the jitter is of the last.
func TestCountsGoOnAcrossSources(t *testing.T) {
	w := newWire()
	w.audio(10)
	w.p.SequenceNumber += 3
	w.after(frameTime + 16*time.Millisecond)
	w.p.SSRC, w.p.SequenceNumber, w.p.Timestamp = 2, 40_000, 5
	w.audio(10)
	w.p.SequenceNumber++
	w.audio(1)
	if f := w.in.figures(); f != (inboundFigures{packets: 22, lost: 4, bytes: 22 * 160}) {
		t.Errorf("%+v", f)
	}
}

// Whatever a network does within the limits of A.1, the counts are those of what
// was sent and what came.
func TestCountsUnderAnyNetwork(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in inbound
		var came int64
		now, first := time.Unix(0, 0), rapid.Uint16().Draw(t, "first")
		highest := 0
		deliver := func(n int) {
			now = now.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "ms")) * time.Millisecond)
			in.packet(now, &rtp.Packet{
				Header:  rtp.Header{SSRC: 9, SequenceNumber: first + uint16(n), Timestamp: uint32(n) * 160},
				Payload: make([]byte, 3),
			}, pcmuRate)
			came++
		}
		deliver(0)
		for range rapid.IntRange(0, 200).Draw(t, "packets") {
			n := highest + 1
			switch rapid.IntRange(0, 5).Draw(t, "fate") {
			case 0: // lost, and some more
				n += rapid.IntRange(1, maxDropout-2).Draw(t, "lost")
			case 1: // late, or once more
				n = max(0, highest-rapid.IntRange(0, maxMisorder-1).Draw(t, "late"))
			}
			deliver(n)
			highest = max(highest, n)
		}
		f := in.figures()
		if f.packets != came || f.bytes != 3*came || f.lost != int64(highest+1)-came {
			t.Fatalf("%+v, of %d that came and %d that were sent", f, came, highest+1)
		}
		if f.jitter < 0 || f.jitter > transitLeap {
			t.Fatalf("jitter %v", f.jitter)
		}
	})
}

// The estimate does not depend on where the clocks stand, and never runs away.
func TestJitterStaysWithinWhatTheNetworkDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.SampledFrom([]uint32{8000, 48_000}).Draw(t, "rate")
		arrival, timestamp := rapid.Uint32().Draw(t, "arrival"), rapid.Uint32().Draw(t, "timestamp")
		spread := rapid.IntRange(0, 100).Draw(t, "spread in ms")
		var j, moved jitter
		for range rapid.IntRange(2, 100).Draw(t, "packets") {
			late := rate / 1000 * uint32(rapid.IntRange(0, spread).Draw(t, "late"))
			j.packet(arrival+late, timestamp, rate, false)
			moved.packet(arrival+late+7, timestamp-12_345, rate, false)
			arrival, timestamp = arrival+rate/50, timestamp+rate/50
		}
		if j.scaled != moved.scaled {
			t.Fatalf("%d, and %d with other clocks", j.scaled, moved.scaled)
		}
		// A.8 rounds by half a unit.
		if got, most := j.duration(), time.Duration(spread)*time.Millisecond+time.Second/time.Duration(rate); got > most {
			t.Fatalf("jitter %v of packets up to %d ms late", got, spread)
		}
	})
}

func TestUnits(t *testing.T) {
	for _, tt := range []struct {
		d    time.Duration
		rate uint32
		want uint32
	}{
		{0, 8000, 0},
		{20 * time.Millisecond, 8000, 160},
		{20 * time.Millisecond, 48_000, 960},
		{100 * time.Hour, 48_000, uint32(17_280_000_000 % (1 << 32))},
	} {
		if got := units(tt.d, tt.rate); got != tt.want {
			t.Errorf("%v at %d Hz: %d, want %d", tt.d, tt.rate, got, tt.want)
		}
	}
}

// RFC 3550, A.3, by hand.
func TestReportBlocks(t *testing.T) {
	w := newWire()
	if block, ok := w.in.report(w.now); ok {
		t.Fatalf("%+v of nothing", block)
	}
	w.audio(30) // from 65,501
	w.in.reported(w.now, &rtcp.SenderReport{SSRC: 2, NTPTime: 1 << 40})
	block, _ := w.in.report(w.now)
	if want := (rtcp.ReceptionReport{SSRC: 1, LastSequenceNumber: 65_530}); block != want {
		t.Errorf("at first %+v, want %+v", block, want)
	}
	if block, ok := w.in.report(w.now); ok {
		t.Fatalf("%+v, and nothing came since", block)
	}

	w.in.reported(w.now, &rtcp.SenderReport{SSRC: 1, NTPTime: 0x0000_b705_2000_ffff})
	w.p.SequenceNumber += 10 // lost, and with them the turn
	w.p.Timestamp += 10 * 160
	w.after(11*frameTime + 16*time.Millisecond) // D 128
	w.audio(5)                                  // D 0, five times
	w.now = w.now.Add(5250*time.Millisecond - 5*frameTime - 11*frameTime - 16*time.Millisecond)
	block, _ = w.in.report(w.now)
	want := rtcp.ReceptionReport{
		SSRC: 1, LastSequenceNumber: 65_536 + 10, TotalLost: 10,
		FractionLost: 160, // 10 of 16
		Jitter:       5,   // 128, 120, 112, 105, 98, 92 sixteenths
		// The delay is that of the RFC's example.
		LastSenderReport: 0xb705_2000, Delay: 0x0005_4000,
	}
	if block != want {
		t.Errorf("then %+v, want %+v", block, want)
	}

	for range 40 { // each twice: more than were lost
		w.audio(1)
		w.in.packet(w.now, &w.p, pcmuRate)
	}
	block, _ = w.in.report(w.now)
	if block.FractionLost != 0 || block.TotalLost != 1<<24-30 {
		t.Errorf("with duplicates %d/256 and %#x lost, want 0 and -30 in 24 bits", block.FractionLost, block.TotalLost)
	}

	w.p.SSRC = 5
	w.audio(1)
	if block, _ = w.in.report(w.now); block != (rtcp.ReceptionReport{SSRC: 5, LastSequenceNumber: uint32(w.p.SequenceNumber)}) {
		t.Errorf("of a new source %+v", block)
	}
}

func BenchmarkInboundPacket(b *testing.B) {
	w := newWire()
	b.ReportAllocs()
	for b.Loop() {
		w.after(frameTime)
	}
}
