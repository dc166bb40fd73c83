package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"github.com/nats-io/nats.go"

	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/engine"
)

const (
	domain  = "demo.local"
	secret  = "demo"
	watcher = "9000@" + domain
	agents  = 400
)

// patience bounds one pass: what takes longer does not work.
const patience = 2 * time.Minute

// path is a PBX, a daemon connected to it, and a subscriber.
type path struct {
	b      *Bench
	dir    string
	pbx    *webiteltest.Server
	daemon *Daemon
	nc     *nats.Conn

	buffer   []byte
	received atomic.Int64
	want     atomic.Int64
	all      chan time.Time // when the subscriber had what was wanted
	onMsg    func(n int64)  // called for each message with its number, from 1; may be nil
}

// newPath starts all that.
func (b *Bench) newPath(ctx context.Context, o DaemonOptions) (*path, error) {
	p := &path{b: b, all: make(chan time.Time, 1)}
	var err error
	if p.dir, err = b.tempDir(); err != nil {
		return nil, err
	}
	p.pbx = newPBX()
	o.Data, o.PBX, o.Login, o.Secret = p.dir, p.pbx.URL(), watcher, secret
	if p.daemon, err = b.Start(ctx, o); err != nil {
		p.close()
		return nil, err
	}
	select {
	case <-p.daemon.Settled:
	case <-time.After(patience):
		p.close()
		return nil, errors.New("the daemon did not connect")
	case <-ctx.Done():
		p.close()
		return nil, ctx.Err()
	}
	if p.nc, err = nats.Connect(p.daemon.NATS); err != nil {
		p.close()
		return nil, err
	}
	sub, err := p.nc.Subscribe(p.daemon.Prefix+".>", func(*nats.Msg) {
		n := p.received.Add(1)
		if p.onMsg != nil {
			p.onMsg(n)
		}
		if n == p.want.Load() {
			p.all <- time.Now()
		}
	})
	if err == nil {
		err = sub.SetPendingLimits(-1, -1)
	}
	if err == nil {
		err = p.nc.Flush()
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func newPBX() *webiteltest.Server {
	return webiteltest.New(webiteltest.Options{
		Accounts: append(webiteltest.Agents(domain, 1001, agents, secret), webiteltest.Account{Login: watcher, Secret: secret}),
	})
}

// close ends everything and removes the log.
func (p *path) close() {
	if p.nc != nil {
		p.nc.Close()
	}
	if p.daemon != nil {
		if err := p.daemon.Stop(); err != nil {
			p.b.Progress("stop: %v", err)
		}
	}
	p.pbx.Close()
	freeBuffer(p.buffer)
	_ = os.RemoveAll(p.dir)
}

// render makes a load of some megabytes and says how many messages follow from
// each of its frames: the same correlation and fold, offline.
func (p *path) render(megabytes, atOnce int) (*webiteltest.Load, []int, error) {
	if len(p.buffer) == 0 {
		var err error
		// The calls that are under way when the size is reached are played to their end.
		if p.buffer, err = newBuffer((megabytes + 48) << 20); err != nil {
			return nil, nil, err
		}
	}
	load, err := p.pbx.Render(webiteltest.LoadOptions{
		Agents: webiteltest.Numbers(1001, agents), Domain: domain, AtOnce: atOnce, Bytes: megabytes << 20, Buffer: p.buffer,
	})
	if err != nil {
		return nil, nil, err
	}
	messages, err := expect(load)
	return load, messages, err
}

// expect says how many messages follow from each frame of a load.
func expect(load *webiteltest.Load) ([]int, error) {
	o := engine.NewOffline(engine.Rules{Domains: []string{domain}}, engine.Policies{}, "bench")
	messages := make([]int, load.Len())
	err := observeAll(o, load, func(i int, steps []engine.Step) {
		for j := range steps {
			messages[i] += len(steps[j].Result.Messages)
		}
	})
	return messages, err
}

// pass sends a load as fast as it goes and returns frames a second, from the first
// write until the subscriber has the last message.
func (p *path) pass(ctx context.Context, megabytes int) (float64, error) {
	load, messages, err := p.render(megabytes, manyCalls)
	if err != nil {
		return 0, err
	}
	total := 0
	for _, n := range messages {
		total += n
	}
	p.quiet()
	p.want.Store(p.received.Load() + int64(total))
	runtime.GC() // what rendering left is nobody's garbage
	began := time.Now()
	if err := p.pbx.Send(watcher, load, 0, load.Len(), nil); err != nil {
		return 0, err
	}
	ended, err := p.wait(ctx)
	if err != nil {
		return 0, err
	}
	return float64(load.Len()) / ended.Sub(began).Seconds(), nil
}

// wait returns when the subscriber has what is wanted, and when that was.
func (p *path) wait(ctx context.Context) (time.Time, error) {
	select {
	case t := <-p.all:
		return t, nil
	case <-time.After(patience):
		return time.Time{}, fmt.Errorf("the subscriber has %d of %d messages", p.received.Load(), p.want.Load())
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}

// quiet waits until the views of the last pass are written, too.
func (p *path) quiet() {
	for range 200 {
		st, err := p.daemon.Engine.Status(context.Background())
		if err != nil || p.daemon.Confirmed() >= st.Position {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// loadMegabytes is the size of one pass: some 30,000 frames.
func (b *Bench) loadMegabytes() int { return pick(b, 12, 192) }

// manyCalls are under way at a time in a pass.
const manyCalls = 100

const perSecond = "frames/s"

// pathAgainstReading is P1.
func (b *Bench) pathAgainstReading(ctx context.Context) ([]Row, error) {
	p, err := b.newPath(ctx, DaemonOptions{})
	if err != nil {
		return nil, err
	}
	defer p.close()
	mb := b.loadMegabytes()
	r, err := rounds(ctx, pick(b, 3, 7), false,
		func() (float64, error) { return p.pass(ctx, mb) },
		func() (float64, error) { return p.read(mb) },
	)
	if err != nil {
		return nil, err
	}
	c, err := p.newCeiling(ctx)
	if err != nil {
		return nil, err
	}
	defer c.close()
	most, err := rounds(ctx, pick(b, 1, 5), false,
		func() (float64, error) { return c.pass(ctx, mb) },
		func() (float64, error) { return p.read(mb) },
	)
	if err != nil {
		return nil, err
	}
	return r.row("P1", "whole path, frame to subscriber / reading the frames with gorilla only", perSecond, 0.65, false,
		fmt.Sprintf("CTI stream and views on; the sender is on the same machine; reading the frames and only publishing what follows from them: %.3g", most.ratio)), nil
}

// read is the peer of P1: the same frames from the same sender, read by gorilla
// and forgotten.
func (p *path) read(megabytes int) (float64, error) {
	pbx := newPBX()
	defer pbx.Close()
	load, _, err := p.render(megabytes, manyCalls)
	if err != nil {
		return 0, err
	}
	r, err := newReader(pbx.URL())
	if err != nil {
		return 0, err
	}
	defer r.ws.Close()
	done := make(chan error, 1)
	runtime.GC()
	began := time.Now()
	go func() { done <- r.read(load.Len()) }()
	if err := pbx.Send(watcher, load, 0, load.Len(), nil); err != nil {
		return 0, err
	}
	if err := <-done; err != nil {
		return 0, err
	}
	return float64(load.Len()) / time.Since(began).Seconds(), nil
}

// reader is gorilla and nothing else.
type reader struct {
	ws  *websocket.Conn
	buf []byte
}

// newReader connects and signs in.
func newReader(url string) (*reader, error) {
	d := websocket.Dialer{ReadBufferSize: 64 << 10, HandshakeTimeout: 10 * time.Second}
	ws, resp, err := d.Dial(url, http.Header{})
	if err != nil {
		return nil, err
	}
	_ = resp.Body.Close()
	// The first command of a sign-in is auth; a socket that has signed in gets events.
	auth := webitel.NewSignIn(webitel.User{Login: watcher, Password: secret}, webitel.ModeDomain).Start()[0]
	auth.ID = "auth"
	text, err := auth.Encode()
	if err == nil {
		err = ws.WriteMessage(websocket.TextMessage, text)
	}
	if err != nil {
		return nil, err
	}
	if _, _, err := ws.ReadMessage(); err != nil {
		return nil, err
	}
	return &reader{ws: ws, buf: make([]byte, 64<<10)}, nil
}

func (r *reader) read(frames int) error {
	for range frames {
		_, m, err := r.ws.NextReader()
		if err != nil {
			return err
		}
		for err == nil {
			_, err = m.Read(r.buf)
		}
	}
	return nil
}

// against measures the default path and another one in turn.
func (b *Bench) against(ctx context.Context, other DaemonOptions) (pair, error) {
	ours, err := b.newPath(ctx, DaemonOptions{})
	if err != nil {
		return pair{}, err
	}
	defer ours.close()
	theirs, err := b.newPath(ctx, other)
	if err != nil {
		return pair{}, err
	}
	defer theirs.close()
	mb := b.loadMegabytes()
	return rounds(ctx, pick(b, 3, 7), false,
		func() (float64, error) { return ours.pass(ctx, mb) },
		func() (float64, error) { return theirs.pass(ctx, mb) },
	)
}

// pathAgainstNoStore is P2.
func (b *Bench) pathAgainstNoStore(ctx context.Context) ([]Row, error) {
	r, err := b.against(ctx, DaemonOptions{NoStore: true})
	if err != nil {
		return nil, err
	}
	return r.row("P2", "whole path / the same with the log in memory", perSecond, 0.9, false, ""), nil
}

// pathAgainstMap is P3.
func (b *Bench) pathAgainstMap(ctx context.Context) ([]Row, error) {
	r, err := b.against(ctx, DaemonOptions{DecodeMap: true})
	if err != nil {
		return nil, err
	}
	return r.row("P3", "whole path / the same with encoding/json into a map as decoder", perSecond, 6, false, ""), nil
}
