package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/callstate/callstate/adapters/webitel/webiteltest"
)

// memory is P10: what a live call takes of the whole daemon's heap, the embedded
// NATS server with its stream and views included. Beside it is what the server and
// our side of it take alone, when the same messages are published.
func (b *Bench) memory(ctx context.Context) ([]Row, error) {
	p, err := b.newPath(ctx, DaemonOptions{})
	if err != nil {
		return nil, err
	}
	defer p.close()
	if p.buffer, err = newBuffer(64 << 20); err != nil {
		return nil, err
	}
	c, err := p.newCeiling(ctx)
	if err != nil {
		return nil, err
	}
	bus, _, err := b.heapEach(func(n int) error { return c.callsUp(ctx, n) })
	c.close()
	if err != nil {
		return nil, err
	}
	up := 0
	each, calls, err := b.heapEach(func(n int) error {
		defer p.quiet()
		return p.beginnings(n, func(load *webiteltest.Load, calls int) error {
			if err := p.pbx.Send(watcher, load, 0, load.Len(), nil); err != nil {
				return err
			}
			up += calls
			return p.live(ctx, up)
		})
	})
	if err != nil {
		return nil, err
	}
	const limit = 1 << 10
	m := pair{each, limit, each / limit}
	return m.row("P10", "heap a live call, everything included / 1 KiB", "B", 1, true,
		fmt.Sprintf("%d live calls; 100,000 would take %s; of a call's the NATS server with stream and views takes %.0f",
			calls, humanBytes(uint64(each*100_000)), bus)), nil
}

// heapEach is what each of many calls takes of the heap, and how many there were.
// The first ones, half as many again, fill what is kept for reuse whatever the number
// of calls: JetStream's blocks of 8 MB among it.
func (b *Bench) heapEach(callsUp func(n int) error) (each float64, all int, err error) {
	calls := pick(b, 2000, 20_000)
	first := calls / 2
	if err := callsUp(first); err != nil {
		return 0, 0, err
	}
	before := heap()
	if err := callsUp(calls); err != nil {
		return 0, 0, err
	}
	return float64(heap()-before) / float64(calls), first + calls, nil
}

// beginnings renders calls that stay up, some at a time.
func (p *path) beginnings(n int, each func(load *webiteltest.Load, calls int) error) error {
	sc, err := webiteltest.Recorded("02-incoming-answered")
	if err != nil {
		return err
	}
	for n > 0 {
		chunk := min(agents/2, n)
		load, err := p.pbx.Render(webiteltest.LoadOptions{
			Scenarios: []*webiteltest.Scenario{sc}, Agents: webiteltest.Numbers(1001, agents), Domain: domain,
			AtOnce: chunk, Calls: chunk, Until: "CHANNEL_HANGUP", Buffer: p.buffer,
		})
		if err != nil {
			return err
		}
		if err := each(load, chunk); err != nil {
			return err
		}
		n -= chunk
	}
	return nil
}

// callsUp publishes what follows from n calls that stay up.
func (c *ceiling) callsUp(ctx context.Context, n int) error {
	return c.p.beginnings(n, func(load *webiteltest.Load, _ int) error {
		results, _, err := c.results(load)
		if err != nil {
			return err
		}
		for _, rs := range results {
			if len(rs) > 0 {
				if err := c.bus.Publish(ctx, rs); err != nil {
					return err
				}
			}
		}
		return c.bus.Flush(ctx)
	})
}

// live waits until so many calls are up.
func (p *path) live(ctx context.Context, n int) error {
	for deadline := time.Now().Add(patience); ; {
		st, err := p.daemon.Engine.Status(ctx)
		if err != nil {
			return err
		}
		if st.LiveCalls >= n {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d calls are up", st.LiveCalls, n)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
