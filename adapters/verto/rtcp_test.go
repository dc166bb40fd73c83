package verto

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/rtcp"
)

// The example of RFC 3550, figure 2: n sent at b44d:b705:2000, received and
// answered 5.25 s later, back at 46864.500.
func TestRoundTrip(t *testing.T) {
	began := time.Unix(0xb44db705-2_208_988_800, 125_000_000)
	r := &reports{began: began}
	if got, want := r.ntp(began), uint64(0xb44d_b705_2000_0000); got != want {
		t.Fatalf("NTP %#x, want %#x", got, want)
	}
	back := r.ntp(began.Add(11*time.Second + 375*time.Millisecond))
	if got, want := ntpMiddle(back), uint32(0xb710_8000); got != want {
		t.Fatalf("NTP %#x, want %#x", got, want)
	}
	for _, tt := range []struct {
		name      string
		lsr, dlsr uint32
		want      time.Duration
		ok        bool
	}{
		{"the example", 0xb705_2000, 0x0005_4000, 6125 * time.Millisecond, true},
		{"answers nothing", 0, 0x0005_4000, 0, false},
		{"at once", 0xb710_8000, 0, 0, false},
		{"kept for longer than it was away", 0xb705_2000, 0x000c_0000, 0, false},
	} {
		got, ok := roundTrip(back, &rtcp.ReceptionReport{LastSenderReport: tt.lsr, Delay: tt.dlsr})
		if ok != tt.ok || ok && got != tt.want {
			t.Errorf("%s: %v, %t", tt.name, got, ok)
		}
	}
}

// written keeps what is written.
type written struct{ packets []rtcp.Packet }

func (w *written) WriteRTCP(packets []rtcp.Packet) error {
	w.packets = append(w.packets, packets...)
	return nil
}

// sent is what was sent so far.
type sent outboundFigures

func (s *sent) figures() outboundFigures { return outboundFigures(*s) }

func TestReports(t *testing.T) {
	w := newWire()
	out, pc := &sent{ssrc: 7, rate: 8000}, new(written)
	r := newReports(w.now, pc, "call", &w.in, out)
	if packets := r.report(w.now); packets != nil {
		t.Fatalf("of nothing, %v", packets)
	}
	name := &rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{{
		Source: 7, Items: []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: "call"}},
	}}}
	w.audio(2)
	block := rtcp.ReceptionReport{SSRC: 1, LastSequenceNumber: 65_502}
	if d := cmp.Diff([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 7, Reports: []rtcp.ReceptionReport{block}}, name}, r.report(w.now)); d != "" {
		t.Error("before we send:", d)
	}

	out.packets, out.bytes, out.timestamp, out.at = 3, 480, 1000, w.now
	sr := &rtcp.SenderReport{SSRC: 7, NTPTime: r.ntp(w.now.Add(10 * time.Millisecond)), RTPTime: 1080, PacketCount: 3, OctetCount: 480}
	if d := cmp.Diff([]rtcp.Packet{sr, name}, r.report(w.now.Add(10*time.Millisecond))); d != "" {
		t.Error("while nothing comes:", d)
	}
	w.audio(1)
	sr.NTPTime, sr.RTPTime, block.LastSequenceNumber = r.ntp(w.now), 1160, 65_503
	sr.Reports = []rtcp.ReceptionReport{block}
	got := r.report(w.now)
	if d := cmp.Diff([]rtcp.Packet{sr, name}, got); d != "" {
		t.Error("both ways:", d)
	}
	if _, err := rtcp.Marshal(got); err != nil {
		t.Error(err)
	}
}

func TestReportsOfTheFarEnd(t *testing.T) {
	began := time.Now()
	r := newReports(began, new(written), "call", new(inbound), &sent{ssrc: 7, rate: 8000, packets: 100})
	now := began.Add(time.Minute)
	block := rtcp.ReceptionReport{
		SSRC: 7, FractionLost: 64, TotalLost: 12, Jitter: 40,
		LastSenderReport: ntpMiddle(r.ntp(began.Add(58 * time.Second))), Delay: 3 << 15,
	}
	r.ofOurs(now, &rtcp.ReceiverReport{SSRC: 9, Reports: []rtcp.ReceptionReport{{SSRC: 8, TotalLost: 1}, block}})
	want := farFigures{roundTrip: 500 * time.Millisecond, lost: 12, fraction: 0.25, jitter: 5 * time.Millisecond}
	if got := r.figures(); got.roundTrip.Round(time.Millisecond) != want.roundTrip || got.lost != want.lost || got.fraction != want.fraction || got.jitter != want.jitter {
		t.Errorf("%+v, want %+v", got, want)
	}
	before := r.figures().roundTrip
	block.TotalLost, block.FractionLost, block.LastSenderReport = 1<<24-2, 0, 0
	r.ofOurs(now, &rtcp.SenderReport{SSRC: 9, Reports: []rtcp.ReceptionReport{block}})
	if got := r.figures(); got.lost != -2 || got.fraction != 0 || got.roundTrip != before {
		t.Errorf("of a report that answers none: %+v", got)
	}
}

// RFC 3550, 6.2 and A.7: five seconds less the compensation, give or take a half.
func TestReportsAreSentNowAndThen(t *testing.T) {
	pc := new(written)
	r := newReports(time.Now(), pc, "call", new(inbound), &sent{packets: 1})
	var gaps []int
	for last, frame := 0, 1; len(gaps) < 1000; frame++ {
		before := len(pc.packets)
		r.tick(1, 0)
		if len(pc.packets) > before {
			gaps = append(gaps, frame-last)
			last = frame
		}
	}
	const least, most = 102, 308 // frames: 5 s * 0.5 / 1.21828 and * 1.5
	if gaps[0] < least/2 || gaps[0] > most/2 {
		t.Errorf("the first after %d frames", gaps[0])
	}
	if gaps = gaps[1:]; slices.Min(gaps) < least || slices.Max(gaps) > most || slices.Max(gaps)-slices.Min(gaps) < (most-least)/2 {
		t.Errorf("after %d to %d frames", slices.Min(gaps), slices.Max(gaps))
	}
	before := len(pc.packets)
	r.tick(1, most) // a machine that slept
	if len(pc.packets) == before {
		t.Error("skipped frames are no time")
	}
}

// quietly is told nothing that a test asks for.
type quietly struct{}

func (quietly) transportState(string, string) {}
func (quietly) digit(byte, time.Duration)     {}

// Two peers tell each other how they hear each other.
func TestReportsBetweenPeers(t *testing.T) {
	t.Parallel()
	m := loopbackMedia(t) // whose pacer does not run
	var peers [2]*peer
	for i := range peers {
		p, err := newPeer(m, newOutTrack([]string{"a", "b"}[i], nil, false), quietly{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		peers[i] = p
	}
	a, b := peers[0], peers[1]
	offer, err := a.offer(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := b.answer(t.Context(), offer)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.accept(answer); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(frameTime) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v, %+v", a.stats(), b.stats())
		}
		for _, p := range peers {
			p.out.tick(1, 0)
			p.reports.tick(p.reports.left, 0)
		}
		if a.reports.figures().roundTrip > 0 && b.reports.figures().roundTrip > 0 && a.stats().PacketsReceived > 10 {
			break
		}
	}
	for _, p := range peers {
		if s := p.stats(); s.RoundTripMs > 5000 || s.PacketsLost != 0 || s.BytesReceived < s.PacketsReceived || s.PacketsSent < 10 {
			t.Errorf("%+v", s)
		}
	}
}
