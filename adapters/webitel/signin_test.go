package webitel

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// TestSignInOfTheGoldens feeds frames 0 to 3 of every golden to the machine and
// compares its commands with the recorded ones.
func TestSignInOfTheGoldens(t *testing.T) {
	names, err := filepath.Glob("../../testdata/goldens/*.json")
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, name := range names {
		if strings.HasSuffix(name, ".deviations.json") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var g struct {
			Account  string            `json:"account"`
			Frames   []json.RawMessage `json:"frames"`
			Expected []struct {
				At      int             `json:"at"`
				Command string          `json:"command"`
				Args    json.RawMessage `json:"args"`
			} `json:"expected"`
		}
		if err := json.Unmarshal(b, &g); err != nil {
			t.Fatal(err)
		}
		tried++
		var want, got []string
		for _, e := range g.Expected {
			if e.At <= 3 && e.Command != "" {
				want = append(want, fmt.Sprintf("%d %s %s", e.At, e.Command, canonical(t, e.Args)))
			}
		}
		note := func(at int, cmds []Command) {
			for _, c := range cmds {
				var args []byte
				if c.Args != nil {
					args, _ = json.Marshal(c.Args)
				}
				got = append(got, fmt.Sprintf("%d %s %s", at, c.Func, canonical(t, args)))
			}
		}
		s := NewSignIn(User{Login: g.Account, Password: "***"}, ModeAccount)
		note(0, s.Start())
		for at, raw := range g.Frames[1:4] {
			f, err := Decode(raw)
			if err != nil || f.Kind != KindReply {
				t.Fatalf("%s frame %d is no reply: %v", name, at+1, err)
			}
			next, done, err := s.Handle(f.Reply)
			if err != nil || done != (at == 2) {
				t.Errorf("%s frame %d: done %t, %v", name, at+1, done, err)
			}
			note(at+1, next)
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s sends\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		agents, err := s.Agents()
		if err != nil || len(agents) != 1 || agents[0].Kind != engine.AgentOnline || agents[0].Account != g.Account {
			t.Errorf("%s: agents %+v, %v; want the own one online", name, agents, err)
		}
	}
	if tried < 29 {
		t.Errorf("%d goldens, want 29", tried)
	}
}

func canonical(t *testing.T, b []byte) string {
	t.Helper()
	if len(b) == 0 {
		return "-"
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	out, _ := json.Marshal(v)
	return string(out)
}

func reply(complete, response string) Reply {
	return Reply{Complete: complete, Response: json.RawMessage(response)}
}

// walk gives a machine its replies and returns the last answer.
func walk(s *SignIn, replies ...Reply) (sent []string, done bool, err error) {
	s.Start()
	for _, r := range replies {
		var next []Command
		if next, done, err = s.Handle(r); err != nil {
			return sent, done, err
		}
		for _, c := range next {
			sent = append(sent, c.Func)
		}
	}
	return sent, done, nil
}

var (
	authOK  = reply("+OK", `{"login":"9@acme.example","role":"user","domain":"acme.example","state":"ONHOOK","status":"NONE","cc-agent":true}`)
	loginOK = reply("+OK", `"+OK: logged: true"`)
	listOK  = reply("+OK", `{"response":"{\"9\":{\"id\":\"9\",\"domain\":\"acme.example\",\"online\":true}}"}`)
	subOK   = reply("+OK", `"+OK: subscribe X"`)
	denied  = reply("-ERR", `"Permission denied!"`)
)

func TestSignInStories(t *testing.T) {
	repeat := func(r Reply, n int) []Reply {
		out := make([]Reply, n)
		for i := range out {
			out[i] = r
		}
		return out
	}
	head := []Reply{authOK, loginOK, listOK}
	for _, tt := range []struct {
		name    string
		mode    Mode
		replies []Reply
		done    bool
		err     error
		refused int
	}{
		{"account", ModeAccount, head, true, nil, 0},
		{"domain", ModeDomain, append(head[:3:3], repeat(subOK, 12)...), true, nil, 0},
		{"domain, one reply short", ModeDomain, append(head[:3:3], repeat(subOK, 11)...), false, nil, 0},
		{"the list is denied", ModeAccount, []Reply{authOK, loginOK, denied}, true, nil, 1},
		{"the list is denied to a watcher", ModeDomain, append([]Reply{authOK, loginOK, denied}, repeat(subOK, 12)...), true, nil, 1},
		{
			"subscribed already", ModeDomain,
			append(head[:3:3], repeat(reply("-ERR", `"-ERR: event subscribed!"`), 12)...), true, nil, 0,
		},
		{
			"one name is refused", ModeDomain,
			append(append(head[:3:3], reply("-ERR", `"-ERR: Event unregistered"`)), repeat(subOK, 11)...), true, nil, 1,
		},
		{"every name is refused", ModeDomain, append(head[:3:3], repeat(denied, 12)...), false, ErrPermission, 12},
		{
			"the list and every name are refused", ModeDomain,
			append([]Reply{authOK, loginOK, denied}, repeat(denied, 12)...), false, ErrPermission, 13,
		},
		{"wrong password", ModeDomain, []Reply{reply("+ERR", `{"login":{"status":401,"message":"secret incorrect"}}`)}, false, ErrSecret, 0},
		{"too many sockets", ModeDomain, []Reply{reply("-ERR", `"Maximum opened socket 10"`)}, false, ErrTooMany, 0},
		{"login is refused", ModeDomain, []Reply{authOK, denied}, false, ErrPermission, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := NewSignIn(User{Login: "9@acme.example", Password: "p"}, tt.mode)
			_, done, err := walk(s, tt.replies...)
			if done != tt.done || !errors.Is(err, tt.err) || len(s.Refused()) != tt.refused {
				t.Errorf("done %t, %v, refused %v; want %t, %v, %d", done, err, s.Refused(), tt.done, tt.err, tt.refused)
			}
		})
	}
}

func TestSignInErrorHidesTheSecret(t *testing.T) {
	s := NewSignIn(User{Login: "9@acme.example", Password: "hunter2"}, ModeDomain)
	_, _, err := walk(s, reply("+ERR", `{"login":{"status":401,"message":"-ERR no match for hunter2"}}`))
	if err == nil || strings.Contains(err.Error(), "hunter2") || errors.Is(err, ErrSecret) {
		t.Errorf("got %v", err)
	}
}

func TestSignInOfRootHasNoDomain(t *testing.T) {
	s := NewSignIn(User{Login: "root", Password: "p"}, ModeDomain)
	if _, _, err := walk(s, reply("+OK", `{"login":"root","role":"root"}`)); err != nil || s.Domain() != "" || s.Login() != "root" {
		t.Errorf("%q of %q, %v", s.Login(), s.Domain(), err)
	}
}

// TestSignInTakesNoLongName: the login and the domain become ids of events, which
// the log bounds.
func TestSignInTakesNoLongName(t *testing.T) {
	long := strings.Repeat("9", events.MaxID+1)
	s := NewSignIn(User{Login: "9@acme.example", Password: "p"}, ModeAccount)
	if _, _, err := walk(s, reply("+OK", `{"login":"`+long+`@acme.example","domain":"`+long+`"}`), loginOK, denied); err != nil {
		t.Fatal(err)
	}
	if agents, err := s.Agents(); err != nil || s.Domain() != "acme.example" || len(agents) != 1 || agents[0].Account != "9@acme.example" {
		t.Errorf("%.40q of %.40q, %v", s.Login(), s.Domain(), err)
	}
}
