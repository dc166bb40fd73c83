package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/events/cti"
)

var away = flag.Duration("away", 0, "how long each trouble with NATS lasts; 0: as long as one load takes")

// What may wait in the daemon, by ARCHITECTURE.md, section Queues, with what one
// of it takes.
const (
	mayWait = (16384+4096)*(3<<10) + // messages in the outbox, and unconfirmed ones
		1024*(8<<10) // frames
	mayWaitForSubscriber = 64 << 20 // in the embedded server, for each
)

// TestNATSInTrouble: a server that falls silent, and one that is gone. Ingest does
// not notice, memory stays within what may wait, and afterwards the stream has
// what follows from the log, each CTI event once, in order.
func TestNATSInTrouble(t *testing.T) {
	r := newWitness(t)
	opts := natsbus.ServerOptions{StoreDir: filepath.Join(t.TempDir(), "nats"), Port: -1}
	var err error
	if r.srv, err = natsbus.StartServer(opts); err != nil {
		t.Fatal(err)
	}
	r.url = r.srv.URL()
	opts.Port = portOf(t, r.url)
	tap := newTap(t, strings.TrimPrefix(r.url, "nats://"))
	l := newLoaded(t, childConfig{Data: r.data, NATS: "nats://" + tap.addr})

	l.trouble(t, "silent", mayWait, tap.shut, tap.open)
	l.trouble(t, "gone", mayWait, r.srv.Close, func() {
		if r.srv, err = natsbus.StartServer(opts); err != nil {
			t.Fatal(err)
		}
	})
	defer r.srv.Close()
	l.stop(t)
	r.recall(t, <-l.acked, &killTally{})
	r.complete(t)
}

// TestSubscribersInTrouble: one who reads slowly and one who reads nothing, on the
// embedded server.
func TestSubscribersInTrouble(t *testing.T) {
	r := newWitness(t)
	l := newLoaded(t, childConfig{Data: r.data})
	var subscribers sync.WaitGroup
	defer subscribers.Wait()
	end := make(chan struct{})
	l.trouble(t, "subscribers", mayWait+2*mayWaitForSubscriber, func() {
		subscribers.Go(func() { sluggish(l.url, 0, end) })
		subscribers.Go(func() { sluggish(l.url, 4<<10, end) })
	}, func() { close(end) })
	l.stop(t)
	r.recall(t, <-l.acked, &killTally{})
	r.complete(t)
}

// loaded is a child, and the PBX that makes its load.
type loaded struct {
	*child
	pbx  *webiteltest.Server
	sent uint64
	took time.Duration // by a load without trouble

	buffer []byte // of the last load
}

func newLoaded(t *testing.T, c childConfig) *loaded {
	t.Helper()
	l := &loaded{pbx: webiteltest.New(webiteltest.Options{
		Accounts: append(webiteltest.Agents(demoDomain, 1001, 100, demoSecret), webiteltest.Account{Login: watcherLogin, Secret: demoSecret, Role: "admin"}),
	})}
	t.Cleanup(l.pbx.Close)
	c.PBX, c.Unlisted = l.pbx.URL(), true
	l.child = startChild(t, c)
	if l.hello() == "" {
		t.Fatal(l.child.stop())
	}
	l.until(t, "it is connected", func(st childStats) bool { return st.Settled })
	l.load(t) // fills what is kept of ended calls
	l.took = l.load(t)
	l.settle(t)
	return l
}

// load sends calls that end, and returns how long it took until the last frame
// was taken and stored.
func (l *loaded) load(t *testing.T) time.Duration {
	t.Helper()
	frames := l.render(t, 6000)
	began := time.Now()
	if err := l.pbx.Send(watcherLogin, frames, 0, frames.Len(), nil); err != nil {
		t.Fatal(err)
	}
	l.sent += uint64(frames.Len())
	l.until(t, "the load is taken", func(st childStats) bool { return st.Frames >= l.sent })
	return time.Since(began)
}

// render makes calls that end, of about so many frames.
func (l *loaded) render(t *testing.T, frames int) *webiteltest.Load {
	t.Helper()
	x, err := l.pbx.Render(webiteltest.LoadOptions{
		Agents: webiteltest.Numbers(1001, 100), Domain: demoDomain, AtOnce: 40, Frames: frames, Buffer: l.buffer,
	})
	if err != nil {
		t.Fatal(err)
	}
	l.buffer = x.Buffer()
	return x
}

// until asks the child again and again.
func (l *loaded) until(t *testing.T, what string, ok func(childStats) bool) childStats {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		st := l.stats(t)
		if ok(st) {
			return st
		}
		if time.Now().After(deadline) {
			t.Fatalf("not so after two minutes: %s; %+v\n%s", what, st, l.dump())
		}
	}
}

// settle waits until all is published.
func (l *loaded) settle(t *testing.T) childStats {
	t.Helper()
	return l.until(t, "all is published", func(st childStats) bool { return st.Confirmed >= st.Position })
}

// trouble makes loads between begin and end, and compares them with those before.
func (l *loaded) trouble(t *testing.T, name string, bound uint64, begin, end func()) {
	t.Helper()
	before, began := l.stats(t), time.Now()
	begin()
	var most, last childStats
	longest, n := time.Duration(0), 0
	for n == 0 || time.Since(began) < *away {
		longest = max(longest, l.load(t))
		n++
		if last = l.stats(t); last.Heap > most.Heap {
			most = last
		}
		if *away > 0 {
			time.Sleep(2 * time.Second) // several thousand frames a second for minutes make a large log
		}
	}
	away := time.Since(began)
	end()
	l.settle(t)
	t.Logf("%s for %s, %d frames, %d events: heap %.1f MiB before, at most %.1f MiB; a load took %s before, at most %s; all published %s after the end",
		name, away.Round(time.Second), n*6000, last.Position-before.Position, mib(before.Heap), mib(most.Heap),
		l.took.Round(time.Millisecond), longest.Round(time.Millisecond), time.Since(began.Add(away)).Round(time.Millisecond))
	if most.Heap > before.Heap+bound {
		t.Errorf("%s: the heap grew by %.1f MiB, want at most %.1f", name, mib(most.Heap-before.Heap), mib(bound))
	}
	// Others may want the machine: what waits for NATS waits for the whole trouble.
	if limit := 10*l.took + 20*time.Second; longest > limit {
		t.Errorf("%s: a load took %s, want at most %s", name, longest, limit)
	}
}

func mib(n uint64) float64 { return float64(n) / (1 << 20) }

// stop drains, and wants no complaint.
func (l *loaded) stop(t *testing.T) {
	t.Helper()
	if said := l.child.stop(); l.cmd.ProcessState.ExitCode() != 0 {
		t.Fatal(said)
	}
}

func portOf(t *testing.T, natsURL string) int {
	t.Helper()
	u, err := url.Parse(natsURL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// sluggish subscribes to everything and reads n bytes each tenth of a second. The
// server closes such connections after a while; it comes back until end.
func sluggish(natsURL string, n int, end <-chan struct{}) {
	for {
		conn, err := net.Dial("tcp", strings.TrimPrefix(natsURL, "nats://"))
		if err != nil {
			return
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(4 << 10) // so that little is taken off the server's hands
		}
		_, _ = fmt.Fprintf(conn, "CONNECT {\"verbose\":false}\r\nSUB %s.> 1\r\n", cti.DefaultPrefix)
		for err == nil {
			select {
			case <-end:
				conn.Close()
				return
			case <-time.After(100 * time.Millisecond):
			}
			if n == 0 {
				// A write finds out whether the server is still there.
				_, err = conn.Write([]byte("PING\r\n"))
				continue
			}
			_, err = io.CopyN(io.Discard, conn, int64(n))
		}
		conn.Close()
	}
}

// tap is between a client and a server, and lets through or not.
type tap struct {
	addr string
	mu   sync.Mutex    // guards what follows
	flow chan struct{} // closed while it is open
}

func newTap(t *testing.T, server string) *tap {
	t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{addr: ln.Addr().String(), flow: make(chan struct{})}
	close(p.flow)
	ctx, cancel := context.WithCancel(context.Background())
	var copies sync.WaitGroup
	t.Cleanup(func() { cancel(); ln.Close(); copies.Wait() })
	copies.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", server)
			if err != nil {
				in.Close()
				continue
			}
			hang := sync.OnceFunc(func() { in.Close(); out.Close() })
			stop := context.AfterFunc(ctx, hang)
			for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
				copies.Go(func() {
					defer stop()
					defer hang()
					p.carry(ctx, way[0], way[1])
				})
			}
		}
	})
	return p
}

func (p *tap) carry(ctx context.Context, from, to net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		flow := p.flow
		p.mu.Unlock()
		select {
		case <-flow:
		case <-ctx.Done():
			return
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

func (p *tap) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flow = make(chan struct{})
}

func (p *tap) open() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.flow)
}
