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
// from: it asks the bus from where to go on, reads the log anew, folds it, and
// publishes from there. A start is the same. So memory stays bounded, ingest
// never waits for the bus, and nothing is skipped (I5).
type outbox struct {
	log    Log
	bus    Bus
	name   string // of the checkpoint
	logger *slog.Logger

	confirmed atomic.Uint64
	sent      atomic.Uint64 // last position that the bus took over
	patience  time.Duration // with a bus that confirms nothing

	noting  sync.Mutex // guards the writing of the checkpoint, and what follows
	resumed bool       // the bus said from where; until then its Confirmed says nothing
	moved   time.Time  // when something was confirmed last, or nothing was owed

	mu       sync.Mutex // guards what follows
	wake     *sync.Cond
	queue    []Result
	weight   int    // of the queue
	behind   bool   // the queue was let go; the log is read instead
	lost     bool   // the bus must say from where before anything is published
	last     uint64 // position of the last result pushed
	finished bool
}

// confirmPatience is how long the bus may confirm nothing of what it took over. It
// waits for its server a shorter time, and then sends again by itself.
const confirmPatience = time.Minute

// maxQueued is the weight of what waits in memory for the bus: 16,384 messages, some
// 50 MB at the most.
const maxQueued = 4 * 16384

// weight is one a result, four a message, and four more for each 3 KB of it.
func weight(rs []Result) int {
	n := len(rs)
	for i := range rs {
		for j := range rs[i].Messages {
			n += 4 + 4*(len(rs[i].Messages[j].Payload)/(3<<10))
		}
	}
	return n
}

func newOutbox(log Log, bus Bus, name string, logger *slog.Logger) *outbox {
	o := &outbox{log: log, bus: bus, name: name, logger: logger, lost: true, patience: confirmPatience}
	o.wake = sync.NewCond(&o.mu)
	return o
}

// begin says how far the log reached at the start, and gives the results of its
// end: a bus that lacks no more than those is served without reading the log anew.
func (o *outbox) begin(last uint64, recent []Result) error {
	checkpoint, err := o.log.Checkpoint(o.name)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.confirmed.Store(min(checkpoint, last))
	o.last = last
	if o.bus == nil {
		return nil
	}
	o.queue, o.weight = recent, weight(recent)
	if len(recent) == 0 && checkpoint < last || o.weight > maxQueued {
		o.letGoLocked()
	}
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
		o.queue = append(o.queue, rs...)
		if o.weight += weight(rs); o.weight > maxQueued {
			o.logger.Warn("bus is behind, the log will be read instead", "position", o.last)
			o.letGoLocked()
		}
	}
	o.wake.Signal()
}

func (o *outbox) letGoLocked() { o.queue, o.weight, o.behind = nil, 0, true }

// finish says that no more will be pushed.
func (o *outbox) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.finished = true
	o.wake.Signal()
}

// run publishes until it is finished. When ctx is done it has drain left to
// publish what is there. Its error is the log's.
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
		task, rs := o.next()
		var err error
		switch task {
		case taskResume:
			if err = o.resume(pctx); err != nil && pctx.Err() == nil {
				// Only a bus that is closed for good gives up waiting.
				o.logger.Error("nothing is published any more, events are still recorded", "err", err)
				return nil
			}
		case taskRead:
			err = o.catchUp(pctx)
		case taskPublish:
			err = o.publish(pctx, rs)
		case taskNone:
			o.end(pctx)
			return nil
		}
		var away *busError
		switch {
		case err == nil:
		case pctx.Err() != nil:
			o.logger.Warn("stopped before the bus had everything, the rest is published at the next start", "confirmed", o.confirmed.Load())
			return nil
		case errors.As(err, &away):
			o.logger.Warn("bus is away, events are still recorded", "err", err)
			o.lose()
		default:
			return fmt.Errorf("publish from the log: %w", err)
		}
	}
}

// end waits for the last confirmations.
func (o *outbox) end(ctx context.Context) {
	o.noting.Lock()
	resumed := o.resumed
	o.noting.Unlock()
	if !resumed {
		return
	}
	if err := o.bus.Flush(ctx); err != nil && !errors.Is(err, errDrained) {
		o.logger.Warn("not everything was confirmed by the bus", "err", err)
	}
	o.note()
}

// busError is an error of the bus and not of the log.
type busError struct{ err error }

func (e *busError) Error() string { return e.err.Error() }

func (e *busError) Unwrap() error { return e.err }

// publish hands results to the bus, but for those that it has taken over: where
// the log was read it was ahead of the fold, whose results come afterwards.
func (o *outbox) publish(ctx context.Context, rs []Result) error {
	for len(rs) > 0 && rs[0].Position <= o.sent.Load() {
		rs = rs[1:]
	}
	if len(rs) == 0 {
		return nil
	}
	if err := o.bus.Publish(ctx, rs); err != nil {
		return &busError{err}
	}
	o.sent.Store(rs[len(rs)-1].Position)
	return nil
}

// task is what run does next.
type task uint8

const (
	taskNone    task = iota // the end
	taskResume              // ask the bus from where
	taskRead                // publish from the log
	taskPublish             // publish results
)

// next waits for work.
func (o *outbox) next() (task, []Result) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.queue) == 0 && !o.behind && !o.lost && !o.finished {
		o.wake.Wait()
	}
	switch {
	case o.finished && (len(o.queue) == 0 && !o.behind || o.lost && o.confirmed.Load() >= o.last):
		return taskNone, nil
	case o.lost:
		return taskResume, nil
	case o.behind:
		return taskRead, nil
	}
	rs := o.queue
	o.queue, o.weight = nil, 0
	return taskPublish, rs
}

// lose lets go of what waits and has the bus asked from where to go on.
func (o *outbox) lose() {
	o.noting.Lock()
	o.resumed = false
	o.noting.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lost = true
	o.letGoLocked()
	o.wake.Signal()
}

// resume asks the bus from where to publish. Of the queue it keeps what follows
// from there.
func (o *outbox) resume(ctx context.Context) error {
	o.noting.Lock() // no checkpoint while the bus makes up its mind
	defer o.noting.Unlock()
	checkpoint := o.confirmed.Load()
	from, err := o.bus.Resume(ctx, checkpoint)
	if err != nil {
		return err
	}
	from = max(from, 1)
	o.confirmed.Store(from - 1)
	o.sent.Store(from - 1)
	o.resumed, o.moved = true, time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lost = false
	if from > o.last+1 && o.last == o.log.Last() {
		o.logger.Error("bus holds events of this log that the log does not hold; is the data folder an old copy?", "log", o.last, "bus", from-1)
	}
	switch {
	case !o.behind && len(o.queue) > 0 && o.queue[0].Position <= from:
		for len(o.queue) > 0 && o.queue[0].Position < from {
			o.queue = o.queue[1:]
		}
		o.weight = weight(o.queue)
	case from <= o.last:
		o.letGoLocked()
	default:
		o.queue, o.weight, o.behind = nil, 0, false
	}
	return nil
}

var errDrained = errors.New("engine: no time left to publish")

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
	if why := o.noteOnce(); why != "" {
		o.logger.Warn("bus is asked anew from where to publish", "reason", why, "confirmed", o.confirmed.Load(), "published", o.sent.Load())
		o.lose()
	}
}

// noteOnce says why the bus must be asked anew from where to publish, if it must.
func (o *outbox) noteOnce() (why string) {
	o.noting.Lock()
	defer o.noting.Unlock()
	if !o.resumed {
		return ""
	}
	p, before := o.bus.Confirmed(), o.confirmed.Load()
	switch {
	case p < before:
		return "it lost what it had confirmed"
	case p > before:
		o.confirmed.Store(p)
		if err := o.log.SetCheckpoint(o.name, p); err != nil {
			o.logger.Warn("checkpoint not written, more than necessary may be published again after a crash", "err", err)
		}
		fallthrough
	case p >= o.sent.Load():
		o.moved = time.Now()
	case time.Since(o.moved) > o.patience:
		return "it confirms nothing of what it took over"
	}
	return ""
}

// catchUp folds the log from the snapshot, or where that is too late from its
// start, publishes what the bus has not got, and goes on until it meets the queue.
func (o *outbox) catchUp(ctx context.Context) error {
	from := o.sent.Load()
	st, err := lastState(o.log, from, o.logger)
	if err != nil {
		return err
	}
	p, at := st.projection, st.Position()
	p.mute = from
	from = max(from, at) // what retention dropped cannot be published any more
	o.logger.Info("publishing from the log", "after", from)
	for {
		var rs []Result
		held := 0 // weight of rs
		flush := func() error {
			if len(rs) == 0 {
				return nil
			}
			err := o.publish(ctx, rs)
			rs, held = nil, 0
			return err
		}
		err := readOn(ctx, o.log, at+1, func(ev *events.Event) error {
			at = ev.Position
			if r := p.Apply(ev); at > from {
				rs = append(rs, r)
				held += weight(rs[len(rs)-1:])
			}
			if len(rs) >= 512 || held >= maxQueued/16 {
				return flush()
			}
			return nil
		})
		if err == nil {
			err = flush()
		}
		if errors.Is(err, ErrDropped) {
			o.logger.Info("retention dropped what was read, reading again", "err", err)
			return nil // still behind
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
