package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
	"github.com/callstate/callstate/events/cti/subscribe"
	"github.com/callstate/callstate/store/memory"
)

const testPassword = "open sesame"

// enter connects a user of the embedded server.
func enter(t *testing.T, url, user string) *nats.Conn {
	t.Helper()
	a := natsbus.Access{User: user, Password: testPassword, InboxPrefix: natsbus.UserInbox(user)}
	nc, err := a.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// accountsIn collects the accounts that an answer tells of: what is named account
// anywhere in it, but for payloads, which name whom a call was with.
func accountsIn(v any, into map[string]int) {
	switch v := v.(type) {
	case map[string]any:
		for name, x := range v {
			if s, ok := x.(string); ok && name == "account" {
				into[s]++
			}
			if name != "payload" {
				accountsIn(x, into)
			}
		}
	case []any:
		for _, x := range v {
			accountsIn(x, into)
		}
	}
}

// TestAnswersHaveNobodyElse asks everything that can be asked about each account
// of the captures, and about each domain: the answer tells of that account or
// domain alone, and of all that the answer to everybody has of it.
func TestAnswersHaveNobodyElse(t *testing.T) {
	log := memory.New()
	evs := capturedEvents(t)
	if err := log.Append(t.Context(), &events.Batch{Events: slices.Clone(evs)}); err != nil {
		t.Fatal(err)
	}
	cfg := defaultConfig()
	cfg.Data, cfg.Listen, cfg.Shards = t.TempDir(), "127.0.0.1:-1", 1
	cfg.NATSUsers = []natsUser{{User: "root", Password: testPassword, Role: "admin"}}
	domains, accounts := map[string]bool{}, map[string]string{}
	var calls []events.CallKey
	for i := range evs {
		if key := evs[i].Key(); evs[i].Account != "" && !slices.Contains(calls, key) && evs[i].Call != "" {
			calls = append(calls, key)
		}
		if evs[i].Account != "" {
			_, d := cti.SplitAccount(evs[i].Account)
			domains[d], accounts[evs[i].Account] = true, d
		}
	}
	for a := range accounts {
		cfg.NATSUsers = append(cfg.NATSUsers, natsUser{User: a, Password: testPassword, Role: "agent", Accounts: []string{a}})
	}
	for d := range domains {
		cfg.NATSUsers = append(cfg.NATSUsers, natsUser{User: d, Password: testPassword, Role: "analyst", Domains: []string{d}})
	}
	if len(accounts) < 3 || len(calls) < 10 {
		t.Fatalf("%d accounts, %d calls", len(accounts), len(calls))
	}
	a, err := openAppOn(cfg, log, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	if err := a.engine.Ready(ctx); err != nil {
		t.Fatal(err)
	}

	ask := func(nc *nats.Conn, of natsbus.Scope, verb string, request any) map[string]int {
		t.Helper()
		b, _ := json.Marshal(request)
		m, err := nc.Request(of.Subject(verb), b, 30*time.Second)
		if err != nil {
			t.Fatalf("%s %s: %v", of.Subject(verb), b, err)
		}
		if code := m.Header.Get("Nats-Service-Error-Code"); code != "" && code != natsbus.CodeNotFound {
			t.Fatalf("%s %s: %s", of.Subject(verb), b, m.Header.Get("Nats-Service-Error"))
		}
		var v any
		if len(m.Data) > 0 {
			if err := json.Unmarshal(m.Data, &v); err != nil {
				t.Fatal(err)
			}
		}
		found := map[string]int{}
		accountsIn(v, found)
		return found
	}
	now := events.At(time.Now())
	requests := map[string][]any{
		"calls.list": {natsbus.CallFilter{Limit: 1000}, natsbus.CallFilter{Live: true, Limit: 1000}}, "calls.at": {natsbus.AtFilter{Time: now, Limit: 1000}},
		"calls.doubtful": {natsbus.DoubtFilter{}}, "lines.list": {natsbus.LineFilter{Limit: 1000}}, "lines.at": {natsbus.AtFilter{Time: now, Limit: 1000}}, "events.since": {natsbus.SinceFilter{Limit: 200}},
	}
	for i, key := range calls {
		if i%5 == 0 { // a sample
			requests["calls.get"] = append(requests["calls.get"], map[string]string{"callId": key.Call})
			requests["calls.history"] = append(requests["calls.history"], natsbus.HistoryFilter{CallID: key.Call, Conversation: true, Explain: true, Limit: 30})
		}
	}
	root := enter(t, a.server.URL(), "root")
	seen := map[string]bool{}
	for _, u := range cfg.NATSUsers[1:] {
		of := natsbus.ScopeOf(strings.Join(u.Accounts, ""), strings.Join(u.Domains, ""))
		nc := enter(t, a.server.URL(), u.User)
		for verb, rs := range requests {
			for _, r := range rs {
				got := ask(nc, of, verb, r)
				for name := range got {
					seen[verb] = true
					if !of.Has(name) {
						t.Errorf("%s is told of %s by %s %+v", u.User, name, verb, r)
					}
				}
				if verb != "calls.list" && verb != "lines.list" && verb != "calls.at" && verb != "lines.at" {
					continue
				}
				for name, n := range ask(root, natsbus.Scope{}, verb, r) {
					if of.Has(name) && got[name] != n {
						t.Errorf("%s is told %d times of %s by %s %+v, everybody %d times", u.User, got[name], name, verb, r, n)
					}
				}
			}
		}
		nc.Close()
	}
	// The verb tells of a conversation what its user may be told.
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(testPassword), 0o600); err != nil {
		t.Fatal(err)
	}
	shared := false
	for i, key := range calls {
		if i%5 != 0 {
			continue
		}
		told := map[string]int{}
		for _, user := range []string{"root", accounts[key.Account], key.Account} {
			out, errw := runVerb(t, "history", "--nats", a.server.URL(), "--nats-user", user, "--nats-password-file", secret, "--conversation", "--json", key.String())
			found := map[string]int{}
			for line := range strings.Lines(out) {
				var v any
				if err := json.Unmarshal([]byte(line), &v); err != nil {
					t.Fatal(err)
				}
				accountsIn(v, found)
			}
			told[user] = len(found)
			if of := accounts[key.Account]; user != "root" && !strings.Contains(errw, "this is what concerns "+user) || user == of && len(found) == 0 {
				t.Errorf("%s is told of %v in %s: %s", user, found, key, errw)
			}
		}
		if told[key.Account] != 1 || told["root"] < told[accounts[key.Account]] {
			t.Errorf("of %s are told of: %v", key, told)
		}
		shared = shared || told["root"] > 1
	}
	if !shared {
		t.Error("every conversation is one account's")
	}
	for verb := range requests {
		if !seen[verb] && verb != "calls.at" && verb != "calls.doubtful" { // all calls of the captures have ended
			t.Errorf("nobody was told anything by %s", verb)
		}
	}
}

// TestRecordingsOfOthers: the PBX gives the link of any recording to whoever asks;
// we do not.
func TestRecordingsOfOthers(t *testing.T) {
	d := startDaemon(t, t.TempDir(), func(c *config) {
		c.NATSUsers = []natsUser{
			{User: "root", Password: testPassword, Role: "admin"},
			{User: "own", Password: testPassword, Role: "agent", Accounts: []string{agent}, Recordings: true},
			{User: "other", Password: testPassword, Role: "agent", Accounts: []string{"1050@" + demoDomain}, Recordings: true},
		}
		c.Webitel[0].RecordingURL = "http://pbx.example:4004"
	})
	own, other := enter(t, d.server.URL(), "own"), enter(t, d.server.URL(), "other")
	record := func(nc *nats.Conn, account, call string) (string, string) {
		t.Helper()
		m, err := nc.Request(natsbus.ControlPrefix+"."+cti.LineKey(account)+".queryCallRecords", []byte(`{"callId":"`+call+`","timeoutMs":2000}`), 30*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		var o struct{ Result, Link string }
		if err := json.Unmarshal(m.Data, &o); err != nil {
			t.Fatal(err)
		}
		return o.Result, o.Link
	}
	m, err := own.Request(natsbus.ControlPrefix+"."+cti.LineKey(agent)+".makeCall", []byte(`{"target":"380501234567"}`), 30*time.Second)
	if err != nil || m.Header.Get("Nats-Service-Error") != "" {
		t.Fatalf("%s, %v", m.Data, err)
	}
	var calls struct{ Calls []cti.CallView }
	for len(calls.Calls) == 0 || calls.Calls[0].Call.Recording == "" && calls.Calls[0].Call.State == cti.StateAlerting {
		m, err := own.Request(natsbus.ScopeOf(agent, "").Subject("calls.list"), nil, 30*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(m.Data, &calls); err != nil {
			t.Fatal(err)
		}
	}
	c := &calls.Calls[0]
	id := c.CallID
	if c.Call.Recording != "" {
		id = c.Call.Recording
	}
	d.pbx.Record(id, []byte("ID3"))
	if result, link := record(own, agent, c.CallID); result != "ok" || !strings.HasPrefix(link, "http://pbx.example:4004/api/v2/files/"+id+"?") {
		t.Errorf("the account's own: %s %s", result, link)
	}
	for _, call := range []string{c.CallID, id} {
		if result, link := record(other, "1050@"+demoDomain, call); result != "no-call" || link != "" {
			t.Errorf("another's %s of %+v: %s %s", call, c, result, link)
		}
	}
}

// TestAgentsSubscriber: the subscriber that heals itself does so with what an agent
// may ask.
func TestAgentsSubscriber(t *testing.T) {
	d := startDaemon(t, t.TempDir(), func(c *config) {
		c.NATSUsers = []natsUser{{User: "desk1004", Password: testPassword, Role: "agent", Accounts: []string{agent}}}
	})
	nc := enter(t, d.server.URL(), "desk1004")
	got := make(chan cti.Event, 256)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := subscribe.Start(ctx, nc, subscribe.Options{Account: agent, Poll: 50 * time.Millisecond}, func(ev *cti.Event) { got <- *ev })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	before := s.Position()
	if err := <-d.playIncoming(t, 0); err != nil {
		t.Fatal(err)
	}
	await(t, got, cti.CallFinished)
	for s.Position() == before { // the poll asks for what it missed
		if runtime.Gosched(); ctx.Err() != nil {
			t.Fatal("the subscriber may not ask")
		}
	}
}

// TestVerbsOfAnAgent: the verbs work for a user who sees a part alone, and say at
// once what the user may not do.
func TestVerbsOfAnAgent(t *testing.T) {
	d := startDaemon(t, t.TempDir(), func(c *config) {
		c.NATSUsers = []natsUser{
			{User: "desk1004", Password: testPassword, Role: "agent", Accounts: []string{agent}},
			{User: "sam", Password: testPassword, Role: "supervisor", Domains: []string{demoDomain}},
		}
	})
	verb := func(user string, code int, want string, args ...string) {
		t.Helper()
		var out, errw bytes.Buffer
		env := map[string]string{"CALLSTATE_NATS_USER": user, "CALLSTATE_NATS_PASSWORD": testPassword}
		began := time.Now()
		got := realMain(append(args, "--nats", d.server.URL()), func(name string) string { return env[name] }, nil, &out, &errw)
		if text := out.String() + errw.String(); got != code || !strings.Contains(text, want) || strings.Contains(text, testPassword) {
			t.Errorf("%s: %v: exit %d, want %d and %q\n%s", user, args, got, code, want, text)
		}
		if took := time.Since(began); code == 1 && took > 8*time.Second {
			t.Errorf("%s: %v: was refused after %s", user, args, took)
		}
	}
	for end, ok := time.Now().Add(20*time.Second), false; !ok; { // until the accounts are known
		_, one, err := d.engine.Line(t.Context(), agent)
		_, two, err2 := d.engine.Line(t.Context(), "1002@"+demoDomain)
		if ok = one && two; err != nil || err2 != nil || time.Now().After(end) {
			t.Fatal("no lines", err, err2)
		}
	}
	verb("desk1004", 0, agent, "watch", "--lines", "--account", agent)
	verb("desk1004", 0, "", "calls", "--account", agent)
	verb("desk1004", 0, "ok", "state", agent)
	verb("desk1004", 1, "hint", "watch", "--lines")
	verb("desk1004", 1, "hint", "calls")
	verb("desk1004", 1, "hint", "calls", "--account", "1002@"+demoDomain)
	verb("desk1004", 1, "hint", "hangup", "1002@"+demoDomain)
	verb("desk1004", 1, "hint", "watch", "--json")
	verb("desk1004", 1, "--nats-inbox", "calls", "--account", agent, "--nats-inbox", "_INBOX")
	verb("stranger", 1, "hint", "calls", "--account", agent)
	verb("sam", 0, "1002@"+demoDomain, "watch", "--lines", "--domain", demoDomain)
	verb("sam", 0, "1002@"+demoDomain, "agents", "--domain", demoDomain)
	verb("sam", 0, "", "calls", "--domain", demoDomain)
	verb("sam", 1, "no-call", "hangup", "1002@"+demoDomain)
	verb("sam", 1, "hint", "status")
}
