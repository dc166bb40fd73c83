package verto

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// serveSocket runs serve for each WebSocket, and returns the address.
func serveSocket(t *testing.T, serve func(*websocket.Conn)) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := new(websocket.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		serve(ws)
	}))
	t.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http")
}

// other is a server that is no Verto server. tried is told of each attempt.
type other struct {
	url   string
	tried chan struct{}
}

func note(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func others(t *testing.T) map[string]other {
	all := make(map[string]other)
	add := func(name string, serve func(*websocket.Conn)) {
		tried := make(chan struct{}, 100)
		all[name] = other{serveSocket(t, func(ws *websocket.Conn) {
			note(tried)
			_, _, _ = ws.ReadMessage()
			serve(ws)
		}), tried}
	}
	add("silence", func(ws *websocket.Conn) { _, _, _ = ws.ReadMessage() })
	add("SIP", func(ws *websocket.Conn) {
		_ = ws.WriteMessage(websocket.TextMessage, []byte("SIP/2.0 400 Bad Request\r\n\r\n"))
		_, _, _ = ws.ReadMessage()
	})
	add("a close", func(ws *websocket.Conn) {
		_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1002, ""), time.Now().Add(time.Second))
	})
	tried := make(chan struct{}, 100)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		note(tried)
		http.Error(w, "no such page", http.StatusNotFound)
	}))
	t.Cleanup(web.Close)
	all["a web server"] = other{"ws" + strings.TrimPrefix(web.URL, "http"), tried}
	return all
}

func TestProbeTellsWhatIsNoVertoServer(t *testing.T) {
	for name, o := range others(t) {
		err := Probe(t.Context(), Config{ConnectionString: o.url, ProbeTimeout: Duration(50 * time.Millisecond)})
		if !errors.Is(err, ErrNotVerto) || !strings.Contains(err.Error(), "webitelWebrtcConnectionString") {
			t.Errorf("%s: %v", name, err)
		}
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	err := Probe(t.Context(), Config{ConnectionString: "ws" + strings.TrimPrefix(gone.URL, "http")})
	if err == nil || errors.Is(err, ErrNotVerto) {
		t.Errorf("nobody there: %v, want an error that is about the network", err)
	}
	good := serveSocket(t, func(ws *websocket.Conn) {
		_, _, _ = ws.ReadMessage()
		_ = ws.WriteMessage(websocket.TextMessage, []byte(`{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"Authentication Required"}}`))
		_, _, _ = ws.ReadMessage()
	})
	if err := Probe(t.Context(), Config{ConnectionString: good}); err != nil {
		t.Error(err)
	}
}

// sink keeps observations; it is told of each by a channel.
type sink chan engine.SessionObservation

func (s sink) Submit(ctx context.Context, in engine.Input) error {
	if in.Session == nil {
		return nil
	}
	select {
	case s <- *in.Session:
	default:
	}
	return nil
}

func (s sink) next(t *testing.T) engine.SessionObservation {
	t.Helper()
	select {
	case o := <-s:
		return o
	case <-time.After(20 * time.Second):
		t.Fatal("nothing more was observed")
		return engine.SessionObservation{}
	}
}

// runPhone runs a phone until the test ends.
func runPhone(t *testing.T, cfg Config) (*Phone, sink) {
	t.Helper()
	cfg.BackoffMin, cfg.BackoffMax = Duration(time.Millisecond), Duration(5*time.Millisecond)
	s := make(sink, 1000)
	p, err := NewPhone(cfg, User{Login: "1001@demo.local", Password: "hunter2"}, loopbackMedia(t), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return p, s
}

func TestPhoneTellsOnceThatThereIsNoVertoServer(t *testing.T) {
	for name, server := range others(t) {
		t.Run(name, func(t *testing.T) {
			_, s := runPhone(t, Config{ConnectionString: server.url, ProbeTimeout: Duration(20 * time.Millisecond)})
			for range 4 {
				select {
				case <-server.tried:
				case <-time.After(20 * time.Second):
					t.Fatal("it does not try again")
				}
			}
			if o := s.next(t); o.Kind != engine.SessionUnregistered || o.Reason != events.SessionNoVerto {
				t.Errorf("told %+v", o)
			}
			if len(s) > 0 {
				t.Errorf("told again: %+v", s.next(t))
			}
		})
	}
}

// FreeSWITCH's parser sees a fragmented message together with what lay behind it.
func TestMessagesAreOneFrame(t *testing.T) {
	header := make(chan []byte, 1)
	url := serveSocket(t, func(ws *websocket.Conn) {
		b := make([]byte, 4)
		_, _ = io.ReadFull(ws.NetConn(), b)
		header <- b
		_, _ = io.Copy(io.Discard, ws.NetConn())
	})
	cfg := Config{ConnectionString: url}.withDefaults()
	l, err := connectTo(t.Context(), &cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close(false)
	const size = 40_000
	if err := l.write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	const finText, maskedLong = 0x81, 0x80 | 126
	if b := <-header; b[0] != finText || b[1] != maskedLong || int(b[2])<<8|int(b[3]) != size {
		t.Errorf("header % x: not one frame of %d bytes", b, size)
	}
	if err := l.write(make([]byte, writeBuffer+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a message that would be several frames: %v", err)
	}
}

// A certificate is checked; what is not trusted is no reason to give up for ever.
func TestTLS(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := new(websocket.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		lonely(ws, func(f Frame) string {
			if f.Method == MethodPing {
				return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"error":{"code":-32000,"message":"Authentication Required"}}`, f.ID)
			}
			return ""
		})
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(server.Close)
	cfg := Config{ConnectionString: "wss" + strings.TrimPrefix(server.URL, "https")}
	if err := Probe(t.Context(), cfg); err == nil || errors.Is(err, ErrNotVerto) {
		t.Errorf("an unknown certificate: %v", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	cfg.TLS = &tls.Config{RootCAs: roots}
	if err := Probe(t.Context(), cfg); err != nil {
		t.Error(err)
	}
	if _, s := runPhone(t, cfg); s.next(t).Kind != engine.SessionRegistered {
		t.Error("not registered")
	}
}

// A server that accepts every login and answers nothing else.
func lonely(ws *websocket.Conn, answer func(f Frame) string) {
	for {
		_, b, err := ws.ReadMessage()
		if err != nil {
			return
		}
		f, err := Decode(b)
		if err != nil || f.Kind != KindRequest {
			continue
		}
		reply := answer(f)
		if reply == "" && f.Method == MethodLogin {
			reply = fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"result":{"message":"logged in"}}`, f.ID)
		}
		if reply != "" && ws.WriteMessage(websocket.TextMessage, []byte(reply)) != nil {
			return
		}
	}
}

func TestSilentServerIsGivenUp(t *testing.T) {
	t.Parallel()
	url := serveSocket(t, func(ws *websocket.Conn) { lonely(ws, func(Frame) string { return "" }) })
	_, s := runPhone(t, Config{ConnectionString: url, PingInterval: Duration(50 * time.Millisecond)})
	for range 2 {
		if o := s.next(t); o.Kind != engine.SessionRegistered {
			t.Fatalf("%+v, want it registered", o)
		}
		if o := s.next(t); o.Kind != engine.SessionUnregistered || o.Reason != events.SessionTimeout {
			t.Fatalf("%+v, want it given up", o)
		}
	}
}

// An old server does not know verto.ping; that it says so proves that it lives.
func TestRefusedPingIsASignOfLife(t *testing.T) {
	t.Parallel()
	pings := make(chan struct{}, 100)
	url := serveSocket(t, func(ws *websocket.Conn) {
		lonely(ws, func(f Frame) string {
			if f.Method != MethodPing {
				return ""
			}
			select {
			case pings <- struct{}{}:
			default:
			}
			return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"Invalid Method"}}`, f.ID)
		})
	})
	p, s := runPhone(t, Config{ConnectionString: url, PingInterval: Duration(200 * time.Millisecond)})
	s.next(t)
	for range 4 {
		select {
		case <-pings:
		case <-time.After(20 * time.Second):
			t.Fatal("no ping")
		}
	}
	if !p.Registered() || len(s) > 0 {
		t.Errorf("it was given up")
	}
}

// A login that expires is repeated before the server closes the socket.
func TestLoginIsRenewed(t *testing.T) {
	logins := make(chan Login, 10)
	url := serveSocket(t, func(ws *websocket.Conn) {
		lonely(ws, func(f Frame) string {
			var l Login
			if f.Method != MethodLogin || Read(f.Params, &l) != nil {
				return ""
			}
			select {
			case logins <- l:
			default:
			}
			return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"result":{"message":"logged in","auth-expires":%d}}`, f.ID, time.Now().Unix()+60)
		})
	})
	_, s := runPhone(t, Config{ConnectionString: url, PingInterval: Duration(40 * time.Millisecond), ReplyTimeout: Duration(time.Second)})
	var first Login
	for i := range 3 {
		select {
		case l := <-logins:
			if i == 0 {
				first = l
			}
			if l.SessID != first.SessID || l.SessID == "" || l.Login != "1001@demo.local" || l.Passwd != "hunter2" {
				t.Errorf("login %+v", l)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("no other login")
		}
	}
	if s.next(t).Kind != engine.SessionRegistered {
		t.Error("not registered")
	}
}

// What cannot be understood is kept, and the connection with it.
func TestUnknownFramesAreQuarantined(t *testing.T) {
	url := serveSocket(t, func(ws *websocket.Conn) {
		lonely(ws, func(f Frame) string {
			if f.Method != MethodLogin {
				return ""
			}
			_ = ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"result":{}}`, f.ID))
			for _, text := range []string{"{cut", `{"id":1}`, `{"id":2,"method":"verto.news"}`, `{"id":3,"method":"verto.bye","params":{"callID":{}}}`, "#SPU 1"} {
				_ = ws.WriteMessage(websocket.TextMessage, []byte(text))
			}
			return `{"id":4,"method":"verto.clientReady","params":{"reattached_sessions":[]}}`
		})
	})
	got := make(chan engine.Input, 100)
	p, err := NewPhone(Config{ConnectionString: url}, User{Login: "1001@demo.local", Password: "p"}, loopbackMedia(t), inputs(got), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	var reasons []string
	for len(reasons) < 7 {
		select {
		case in := <-got:
			switch {
			case in.Unframed:
			case in.Quarantine != nil:
				reasons = append(reasons, in.Quarantine.Reason)
			default:
				reasons = append(reasons, "")
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("only %q", reasons)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got, want := strings.Join(reasons, " "), " not-json not-a-frame unknown-method wrong-type  "; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

type inputs chan engine.Input

func (s inputs) Submit(_ context.Context, in engine.Input) error {
	s <- in
	return nil
}

func TestLoadSessID(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sessid")
	id, err := LoadSessID(file)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := LoadSessID(file); err != nil || again != id || len(id) != 36 {
		t.Errorf("%q became %q, %v", string(id), string(again), err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others can read it: %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSessID(file); err == nil {
		t.Error("anything is a session id")
	}
}

func TestConfig(t *testing.T) {
	good := Config{ConnectionString: "wss://pbx.example/verto"}
	user := User{Login: "1001@acme.example", Password: "p"}
	if err := errors.Join(good.Validate(), user.Validate()); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config, *User){
		"webitelWebrtcConnectionString": func(c *Config, _ *User) { c.ConnectionString = "sip:pbx" },
		"protocol":                      func(c *Config, _ *User) { c.Protocol = "sip" },
		"pingInterval is negative":      func(c *Config, _ *User) { c.PingInterval = -1 },
		"number@domain":                 func(_ *Config, u *User) { u.Login = "1001" },
		"no password":                   func(_ *Config, u *User) { u.Password = "" },
		"answer":                        func(_ *Config, u *User) { u.Answer = "maybe" },
		"not a folder":                  func(_ *Config, u *User) { u.Record = "/does/not/exist" },
	} {
		c, u := good, user
		change(&c, &u)
		if err := errors.Join(c.Validate(), u.Validate()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want something about %s", err, want)
		}
	}
	if s := fmt.Sprintf("%+v %v", user, Login{Passwd: user.Password}); strings.Contains(s, "Password:p") {
		t.Errorf("the password is shown: %s", s)
	}
	b, err := json.Marshal(Config{ConnectionString: "ws://a", PingInterval: Duration(time.Second)})
	if err != nil || !strings.Contains(string(b), `"pingInterval":"1s"`) {
		t.Errorf("%s, %v", b, err)
	}
}

// A message above the limit is kept, as far as that goes, and ends the connection.
func TestTooLargeAMessage(t *testing.T) {
	url := serveSocket(t, func(ws *websocket.Conn) {
		lonely(ws, func(f Frame) string {
			if f.Method != MethodLogin {
				return ""
			}
			_ = ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"result":{}}`, f.ID))
			return `{"jsonrpc":"2.0","id":1,"method":"verto.event","params":{"data":"` + strings.Repeat("x", MaxFrame) + `"}}`
		})
	})
	got := make(chan engine.Input, 100)
	p, err := NewPhone(Config{ConnectionString: url, BackoffMin: Duration(time.Hour), BackoffMax: Duration(time.Hour)},
		User{Login: "1001@demo.local", Password: "p"}, loopbackMedia(t), inputs(got), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	var reason string
	for {
		select {
		case in := <-got:
			switch {
			case in.Quarantine != nil:
				reason = in.Quarantine.Reason
				if n := len(in.Quarantine.Frame); n != quarantinedPrefix {
					t.Errorf("%d bytes are kept", n)
				}
			case in.Session != nil && in.Session.Kind == engine.SessionUnregistered:
				if reason != ReasonTooLarge {
					t.Errorf("quarantined as %q", reason)
				}
				return
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the connection goes on")
		}
	}
}
