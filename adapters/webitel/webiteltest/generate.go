package webiteltest

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/callstate/callstate/testdata/captures"
)

// recording returns the events of a FreeSWITCH capture.
func recording(name string) ([][]byte, error) {
	return captures.Lines("freeswitch/" + name + ".jsonl")
}

// Recorded returns the scenario of a FreeSWITCH capture by its name, such as
// "02-incoming-answered".
func Recorded(name string) (*Scenario, error) {
	lines, err := recording(name)
	if err != nil {
		return nil, fmt.Errorf("webiteltest: %w", err)
	}
	return ParseScenario(name, lines)
}

// mix is what the generator plays unless told otherwise, in turn.
var mix = []string{
	"02-incoming-answered", "01-outgoing-hold-unhold", "03-incoming-caller-cancels", "05-dtmf",
	"04-incoming-busy", "06-blind-transfer", "10-callback-originate", "15-ring-group", "07-attended-transfer-webitel",
}

// Mix returns the scenarios that the generator plays unless told otherwise: calls
// in and out, held, missed, busy, with digits, transferred blindly and after a
// consultation, clicked, and offered to a group.
var Mix = sync.OnceValues(func() ([]*Scenario, error) {
	var out []*Scenario
	for _, name := range mix {
		sc, err := Recorded(name)
		if err != nil {
			return nil, err
		}
		out = append(out, sc)
	}
	return out, nil
})

// GenerateOptions says which calls are made.
type GenerateOptions struct {
	Scenarios []*Scenario // played in turn; default [Mix]
	Agents    []string    // numbers that take the calls, one call at a time each
	Domain    string      // of the agents; empty keeps the scenario's
	Rate      float64     // calls that begin each second; 0: whenever agents are free
	Calls     int         // how many; 0: until ctx ends
	Speed     float64     // as in PlayOptions
	Seed      uint64      // as in PlayOptions; each call gets one of its own
}

// Generate makes calls until there are enough or ctx ends, lets those that began
// run to their end, and returns what was sent for them.
func (s *Server) Generate(ctx context.Context, opts GenerateOptions) (Counts, error) {
	scenarios := opts.Scenarios
	if scenarios == nil {
		var err error
		if scenarios, err = Mix(); err != nil {
			return Counts{}, err
		}
	}
	for _, sc := range scenarios {
		if len(sc.Agents) > len(opts.Agents) {
			return Counts{}, fmt.Errorf("webiteltest: %s needs %d agents", sc.Name, len(sc.Agents))
		}
	}
	free := make(chan string, len(opts.Agents)) // room for all: giving back never waits
	for _, a := range opts.Agents {
		free <- a
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards total and first
		total Counts
		first error
	)
	defer wg.Wait()
	start := time.Now()
	for i := 0; opts.Calls == 0 || i < opts.Calls; i++ {
		if opts.Rate > 0 {
			if s.sleep(ctx, time.Until(start.Add(time.Duration(float64(i)/opts.Rate*float64(time.Second))))) != nil {
				break
			}
		}
		sc := scenarios[i%len(scenarios)]
		numbers, ok := s.cast(ctx, sc, free, i)
		if !ok {
			break
		}
		play := PlayOptions{Speed: opts.Speed, Domain: opts.Domain, Numbers: numbers}
		if opts.Seed != 0 {
			play.Seed = opts.Seed + uint64(i)
		}
		wg.Go(func() {
			counts, err := s.Play(context.WithoutCancel(ctx), sc, play)
			for _, a := range sc.Agents {
				free <- numbers[a]
			}
			mu.Lock()
			defer mu.Unlock()
			if total.add(counts); first == nil {
				first = err
			}
		})
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	return total, first
}

// cast gives every part of a scenario a number: a free agent, or an outside
// number of this call's own.
func (s *Server) cast(ctx context.Context, sc *Scenario, free chan string, call int) (map[string]string, bool) {
	numbers := make(map[string]string)
	for _, part := range sc.Agents {
		select {
		case a := <-free:
			numbers[part] = a
		case <-ctx.Done():
			return nil, false
		case <-s.done:
			return nil, false
		}
	}
	maps.Copy(numbers, sc.outside(call))
	return numbers, true
}

// outside gives the outside party a number of this call's own. In the recordings
// it is 380671112233, dialled with and without a leading zero; numbers that are
// dialled in stay.
func (sc *Scenario) outside(call int) map[string]string {
	const party = "1112233"
	numbers := make(map[string]string)
	tail := fmt.Sprintf("%07d", (1_000_000+call*7919)%10_000_000)
	for _, n := range sc.Outside {
		if head, ok := strings.CutSuffix(n, party); ok {
			numbers[n] = head + tail
		}
	}
	return numbers
}

// Numbers are n consecutive account numbers.
func Numbers(first, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = strconv.Itoa(first + i)
	}
	return out
}
