package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/bolt"
)

// left stops the daemon when all that the PBX sent is taken, and opens its log.
func (d *daemon) left(t *testing.T) *bolt.Store {
	t.Helper()
	d.sync(t)
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	log := openLog(t, d.cfg.Data)
	t.Cleanup(func() { _ = log.Close() })
	return log
}

// badFrames are one of each kind of input that is no frame, with the reason that
// it is quarantined for.
func badFrames() map[string]string {
	return map[string]string{
		"hello": webitel.ReasonNotJSON,
		`{"webitel-event-name":"server","Event-Name":"SE:CHANNEL_CR`:                                                                          webitel.ReasonTruncated,
		`{"webitel-event-name":"server","Event-Name":"SE:CHANNEL_CREATE","Unique-ID":"` + strings.Repeat("u", 10_000) + `"}`:                  webitel.ReasonLongID,
		`{"webitel-event-name":"server","Event-Name":"SE:CHANNEL_CREATE","Core-UUID":"c"}`:                                                    webitel.ReasonMissingID,
		`{"webitel-event-name":"server","Event-Name":"SE:NO_SUCH_EVENT","Core-UUID":"c","Unique-ID":"u"}`:                                     webitel.ReasonUnknownEvent,
		`{"webitel-event-name":"server","Event-Name":"SE:CHANNEL_CREATE","Unique-ID":{"not":"text"}}`:                                         webitel.ReasonType,
		"{\"webitel-event-name\":\"server\",\"Event-Name\":\"SE:CHANNEL_CREATE\",\"Unique-ID\":\"\xff\xfe\"}":                                 webitel.ReasonEncoding,
		`{"webitel-event-name":"server","Event-Name":"SE:CHANNEL_CREATE","deep":` + strings.Repeat("[", 500) + strings.Repeat("]", 500) + "}": webitel.ReasonTooDeep,
	}
}

// TestHostileFramesAreKeptAndCounted: whatever is no frame is in quarantine
// verbatim, with its reason; the calls around it are as if it had not come.
func TestHostileFramesAreKeptAndCounted(t *testing.T) {
	began := time.Now()
	d := startDaemon(t, t.TempDir())
	play := func() uint64 {
		c, err := d.pbx.Generate(t.Context(), webiteltest.GenerateOptions{
			Agents: webiteltest.Numbers(1001, 50), Domain: demoDomain, Calls: 5,
		})
		if err != nil {
			t.Fatal(err)
		}
		return c.Calls
	}
	calls := play()
	const times = 20
	for text := range badFrames() {
		for range times {
			if d.pbx.Garbage(watcherLogin, text) != 1 {
				t.Fatal("the garbage went nowhere")
			}
		}
	}
	calls += play()
	log := d.left(t)

	got := map[string]int{}
	err := log.Quarantine(t.Context(), 1, func(q *events.Quarantined) error {
		if want := badFrames()[string(q.Frame)]; want != q.Reason {
			t.Errorf("quarantined for %q, want %q: %.80q", q.Reason, want, q.Frame)
		}
		got[q.Reason]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, reason := range badFrames() {
		if got[reason] != times {
			t.Errorf("%d frames quarantined for %s, want %d", got[reason], reason, times)
		}
		// One line each kind at most every second.
		if n := d.logs.containing("reason=" + reason); n == 0 || n > 2+int(time.Since(began).Seconds()) {
			t.Errorf("%d log lines about %s", n, reason)
		}
	}
	if f := log.Frames(); !f.Reconciles() || f.Quarantined != uint64(times*len(badFrames())) {
		t.Errorf("frames: %+v", f)
	}
	if live, n := ended(t, log); live != 0 || n < int(calls) {
		t.Errorf("%d calls live, %d ended, %d were made", live, n, calls)
	}
}

// ended counts the calls of a log.
func ended(t *testing.T, log store.Store) (live, finished int) {
	t.Helper()
	p := engine.NewProjection(log.ID())
	err := log.Read(t.Context(), 1, func(ev *events.Event) error {
		p.Apply(ev)
		if ev.Type() == events.TypeCallHungup {
			finished++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return p.Live(), finished
}

// TestFrameTooLarge: 10 MB are not read; the connection is made anew and the
// calls after it are seen.
func TestFrameTooLarge(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	again := make(chan struct{}, 8)
	d.links.clients[0].OnSettled(func(context.Context) { again <- struct{}{} })
	d.pbx.Garbage(watcherLogin, `{"webitel-event-name":"server","x":"`+strings.Repeat("x", 10<<20)+`"}`)
	<-again
	if _, err := d.pbx.Generate(t.Context(), webiteltest.GenerateOptions{Agents: webiteltest.Numbers(1001, 50), Domain: demoDomain, Calls: 2}); err != nil {
		t.Fatal(err)
	}
	log := d.left(t)
	if f := log.Frames(); f.Quarantined != 1 || !f.Reconciles() {
		t.Errorf("frames: %+v", f)
	}
	if _, n := ended(t, log); n < 2 {
		t.Errorf("%d calls ended after the frame, want 2", n)
	}
}

// TestManyLargeFrames: what waits for the log is bounded in bytes, too, be it frames
// or what they say.
func TestManyLargeFrames(t *testing.T) {
	large := strings.Repeat("x", 3<<20)
	const times = 40 // more than the log takes at once
	for name, frame := range map[string]string{
		"garbage": `{"webitel-event-name":"server","n":"%[1]d","x":"` + large,
		"legs": `{"webitel-event-name":"server","Event-Name":"SE:CHANNEL_CREATE","Core-UUID":"c","Event-Sequence":"%[1]d","Unique-ID":"u%[1]d",` +
			`"Channel-Presence-ID":"1001@` + demoDomain + `","Channel-Call-UUID":"u%[1]d","Call-Direction":"inbound","variable_webitel_data":"` + large + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			d := startDaemon(t, t.TempDir())
			for i := range times {
				d.pbx.Garbage(watcherLogin, fmt.Sprintf(frame, i+1))
			}
			log := d.left(t)
			if f := log.Frames(); f.Quarantined+f.Recorded < times || !f.Reconciles() {
				t.Errorf("frames: %+v", f)
			}
		})
	}
}

// TestLongAccountInTheList: the list of accounts is a reply, and its ids are bounded
// like those of events.
func TestLongAccountInTheList(t *testing.T) {
	pbx := webiteltest.New(webiteltest.Options{Accounts: []webiteltest.Account{
		{Login: strings.Repeat("9", store.MaxKey) + "@" + demoDomain, Secret: demoSecret},
		{Login: watcherLogin, Secret: demoSecret, Role: "admin"},
	}})
	defer pbx.Close()
	d := startDaemon(t, t.TempDir(), func(c *config) { c.Webitel[0].ConnectionString = pbx.URL() })
	log := d.left(t)
	if f := log.Frames(); f.Quarantined != 1 || !f.Reconciles() {
		t.Errorf("frames: %+v", f)
	}
}

// TestNATSClosesForGood: a server that takes us for broken, and with which no client
// connects again, ends the daemon: somebody will start it, and it goes on.
func TestNATSClosesForGood(t *testing.T) {
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, MaxControlLine: 300,
		JetStream: true, StoreDir: t.TempDir(), DisableJetStreamBanner: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	defer func() { srv.Shutdown(); srv.WaitForShutdown() }()
	if !srv.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server does not serve")
	}
	d := startDaemon(t, t.TempDir(), func(c *config) { c.NATS = srv.ClientURL() })
	id := strings.Repeat("0", events.MaxID)
	d.pbx.Garbage(watcherLogin, `{"webitel-event-name":"server","Event-Name":"SE:CHANNEL_CREATE","Core-UUID":"c","Event-Sequence":"1",`+
		`"Unique-ID":"`+id+`","Channel-Call-UUID":"`+strings.Repeat("..", 60)+id[:130]+`","Channel-Presence-ID":"1001@`+demoDomain+`","variable_uuid":"`+id+`"}`)
	for err = nil; err == nil; {
		_, err = d.links.clients[0].Do(t.Context(), webitel.Ping())
	}
	if err := d.stop(); !errors.Is(err, natsbus.ErrConnectionClosed) {
		t.Errorf("the daemon ended with %v", err)
	}
}

// TestFolderTrouble: each ends with exit code 1, an error that says what to do,
// and nothing damaged.
func TestFolderTrouble(t *testing.T) {
	inUse := t.TempDir()
	s, err := bolt.Open(inUse, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	notFolder := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(notFolder, []byte("a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, bolt.FileName), []byte("somebody else's"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, data string
		args       []string
		want       string
	}{
		{"in use", inUse, []string{"demo", "--duration", "1s"}, "in use by another process"},
		{"in use, to read", inUse, []string{"calls"}, "in use by another process"},
		{"no folder", notFolder, []string{"demo", "--duration", "1s"}, "hint: "},
		{"foreign file", foreign, []string{"demo", "--duration", "1s"}, "not a callstate log"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, errw strings.Builder
			code := realMain(append(tt.args, "--data", tt.data), func(string) string { return "" }, strings.NewReader(""), &out, &errw)
			if code != 1 || !strings.Contains(errw.String(), tt.want) || !strings.Contains(errw.String(), "hint: ") {
				t.Errorf("exit code %d, standard error:\n%s", code, errw.String())
			}
			if out.Len() != 0 {
				t.Errorf("standard output: %s", out.String())
			}
		})
	}
	if b, err := os.ReadFile(filepath.Join(foreign, bolt.FileName)); err != nil || string(b) != "somebody else's" {
		t.Errorf("the foreign file was changed: %q, %v", b, err)
	}
	if err := s.Append(t.Context(), &events.Batch{Frames: events.FrameCounts{Received: 1, NoOps: 1}}); err != nil {
		t.Errorf("the log that is in use was harmed: %v", err)
	}
}

// TestWrongPasswordEnds: one try, a clear error, exit code 1, and no secret in it.
func TestWrongPasswordEnds(t *testing.T) {
	pbx := webiteltest.New(webiteltest.Options{Accounts: []webiteltest.Account{{Login: watcherLogin, Secret: demoSecret}}})
	defer pbx.Close()
	var errw strings.Builder
	secret := "not-the-password"
	getenv := func(name string) string {
		if name == envPassword {
			return secret
		}
		return ""
	}
	code := realMain([]string{
		"run", "--data", t.TempDir(), "--listen", "127.0.0.1:-1", "--webitel", pbx.URL(), "--login", watcherLogin,
	}, getenv, strings.NewReader(""), &strings.Builder{}, &errw)
	if code != 1 || !strings.Contains(errw.String(), "secret incorrect") {
		t.Errorf("exit code %d, standard error:\n%s", code, errw.String())
	}
	if strings.Contains(errw.String(), secret) {
		t.Error("the secret is in the messages")
	}
}
