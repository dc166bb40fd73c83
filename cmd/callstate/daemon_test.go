package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/events/cti"
)

// daemon is the whole of callstate run against a PBX of our own.
type daemon struct {
	*app
	pbx  *webiteltest.Server
	logs *logLines
	stop func() error
}

// logLines collects what is logged.
type logLines struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(b))
	return len(b), nil
}

func (l *logLines) containing(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.lines {
		if strings.Contains(line, s) {
			n++
		}
	}
	return n
}

const watcherLogin = "9000@" + demoDomain

// startDaemon returns when the daemon's first link has settled. Its configuration
// can be changed before.
func startDaemon(t *testing.T, data string, with ...func(*config)) *daemon {
	t.Helper()
	d := &daemon{logs: &logLines{}}
	d.pbx = webiteltest.New(webiteltest.Options{
		Accounts:       append(webiteltest.Agents(demoDomain, 1001, 50, demoSecret), webiteltest.Account{Login: watcherLogin, Secret: demoSecret, Role: "admin"}),
		OriginateSpeed: 4, KeepOriginated: true,
	})
	t.Cleanup(d.pbx.Close)
	cfg := defaultConfig()
	cfg.Data, cfg.Listen = data, "127.0.0.1:-1"
	cfg.Webitel = []webitel.Config{{
		ConnectionString: d.pbx.URL(), Mode: webitel.ModeDomain, Settle: -1, BackoffMin: webitel.Duration(time.Millisecond),
		Users: []webitel.User{{Login: watcherLogin, Password: demoSecret}},
	}}
	cfg.Webitel[0].RecordingURL = d.pbx.FilesURL()
	for _, change := range with {
		change(&cfg)
	}
	err := cfg.validate()
	if err != nil {
		t.Fatal(err)
	}
	if d.app, err = openApp(cfg, slog.New(slog.NewTextHandler(d.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))); err != nil {
		t.Fatal(err)
	}
	settled := make(chan struct{})
	var once sync.Once
	d.links.clients[0].OnSettled(func(context.Context) { once.Do(func() { close(settled) }) })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	var stopped sync.Once
	d.stop = func() (err error) {
		stopped.Do(func() {
			cancel()
			err = <-done
			d.close()
		})
		return err
	}
	t.Cleanup(func() { _ = d.stop() })
	select {
	case <-settled:
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
	return d
}

// sync returns when all that the PBX sent before has been taken by the engine:
// frames and replies come in order on the socket.
func (d *daemon) sync(t *testing.T) {
	t.Helper()
	if _, err := d.links.clients[0].Do(t.Context(), webitel.Ping()); err != nil {
		t.Fatal(err)
	}
}

// every sets how often the PBX is compared with.
func every(d time.Duration) func(*config) {
	return func(c *config) { c.ResyncInterval = duration(d) }
}

// eventually waits for what only polling can tell.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// streamText returns all that the NATS server keeps: CTI events and views.
func streamText(t *testing.T, d *daemon) string {
	t.Helper()
	js, err := jetstream.New(d.bus.Conn())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range []string{natsbus.StreamName(cti.DefaultPrefix), "KV_" + natsbus.CallsBucket(cti.DefaultPrefix), "KV_" + natsbus.LinesBucket(cti.DefaultPrefix)} {
		s, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for seq := s.CachedInfo().State.FirstSeq; seq <= s.CachedInfo().State.LastSeq; seq++ {
			m, err := s.GetMsg(t.Context(), seq)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				continue // a view that was replaced
			}
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&b, m.Subject, m.Header, string(m.Data))
		}
	}
	if b.Len() == 0 {
		t.Error("nothing on NATS")
	}
	return b.String()
}
