package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// printConfig runs callstate config and returns its rows by setting.
func printConfig(t *testing.T, env map[string]string, args ...string) (code int, rows map[string]string, all string) {
	t.Helper()
	var out, errw bytes.Buffer
	code = realMain(append([]string{"config"}, args...), func(name string) string { return env[name] }, nil, &out, &errw)
	rows = map[string]string{}
	for line := range strings.SplitSeq(out.String(), "\n") {
		if f := strings.Fields(line); len(f) > 1 {
			rows[f[0]] = strings.Join(f[1:], " ")
		}
	}
	return code, rows, out.String() + errw.String()
}

// TestConfigSaysWhereFrom: a flag counts before the environment, that before the
// file, that before the default, and it is said which.
func TestConfigSaysWhereFrom(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.toml")
	secretFile := filepath.Join(t.TempDir(), "p")
	for name, text := range map[string]string{secretFile: "hunter2\n", file: `
data = "/of/file"
shards = 3
streamMaxAge = "24h"
nats = "nats://u:hunter2@nats.example:4222"
[retention]
size = "20GiB"
[natsAccess]
token = "hunter2"
[[webitel]]
webitelConnectionString = "wss://me:hunter2@pbx.example:871/"
pingInterval = "5s"
users = [{ login = "1001@acme.example", passwordFile = "` + secretFile + `" }, { login = "1002@other.example", password = "hunter2" }]
`} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, rows, all := printConfig(t, map[string]string{"CALLSTATE_SHARDS": "2", "CALLSTATE_PREFIX": "of.env", "CALLSTATE_DATA": "/of/env", "CALLSTATE_PASSWORD": "hunter2"},
		"--config", file, "--data", "/of/flag", "--retain-age", "48h", "--webitel", "ws://two.example/", "--login", "2001@two.example")
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, all)
	}
	for name, want := range map[string]string{
		"data": "/of/flag --data", "shards": "2 CALLSTATE_SHARDS", "prefix": "of.env CALLSTATE_PREFIX", "streamMaxAge": "24h0m0s " + file,
		"listen": "127.0.0.1:4222 default", "resyncInterval": "1m0s default", "retention.size": "20 GiB " + file, "retention.age": "48h0m0s --retain-age", "policies.rejectSecondCall": "false default",
		"nats": "nats://***@nats.example:4222 " + file, "natsAccess.token": "*** " + file,
		"webitel[0].webitelConnectionString": "wss://***@pbx.example:871/ " + file, "webitel[0].pingInterval": "5s " + file,
		"webitel[0].users[0].login": "1001@acme.example " + file, "webitel[0].users[0].passwordFile": secretFile + " " + file, "webitel[0].users[1].password": "*** " + file,
		"webitel[1].users[0].login": "2001@two.example --webitel", "webitel[1].users[0].passwordEnv": "CALLSTATE_PASSWORD --webitel",
	} {
		if rows[name] != want {
			t.Errorf("%s: %q, want %q", name, rows[name], want)
		}
	}
	if strings.Contains(all, "hunter2") {
		t.Errorf("a secret is printed:\n%s", all)
	}
}

// TestPortZero: the system chooses, as everywhere, and not the NATS server, whose
// choice is the port of the daemon that runs already.
func TestPortZero(t *testing.T) {
	c := defaultConfig()
	for _, listen := range []string{"127.0.0.1:0", "127.0.0.1:-1"} {
		c.Listen = listen
		if o, err := c.serverOptions(); err != nil || o.Port != -1 {
			t.Errorf("%s: port %d, %v", listen, o.Port, err)
		}
	}
}

// TestConfigErrors: what is wrong is said, in no case with a secret.
func TestConfigErrors(t *testing.T) {
	const link = "\n[[webitel]]\nwebitelConnectionString = \"ws://pbx/\"\nusers = [{login = \"1@d\", password = \"hunter2\"}]"
	for want, text := range map[string]string{
		"line 2":               "password = \"hunter2\"\nx = = \"hunter2\"",
		"line 1: expected":     "password = hunter2",
		"unknown setting":      "passwort = \"hunter2\"\n",
		"want one of them":     "[[webitel]]\nwebitelConnectionString = \"ws://pbx/\"\nusers = [{login = \"1@d\", password = \"hunter2\", passwordEnv = \"X\"}]",
		"no NOT_SET":           "[[webitel]]\nwebitelConnectionString = \"ws://pbx/\"\nusers = [{login = \"1@d\", passwordEnv = \"NOT_SET\"}]",
		"no password":          "[[webitel]]\nwebitelConnectionString = \"ws://pbx/\"\nusers = [{login = \"1@d\"}]",
		"natsAccess is for":    "[natsAccess]\nuser = \"u\"\npassword = \"hunter2\"\n[[webitel]]\nwebitelConnectionString = \"ws://pbx/\"\nusers = [{login = \"1@d\", password = \"hunter2\"}]",
		"for the embedded":     "nats = \"nats://x\"\n[[natsUsers]]\nuser = \"u\"\npassword = \"hunter2\"\nrole = \"admin\"\n[[webitel]]\nwebitelConnectionString = \"ws://pbx/\"\nusers = [{login = \"1@d\", password = \"hunter2\"}]",
		`user "u"`:             "[[natsUsers]]\nuser = \"u\"\npassword = \"hunter2\"\nrole = \"boss\"\n[[webitel]]\nwebitelConnectionString = \"ws://pbx/\"\nusers = [{login = \"1@d\", password = \"hunter2\"}]",
		"--trace":              "[tracing]\nurl = \"collector:4318\"\n[[webitel]]\nwebitelConnectionString = \"ws://pbx/\"\nusers = [{login = \"1@d\", password = \"hunter2\"}]",
		"--listen":             "listen = \"nonsense\"" + link,
		"want a port":          "listen = \"127.0.0.1:99999\"" + link,
		"without users":        "listen = \"0.0.0.0:4222\"" + link,
		"--http":               "http = \"nonsense\"" + link,
		"invalid port":         "http = \"127.0.0.1:99999\"" + link,
		"prefix":               "prefix = \"a b.>\"" + link,
		"max age":              "streamMaxAge = \"1s\"" + link,
		"--shards":             "shards = -3" + link,
		"not a URL":            "[[webitel]]\nwebitelConnectionString = \"ws://u:hunter2@[x\"\nusers = [{login = \"1@d\", password = \"hunter2\"}]",
		"certFile and keyFile": "[natsAccess]\ncertFile = \"x\"\n[[webitel]]\nwebitelConnectionString = \"ws://pbx/\"\nkeyFile = \"x\"\nusers = [{login = \"1@d\", password = \"hunter2\"}]",
	} {
		file := filepath.Join(t.TempDir(), "c.toml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, _, all := printConfig(t, nil, "--config", file); code == 0 || !strings.Contains(all, want) || strings.Contains(all, "hunter") {
			t.Errorf("%s: exit code %d\n%s", want, code, all)
		}
	}
}

// TestSecretsAreNowhere runs a daemon whose every secret is one word or another, at
// debug, through what logs most: sign-ins that are refused, users that are not let
// in, a recording. No secret is in what it logs, stores, publishes or shows.
func TestSecretsAreNowhere(t *testing.T) {
	secrets := []string{demoSecret + "-pbx-word", "nats-word", webiteltest.FileToken, webiteltest.FileKey}
	data := t.TempDir()
	d := startDaemon(t, data, withHTTP, func(c *config) {
		c.NATSUsers = []natsUser{{User: "root", Password: "nats-word", Role: "admin"}, {User: "desk1004", Password: "nats-word", Role: "agent", Accounts: []string{agent}, Recordings: true}}
		// A second link, whose PBX refuses it with its password in the refusal.
		pbx := webiteltest.New(webiteltest.Options{Accounts: webiteltest.Agents("other.local", 1, 1, "x")})
		t.Cleanup(pbx.Close)
		w := c.Webitel[0]
		w.ConnectionString = pbx.URL()
		w.Users = append(w.Users[:0:0], w.Users[0])
		w.Users[0].Login, w.Users[0].Password = "1@other.local", demoSecret+"-pbx-word"
		pbx.RefuseAuth(3, "directory says "+demoSecret+"-pbx-word")
		c.Webitel = append(c.Webitel, w)
	})
	var seen strings.Builder
	a := natsbus.Access{User: "root", Password: "nats-word"}
	nc, err := a.Connect(d.server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	ask := func(method, body string) engine.Outcome {
		t.Helper()
		var r engine.Request
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			t.Fatal(err)
		}
		r.Account, r.Method = agent, method
		out, _, err := askControl(nc, r, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&seen, "%s %s\n", out.Result, out.Answer)
		return out
	}
	for _, bad := range []natsbus.Access{{User: "root", Password: "nats-word-not"}, {User: "stranger", Password: "nats-word"}} {
		_, err := bad.Connect(d.server.URL())
		fmt.Fprintln(&seen, err)
	}
	made := ask("makeCall", `{"target":"380501234567"}`)
	if made.Result != engine.VerdictOK {
		t.Fatalf("%+v", made)
	}
	var calls struct{ Calls []cti.CallView }
	for len(calls.Calls) == 0 {
		m, err := nc.Request(natsbus.ScopeOf(agent, "").Subject("calls.list"), nil, 30*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(m.Data, &calls); err != nil {
			t.Fatal(err)
		}
	}
	d.pbx.Record(calls.Calls[0].CallID, []byte("ID3"))
	if out := ask(engine.MethodRecords, `{"callId":"`+calls.Calls[0].CallID+`"}`); !strings.Contains(out.Secret, webiteltest.FileToken) {
		t.Fatalf("no link: %+v", out)
	}
	for _, path := range []string{"/metrics", "/readyz", "/healthz"} {
		_, text := d.page(t, path)
		seen.WriteString(text)
	}
	m, err := nc.Request("callstate.v1.status", nil, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	seen.Write(m.Data)
	fmt.Fprintf(&seen, "%+v %#v\n", d.cfg, d.cfg)
	seen.WriteString(streamText(t, d))
	if err := d.stop(); err != nil {
		t.Error(err)
		seen.WriteString(err.Error())
	}
	log := openLog(t, data)
	defer log.Close()
	if err := log.Read(t.Context(), 1, func(ev *events.Event) error { fmt.Fprintf(&seen, "%+v %+v\n", ev, ev.Payload); return nil }); err != nil {
		t.Fatal(err)
	}
	seen.WriteString(strings.Join(d.logs.lines, ""))
	if !strings.Contains(seen.String(), "secret incorrect") && !strings.Contains(seen.String(), "directory says") {
		t.Error("nothing was refused")
	}
	for _, s := range secrets {
		if i := strings.Index(seen.String(), s); i >= 0 {
			t.Errorf("%s is in: %s", s, seen.String()[max(0, i-200):min(seen.Len(), i+100)])
		}
	}
}
