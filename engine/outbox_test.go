package engine

import (
	"log/slog"
	"testing"
)

// TestLargeResultsAreLetGo: what waits for the bus is bounded in bytes as well.
func TestLargeResultsAreLetGo(t *testing.T) {
	for name, c := range map[string]struct {
		results, payload int
		behind           bool
	}{
		"many":          {maxQueued / 10, 1000, false},
		"too many":      {maxQueued / 4, 1000, true},
		"large":         {40, 1 << 20, false},
		"too large":     {60, 1 << 20, true},
		"empty":         {maxQueued, -1, false},
		"far too empty": {maxQueued + 1, -1, true},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOutbox(nil, struct{ Bus }{}, "", slog.New(slog.DiscardHandler))
			payload := make([]byte, max(c.payload, 0))
			for range c.results {
				var r Result
				if c.payload >= 0 {
					r.Messages = []Message{{Payload: payload}}
				}
				o.push([]Result{r})
			}
			if o.behind != c.behind {
				t.Errorf("behind %v, want %v", o.behind, c.behind)
			}
			if o.behind && o.queue != nil {
				t.Error("the queue is still there")
			}
		})
	}
}
