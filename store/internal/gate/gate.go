// Package gate lets Close wait for the calls under way and refuse later ones.
package gate

import (
	"sync"

	"github.com/callstate/callstate/store"
)

// Gate is open in its zero value. It is no RWMutex, since a caller's function
// that runs inside one call may make another while Close waits.
type Gate struct {
	mu     sync.Mutex
	closed bool // guarded by mu
	inside sync.WaitGroup
}

// Enter counts a call in, or returns [store.ErrClosed]. Leave must follow.
func (g *Gate) Enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return store.ErrClosed
	}
	g.inside.Add(1)
	return nil
}

// Leave ends a call that Enter let in.
func (g *Gate) Leave() { g.inside.Done() }

// Close refuses further calls, waits for those inside and reports whether it was
// the first to close.
func (g *Gate) Close() bool {
	g.mu.Lock()
	first := !g.closed
	g.closed = true
	g.mu.Unlock()
	g.inside.Wait()
	return first
}
