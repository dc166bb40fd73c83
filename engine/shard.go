package engine

import (
	"context"
	"hash/maphash"
	"runtime"

	"github.com/callstate/callstate/events"
)

// shard owns the calls and lines of the accounts that hash to it. Its goroutine
// alone touches its projection; all else is handed to it.
type shard struct {
	projection *Projection
	work       chan func(*Projection) // unbuffered: work that was taken will be done
	quit       chan struct{}
}

func newShard(logID string) *shard {
	return &shard{projection: NewProjection(logID), work: make(chan func(*Projection)), quit: make(chan struct{})}
}

func (s *shard) run() {
	for {
		select {
		case fn := <-s.work:
			fn(s.projection)
		case <-s.quit:
			return
		}
	}
}

func (s *shard) stop() { close(s.quit) }

// do runs fn on the goroutine that owns the shard and waits for it. On error fn
// has not run.
func (s *shard) do(ctx context.Context, fn func(*Projection)) error {
	done := make(chan struct{})
	task := func(p *Projection) { defer close(done); fn(p) }
	select {
	case s.work <- task:
		<-done
		return nil
	case <-s.quit:
		return ErrStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func defaultShards() int { return min(runtime.GOMAXPROCS(0), 4) }

var shardSeed = maphash.MakeSeed()

func (e *Engine) shardOf(account string) int {
	if len(e.shards) == 1 {
		return 0
	}
	return int(maphash.String(shardSeed, account) % uint64(len(e.shards)))
}

// foldAll folds what is stored. Each batch is dealt to the shards, which work at
// the same time; the results come together in order of position.
func (e *Engine) foldAll(fatal context.Context, stored <-chan []events.Event) error {
	for evs := range stored {
		results, err := e.fold(fatal, evs)
		if err != nil {
			return err
		}
		e.folded.Store(evs[len(evs)-1].Position)
		e.snapshots.folded(evs[len(evs)-1].Position)
		e.control.folded(evs)
		e.outbox.push(results)
		if e.cfg.Observer != nil {
			e.cfg.Observer.Folded(evs, results)
		}
		for i := range evs {
			for _, c := range e.cfg.Policies.Commands(&evs[i], &results[i]) {
				select {
				case e.commands <- c:
				default:
					e.logger.Warn("command of a policy dropped, too many wait", "policy", c.By, "call_id", c.Call)
				}
			}
		}
	}
	return nil
}

// smallBatch is the number of events below which dealing them out costs more
// than folding them.
const smallBatch = 8

func (e *Engine) fold(ctx context.Context, evs []events.Event) ([]Result, error) {
	results := make([]Result, len(evs))
	dealt := make([][]int, len(e.shards))
	for i := range evs {
		n := e.shardOf(evs[i].Account)
		dealt[n] = append(dealt[n], i)
	}
	done := make(chan struct{}, len(e.shards))
	waiting := 0
	for n, own := range dealt {
		if len(own) == 0 {
			continue
		}
		task := func(p *Projection) {
			for _, i := range own {
				results[i] = p.Apply(&evs[i])
			}
			done <- struct{}{}
		}
		select {
		case e.shards[n].work <- task:
			waiting++
		case <-e.shards[n].quit:
			return nil, ErrStopped
		}
		if len(evs) < smallBatch {
			<-done
			waiting--
		}
	}
	for range waiting {
		<-done
	}
	return results, ctx.Err()
}
