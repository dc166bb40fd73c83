package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/callstate/callstate/events"
)

// outbox takes the results of the fold to the bus: at least once, in order of
// position, with message ids that stay the same.
//
// It keeps a bounded number of results in memory. When the bus is away or slow
// for longer than that, it lets go of them, since the log has what they follow
// from: it reads the log anew from where the bus confirmed, folds it, and goes on
// from there. A start after a crash is the same. So memory stays bounded, ingest
// never waits for the bus, and nothing is skipped (I5).
type outbox struct {
	log    Log
	bus    Bus
	name   string // of the checkpoint
	logger *slog.Logger

	confirmed atomic.Uint64
	noting    sync.Mutex // guards the writing of the checkpoint

	mu       sync.Mutex // guards what follows
	wake     *sync.Cond
	queue    []Result
	messages int
	behind   bool   // the queue was let go; the log is read instead
	last     uint64 // position of the last result pushed
	finished bool
}

// maxQueued is how many messages wait in memory for the bus: some 50 MB at the most.
const maxQueued = 16384

func newOutbox(log Log, bus Bus, name string, logger *slog.Logger) *outbox {
	o := &outbox{log: log, bus: bus, name: name, logger: logger}
	o.wake = sync.NewCond(&o.mu)
	return o
}

// begin says how far the log reached at the start. What the bus has not
// confirmed of it is read from the log.
func (o *outbox) begin(last uint64) error {
	checkpoint, err := o.log.Checkpoint(o.name)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.confirmed.Store(min(checkpoint, last))
	o.last, o.behind = last, checkpoint < last
	return nil
}

// push adds results. It never waits.
func (o *outbox) push(rs []Result) {
	if len(rs) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = rs[len(rs)-1].Position
	if !o.behind && o.bus != nil {
		for i := range rs {
			o.messages += len(rs[i].Messages)
		}
		o.queue = append(o.queue, rs...)
		if o.messages > maxQueued {
			o.logger.Warn("bus is behind, the log will be read instead", "position", o.last)
			o.letGo()
		}
	}
	o.wake.Signal()
}

func (o *outbox) letGo() { o.queue, o.messages, o.behind = nil, 0, true }

// finish says that no more will be pushed.
func (o *outbox) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.finished = true
	o.wake.Signal()
}

// run publishes until it is finished. When ctx is done it has drain left to
// publish what is there.
func (o *outbox) run(ctx, fatal context.Context, drain time.Duration) error {
	if o.bus == nil {
		return nil
	}
	pctx, cancel := context.WithCancelCause(fatal)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(drain, func() { cancel(errDrained) })
	})
	defer stop()
	var noting sync.WaitGroup
	defer noting.Wait()
	done := make(chan struct{})
	defer close(done)
	noting.Go(func() { o.keepNoting(done) })
	for {
		rs, behind, more := o.next()
		if !more {
			break
		}
		var err error
		if behind {
			err = o.catchUp(pctx)
		} else {
			err = o.bus.Publish(pctx, rs)
		}
		if err == nil {
			continue
		}
		if pctx.Err() != nil {
			o.logger.Warn("stopped before the bus had everything, the rest is published at the next start", "confirmed", o.confirmed.Load())
			return nil
		}
		o.logger.Warn("bus is away, events are still recorded", "err", err)
		o.mu.Lock()
		o.letGo()
		o.mu.Unlock()
		if err := o.bus.Ready(pctx); err != nil {
			return nil //nolint:nilerr // only a stop ends the waiting, and a stop is no error
		}
		o.logger.Info("bus is back")
	}
	if err := o.bus.Flush(pctx); err != nil && !errors.Is(err, errDrained) {
		o.logger.Warn("not everything was confirmed by the bus", "err", err)
	}
	o.note()
	return nil
}

var errDrained = errors.New("engine: no time left to publish")

// next waits for work: results, or the news that the log must be read.
func (o *outbox) next() (rs []Result, behind, more bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.queue) == 0 && !o.behind && !o.finished {
		o.wake.Wait()
	}
	if o.behind {
		return nil, true, true
	}
	rs, o.queue, o.messages = o.queue, nil, 0
	return rs, false, len(rs) > 0
}

// noteEvery is how often the checkpoint is written. The bus confirms after
// Publish has returned; a checkpoint that lags costs repeats after a crash.
const noteEvery = 100 * time.Millisecond

// keepNoting writes the checkpoint while run runs.
func (o *outbox) keepNoting(done <-chan struct{}) {
	t := time.NewTicker(noteEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			o.note()
		case <-done:
			return
		}
	}
}

// note writes the checkpoint: how far the bus has confirmed.
func (o *outbox) note() {
	o.noting.Lock()
	defer o.noting.Unlock()
	p := o.bus.Confirmed()
	if p <= o.confirmed.Load() {
		return
	}
	o.confirmed.Store(p)
	if err := o.log.SetCheckpoint(o.name, p); err != nil {
		o.logger.Warn("checkpoint not written, more than necessary will be published again after a crash", "err", err)
	}
}

// catchUp folds the log from its start, publishes what the bus has not
// confirmed, and goes on until it meets the queue.
func (o *outbox) catchUp(ctx context.Context) error {
	from := max(o.confirmed.Load(), o.bus.Confirmed())
	p := NewProjection(o.log.ID())
	p.mute = from
	at := uint64(0)
	o.logger.Info("publishing from the log", "after", from)
	for {
		var rs []Result
		flush := func() error {
			if len(rs) == 0 {
				return nil
			}
			err := o.bus.Publish(ctx, rs)
			rs = nil
			return err
		}
		err := o.log.Read(ctx, at+1, func(ev *events.Event) error {
			at = ev.Position
			if r := p.Apply(ev); at > from {
				rs = append(rs, r)
			}
			if len(rs) >= 512 {
				return flush()
			}
			return nil
		})
		if err == nil {
			err = flush()
		}
		if err != nil {
			return err
		}
		o.mu.Lock()
		met := at >= o.last
		if met {
			o.behind = false
		}
		o.mu.Unlock()
		if met {
			return nil
		}
	}
}
