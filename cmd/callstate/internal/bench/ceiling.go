package bench

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// ceiling is what P1 can reach at most: frames are read and forgotten, and what
// follows from them, made beforehand, goes through the bus to JetStream, the views
// and the subscriber. Nothing is decoded, stored or folded.
type ceiling struct {
	p      *path // for its loads
	dir    string
	server *natsbus.Server
	bus    *natsbus.Bus
	nc     *nats.Conn
	stop   context.CancelFunc
	ended  chan error

	passes   int
	position uint64
}

func (p *path) newCeiling(ctx context.Context) (c *ceiling, err error) {
	c = &ceiling{p: p, ended: make(chan error, 1)}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.dir, err = p.b.tempDir(); err != nil {
		return nil, err
	}
	if c.server, err = natsbus.StartServer(natsbus.ServerOptions{StoreDir: c.dir, Port: -1}); err != nil {
		return nil, err
	}
	if c.bus, err = natsbus.New(natsbus.Options{Server: c.server, LogID: "bench"}); err != nil {
		return nil, err
	}
	runs, stop := context.WithCancel(ctx)
	c.stop = stop
	go func() { c.ended <- c.bus.Run(runs) }()
	if _, err = c.bus.Resume(ctx, 0); err != nil {
		return nil, err
	}
	c.nc, err = nats.Connect(c.server.URL())
	return c, err
}

func (c *ceiling) close() {
	if c.nc != nil {
		c.nc.Close()
	}
	if c.stop != nil {
		c.stop()
		if err := <-c.ended; err != nil {
			c.p.b.Progress("stop: %v", err)
		}
	}
	if c.bus != nil {
		_ = c.bus.Close()
	}
	if c.server != nil {
		c.server.Close()
	}
	_ = os.RemoveAll(c.dir)
}

// pass is as that of path.
func (c *ceiling) pass(ctx context.Context, megabytes int) (float64, error) {
	load, _, err := c.p.render(megabytes, manyCalls)
	if err != nil {
		return 0, err
	}
	results, messages, err := c.results(load)
	if err != nil {
		return 0, err
	}
	got, all := 0, make(chan struct{})
	sub, err := c.nc.Subscribe("cti.v1.>", func(*nats.Msg) {
		if got++; got == messages {
			close(all)
		}
	})
	if err == nil {
		err = sub.SetPendingLimits(-1, -1)
	}
	if err == nil {
		err = c.nc.Flush()
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	pbx := newPBX()
	defer pbx.Close()
	r, err := newReader(pbx.URL())
	if err != nil {
		return 0, err
	}
	defer r.ws.Close()

	published := make(chan error, 1)
	runtime.GC()
	began := time.Now()
	go func() {
		published <- func() error {
			for _, rs := range results {
				if err := r.read(1); err != nil {
					return err
				}
				if len(rs) > 0 {
					if err := c.bus.Publish(ctx, rs); err != nil {
						return err
					}
				}
			}
			return nil
		}()
	}()
	if err := pbx.Send(watcher, load, 0, load.Len(), nil); err != nil {
		return 0, err
	}
	if err := <-published; err != nil {
		return 0, err
	}
	select {
	case <-all:
	case <-time.After(patience):
		return 0, fmt.Errorf("not all of %d messages came", messages)
	}
	took := time.Since(began)
	return float64(load.Len()) / took.Seconds(), c.bus.Flush(ctx)
}

// results are what follows from each frame of a load, under positions that go on.
func (c *ceiling) results(load *webiteltest.Load) (results [][]engine.Result, messages int, err error) {
	c.passes++
	o := engine.NewOffline(engine.Rules{Domains: []string{domain}}, engine.Policies{}, fmt.Sprint("bench-", c.passes))
	results = make([][]engine.Result, load.Len())
	err = observeAll(o, load, func(i int, steps []engine.Step) {
		for j := range steps {
			c.position++
			r := steps[j].Result
			r.Position = c.position
			messages += len(r.Messages)
			results[i] = append(results[i], r)
		}
	})
	return results, messages, err
}

// observeAll plays a load offline.
func observeAll(o *engine.Offline, load *webiteltest.Load, each func(i int, steps []engine.Step)) error {
	at := events.At(time.Now())
	for i := range load.Len() {
		src := events.Source{Adapter: "webitel", Connection: "bench", Sequence: uint64(i + 1)}
		steps, err := o.Observe(webitel.Observe(load.Payload(i), src, at))
		if err != nil {
			return err
		}
		each(i, steps)
	}
	return nil
}
