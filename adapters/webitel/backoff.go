package webitel

import (
	"math/rand/v2"
	"time"
)

// backoff is the wait between two attempts to connect: it doubles from lowest to
// highest, with full jitter, so that many connections do not return together.
type backoff struct {
	lowest, highest time.Duration
	next            time.Duration                       // the ceiling of the next wait; 0 means lowest
	random          func(n time.Duration) time.Duration // in [0, n); nil means the global source
}

// wait returns how long to wait and raises the ceiling.
func (b *backoff) wait() time.Duration {
	ceiling := min(max(b.next, b.lowest), b.highest)
	b.next = min(2*ceiling, b.highest)
	if ceiling <= 0 {
		return 0
	}
	if b.random != nil {
		return b.random(ceiling)
	}
	return rand.N(ceiling)
}

// reset starts again at the lowest wait, after a completed sign-in.
func (b *backoff) reset() { b.next = 0 }
