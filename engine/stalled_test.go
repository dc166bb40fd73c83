package engine_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/memory"
)

// sinkLog keeps nothing, so that what is in memory is the engine's.
type sinkLog struct {
	store.Store
	last atomic.Uint64
}

func (l *sinkLog) Append(_ context.Context, b *events.Batch) error {
	for i := range b.Events {
		b.Events[i].Position = l.last.Add(1)
	}
	return nil
}

func (l *sinkLog) Last() uint64 { return l.last.Load() }

// stallingBus stops confirming: its Publish returns when it is told to stop.
type stallingBus struct{ stalled atomic.Bool }

func (b *stallingBus) Publish(ctx context.Context, _ []engine.Result) error {
	if b.stalled.Load() {
		<-ctx.Done()
	}
	return ctx.Err()
}

func (b *stallingBus) Confirmed() uint64 { return 0 }

func (b *stallingBus) Flush(ctx context.Context) error { return ctx.Err() }

func (b *stallingBus) Resume(context.Context, uint64) (uint64, error) { return 1, nil }

// TestStalledBusHoldsUpNothing: ingest goes on while the bus takes nothing, and
// what waits for it stays within the outbox's bound of 16,384 messages, 50 MB.
func TestStalledBusHoldsUpNothing(t *testing.T) {
	log := &sinkLog{Store: memory.New()}
	bus := &stallingBus{}
	e := engine.New(log, bus, nil, engine.Config{Rules: rules, Shards: 2, Drain: 1})
	stop := run(t, e)
	r := &running{Engine: e}
	calls := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			id := fmt.Sprintf("call-%d", i)
			r.call(t, account(i%50), id)
			r.end(t, id)
		}
		for { // the last frames are folded
			s, err := e.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if s.Folded == log.Last() && s.Frames.Received >= r.seq {
				return
			}
			time.Sleep(time.Millisecond) // frames are reported once a second
		}
	}
	calls(0, 1000)
	before := heapInUse()
	bus.stalled.Store(true)
	const more = 16_000 // each with six messages and more
	calls(1000, 1000+more)
	if grown, bound := heapInUse()-before, int64(50<<20); grown > bound {
		t.Errorf("%d calls have taken %d MiB while the bus stood still, want at most %d", more, grown>>20, bound>>20)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // pools need the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
