package webitel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testDeadline = 10 * time.Second

// recorder is a sink that keeps its inputs and wakes whoever waits for one.
type recorder struct {
	mu     sync.Mutex // guards what follows
	inputs []engine.Input
	wake   chan struct{} // closed and replaced at each input
}

func newRecorder() *recorder { return &recorder{wake: make(chan struct{})} }

func (r *recorder) Submit(_ context.Context, in engine.Input) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inputs = append(r.inputs, in)
	close(r.wake)
	r.wake = make(chan struct{})
	return nil
}

// until waits until the inputs so far satisfy ok, and returns them.
func (r *recorder) until(t *testing.T, what string, ok func([]engine.Input) bool) []engine.Input {
	t.Helper()
	timeout := time.After(testDeadline)
	for {
		r.mu.Lock()
		inputs, wake := r.inputs, r.wake
		r.mu.Unlock()
		if ok(inputs) {
			return inputs
		}
		select {
		case <-wake:
		case <-timeout:
			t.Fatalf("no %s; have %s", what, describe(inputs))
		}
	}
}

// links waits for n changes of the link.
func (r *recorder) links(t *testing.T, n int) []engine.Input {
	t.Helper()
	return r.until(t, fmt.Sprintf("%d link changes", n), func(ins []engine.Input) bool { return len(linkWords(ins)) >= n })
}

func linkWords(ins []engine.Input) (words []string) {
	for _, in := range ins {
		if in.Link != nil {
			words = append(words, map[engine.LinkKind]string{engine.LinkUp: "up", engine.LinkDown: "down " + in.Link.Reason}[in.Link.Kind])
		}
	}
	return words
}

func describe(ins []engine.Input) string {
	var b strings.Builder
	for _, in := range ins {
		switch {
		case in.Link != nil:
			fmt.Fprintf(&b, "link %d; ", in.Link.Kind)
		case in.Leg != nil:
			fmt.Fprintf(&b, "leg %d; ", in.Leg.Kind)
		case in.Quarantine != nil:
			fmt.Fprintf(&b, "quarantine %s; ", in.Quarantine.Reason)
		case in.Agents != nil:
			fmt.Fprintf(&b, "agents %d; ", len(in.Agents))
		default:
			b.WriteString("no-op; ")
		}
	}
	return b.String()
}

// fast is a configuration without waits.
func fast(url string) Config {
	return Config{
		ConnectionString: url, Settle: -1,
		BackoffMin: Duration(time.Millisecond), BackoffMax: Duration(5 * time.Millisecond),
	}
}

func server(t *testing.T, opts webiteltest.Options) *webiteltest.Server {
	t.Helper()
	s := webiteltest.New(opts)
	t.Cleanup(s.Close)
	return s
}

// start runs a client and returns what its Run returns, once.
func start(t *testing.T, c *Client) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { done <- c.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return done
}

func wait[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(testDeadline):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

func user(number string) User { return User{Login: number + "@demo.local", Password: "secret"} }

func TestSignInDomain(t *testing.T) {
	s := server(t, webiteltest.Options{})
	other := newRecorder()
	start(t, NewClient(fast(s.URL()), user("1002"), ModeAccount, other, nil))
	other.links(t, 1)
	sink := newRecorder()
	settled := make(chan struct{}, 1)
	c := NewClient(fast(s.URL()), user("1009"), ModeDomain, sink, nil)
	c.OnSettled(func(context.Context) { settled <- struct{}{} })
	start(t, c)
	wait(t, "settling", settled)
	// ACCOUNT_ONLINE, then 15 replies: auth, login, list, 12 times subscribe.
	ins := sink.until(t, "17 inputs", func(ins []engine.Input) bool { return len(ins) >= 17 })
	up := ins[0]
	if up.Link == nil || !up.Unframed || up.Link.Domain != "demo.local" || up.Link.Login != "1009@demo.local" ||
		up.Link.Mode != "domain" || up.Link.Accounts != 7 {
		t.Errorf("first input is %+v %+v, want LinkUp of the domain with its accounts", up, up.Link)
	}
	var online, status []string
	for i, in := range ins[1:17] {
		if in.Unframed || in.Source.Sequence != uint64(i+1) || in.Source.Adapter != "webitel" || in.Source.Connection == "" {
			t.Errorf("frame %d has source %+v, unframed %t", i, in.Source, in.Unframed)
		}
		if len(in.Agents) > 1 {
			for _, a := range in.Agents {
				if a.Kind == engine.AgentOnline {
					online = append(online, a.Account)
				} else {
					status = append(status, a.Account)
				}
			}
		}
	}
	// The watcher has given login too, so it counts as online.
	if got, want := fmt.Sprint(online), "[1002@demo.local 1009@demo.local]"; got != want {
		t.Errorf("online %s, want %s", got, want)
	}
	if len(status) != 4 {
		t.Errorf("status of %v, want the four others", status)
	}
}

func TestSignInAccount(t *testing.T) {
	s := server(t, webiteltest.Options{})
	sink := newRecorder()
	start(t, NewClient(fast(s.URL()), user("1001"), ModeAccount, sink, nil))
	ins := sink.until(t, "agents", func(ins []engine.Input) bool {
		return len(ins) > 0 && len(ins[len(ins)-1].Agents) == 1 && len(ins) == 5
	})
	if got := linkWords(ins[:1]); len(got) != 1 || got[0] != "up" {
		t.Fatalf("inputs are %s, want the link first", describe(ins))
	}
	a := ins[4].Agents[0]
	if a.Kind != engine.AgentOnline || a.Account != "1001@demo.local" || a.State != "ONHOOK" || a.Status != "NONE" {
		t.Errorf("own account is %+v, want it online with its state", a)
	}
}

func TestWrongPasswordIsFinal(t *testing.T) {
	s := server(t, webiteltest.Options{})
	sink := newRecorder()
	u := user("1001")
	u.Password = "hunter2"
	var log bytes.Buffer
	done := start(t, NewClient(fast(s.URL()), u, ModeAccount, sink, slog.New(slog.NewTextHandler(&log, nil))))
	err := wait(t, "the end", done)
	var re *ReplyError
	if !errors.Is(err, ErrSecret) || !errors.As(err, &re) || re.Status != 401 || re.Form != "1" {
		t.Errorf("Run returned %v, want ErrSecret with its status", err)
	}
	if strings.Contains(fmt.Sprintf("%v %+v %s", err, u, log.String()), "hunter2") {
		t.Errorf("the secret is in %v or in the log", err)
	}
	s.Close() // it counts a frame after writing it
	if n := s.Sent().Replies; n != 1 {
		t.Errorf("%d replies, want 1: there is no second try", n)
	}
	if got := linkWords(sink.inputs); got != nil {
		t.Errorf("link %v without a sign-in", got)
	}
	if len(sink.inputs) != 1 {
		t.Errorf("inputs are %s, want the one reply", describe(sink.inputs))
	}
}

func TestConsoleErrorIsRetried(t *testing.T) {
	s := server(t, webiteltest.Options{})
	s.RefuseAuth(2, webiteltest.ConsoleError)
	sink := newRecorder()
	start(t, NewClient(fast(s.URL()), user("1001"), ModeAccount, sink, nil))
	ins := sink.links(t, 1)
	if got := linkWords(ins); got[0] != "up" {
		t.Errorf("link %v", got)
	}
}

func TestReconnectAfterDrop(t *testing.T) {
	s := server(t, webiteltest.Options{})
	sink := newRecorder()
	start(t, NewClient(fast(s.URL()), user("1009"), ModeDomain, sink, nil))
	sink.links(t, 1)
	s.Drop("")
	ins := sink.links(t, 3)
	if got, want := fmt.Sprint(linkWords(ins)), "[up down closed-1006 up]"; got != want {
		t.Errorf("link %s, want %s", got, want)
	}
	var connections []string
	for _, in := range ins {
		if in.Link != nil {
			connections = append(connections, in.Source.Connection)
		}
	}
	if connections[0] != connections[1] || connections[1] == connections[2] {
		t.Errorf("connections %v, want the first two alike and the third new", connections)
	}
}

func TestReconnectAfterHalfOpen(t *testing.T) {
	s := server(t, webiteltest.Options{})
	sink := newRecorder()
	cfg := fast(s.URL())
	cfg.PingInterval, cfg.PingDeadline = Duration(20*time.Millisecond), Duration(80*time.Millisecond)
	start(t, NewClient(cfg, user("1009"), ModeDomain, sink, nil))
	sink.links(t, 1)
	s.HalfOpen("")
	if got := linkWords(sink.links(t, 3)); got[1] != "down silent" || got[2] != "up" {
		t.Errorf("link %v, want a loss by silence and a new link", got)
	}
}

// slowSink is slower than the ping deadline.
type slowSink struct {
	*recorder
	d time.Duration
}

func (s slowSink) Submit(ctx context.Context, in engine.Input) error {
	if in.Link == nil {
		timer := time.NewTimer(s.d) // the sink's own slowness, not a wait for something
		defer timer.Stop()
		<-timer.C
	}
	return s.recorder.Submit(ctx, in)
}

func TestSlowSinkIsNotSilence(t *testing.T) {
	s := server(t, webiteltest.Options{})
	sink := slowSink{newRecorder(), 60 * time.Millisecond}
	cfg := fast(s.URL())
	cfg.PingInterval, cfg.PingDeadline = Duration(10*time.Millisecond), Duration(30*time.Millisecond)
	start(t, NewClient(cfg, user("1001"), ModeAccount, sink, nil))
	ins := sink.until(t, "10 inputs", func(ins []engine.Input) bool { return len(ins) >= 10 })
	if got := linkWords(ins); len(got) != 1 {
		t.Errorf("link %v, want it to stay up", got)
	}
}

func TestCleanStop(t *testing.T) {
	s := server(t, webiteltest.Options{})
	sink := newRecorder()
	c := NewClient(fast(s.URL()), user("1001"), ModeAccount, sink, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	sink.links(t, 1)
	cancel()
	if err := wait(t, "Run", done); err != nil {
		t.Errorf("Run returned %v, want nil", err)
	}
	if got := linkWords(sink.inputs); got[len(got)-1] != "down stopped" {
		t.Errorf("link %v, want it to end with down stopped", got)
	}
	if c.Connected() {
		t.Error("still connected")
	}
	if _, err := c.Do(t.Context(), Ping()); !errors.Is(err, ErrDisconnected) {
		t.Errorf("Do after the end returned %v, want ErrDisconnected", err)
	}
}

func connected(t *testing.T, s *webiteltest.Server, cfg Config) (*Client, *recorder) {
	t.Helper()
	sink := newRecorder()
	c := NewClient(cfg, user("1001"), ModeAccount, sink, nil)
	up := make(chan struct{}, 1)
	c.OnSettled(func(context.Context) { up <- struct{}{} })
	start(t, c)
	wait(t, "the link", up)
	return c, sink
}

func TestDo(t *testing.T) {
	s := server(t, webiteltest.Options{})
	c, _ := connected(t, s, fast(s.URL()))
	r, err := c.Do(t.Context(), Ping())
	if text, _ := r.Text(); err != nil || text != "pong" {
		t.Errorf("ping: %q, %v", text, err)
	}
	cmd, err := Hangup("11111111-2222-3333-4444-555555555555", "USER_BUSY")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = c.Do(t.Context(), cmd); !errors.Is(err, ErrNoChannel) {
		t.Errorf("hangup of nothing: %v, want ErrNoChannel", err)
	}
	if _, err = c.Do(t.Context(), Command{Func: "park"}); !errors.Is(err, ErrUnknown) {
		t.Errorf("park: %v, want ErrUnknown", err)
	}
}

func TestDoWithoutReply(t *testing.T) {
	s := server(t, webiteltest.Options{})
	cfg := fast(s.URL())
	cfg.ReplyTimeout = Duration(100 * time.Millisecond)
	c, _ := connected(t, s, cfg)
	if _, err := c.Do(t.Context(), Command{Func: "broadcast"}); !errors.Is(err, ErrNoReply) {
		t.Errorf("broadcast: %v, want ErrNoReply", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Do(ctx, Command{Func: "broadcast"}); !errors.Is(err, context.Canceled) {
		t.Errorf("broadcast, cancelled: %v", err)
	}
}

func TestPendingCommandsFailAtDrop(t *testing.T) {
	s := server(t, webiteltest.Options{})
	c, sink := connected(t, s, fast(s.URL()))
	errs := make(chan error, 3)
	for range 3 {
		go func() {
			_, err := c.Do(t.Context(), Command{Func: "broadcast"}) // never answered
			errs <- err
		}()
	}
	poll(t, "the commands to reach the server", func() bool { return s.Commands()["broadcast"] == 3 })
	s.Drop("")
	for range 3 {
		if err := wait(t, "a failure", errs); !errors.Is(err, ErrDisconnected) || verdict(err) != engine.VerdictNoReply {
			t.Errorf("pending command: %v, want ErrDisconnected, and that it may have been carried out", err)
		}
	}
	sink.links(t, 3)
}

func TestGarbageIsQuarantined(t *testing.T) {
	s := server(t, webiteltest.Options{})
	c, sink := connected(t, s, fast(s.URL()))
	for _, text := range []string{webiteltest.NotJSON, webiteltest.Truncated, webiteltest.NotFrame} {
		s.Garbage("", text)
	}
	if _, err := c.Do(t.Context(), Ping()); err != nil {
		t.Fatal(err)
	}
	ins := sink.until(t, "the pong", func(ins []engine.Input) bool { return len(ins) >= 9 })
	var reasons []string
	for _, in := range ins {
		if in.Quarantine != nil {
			reasons = append(reasons, in.Quarantine.Reason)
		}
	}
	if got, want := fmt.Sprint(reasons), "[not-json truncated not-a-frame]"; got != want {
		t.Errorf("quarantined %s, want %s", got, want)
	}
	if got := linkWords(ins); len(got) != 1 {
		t.Errorf("link %v, want it to stay up", got)
	}
}

// A list of accounts with a row that cannot be understood is kept, and what it says of
// the other accounts holds.
func TestOddRowOfTheAccountList(t *testing.T) {
	accounts := webiteltest.Agents("demo.local", 1001, 3, "secret")
	accounts = append(accounts,
		webiteltest.Account{Login: strings.Repeat("9", 300) + "@demo.local", Secret: "secret", Role: "user"},
		webiteltest.Account{Login: "1009@demo.local", Secret: "secret", Role: "admin"})
	s := server(t, webiteltest.Options{Accounts: accounts})
	sink := newRecorder()
	start(t, NewClient(fast(s.URL()), user("1009"), ModeDomain, sink, nil))
	ins := sink.until(t, "a list", func(ins []engine.Input) bool {
		return slices.ContainsFunc(ins, func(in engine.Input) bool { return len(in.Agents) > 1 })
	})
	for _, in := range ins {
		if len(in.Agents) <= 1 {
			continue
		}
		if len(in.Agents) != 4 {
			t.Errorf("agents %+v, want the other four", in.Agents)
		}
		if q := in.Quarantine; q == nil || q.Reason != ReasonType || !strings.Contains(q.Detail, "an id of") || len(q.Frame) == 0 {
			t.Errorf("quarantined %+v", q)
		}
	}
}

func TestTooLargeFrameReconnects(t *testing.T) {
	s := server(t, webiteltest.Options{})
	cfg := fast(s.URL())
	cfg.MaxFrame = 100_000
	_, sink := connected(t, s, cfg)
	s.Garbage("", strings.Repeat("x", 100_001))
	ins := sink.links(t, 3)
	if got, want := fmt.Sprint(linkWords(ins)), "[up down too-large up]"; got != want {
		t.Errorf("link %s, want %s", got, want)
	}
	for _, in := range ins {
		if q := in.Quarantine; q != nil && (q.Reason != ReasonTooLarge || len(q.Frame) != quarantinedPrefix) {
			t.Errorf("quarantined %s, %d bytes", q.Reason, len(q.Frame))
		}
	}
}

// socket is a server that hands each socket to serve, and returns its URL.
func socket(t *testing.T, serve func(*websocket.Conn)) (url string) {
	t.Helper()
	var up websocket.Upgrader
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ws, err := up.Upgrade(w, r, nil); err == nil {
			serve(ws)
		}
	}))
	t.Cleanup(h.Close)
	return "ws" + strings.TrimPrefix(h.URL, "http")
}

// TestMuteServer is a server that takes the socket and never answers auth.
func TestMuteServer(t *testing.T) {
	conns := make(chan *websocket.Conn, 16)
	cfg := fast(socket(t, func(ws *websocket.Conn) { conns <- ws }))
	cfg.ReplyTimeout = Duration(30 * time.Millisecond)
	start(t, NewClient(cfg, user("1001"), ModeAccount, newRecorder(), nil))
	for range 2 {
		defer wait(t, "another try", conns).Close()
	}
}

// TestFloodBeforeTheSignIn: what a server sends that does not answer auth is not
// gathered without bound.
func TestFloodBeforeTheSignIn(t *testing.T) {
	const large, times = 1 << 20, 100
	url := socket(t, func(ws *websocket.Conn) {
		defer ws.Close()
		for range times {
			if ws.WriteMessage(websocket.TextMessage, []byte(strings.Repeat("x", large))) != nil {
				return
			}
		}
		for err := error(nil); err == nil; { // it keeps the socket and reads
			_, _, err = ws.ReadMessage()
		}
	})
	sink := newRecorder()
	start(t, NewClient(fast(url), user("1001"), ModeAccount, sink, nil))
	ins := sink.until(t, "frames before the link is up", func(ins []engine.Input) bool { return len(ins) >= times-maxHeld/large })
	if got := linkWords(ins); len(got) != 0 {
		t.Errorf("link %v", got)
	}
}

func TestDialErrorHidesTheAddressSecrets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	for _, raw := range []string{"ws://me:hunter2@" + addr + "/?token=hunter2", "ws://me:hunter2@[bad"} {
		c := NewClient(fast(raw), user("1001"), ModeAccount, newRecorder(), nil)
		if _, err := c.dial(t.Context()); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("dial: %v", err)
		}
	}
}

func TestPlayedCallsReachTheSink(t *testing.T) {
	s := server(t, webiteltest.Options{})
	domain, agent := newRecorder(), newRecorder()
	start(t, NewClient(fast(s.URL()), user("1009"), ModeDomain, domain, nil))
	start(t, NewClient(fast(s.URL()), user("1001"), ModeAccount, agent, nil))
	domain.until(t, "sign-in", func(ins []engine.Input) bool { return len(ins) >= 17 })
	agent.until(t, "sign-in", func(ins []engine.Input) bool { return len(ins) >= 5 })
	sc, err := webiteltest.Recorded("02-incoming-answered")
	if err != nil {
		t.Fatal(err)
	}
	counts, err := s.Play(t.Context(), sc, webiteltest.PlayOptions{})
	if err != nil || counts.Server == 0 || counts.Account == 0 {
		t.Fatalf("played %+v, %v", counts, err)
	}
	legs := func(ins []engine.Input) (n uint64) {
		for _, in := range ins {
			if in.Leg != nil {
				n++
			}
		}
		return n
	}
	domain.until(t, "all frames", func(ins []engine.Input) bool { return legs(ins) == counts.Server })
	ins := agent.until(t, "all frames", func(ins []engine.Input) bool { return legs(ins) == counts.Account })
	for _, in := range ins {
		if in.Quarantine != nil {
			t.Errorf("quarantined: %s %s", in.Quarantine.Reason, in.Quarantine.Detail)
		}
	}
}
