package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/events/cti"
)

// TestRunningEngineAnswers: what the verbs say of a running engine over NATS is
// what they say of its log afterwards.
func TestRunningEngineAnswers(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	ch := d.subscribe(t, agent)
	sc, err := webiteltest.Recorded("02-incoming-answered")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.pbx.Play(t.Context(), sc, webiteltest.PlayOptions{Domain: demoDomain}); err != nil {
		t.Fatal(err)
	}
	call := await(t, ch, cti.CallDetails)

	ask := func(args ...string) string {
		t.Helper()
		var out, errw strings.Builder
		if code := realMain(args, func(string) string { return "" }, strings.NewReader(""), &out, &errw); code != 0 {
			t.Fatalf("%v: exit code %d\n%s", args, code, errw.String())
		}
		return out.String()
	}
	url, name := d.server.URL(), agent+"/"+call.CallID
	running := map[string]string{
		"history":        ask("history", "--nats", url, name),
		"bare id":        ask("history", "--nats", url, call.CallID),
		"history --json": ask("history", "--nats", url, "--json", name),
		"calls":          ask("calls", "--nats", url),
	}
	if !strings.Contains(running["history"], "call.accepted") || !strings.Contains(running["history"], "commutationStarted") {
		t.Errorf("history says\n%s", running["history"])
	}
	var view cti.CallView
	if err := json.Unmarshal([]byte(ask("calls", "--nats", url, "--json", "--limit", "1")), &view); err != nil || view.CallID != call.CallID {
		t.Errorf("calls --json: %+v, %v", view, err)
	}
	// Views are written now and then, and may be behind the events.
	for end := time.Now().Add(20 * time.Second); ; {
		if lines := ask("watch", "--nats", url, "--lines"); strings.Contains(lines, agent) {
			break
		} else if time.Now().After(end) {
			t.Fatalf("watch --lines says\n%s", lines)
		}
	}
	var line cti.LineView
	if text := ask("watch", "--nats", url, "--lines", "--json", "--account", agent); json.Unmarshal([]byte(text), &line) != nil || line.Account != agent {
		t.Errorf("watch --lines --json says %q", text)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	for args, want := range running {
		verb, flags, _ := strings.Cut(args, " ")
		got := ""
		switch {
		case args == "bare id":
			got = ask("history", "--data", d.cfg.Data, call.CallID)
		case flags != "":
			got = ask(verb, flags, "--data", d.cfg.Data, name)
		case verb == "calls":
			got = ask(verb, "--data", d.cfg.Data)
		default:
			got = ask(verb, "--data", d.cfg.Data, name)
		}
		if got != want {
			t.Errorf("%s says of the log\n%s\nand said of the running engine\n%s", args, got, want)
		}
	}
}
