package engine

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"
)

// forgetfulBus loses what it takes over before it has confirmed any of it, and holds
// it when it is published again.
type forgetfulBus struct{ resumed, confirmed atomic.Uint64 }

func (b *forgetfulBus) Resume(context.Context, uint64) (uint64, error) {
	b.resumed.Add(1)
	return b.confirmed.Load() + 1, nil
}

func (b *forgetfulBus) Publish(_ context.Context, rs []Result) error {
	if b.resumed.Load() > 1 {
		b.confirmed.Store(rs[len(rs)-1].Position)
	}
	return nil
}

func (b *forgetfulBus) Confirmed() uint64           { return b.confirmed.Load() }
func (b *forgetfulBus) Flush(context.Context) error { return nil }

// TestBusThatConfirmsNothing: Confirmed cannot go back from 0, and nothing else comes
// by which the outbox would see that the bus wants it all again.
func TestBusThatConfirmsNothing(t *testing.T) {
	l, bus := &passingLog{}, &forgetfulBus{}
	l.call(1, 2, anna, "c1", "380")
	o := newOutbox(l, bus, "nats", slog.New(slog.DiscardHandler))
	o.patience = time.Millisecond
	if err := o.begin(l.Last(), nil); err != nil {
		t.Fatal(err)
	}
	o.behind = true
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- o.run(ctx, ctx, 0) }()
	limit := time.After(10 * time.Second)
	for tick := time.Tick(time.Millisecond); o.confirmed.Load() < l.Last(); {
		select {
		case <-tick:
		case <-limit:
			t.Fatalf("confirmed %d of %d; the bus was asked %d times from where", o.confirmed.Load(), l.Last(), bus.resumed.Load())
		}
	}
	asked := bus.resumed.Load()
	for range 3 { // what is confirmed is not asked for again
		o.noting.Lock()
		o.moved = time.Time{}
		o.noting.Unlock()
		o.note()
	}
	o.finish()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if got := bus.resumed.Load(); got != asked {
		t.Errorf("asked %d times more", got-asked)
	}
	cancel()
}
