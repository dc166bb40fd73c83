package natsbus

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/callstate/callstate/events/cti"
)

// slowLink is a way to a server that carries so many bytes a second towards us, and
// returns its address.
func slowLink(t *testing.T, s *Server, rate int) string {
	t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var ways sync.WaitGroup
	t.Cleanup(func() { cancel(); ln.Close(); ways.Wait() })
	carry := func(from, to net.Conn, wait bool) {
		defer from.Close()
		defer to.Close()
		buf := make([]byte, 4<<10)
		for {
			n, err := from.Read(buf)
			if wait {
				select {
				case <-time.After(time.Duration(n) * time.Second / time.Duration(rate)):
				case <-ctx.Done():
					return
				}
			}
			if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	}
	ways.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "nats://"))
			if err != nil {
				in.Close()
				continue
			}
			context.AfterFunc(ctx, func() { in.Close(); out.Close() })
			ways.Go(func() { carry(in, out, false) })
			ways.Go(func() { carry(out, in, true) })
		}
	})
	return "nats://" + ln.Addr().String()
}

// What the stream holds of our log takes long to read over a slow link. Nothing is
// wrong as long as it comes, whether the caller waits for it or Run.
func TestReadBackOverASlowLink(t *testing.T) {
	s := startServer(t, ServerOptions{})
	near, stop := startBus(t, Options{URL: s.URL()})
	rs := results(1, 1010, "1004@acme.example", "a2e6")
	mustPublish(t, near, rs[:1000])
	stop()
	const patience = 200 * time.Millisecond
	b, _ := startBus(t, Options{URL: slowLink(t, s, 400<<10), patience: patience})
	ctx := deadline(t)
	began := time.Now()
	from, err := b.Resume(ctx, 1000)
	if err != nil || from != 999 { // the last one with a message
		t.Fatalf("Resume: %d, %v, want 999", from, err)
	}
	if took := time.Since(began); took < 2*patience {
		t.Fatalf("the link is not slow: %v", took)
	}
	if err := b.Publish(ctx, rs[from-1:]); err != nil {
		t.Fatal(err)
	}
	if err := b.Conn().ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	for b.confirmedLocked() < 1010 {
		if err := b.waitLocked(ctx, 0); err != nil {
			b.mu.Unlock()
			t.Fatal(err)
		}
	}
	b.mu.Unlock()
	near, _ = startBus(t, Options{URL: s.URL(), LogID: "another"})
	if d := cmp.Diff(ids(rs), streamIDs(t, near, cti.DefaultPrefix)); d != "" {
		t.Errorf("stream (-published +stream):\n%s", d)
	}
}
