package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/callstate/callstate/adapters/webitel/webiteltest"
)

// memory is P10: what a live call takes of the whole daemon's heap, the embedded
// NATS server with its stream and views included.
func (b *Bench) memory(ctx context.Context) ([]Row, error) {
	calls := pick(b, 2000, 20_000)
	sc, err := webiteltest.Recorded("02-incoming-answered")
	if err != nil {
		return nil, err
	}
	p, err := b.newPath(ctx, DaemonOptions{})
	if err != nil {
		return nil, err
	}
	defer p.close()
	if p.buffer, err = newBuffer(64 << 20); err != nil {
		return nil, err
	}
	// The first calls fill what is kept for reuse, whatever the number of calls.
	up := 0
	grow := func(n int) error {
		for end := up + n; up < end; {
			chunk := min(agents/2, end-up)
			load, err := p.pbx.Render(webiteltest.LoadOptions{
				Scenarios: []*webiteltest.Scenario{sc}, Agents: webiteltest.Numbers(1001, agents), Domain: domain,
				AtOnce: chunk, Calls: chunk, Until: "CHANNEL_HANGUP", Buffer: p.buffer,
			})
			if err != nil {
				return err
			}
			if err := p.pbx.Send(watcher, load, 0, load.Len(), nil); err != nil {
				return err
			}
			up += chunk
			if err := p.live(ctx, up); err != nil {
				return err
			}
		}
		p.quiet()
		return nil
	}
	if err := grow(calls / 10); err != nil {
		return nil, err
	}
	first, before := up, heap()
	if err := grow(calls); err != nil {
		return nil, err
	}
	each := float64(heap()-before) / float64(up-first)
	const limit = 1 << 10
	m := pair{each, limit, each / limit}
	return m.row("P10", "heap a live call, everything included / 1 KiB", "B", 1, true,
		fmt.Sprintf("%d live calls; 100,000 would take %s", up, humanBytes(uint64(each*100_000)))), nil
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
