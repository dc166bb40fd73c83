package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/events/cti"
)

func TestMaskLogText(t *testing.T) {
	for in, want := range map[string]string{
		"call to +380 67 111-22-33 refused":                      "call to +*** ** ***-**-33 refused",
		"-ERR: user 1004@acme.example (1004) is not registered":  "-ERR: user **04@acme.example (**04) is not registered",
		"sip:380671112233@10.0.0.1:5060":                         "sip:**********33@10.0.0.1:5060",
		"dial tcp 127.0.0.1:871: connect: connection refused":    "dial tcp 127.0.0.1:871: connect: connection refused",
		"dial tcp [::1]:871: i/o timeout after 10000ms":          "dial tcp [::1]:871: i/o timeout after 10000ms",
		"get ws://pbx2.acme.example:10022/: bad handshake":       "get ws://pbx2.acme.example:10022/: bad handshake",
		"record at position 81234 is damaged, events 1 to 40000": "record at position 81234 is damaged, events 1 to 40000",
		"publish to cti.v1.acme_example.1004.callStarted":        "publish to cti.v1.acme_example.**04.callStarted",
		"websocket: close 1006 (abnormal closure)":               "websocket: close 1006 (abnormal closure)",
		"954e8d54-41db-4c55-baf8-481bb97b3c74 status 401":        "954e8d54-41db-4c55-baf8-481bb97b3c74 status 401",
	} {
		if got := maskLogText(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

// TestLoggerMasksWhateverItIsGiven: by key, in errors, in lists, in what was given
// to it before.
func TestLoggerMasksWhateverItIsGiven(t *testing.T) {
	lines := &logLines{}
	e := &env{errw: lines}
	e.level.Set(slog.LevelDebug)
	l := e.logger().With("login", "1004@acme.example").WithGroup("g")
	l.Debug("call to 380671112233", "err", fmt.Errorf("transfer: %w", errors.New("no 380671112233")), "digit", "7", "caller", "380671112233",
		"numbers", []string{"380671112233"}, slog.Group("in", "called", "380671112233"), "any", struct{ N string }{"380671112233"})
	if out := strings.Join(lines.lines, ""); strings.Contains(out, "38067") || strings.Contains(out, "1004") || strings.Contains(out, "digit=7") {
		t.Error(out)
	}
	e.logNumbers = true
	e.logger().Info("as it is", "caller", "380671112233")
	if lines.containing("380671112233") != 1 {
		t.Error("--log-numbers shows no numbers")
	}
}

// TestLogSaysWhoMayConnect: what an operator must know of what listens is not
// masked.
func TestLogSaysWhoMayConnect(t *testing.T) {
	lines := &logLines{}
	e := &env{getenv: func(name string) string { return map[string]string{envPassword: demoSecret}[name] }, errw: lines, out: io.Discard}
	root := newRoot(e)
	root.SetArgs([]string{"run", "--data", t.TempDir(), "--listen", "127.0.0.1:-1", "--http", "127.0.0.1:0", "--webitel", "ws://127.0.0.1:1/", "--login", watcherLogin})
	ctx, stop := context.WithCancel(t.Context())
	stop() // it stops as soon as it has begun
	if err := root.ExecuteContext(ctx); err != nil {
		t.Fatal(err)
	}
	if lines.containing("everybody on this machine may do everything") != 1 || lines.containing("url=http://127.0.0.1:") != 1 {
		t.Error(strings.Join(lines.lines, ""))
	}
}

// TestLogHoldsNoNumber runs the daemon at its most talkative, with every recorded
// call, with a PBX that names numbers in its errors and in frames that are none,
// with requests that fail, a lost connection, and an end by an error.
func TestLogHoldsNoNumber(t *testing.T) {
	pbx := webiteltest.New(webiteltest.Options{
		Accounts: append(webiteltest.Agents(demoDomain, 1001, 50, demoSecret), webiteltest.Account{Login: watcherLogin, Secret: demoSecret, Role: "admin"}),
	})
	defer pbx.Close()
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(demoSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	srv, err := natsbus.StartServer(natsbus.ServerOptions{StoreDir: t.TempDir(), Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	nc, err := nats.Connect(srv.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	finished, err := nc.SubscribeSync(cti.DefaultPrefix + ".*.*." + string(cti.CallFinished) + ".*")
	if err != nil {
		t.Fatal(err)
	}

	lines := &logLines{}
	e := &env{getenv: func(string) string { return "" }, errw: lines, out: io.Discard}
	root := newRoot(e)
	root.SetArgs([]string{
		"run", "--data", t.TempDir(), "--nats", srv.URL(), "--webitel", pbx.URL(), "--login", watcherLogin, "--password-file", password,
		"--log-level", "debug", "--resync-interval", "100ms", "--reject-second-call", "--unhold-after-consult",
	})
	ended := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	pbx.RefuseAuth(1, webiteltest.ConsoleError+" for 1004, +380671112233, 9000@demo.local")
	go func() { ended <- root.ExecuteContext(ctx) }()
	said := func(text string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); lines.containing(text) == 0; time.Sleep(5 * time.Millisecond) {
			select {
			case err := <-ended:
				t.Fatalf("ended: %v", err)
			default:
			}
			if time.Now().After(deadline) {
				t.Fatalf("never said %q", text)
			}
		}
	}
	said("msg=connected")
	said("bus ready")
	load := webiteltest.GenerateOptions{Agents: webiteltest.Numbers(1001, 50), Domain: demoDomain, Calls: 27, Speed: 100}
	if _, err := pbx.Generate(t.Context(), load); err != nil {
		t.Fatal(err)
	}
	if _, err := finished.NextMsg(30 * time.Second); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		`{"webitel-event-name":"server","Event-Name":"SE:NO_SUCH_EVENT","Core-UUID":"c","Unique-ID":"1004","Caller-Caller-ID-Number":"+380671112233"}`,
		"380671112233 this is no frame 1004@demo.local", webiteltest.Truncated,
	} {
		pbx.Garbage(watcherLogin, text)
	}
	said("frames quarantined")
	for _, method := range []string{"call", "dropCall", "transfer", "holdCall", "nosuch"} {
		subject := natsbus.ControlPrefix + "." + cti.LineKey("1004@"+demoDomain) + "." + method
		_, _ = nc.Request(subject, []byte(`{"number":"+380671112233","callId":"380671112233"}`), time.Second) // refused or not, it is logged or not
	}
	pbx.Drop(watcherLogin)
	said("connection lost")
	pbx.SilenceSE(false)
	stop()
	e.fail(errors.Join(<-ended, errors.New("link 9000@demo.local: refused for +380671112233 and 1004")))

	outside := regexp.MustCompile(`(^|\D)(0|380)?67\d{7}(\D|$)`)
	account := regexp.MustCompile(`(^|\D)(9000|10[0-5]\d)(\D|$)`)
	for _, line := range lines.lines {
		text := logPlain.ReplaceAllString(line, "~") // ports, times and ids are drawn, or none of ours
		if n := outside.FindString(text) + account.FindString(text); n != "" {
			t.Errorf("%s is in %s", n, line)
		}
	}
	if len(lines.lines) < 12 {
		t.Errorf("only %d lines were logged", len(lines.lines))
	}
}
