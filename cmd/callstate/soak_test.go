package main

import (
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/callstate/callstate/adapters/webitel/webiteltest"
)

var (
	soak      = flag.Duration("soak", 2*time.Second, "how long TestSoak goes on at half of what the machine can do")
	soakCalls = flag.Int("soak-calls", 2000, "calls that are up in TestSoak meanwhile, each of an agent of its own")
)

// TestSoak has many calls up at once, finds out how many frames a second the
// machine takes, and makes half as many for a while. Heap, goroutines and files
// stay what they are; the log alone grows, and the stream with it.
//
// The NATS server is in this process: what it keeps of each subject is its own.
func TestSoak(t *testing.T) {
	r := newWitness(t)
	r.serve(t)
	l := newLoaded(t, childConfig{Data: r.data, NATS: r.url, Unlisted: true})
	before := l.stats(t)
	l.callsUp(t, *soakCalls)
	up := l.settle(t)
	each := float64(up.Heap-before.Heap) / float64(up.Live)
	t.Logf("%d calls are up: heap %.1f MiB, %.0f bytes a call and its agent's line", up.Live, mib(up.Heap), each)
	if up.Live < *soakCalls {
		t.Errorf("%d calls are up, want %d", up.Live, *soakCalls)
	}
	if each > 4<<10 {
		t.Errorf("a live call takes %.0f bytes of the heap, want at most 4096", each)
	}

	ceiling := 0.0
	for range 2 {
		ceiling = max(ceiling, l.rate(t))
	}
	s := soaking{l: l, data: r.data}
	s.sample(t)
	s.run(t, ceiling/2, *soak)
	first, last := s.samples[0], s.samples[len(s.samples)-1]
	took := last.at.Sub(first.at)
	t.Logf("ceiling %.0f frames/s; %s at half of it, %d frames, %.0f a second, %d events; %s given up:\n%s",
		ceiling, took.Round(time.Second), last.Frames-first.Frames, float64(last.Frames-first.Frames)/took.Seconds(), last.Position-first.Position, s.behind.Round(time.Second), &s)
	s.check(t, ceiling/2)
	if st := l.stats(t); st.Live < *soakCalls {
		t.Errorf("%d calls are still up, want %d", st.Live, *soakCalls)
	}
	l.stop(t)
	if r.verify(t) {
		t.Error("the log is ahead after a clean stop")
	}
}

// callsUp makes calls that stay up, each of an agent of its own.
func (l *loaded) callsUp(t *testing.T, calls int) {
	t.Helper()
	sc, err := webiteltest.Recorded("02-incoming-answered")
	if err != nil {
		t.Fatal(err)
	}
	var buffer []byte
	for begun := 0; begun < calls; {
		n := min(400, calls-begun)
		frames, err := l.pbx.Render(webiteltest.LoadOptions{
			Scenarios: []*webiteltest.Scenario{sc}, Agents: webiteltest.Numbers(200_000+begun, n), Domain: demoDomain,
			AtOnce: n, Calls: n, Until: "CHANNEL_HANGUP", Buffer: buffer,
		})
		if err != nil {
			t.Fatal(err)
		}
		buffer = frames.Buffer()
		if err := l.pbx.Send(watcherLogin, frames, 0, frames.Len(), nil); err != nil {
			t.Fatal(err)
		}
		begun += n
		l.sent += uint64(frames.Len())
	}
	l.until(t, "all calls are up", func(st childStats) bool { return st.Live >= calls })
}

// rate is how many frames a second are taken, stored and published.
func (l *loaded) rate(t *testing.T) float64 {
	t.Helper()
	frames := l.render(t, 6000)
	began := time.Now()
	if err := l.pbx.Send(watcherLogin, frames, 0, frames.Len(), nil); err != nil {
		t.Fatal(err)
	}
	l.sent += uint64(frames.Len())
	l.until(t, "the load is published", func(st childStats) bool { return st.Confirmed >= st.Position && st.Frames >= l.sent })
	return float64(frames.Len()) / time.Since(began).Seconds()
}

// soaking is a load at a steady pace, and what was seen meanwhile.
type soaking struct {
	l       *loaded
	data    string
	samples []soakSample
	behind  time.Duration // of the pace, given up
}

type soakSample struct {
	childStats
	at                time.Time
	log, other        int64 // bytes on disk of the log with its snapshots, and of what else is in the folder
	logFiles, otherNo int
}

func (s *soaking) run(t *testing.T, perSecond float64, d time.Duration) {
	t.Helper()
	const pieces = 20 // a second
	began, due := time.Now(), time.Now()
	sampled := began
	for time.Since(began) < d {
		frames := s.l.render(t, 6000)
		for from := 0; from < frames.Len(); {
			to := min(frames.Len(), from+max(1, int(perSecond/pieces)))
			time.Sleep(time.Until(due))
			if err := s.l.pbx.Send(watcherLogin, frames, from, to, nil); err != nil {
				t.Fatal(err)
			}
			due = due.Add(time.Duration(float64(to-from) / perSecond * float64(time.Second)))
			from = to
		}
		if behind := time.Since(due); behind > 5*time.Second { // others want the machine as well
			s.behind += behind
			due = time.Now()
		}
		s.l.sent += uint64(frames.Len())
		if time.Since(sampled) > max(d/20, time.Second/2) {
			s.sample(t)
			sampled = time.Now()
		}
	}
	s.l.until(t, "all is published", func(st childStats) bool { return st.Confirmed >= st.Position && st.Frames >= s.l.sent })
	s.sample(t)
}

func (s *soaking) sample(t *testing.T) {
	t.Helper()
	x := soakSample{childStats: s.l.stats(t), at: time.Now()}
	all, files := diskUse(t, s.data)
	logs, err := filepath.Glob(filepath.Join(s.data, "callstate*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range logs {
		n, _ := diskUse(t, name)
		x.log += n
	}
	x.logFiles, x.other, x.otherNo = len(logs), all-x.log, files-len(logs)
	s.samples = append(s.samples, x)
}

// legsForget is how long the engine remembers what has ended, and a little more.
const legsForget = 75 * time.Second

// check holds the second half to the first, once what is forgotten keeps pace with
// what ends; before, the frames of a minute may add to the heap.
func (s *soaking) check(t *testing.T, perSecond float64) {
	t.Helper()
	seconds := s.samples[len(s.samples)-1].at.Sub(s.samples[0].at)
	heap := int64(8<<20) + int64(128*perSecond*min(seconds, legsForget).Seconds())
	if seconds > 2*legsForget {
		heap = 16 << 20
		for s.samples[1].at.Sub(s.samples[0].at) < legsForget {
			s.samples = slices.Delete(s.samples, 1, 2)
		}
		s.samples = s.samples[1:]
	}
	half := max(1, len(s.samples)/2)
	most := func(of func(*soakSample) int64, in []soakSample) int64 {
		m := int64(0)
		for i := range in {
			m = max(m, of(&in[i]))
		}
		return m
	}
	// While a snapshot is made the heap is larger for a moment.
	middle := func(of func(*soakSample) int64, in []soakSample) int64 {
		if len(in) == 0 {
			return 0
		}
		all := make([]int64, len(in))
		for i := range in {
			all[i] = of(&in[i])
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	for _, c := range []struct {
		what  string
		of    func(*soakSample) int64
		in    func(of func(*soakSample) int64, in []soakSample) int64
		slack int64
	}{
		{"heap", func(x *soakSample) int64 { return int64(x.Heap) }, middle, heap},
		{"goroutines", func(x *soakSample) int64 { return int64(x.Goroutines) }, most, 8},
		{"descriptors beside those of the log", func(x *soakSample) int64 { return int64(x.Files - x.logFiles) }, most, 4},
		{"files beside those of the log", func(x *soakSample) int64 { return int64(x.otherNo) }, most, 2},
	} {
		first, second := c.in(c.of, s.samples[:half]), c.in(c.of, s.samples[half:])
		if second > first+first/10+c.slack {
			t.Errorf("%s: %d in the first half, %d in the second", c.what, first, second)
		}
	}
}

func (s *soaking) String() string {
	var b strings.Builder
	for x := range slices.Values(s.samples) {
		fmt.Fprintf(&b, "%6.0fs  position %d  live %d  heap %.1f MiB  goroutines %d  descriptors %d  log %.1f MiB in %d files  beside it %.1f MiB in %d\n",
			x.at.Sub(s.samples[0].at).Seconds(), x.Position, x.Live, mib(x.Heap), x.Goroutines, x.Files,
			mib(uint64(x.log)), x.logFiles, mib(uint64(x.other)), x.otherNo)
	}
	return b.String()
}
