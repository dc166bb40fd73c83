package webiteltest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/callstate/callstate/testdata/captures"
)

// exceptions are the replies of the real server that ours does not match, with
// the reason. Keep it short: an exception that is not needed fails the test.
var exceptions = []struct {
	transcript, fn, difference, why string
}{
	{
		"20-commands-in-a-call", "channel_dump", "keys",
		"FreeSWITCH dumps every variable of the leg; we know those that its events carried",
	},
}

// entry is one line of a transcript.
type entry struct {
	captures.Line

	Open   bool   `json:"open"`
	Ping   bool   `json:"wsping"`
	Note   string `json:"note"`
	socket string
}

// exec is a command or a reply.
type exec struct {
	ID       string          `json:"exec-uuid"`
	Func     string          `json:"exec-func"`
	Args     map[string]any  `json:"exec-args,omitempty"`
	Complete string          `json:"exec-complete,omitempty"`
	Response json.RawMessage `json:"exec-response,omitempty"`
	Event    string          `json:"Event-Name,omitempty"`
	Source   string          `json:"webitel-event-name,omitempty"`
	User     string          `json:"User-ID,omitempty"`

	raw   []byte
	frame frame // if it is an event of a leg
}

// readTranscript returns the lines of all sockets of a scenario in their order.
func readTranscript(t *testing.T, scenario string) (all []entry, replies map[string]exec) {
	t.Helper()
	names, err := captures.List("webitel-v3/" + scenario + "*.jsonl")
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v, %v", scenario, names, err)
	}
	replies = make(map[string]exec)
	for _, name := range names {
		lines, err := captures.Lines(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			e := entry{socket: name}
			if err := json.Unmarshal(l, &e); err != nil {
				t.Fatal(err)
			}
			all = append(all, e)
			var x exec
			if e.Dir == "in" && json.Unmarshal(e.Frame, &x) == nil && x.Complete != "" {
				replies[x.ID] = x
			}
		}
	}
	slices.SortStableFunc(all, func(a, b entry) int { return cmp.Compare(a.T, b.T) })
	return all, replies
}

// probe is a client that keeps what it receives.
type probe struct {
	ws *websocket.Conn

	mu      sync.Mutex // guards what follows
	replies map[string]exec
	events  []exec
	pongs   int
	closed  int           // close code; 0 while open
	wake    chan struct{} // closed and replaced at each change
}

func dialProbe(t *testing.T, url string) *probe {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.DialContext(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &probe{ws: ws, replies: make(map[string]exec), wake: make(chan struct{})}
	ws.SetPongHandler(func(string) error {
		p.change(func() { p.pongs++ })
		return nil
	})
	var wg sync.WaitGroup
	wg.Go(p.read)
	t.Cleanup(func() {
		ws.Close()
		wg.Wait()
	})
	return p
}

func (p *probe) read() {
	for {
		_, b, err := p.ws.ReadMessage()
		if err != nil {
			code := websocket.CloseAbnormalClosure
			if ce := (*websocket.CloseError)(nil); errors.As(err, &ce) {
				code = ce.Code
			} else if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, net.ErrClosed) {
				code = -1
			}
			p.change(func() { p.closed = code })
			return
		}
		var x exec
		if json.Unmarshal(b, &x) != nil {
			x.Event = "garbage"
		}
		if x.raw = b; x.Source == "server" || x.Source == "call" {
			_ = json.Unmarshal(b, &x.frame)
		}
		p.change(func() {
			if x.Complete != "" {
				p.replies[x.ID] = x
			} else {
				p.events = append(p.events, x)
			}
		})
	}
}

func (p *probe) change(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn()
	close(p.wake)
	p.wake = make(chan struct{})
}

func (p *probe) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		p.mu.Lock()
		done, wake := ok(), p.wake
		p.mu.Unlock()
		if done {
			return
		}
		select {
		case <-wake:
		case <-timeout:
			t.Fatalf("no %s", what)
		}
	}
}

func (p *probe) write(t *testing.T, b []byte) {
	t.Helper()
	if err := p.ws.WriteMessage(websocket.TextMessage, b); err != nil {
		t.Fatal(err)
	}
}

// player plays the client's part of a transcript.
type player struct {
	t        *testing.T
	s        *Server
	name     string
	probes   map[string]*probe
	recorded map[string]exec // replies by exec-uuid
	asked    map[string]exec // commands by exec-uuid
	key, tok string          // of the last token_generate
	used     map[int]bool    // exceptions
}

func TestTranscripts(t *testing.T) {
	used := make(map[int]bool)
	for _, name := range []string{
		"01-session", "02-failures", "03-unauthenticated-timeout", "04-max-sockets", "05-token-auth",
		"18-login-needed", "20-commands-in-a-call", "30-account-status", "40-several-sockets-one-account",
	} {
		t.Run(name, func(t *testing.T) {
			opts := Options{}
			if strings.HasPrefix(name, "03") {
				opts.UnauthenticatedTimeout = 200 * time.Millisecond
			}
			s := New(opts)
			defer s.Close()
			lines, replies := readTranscript(t, name)
			p := player{
				t: t, s: s, name: name, recorded: replies, used: used,
				probes: make(map[string]*probe), asked: make(map[string]exec),
			}
			for i := range lines {
				p.play(&lines[i])
			}
			p.silent()
		})
	}
	for i, e := range exceptions {
		if !used[i] {
			t.Errorf("exception for %s of %s is not needed", e.fn, e.transcript)
		}
	}
}

func (p *player) play(e *entry) {
	t := p.t
	t.Helper()
	probe := p.probes[e.socket]
	switch {
	case e.Dir == "note" && e.Note == "a call without login: nothing":
		p.call()
	case e.Dir == "note":
	case e.Open:
		p.probes[e.socket] = dialProbe(t, p.s.URL())
	case e.Dir == "out" && e.Raw != nil:
		probe.write(t, []byte(*e.Raw))
	case e.Dir == "out" && e.Ping:
		if err := probe.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		probe.until(t, "pong", func() bool { return probe.pongs > 0 })
	case e.Dir == "out" && e.Close != 0:
		bye := websocket.FormatCloseMessage(e.Close, "")
		if err := probe.ws.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
	case e.Dir == "in" && e.Close != 0:
		probe.until(t, "end of the socket", func() bool { return probe.closed != 0 })
		if probe.closed != e.Close {
			t.Errorf("%s closed with %d, recorded %d", e.socket, probe.closed, e.Close)
		}
	case e.Frame == nil:
	case e.Dir == "out":
		p.send(probe, e.Frame)
	default:
		p.receive(probe, e)
	}
}

// send sends a recorded command with real secrets: whether a masked one was right
// is seen by its reply.
func (p *player) send(probe *probe, frame []byte) {
	p.t.Helper()
	var x exec
	if err := json.Unmarshal(frame, &x); err != nil {
		p.t.Fatal(err)
	}
	p.asked[x.ID] = x
	if x.Func == "auth" {
		answer, answered := p.recorded[x.ID]
		right := !answered || answer.Complete == "+OK" || strings.HasPrefix(string(answer.Response), `"Maximum`)
		swap := func(name, value string) {
			if _, ok := x.Args[name]; ok {
				if x.Args[name] = value; !right {
					x.Args[name] = "wrong"
				}
			}
		}
		swap("secret", "secret")
		swap("key", p.key)
		swap("token", p.tok)
	}
	b, err := json.Marshal(x)
	if err != nil {
		p.t.Fatal(err)
	}
	probe.write(p.t, b)
}

// receive waits for what the recording received: replies, and presence events.
// Events of legs are raised instead where the recording has them in full, so that
// the server knows the legs the commands speak of.
func (p *player) receive(probe *probe, e *entry) {
	t := p.t
	t.Helper()
	var want exec
	if err := json.Unmarshal(e.Frame, &want); err != nil {
		t.Fatal(err)
	}
	switch {
	case want.Complete != "":
		fn := p.asked[want.ID].Func
		probe.until(t, "reply to "+fn, func() bool { _, ok := probe.replies[want.ID]; return ok })
		got := probe.replies[want.ID]
		if diff := p.differs(want, got); diff != "" && !p.excepted(fn, diff) {
			t.Errorf("%s %v: %s differs:\n got %s %.300s\nwant %s %.300s", fn, p.asked[want.ID].Args, diff,
				got.Complete, got.Response, want.Complete, want.Response)
		}
		if fn == "token_generate" {
			var text string
			var tok struct{ Key, Token string }
			if json.Unmarshal(got.Response, &text) != nil || json.Unmarshal([]byte(text), &tok) != nil {
				t.Fatalf("token_generate: %s", got.Response)
			}
			p.key, p.tok = tok.Key, tok.Token
		}
	case want.Source == "server":
		line := bytes.Replace(e.Frame, []byte(`"Event-Name":"SE:`), []byte(`"Event-Name":"`), 1)
		if _, err := p.s.Raise(line); err != nil {
			t.Fatal(err)
		}
	case want.Source != "call":
		seen := 0
		probe.until(t, want.Event, func() bool {
			seen = slices.IndexFunc(probe.events, func(x exec) bool { return x.Event == want.Event && x.User == want.User })
			return seen >= 0
		})
		probe.mu.Lock()
		probe.events = slices.Delete(probe.events, seen, seen+1)
		probe.mu.Unlock()
	}
}

func (p *player) excepted(fn, diff string) bool {
	for i, x := range exceptions {
		if x.transcript == p.name && x.fn == fn && x.difference == diff {
			p.used[i] = true
			return true
		}
	}
	return false
}

// silent checks that what was never answered in the recording was not by us.
func (p *player) silent() {
	for _, probe := range p.probes {
		probe.mu.Lock()
		for id := range probe.replies {
			if _, ok := p.recorded[id]; !ok {
				p.t.Errorf("%s %v was answered, and never was in the recording", p.asked[id].Func, p.asked[id].Args)
			}
		}
		probe.mu.Unlock()
	}
}

// call puts up an answered call of 1001, as the trunk did in transcript 18.
func (p *player) call() {
	lines, err := recording("02-incoming-answered")
	if err != nil {
		p.t.Fatal(err)
	}
	end := slices.IndexFunc(lines, func(l []byte) bool { return bytes.Contains(l, []byte(`"CHANNEL_BRIDGE"`)) })
	sc, err := ParseScenario("until the bridge", lines[:end+1])
	if err != nil {
		p.t.Fatal(err)
	}
	counts, err := p.s.Play(context.Background(), sc, PlayOptions{})
	if err != nil || counts.Account != 0 {
		p.t.Errorf("sent %+v, %v; want nothing for an account without login", counts, err)
	}
}

// differs names the first difference in shape between two replies.
func (p *player) differs(want, got exec) string {
	if want.Complete != got.Complete {
		return "exec-complete"
	}
	if (want.Response == nil) != (got.Response == nil) {
		return "presence of exec-response"
	}
	if want.Response == nil {
		return ""
	}
	var w, g any
	if json.Unmarshal(want.Response, &w) != nil || json.Unmarshal(got.Response, &g) != nil {
		return "JSON"
	}
	return shape(w, g, true)
}

// shape compares types, keys and, at the top, texts with their ids and numbers
// masked. Texts that hold JSON are compared as that.
func shape(want, got any, top bool) string {
	if fmt.Sprintf("%T", want) != fmt.Sprintf("%T", got) {
		return "type"
	}
	switch w := want.(type) {
	case map[string]any:
		g, _ := got.(map[string]any)
		if !slices.Equal(slices.Sorted(maps.Keys(w)), slices.Sorted(maps.Keys(g))) {
			return "keys"
		}
		for k := range w {
			if d := shape(w[k], g[k], false); d != "" {
				return k + ": " + d
			}
		}
	case []any:
		g, _ := got.([]any)
		if (len(w) == 0) != (len(g) == 0) {
			return "length"
		}
		if len(w) > 0 {
			return shape(w[0], g[0], false)
		}
	case string:
		g, _ := got.(string)
		var wj, gj map[string]any
		if json.Unmarshal([]byte(w), &wj) == nil && json.Unmarshal([]byte(g), &gj) == nil {
			return shape(wj, gj, false)
		}
		if top && mask(w) != mask(g) {
			return "text"
		}
	}
	return ""
}

var (
	uuids  = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	digits = regexp.MustCompile(`\d+`)
	tokens = regexp.MustCompile(`(x_key|access_token)=[^&]*`)
)

func mask(s string) string {
	s = tokens.ReplaceAllString(s, "$1=***")
	return digits.ReplaceAllString(uuids.ReplaceAllString(s, "<id>"), "0")
}
