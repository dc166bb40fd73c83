package webiteltest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// frame is what the tests read of an event.
type frame struct {
	Name     string `json:"Event-Name"`
	Source   string `json:"webitel-event-name"`
	Leg      string `json:"Unique-ID"`
	Core     string `json:"Core-UUID"`
	Sequence string `json:"Event-Sequence"`
	Date     string `json:"Event-Date-Timestamp"`
	Presence string `json:"Channel-Presence-ID"`
	Cause    string `json:"variable_hangup_cause"`
	Digit    string `json:"DTMF-Digit"`
}

// listener is a client that keeps frames. It reads as fast as it can.
type listener struct {
	*probe

	t    *testing.T
	next int
}

// listen signs an account in, as watcher of its domain if watch is set.
func listen(t *testing.T, s *Server, login string, watch bool) *listener {
	t.Helper()
	l := &listener{probe: dialProbe(t, s.URL()), t: t}
	l.do("auth", map[string]any{"account": login, "secret": "secret"})
	l.do("login", nil)
	if watch {
		for _, name := range serverNames {
			l.do("subscribe", map[string]any{"event": name})
		}
	}
	return l
}

// do sends a command and waits for its reply.
func (l *listener) do(fn string, args map[string]any) exec {
	l.t.Helper()
	l.next++
	id := fmt.Sprint(l.next)
	l.write(l.t, []byte(jsonText(exec{ID: id, Func: fn, Args: args})))
	l.until(l.t, "reply to "+fn, func() bool { _, ok := l.replies[id]; return ok })
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.replies[id]
}

// frames waits for n events of legs.
func (l *listener) frames(n int) []frame {
	l.t.Helper()
	var out []frame
	l.until(l.t, fmt.Sprint(n, " frames"), func() bool {
		out = out[:0]
		for _, x := range l.events {
			if x.Source == "server" || x.Source == "call" {
				out = append(out, x.frame)
			}
		}
		return len(out) >= n
	})
	return out
}

func scenario(t *testing.T, name string) *Scenario {
	t.Helper()
	sc, err := Recorded(name)
	if err != nil {
		t.Fatal(err)
	}
	return sc
}

func names(fs []frame) (out []string) {
	for _, f := range fs {
		out = append(out, strings.TrimPrefix(f.Name, "SE:"))
	}
	return out
}

func TestScenarioKnowsItsParts(t *testing.T) {
	for name, want := range map[string]string{
		"01-outgoing-hold-unhold":      "demo.local [1001 1002]",
		"02-incoming-answered":         "demo.local [1001]",
		"07-attended-transfer-webitel": "demo.local [1001 1003]",
		"15-ring-group":                "demo.local [1001 1002]",
	} {
		sc := scenario(t, name)
		if got := fmt.Sprint(sc.Domain, " ", sc.Agents); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestPlayingsDoNotClash(t *testing.T) {
	s := New(Options{Accounts: append(Agents("acme.example", 2001, 4, "secret"), DemoAccounts()...)})
	defer s.Close()
	w := listen(t, s, "2004@acme.example", true)
	sc := scenario(t, "02-incoming-answered")
	var n uint64
	for _, agent := range []string{"2001", "2002", "2003"} {
		c, err := s.Play(t.Context(), sc, PlayOptions{Domain: "acme.example", Numbers: map[string]string{"1001": agent}})
		if err != nil {
			t.Fatal(err)
		}
		n += c.Server
	}
	legs, sequences, accounts := make(map[string]string), make(map[string]bool), make(map[string]int)
	now := time.Now().UnixMicro()
	for _, f := range w.frames(int(n)) {
		if strings.HasSuffix(f.Presence, "@acme.example") {
			accounts[f.Presence]++
			if was := legs[f.Leg]; was != "" && was != f.Presence {
				t.Errorf("leg %s belongs to %s and %s", f.Leg, was, f.Presence)
			}
			legs[f.Leg] = f.Presence
		}
		if key := f.Core + f.Sequence; sequences[key] {
			t.Errorf("sequence %s twice", f.Sequence)
		} else {
			sequences[key] = true
		}
		var date int64
		if _, err := fmt.Sscan(f.Date, &date); err != nil || date > now+1_000_000 || date < now-60_000_000 {
			t.Errorf("event time %s is not about now", f.Date)
		}
		if f.Core != s.Core() {
			t.Errorf("core %s, want %s", f.Core, s.Core())
		}
	}
	if len(accounts) != 3 || len(legs) != 3 {
		t.Errorf("frames of %v on %d legs, want three accounts with a leg each", accounts, len(legs))
	}
	if left := s.Channels(); len(left) != 0 {
		t.Errorf("%d legs left after all ended", len(left))
	}
}

func TestPlayIsTheSameWithASeed(t *testing.T) {
	sc := scenario(t, "02-incoming-answered")
	legs := func() (out []string) {
		s := New(Options{})
		defer s.Close()
		w := listen(t, s, "1009@demo.local", true)
		c, err := s.Play(t.Context(), sc, PlayOptions{Seed: 7})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range w.frames(int(c.Server)) {
			out = append(out, f.Leg+f.Name)
		}
		return out
	}
	if a, b := legs(), legs(); !slices.Equal(a, b) {
		t.Error("two playings with one seed differ")
	}
}

func TestPlayKeepsThePace(t *testing.T) {
	s := New(Options{})
	defer s.Close()
	sc := scenario(t, "04-incoming-busy")
	start := time.Now()
	if _, err := s.Play(t.Context(), sc, PlayOptions{Speed: 20}); err != nil {
		t.Fatal(err)
	}
	if took, want := time.Since(start), sc.steps[len(sc.steps)-1].at/20; took < want {
		t.Errorf("played in %s, want at least %s", took, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Play(ctx, sc, PlayOptions{Speed: 1}); err == nil {
		t.Error("a playing outlived its context")
	}
}

func TestReorderKeepsEachLegsOrder(t *testing.T) {
	s := New(Options{})
	defer s.Close()
	s.Reorder(8)
	w := listen(t, s, "1009@demo.local", true)
	c, err := s.Play(t.Context(), scenario(t, "07-attended-transfer-webitel"), PlayOptions{Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	last, back := make(map[string]int), 0
	overall := 0
	for _, f := range w.frames(int(c.Server)) {
		var n int
		if _, err := fmt.Sscan(f.Sequence, &n); err != nil {
			t.Fatal(err)
		}
		if n < last[f.Leg] {
			t.Errorf("leg %s: sequence %d after %d", f.Leg, n, last[f.Leg])
		}
		if n < overall {
			back++
		}
		last[f.Leg], overall = n, n
	}
	if back < 10 {
		t.Errorf("%d frames out of order, want the legs mixed", back)
	}
}

func TestDuplicateIsCounted(t *testing.T) {
	s := New(Options{})
	defer s.Close()
	s.Duplicate(5)
	w := listen(t, s, "1009@demo.local", true)
	c, err := s.Play(t.Context(), scenario(t, "02-incoming-answered"), PlayOptions{})
	if err != nil {
		t.Fatal(err)
	}
	seen, twice := make(map[string]bool), uint64(0)
	for _, f := range w.frames(int(c.Server)) {
		if seen[f.Sequence] {
			twice++
		}
		seen[f.Sequence] = true
	}
	if c.Doubled == 0 || twice != c.Doubled {
		t.Errorf("%d frames came twice, counted %d", twice, c.Doubled)
	}
}

// TestNamesFallSilent is the real server's fault: a socket that dies takes every
// second name of the domain along, and subscribing again does not help.
func TestNamesFallSilent(t *testing.T) {
	sc := scenario(t, "02-incoming-answered")
	for name, silence := range map[string]func(*Server, *testing.T){
		"another socket died": func(s *Server, t *testing.T) {
			other := listen(t, s, "1010@demo.local", true)
			s.Drop("1010@demo.local")
			other.until(t, "end", func() bool { return other.closed != 0 })
		},
		"asked for": func(s *Server, _ *testing.T) { s.SilenceSE(true) },
	} {
		t.Run(name, func(t *testing.T) {
			s := New(Options{})
			defer s.Close()
			w := listen(t, s, "1009@demo.local", true)
			silence(s, t)
			if r := w.do("subscribe", map[string]any{"event": "SE:CHANNEL_ANSWER"}); r.Complete != "-ERR" {
				t.Errorf("subscribed twice: %s", r.Response)
			}
			c, err := s.Play(t.Context(), sc, PlayOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got := names(w.frames(int(c.Server)))
			for i, n := range serverNames {
				n = strings.TrimPrefix(n, "SE:")
				if i%2 == 0 && slices.Contains(got, n) {
					t.Errorf("%s lives", n)
				}
			}
			if !slices.Contains(got, "CHANNEL_BRIDGE") || !slices.Contains(got, "CHANNEL_STATE") {
				t.Errorf("have %v, want every second name to live", got)
			}
			w.do("unsubscribe", map[string]any{"event": "SE:CHANNEL_ANSWER"})
			w.do("subscribe", map[string]any{"event": "SE:CHANNEL_ANSWER"})
			before := len(got)
			if c, err = s.Play(t.Context(), sc, PlayOptions{}); err != nil {
				t.Fatal(err)
			}
			if got := names(w.frames(before + int(c.Server))[before:]); !slices.Contains(got, "CHANNEL_ANSWER") {
				t.Errorf("not cured: %v", got)
			}
		})
	}
}

func TestAccountPathNeedsLogin(t *testing.T) {
	s := New(Options{})
	defer s.Close()
	first, second := listen(t, s, "1001@demo.local", false), listen(t, s, "1001@demo.local", false)
	sc := scenario(t, "02-incoming-answered")
	c, err := s.Play(t.Context(), sc, PlayOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if a, b := len(first.frames(int(c.Account)/2)), len(second.frames(int(c.Account)/2)); a != b || a == 0 || c.Server != 0 {
		t.Errorf("the sockets got %d and %d frames of %+v, want a copy each", a, b, c)
	}
	second.do("logout", nil)
	if c, err = s.Play(t.Context(), sc, PlayOptions{}); err != nil || c.Account != 0 {
		t.Errorf("%d frames after logout, %v; want none for all sockets", c.Account, err)
	}
}

// upTo plays a scenario until it first raises an event of that name, and leaves
// the calls up.
func upTo(t *testing.T, s *Server, name, event string) {
	t.Helper()
	lines, err := recording(name)
	if err != nil {
		t.Fatal(err)
	}
	end := slices.IndexFunc(lines, func(l []byte) bool { return strings.Contains(string(l), `"Event-Name":"`+event+`"`) })
	sc, err := ParseScenario(name, lines[:end+1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Play(t.Context(), sc, PlayOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestCommandsActOnLegs(t *testing.T) {
	s := New(Options{})
	defer s.Close()
	a := listen(t, s, "1001@demo.local", false)
	upTo(t, s, "02-incoming-answered", "CHANNEL_BRIDGE")
	legs := s.Channels()
	if len(legs) != 2 {
		t.Fatalf("%d legs, want 2", len(legs))
	}
	own := legs[1]
	args := func(more ...string) map[string]any {
		m := map[string]any{"channel-uuid": own}
		for i := 0; i < len(more); i += 2 {
			m[more[i]] = more[i+1]
		}
		return m
	}
	a.do("ping", nil) // answered behind all events
	before := len(a.frames(1))
	a.do("hold", args())
	a.do("unhold", args())
	a.do("dtmf", args("digits", "1#"))
	a.do("hangup", args("cause", "USER_BUSY"))
	got := a.frames(before + 13)[before:]
	want := []string{
		"CHANNEL_CALLSTATE", "CHANNEL_HOLD", "CHANNEL_CALLSTATE", "CHANNEL_UNHOLD", "CHANNEL_CALLSTATE", "DTMF", "DTMF",
		"CHANNEL_HANGUP", "CHANNEL_CALLSTATE", "CHANNEL_STATE", "CHANNEL_HANGUP_COMPLETE", "CHANNEL_DESTROY", "CHANNEL_STATE",
	}
	if !slices.Equal(names(got), want) {
		t.Errorf("raised %v\nwant %v", names(got), want)
	}
	if got[6].Digit != "#" || got[10].Cause != "USER_BUSY" {
		t.Errorf("digit %q, cause %q", got[6].Digit, got[10].Cause)
	}
	a.do("ping", nil) // answered when the hangup is done
	if left := s.Channels(); len(left) != 0 {
		t.Errorf("legs %v left, want the partner gone too", left)
	}
}

func TestCallPlaysAClickToCall(t *testing.T) {
	s := New(Options{OriginateSpeed: -1})
	defer s.Close()
	a := listen(t, s, "1003@demo.local", false)
	const parent = "0a0b0c0d-0000-4000-8000-000000000001"
	r := a.do("att_xfer2", map[string]any{
		"extension": "0671234567", "user": "1003@demo.local", "parent_call_uuid": parent,
	})
	var text string
	if json.Unmarshal(r.Response, &text) != nil || r.Complete != "+OK" || !uuids.MatchString(text) {
		t.Fatalf("reply %s %s", r.Complete, r.Response)
	}
	a.until(t, "the end", func() bool {
		return slices.ContainsFunc(a.events, func(x exec) bool { return x.Event == "CHANNEL_DESTROY" })
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	named := 0
	for _, x := range a.events {
		var f struct {
			Leg    string `json:"Unique-ID"`
			Parent string `json:"variable_w_jsclient_xtransfer"`
			Target string `json:"variable_w_jsclient_originate_number"`
		}
		if x.Source != "call" || json.Unmarshal(x.raw, &f) != nil {
			continue
		}
		if f.Parent != "" {
			if named++; f.Parent != parent || f.Target != "0671234567" || !strings.Contains(text, f.Leg) {
				t.Errorf("leg %+v of %s", f, text)
			}
		}
	}
	if named == 0 {
		t.Error("no event names the parent")
	}
}

func TestGenerateReconciles(t *testing.T) {
	const agents = 6
	s := New(Options{Accounts: append(Agents("load.example", 3000, agents, "secret"),
		Account{Login: "9@load.example", Secret: "secret"})})
	defer s.Close()
	w := listen(t, s, "9@load.example", true)
	var own []*listener
	for _, n := range Numbers(3000, agents) {
		own = append(own, listen(t, s, n+"@load.example", false))
	}
	total, err := s.Generate(t.Context(), GenerateOptions{
		Agents: Numbers(3000, agents), Domain: "load.example", Calls: 18, Rate: 500,
	})
	if err != nil || total.Calls != 18 {
		t.Fatalf("%+v, %v", total, err)
	}
	if n := len(w.frames(int(total.Server))); n != int(total.Server) {
		t.Errorf("the watcher got %d frames, sent %d", n, total.Server)
	}
	var sum int
	for _, l := range own {
		l.do("ping", nil) // behind all events
		sum += len(l.frames(0))
	}
	if sum != int(total.Account) {
		t.Errorf("the agents got %d frames, sent %d", sum, total.Account)
	}
	if sent := s.Sent(); sent.Server != total.Server || sent.Account != total.Account {
		t.Errorf("written %+v, generated %+v", sent, total)
	}
	if left := s.Channels(); len(left) != 0 {
		t.Errorf("%d legs left", len(left))
	}
}

func TestDelayAndHalfOpen(t *testing.T) {
	s := New(Options{})
	defer s.Close()
	a := listen(t, s, "1001@demo.local", false)
	s.Delay(30 * time.Millisecond)
	start := time.Now()
	a.do("ping", nil)
	if took := time.Since(start); took < 30*time.Millisecond {
		t.Errorf("pong after %s", took)
	}
	s.Delay(0)
	if n := s.HalfOpen("1001@demo.local"); n != 1 {
		t.Errorf("%d sockets half open, want 1", n)
	}
	b := listen(t, s, "1002@demo.local", false)
	b.do("ping", nil)
	a.mu.Lock()
	closed := a.closed
	a.mu.Unlock()
	if closed != 0 || s.Sockets("1001@demo.local") != 1 {
		t.Error("the half-open socket is gone")
	}
	s.Reap()
	a.until(t, "end", func() bool { return a.closed != 0 })
}

func BenchmarkPlay(b *testing.B) {
	s := New(Options{})
	defer s.Close()
	sc, err := Recorded("02-incoming-answered")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Play(b.Context(), sc, PlayOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseScenario(b *testing.B) {
	lines, err := recording("02-incoming-answered")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := ParseScenario("02", lines); err != nil {
			b.Fatal(err)
		}
	}
}
