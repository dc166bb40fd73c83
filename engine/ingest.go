package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/callstate/callstate/events"
)

const (
	// tickEvery is how often correlation lets time pass, totals are stored when
	// nothing else is, and quarantined frames are spoken of.
	tickEvery = time.Second
	// maxBatch and maxBatchBytes bound what gathers while an append is under way:
	// events, and the frames that they come from. When they are reached, frames wait.
	maxBatch      = 4096
	maxBatchBytes = 16 << 20 // the log takes 64 MB at once, and what a frame says may be in several events
	// takenAtOnce is how many frames are taken before the batch is offered again.
	takenAtOnce = 64
)

// ingest correlates: the one owner of the correlator. While a batch is being
// synced the next one gathers, so that the batches are as large as the load
// makes them and a lone frame waits for nobody.
func (e *Engine) ingest(ctx, fatal context.Context, batches chan<- *events.Batch) error {
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	k := e.correlator
	g := gathering{batch: &events.Batch{}}
	var counted events.FrameCounts
	quarantined := map[string]uint64{}
	handed := e.appended.Load() // position of the last event that append has or had
	ticked := handed            // of the last one emitted by the last tick

	take := func(in *Input) error {
		e.leave(in)
		evs, err := k.observe(in)
		if !k.waits {
			in.Leg.recycle()
		}
		g.add(in, evs)
		if in.Quarantine != nil {
			quarantined[in.Quarantine.Reason]++
		}
		// Totals alone are not worth a sync of their own: most frames are no facts.
		if !g.batch.Empty() {
			g.batch.Frames = k.frames
		}
		return err
	}
	for {
		out := batches
		if g.batch.Empty() {
			out = nil
		}
		in := e.inbox
		if g.full() {
			in = nil
		}
		select {
		case x := <-in:
			err := take(&x)
			// Some of what waits behind it is taken at once: nobody else takes it.
			for n := min(len(in), takenAtOnce); n > 0 && err == nil && !g.full(); n-- {
				x = <-in
				err = take(&x)
			}
			if err != nil {
				return err
			}
		case out <- g.batch:
			counted = g.batch.Frames
			handed += uint64(len(g.batch.Events))
			g.next()
		case <-ticker.C:
			k.unstored = e.appended.Load() < ticked
			evs, err := k.tick(events.At(e.cfg.Now()))
			if err != nil {
				return err
			}
			g.batch.Events = append(g.batch.Events, evs...)
			ticked = handed + uint64(len(g.batch.Events))
			if k.frames != counted {
				g.batch.Frames = k.frames
			}
			e.report(k.frames, quarantined)
		case <-fatal.Done():
			return nil
		case <-ctx.Done():
			return e.drain(fatal, &g, batches, take, quarantined)
		}
	}
}

// gathering is the batch that gathers.
type gathering struct {
	batch *events.Batch
	bytes int // of the frames in it
}

func (g *gathering) add(in *Input, evs []events.Event) {
	g.batch.Events = append(g.batch.Events, evs...)
	g.bytes += in.Bytes()
	if q := in.Quarantine; q != nil {
		g.batch.Quarantine = append(g.batch.Quarantine, events.Quarantined{
			ReceivedAt: in.ReceivedAt, Source: in.Source, Reason: q.Reason, Detail: q.Detail, Frame: q.Frame,
		})
	}
}

func (g *gathering) full() bool { return len(g.batch.Events) >= maxBatch || g.bytes >= maxBatchBytes }

// next begins a batch, which will be about as large as the last.
func (g *gathering) next() {
	*g = gathering{batch: &events.Batch{Events: make([]events.Event, 0, len(g.batch.Events))}}
}

// drain takes what was submitted before the stop and decides what still waits.
func (e *Engine) drain(fatal context.Context, g *gathering, batches chan<- *events.Batch, take func(*Input) error, quarantined map[string]uint64) error {
	e.refuse()
	send := func() {
		select {
		case batches <- g.batch:
			g.next()
		case <-fatal.Done():
		}
	}
	for more := true; more; {
		select {
		case in := <-e.inbox:
			if err := take(&in); err != nil {
				return err
			}
		default:
			more = false
		}
		if g.full() {
			send()
		}
	}
	evs, err := e.correlator.finish()
	if err != nil {
		return err
	}
	g.batch.Events = append(g.batch.Events, evs...)
	g.batch.Frames = e.correlator.frames
	e.report(g.batch.Frames, quarantined)
	if !g.batch.Empty() {
		send()
	}
	return nil
}

// report says what was quarantined since the last report, one line a reason, and
// makes the counters visible.
func (e *Engine) report(frames events.FrameCounts, quarantined map[string]uint64) {
	e.mu.Lock()
	e.frames = frames
	for reason, n := range quarantined {
		e.reason[reason] += n
	}
	e.mu.Unlock()
	for _, reason := range slices.Sorted(maps.Keys(quarantined)) {
		e.logger.Warn("frames quarantined", "reason", reason, "count", quarantined[reason])
	}
	clear(quarantined)
}

// append makes batches durable. A full disk is waited for: ingest stands still,
// nothing is lost, and the adapters' sockets fill. What is more than the log takes
// at once is stored in parts. Any other error ends the engine, since what is on
// disk is not known any more.
func (e *Engine) append(ctx, fatal context.Context, batches <-chan *events.Batch, stored chan<- []events.Event) error {
	for b := range batches {
		if err := e.appendOne(ctx, fatal, b, stored); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) appendOne(ctx, fatal context.Context, b *events.Batch, stored chan<- []events.Event) error {
	began := time.Now()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := e.log.Append(context.WithoutCancel(ctx), b)
		if err == nil {
			break
		}
		if errors.Is(err, events.ErrBatchTooLarge) && len(b.Events) > 1 {
			first, rest := halves(b)
			if err := e.appendOne(ctx, fatal, first, stored); err != nil {
				return err
			}
			return e.appendOne(ctx, fatal, rest, stored)
		}
		if !errors.Is(err, events.ErrLogFull) || ctx.Err() != nil {
			return fmt.Errorf("append %d events: %w", len(b.Events), err)
		}
		e.logger.Error("log is full, ingest waits for space", "events", len(b.Events), "err", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		case <-fatal.Done():
			return context.Cause(fatal)
		}
	}
	if n := len(b.Events); n > 0 {
		e.appended.Store(b.Events[n-1].Position)
		if e.cfg.Observer != nil {
			e.cfg.Observer.Appended(n, time.Since(began))
		}
		select {
		case stored <- b.Events:
		case <-fatal.Done():
			return context.Cause(fatal)
		}
	}
	return nil
}

// halves are a batch in two parts. The counters are in the second: they hold when
// all of it is stored.
func halves(b *events.Batch) (first, rest *events.Batch) {
	n := len(b.Events) / 2
	return &events.Batch{Events: b.Events[:n]}, &events.Batch{Events: b.Events[n:], Quarantine: b.Quarantine, Frames: b.Frames}
}
