package dial

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is the wait between two attempts to connect: it doubles from Lowest to
// Highest, with full jitter, so that many connections do not return together.
type Backoff struct {
	Lowest, Highest time.Duration

	next   time.Duration                       // the ceiling of the next wait; 0 means Lowest
	random func(n time.Duration) time.Duration // in [0, n); nil means the global source
}

// Wait returns how long to wait and raises the ceiling.
func (b *Backoff) Wait() time.Duration {
	ceiling := min(max(b.next, b.Lowest), b.Highest)
	b.next = min(2*ceiling, b.Highest)
	if ceiling <= 0 {
		return 0
	}
	if b.random != nil {
		return b.random(ceiling)
	}
	return rand.N(ceiling)
}

// Reset starts again at the lowest wait, after a completed sign-in.
func (b *Backoff) Reset() { b.next = 0 }

// Sleep waits for d, or until ctx ends; then it returns its cause.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
