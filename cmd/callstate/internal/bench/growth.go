package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store/bolt"
)

// GrowthRow is what a log costs when it has a number of events.
type GrowthRow struct {
	Events    uint64  `json:"events"`
	Fill      float64 `json:"fill"`      // events/s, in batches of 4096, since the size before
	Append    float64 `json:"append"`    // events/s, 256 callers that each wait for one
	AppendOne float64 `json:"appendOne"` // us, one caller alone, p50
	NewCall   float64 `json:"newCall"`   // us, a call of about 10 events at the log's end loaded
	OldCall   float64 `json:"oldCall"`   // us, the same at its beginning
	ReadAll   float64 `json:"readAll"`   // events/s
	Inspect   float64 `json:"inspect"`   // events/s, every page of it checked
	Open      float64 `json:"open"`      // ms
	Start     float64 `json:"start"`     // ms, of an engine with a snapshot
	StartFold float64 `json:"startFold"` // ms, without one
	Bytes     float64 `json:"bytes"`     // an event on disk
	Files     int     `json:"files"`
}

// Growth measures one log as it grows through sizes, which are in order.
func Growth(ctx context.Context, o Options, sizes []int, each func(GrowthRow)) error {
	if o.Progress == nil {
		o.Progress = func(string, ...any) {}
	}
	b := &Bench{Options: o}
	load, err := mixed()
	if err != nil {
		return err
	}
	log, dir, done, err := b.logIn()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := log.Close(); err != nil {
		return err
	}
	done()
	for _, n := range sizes {
		o.Progress("measuring a log of %d events", n)
		row, err := b.growTo(ctx, dir, load, n)
		if err != nil {
			return fmt.Errorf("log of %d events: %w", n, err)
		}
		each(row)
	}
	return nil
}

func (b *Bench) growTo(ctx context.Context, dir string, load *eventLoad, n int) (row GrowthRow, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return row, err
	}
	log, err := bolt.Open(dir, nil)
	if err != nil {
		return row, err
	}
	defer func() { log.Close() }()
	many, alone := min(20_000, n/4), min(200, n/50)
	more := n - int(log.Last()) - many - alone
	if alone == 0 || more < 0 {
		return row, fmt.Errorf("want sizes of some hundred events or more, each well above the one before")
	}
	began := time.Now()
	if err := b.fill(ctx, log, load, more); err != nil {
		return row, err
	}
	row.Fill = float64(more) / time.Since(began).Seconds()
	if row.Append, err = appendWaiting(ctx, log, load, many); err != nil {
		return row, err
	}
	if row.AppendOne, err = half(alone, load, func(ev *events.Event, _ []byte) error {
		return log.Append(ctx, &events.Batch{Events: []events.Event{*ev}})
	}); err != nil {
		return row, err
	}
	row.Events = log.Last()
	if row.OldCall, err = callsFrom(ctx, log, 1); err != nil {
		return row, err
	}
	if row.NewCall, err = callsFrom(ctx, log, row.Events-min(row.Events, 8000)+1); err != nil {
		return row, err
	}
	began = time.Now()
	if err := log.Read(ctx, 1, func(*events.Event) error { return nil }); err != nil {
		return row, err
	}
	row.ReadAll = float64(row.Events) / time.Since(began).Seconds()
	if err := log.Close(); err != nil {
		return row, err
	}
	return row, row.rest(ctx, dir)
}

// rest measures what is measured on a closed log.
func (row *GrowthRow) rest(ctx context.Context, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "callstate*.db"))
	if err != nil {
		return err
	}
	for _, name := range files {
		fi, err := os.Stat(name)
		if err != nil {
			return err
		}
		row.Bytes += float64(fi.Size()) / float64(row.Events)
	}
	row.Files = len(files)
	began := time.Now()
	d, err := bolt.Inspect(ctx, dir)
	if err != nil {
		return err
	}
	if !d.Whole() {
		return fmt.Errorf("the log is damaged: %+v", d)
	}
	row.Inspect = float64(row.Events) / time.Since(began).Seconds()
	began = time.Now()
	log, err := bolt.Open(dir, nil)
	if err != nil {
		return err
	}
	row.Open = float64(time.Since(began).Microseconds()) / 1000
	// The engine folds the whole log, and keeps snapshots when it stops.
	if err := errors.Join(log.ForgetSnapshots(), log.Close()); err != nil {
		return err
	}
	if row.StartFold, err = startIn(ctx, dir); err != nil {
		return err
	}
	row.Start, err = startIn(ctx, dir)
	return err
}

func appendWaiting(ctx context.Context, log *bolt.Store, load *eventLoad, n int) (float64, error) {
	evs, err := load.batch(n)
	if err != nil {
		return 0, err
	}
	return callers(n, func(i int) error { return log.Append(ctx, &events.Batch{Events: evs[i : i+1]}) })
}

// callsFrom loads calls that have events from a position on, and returns the
// median time for one of about ten events.
func callsFrom(ctx context.Context, log *bolt.Store, from uint64) (float64, error) {
	var keys []events.CallKey
	seen := map[events.CallKey]bool{}
	err := log.Read(ctx, from, func(ev *events.Event) error {
		if ev.Position >= from+8000 {
			return errEnough
		}
		if k := ev.Key(); !k.IsZero() && !seen[k] {
			seen[k] = true
			keys = append(keys, k)
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return 0, err
	}
	var took []time.Duration
	for _, k := range keys {
		n := 0
		began := time.Now()
		if err := log.ReadCall(ctx, k, func(*events.Event) error { n++; return nil }); err != nil {
			return 0, err
		}
		if n >= 8 && n <= 12 {
			took = append(took, time.Since(began))
		}
	}
	if len(took) == 0 {
		return 0, fmt.Errorf("no call of about ten events from event %d on", from)
	}
	slices.Sort(took)
	return micros(quantile(took, 0.5)), nil
}

// errEnough ends a reading.
var errEnough = errors.New("enough")
