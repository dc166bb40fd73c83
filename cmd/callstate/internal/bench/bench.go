// Package bench measures callstate: each figure beside its limit or its peer in
// the same run, since a machine's own speed moves by a factor of two from one
// minute to the next and only the ratio means something.
//
// The input is captured: recordings of a running FreeSWITCH, played with new ids
// and numbers. Where a figure and its peer both take time they are measured in
// turn, several times, and the pair whose ratio is the median is what counts.
package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/testdata/captures"
)

// Row is one figure.
type Row struct {
	ID        string  `json:"id"` // P1 to P14, P6a and P6b; W1 to W4
	Name      string  `json:"name"`
	Value     float64 `json:"value"`
	Reference float64 `json:"reference"` // the peer's, or what the value may be at most
	Ratio     float64 `json:"ratio"`     // value / reference, or reference / value where less is faster: see Name
	Unit      string  `json:"unit"`      // of value and reference
	Limit     float64 `json:"limit"`     // of the ratio
	AtMost    bool    `json:"atMost"`    // the limit is an upper one
	OK        bool    `json:"ok"`        // the ratio is within the limit
	Alarm     bool    `json:"alarm"`     // the ratio is so far off that no busy machine explains it
	Short     bool    `json:"short"`     // measured on smaller logs
	Note      string  `json:"note,omitempty"`
}

// Daemon is a running callstate, as configured by default but for what
// DaemonOptions says.
type Daemon struct {
	NATS      string // URL of its server
	Prefix    string // of its subjects
	Engine    *engine.Engine
	Settled   <-chan struct{} // closed when it is connected to the PBX
	Confirmed func() uint64   // last position whose messages and views NATS has
	Stop      func() error    // ends it, cleanly
}

// DaemonOptions say what to start.
type DaemonOptions struct {
	Data          string // folder
	PBX           string // URL
	Login, Secret string
	NoStore       bool            // keep the log in memory
	DecodeMap     bool            // decode by encoding/json into a map
	Observer      engine.Observer // of its engine; nil for none
}

// Options say what is measured.
type Options struct {
	Dir      string   // where logs are made; they are removed
	Short    bool     // smaller logs, fewer rounds
	Only     []string // ids; empty means all
	Start    func(context.Context, DaemonOptions) (*Daemon, error)
	Progress func(format string, args ...any) // one line for people, now and then
}

// Bench is one run.
type Bench struct {
	Options
	dirs int
}

// figure measures one or several rows.
type figure struct {
	ids []string
	fn  func(*Bench, context.Context) ([]Row, error)
}

// figures are in the order in which they are measured: what is quick first.
var figures = []figure{
	{[]string{"P9"}, (*Bench).decode},
	{[]string{"P11"}, (*Bench).transition},
	{[]string{"P13"}, (*Bench).size},
	{[]string{"P8"}, (*Bench).loadCall},
	{[]string{"P5"}, (*Bench).appendOne},
	{[]string{"P4"}, (*Bench).appendMany},
	{[]string{"P7"}, (*Bench).replay},
	{[]string{"P12"}, (*Bench).start},
	{[]string{"P10"}, (*Bench).memory},
	{[]string{"P6a", "P6b"}, (*Bench).latency},
	{[]string{"W1", "W2", "W3", "W4"}, (*Bench).sessions},
	{[]string{"P1"}, (*Bench).pathAgainstReading},
	{[]string{"P2"}, (*Bench).pathAgainstNoStore},
	{[]string{"P3"}, (*Bench).pathAgainstMap},
	{[]string{"P14"}, (*Bench).pathStalled},
}

// IDs are those of all figures, in the order of their numbers.
func IDs() []string {
	var ids []string
	for _, f := range figures {
		ids = append(ids, f.ids...)
	}
	slices.SortFunc(ids, func(a, b string) int { return number(a) - number(b) })
	return ids
}

// number orders P2 before P10, P6a before P6b, and P before W.
func number(id string) int {
	var kind, letter rune
	var n int
	_, _ = fmt.Sscanf(id, "%c%d%c", &kind, &n, &letter) // an id without a letter has none
	return (int(kind)*256+n)*256 + int(letter)
}

// Run measures and gives each row when it is there.
func Run(ctx context.Context, o Options, each func(Row)) error {
	if o.Progress == nil {
		o.Progress = func(string, ...any) {}
	}
	b := &Bench{Options: o}
	for _, f := range figures {
		if !b.wanted(f.ids) {
			continue
		}
		runtime.GC() // what the last figure left is not this one's
		began := time.Now()
		o.Progress("measuring %s", strings.Join(f.ids, ", "))
		rows, err := f.fn(b, ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", strings.Join(f.ids, ", "), err)
		}
		o.Progress("%s took %.1fs", strings.Join(f.ids, ", "), time.Since(began).Seconds())
		for _, r := range rows {
			r.Short = o.Short
			r.OK = r.within(r.Limit)
			if far, ok := alarms[r.ID]; ok {
				r.Alarm = !r.within(far)
			}
			each(r)
		}
	}
	return nil
}

// alarms are ratios that no machine is too busy for: a figure beyond its own says
// that something broke. Figures that hang on the disk, or on who else wants the
// processors, have none.
var alarms = map[string]float64{"P3": 1.5, "P7": 3, "P9": 5, "P10": 20, "P11": 4, "P13": 0.6, "W2": 1.3, "W3": 1.3, "W4": 1.6}

func (r *Row) within(limit float64) bool {
	if r.AtMost {
		return r.Ratio <= limit
	}
	return r.Ratio >= limit
}

func (b *Bench) wanted(ids []string) bool {
	if len(b.Only) == 0 {
		return true
	}
	return slices.ContainsFunc(ids, func(id string) bool {
		return slices.ContainsFunc(b.Only, func(only string) bool {
			return strings.EqualFold(only, id) || strings.EqualFold(only, strings.TrimRight(id, "ab"))
		})
	})
}

// pick is short's value for a short run, full's otherwise.
func pick[T any](b *Bench, short, full T) T {
	if b.Short {
		return short
	}
	return full
}

// tempDir makes a folder that the caller removes.
func (b *Bench) tempDir() (string, error) {
	b.dirs++
	dir := filepath.Join(b.Dir, fmt.Sprint("bench-", b.dirs))
	return dir, os.MkdirAll(dir, 0o750)
}

// pair is a figure and its peer, measured one after the other.
type pair struct{ value, reference, ratio float64 }

// median is the pair whose ratio is in the middle.
func median(ps []pair) pair {
	slices.SortFunc(ps, func(a, b pair) int {
		switch {
		case a.ratio < b.ratio:
			return -1
		case a.ratio > b.ratio:
			return 1
		}
		return 0
	})
	return ps[len(ps)/2]
}

// rounds measures value and peer in turn. Each returns its figure; the ratio is
// ours/theirs, and with inverse theirs/ours.
func rounds(ctx context.Context, n int, inverse bool, ours, theirs func() (float64, error)) (pair, error) {
	var ps []pair
	for range n {
		if err := ctx.Err(); err != nil {
			return pair{}, err
		}
		v, err := ours()
		if err != nil {
			return pair{}, err
		}
		r, err := theirs()
		if err != nil {
			return pair{}, err
		}
		p := pair{v, r, v / r}
		if inverse {
			p.ratio = r / v
		}
		ps = append(ps, p)
	}
	return median(ps), nil
}

func (p pair) row(id, name, unit string, limit float64, atMost bool, note string) []Row {
	return []Row{{
		ID: id, Name: name, Value: p.value, Reference: p.reference, Ratio: p.ratio,
		Unit: unit, Limit: limit, AtMost: atMost, Note: note,
	}}
}

// quantile is that of sorted durations.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// capturedFrames returns every frame of every recording, as a client gets it.
func capturedFrames() ([][]byte, error) {
	var out [][]byte
	for _, glob := range []string{"freeswitch/*.jsonl", "freeswitch/webitel-view/*.jsonl", "webitel-v3/*.jsonl"} {
		names, err := captures.List(glob)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if strings.Contains(name, "verto-frames") {
				continue // JSON-RPC of mod_verto
			}
			read := captures.Lines
			if strings.HasPrefix(name, "webitel-v3/") {
				read = captures.ServerFrames
			}
			frames, err := read(name)
			if err != nil {
				return nil, err
			}
			out = append(out, frames...)
		}
	}
	return out, nil
}
