package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
	"github.com/callstate/callstate/store/bolt"
)

func startNATS(t *testing.T) (url string, nc *nats.Conn) {
	t.Helper()
	s, err := natsbus.StartServer(natsbus.ServerOptions{StoreDir: t.TempDir(), Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	nc, err = nats.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return s.URL(), nc
}

// replayed runs replay and returns what the prefix's stream holds by then.
func replayed(t *testing.T, nc *nats.Conn, url, prefix string, args ...string) string {
	t.Helper()
	var errw bytes.Buffer
	line := append([]string{"replay", "--nats", url, "--prefix", prefix}, args...)
	if code := realMain(line, func(string) string { return "" }, nil, io.Discard, &errw); code != 0 {
		t.Fatalf("%v: exit %d\n%s", args, code, &errw)
	}
	if !strings.Contains(errw.String(), "published under "+prefix+".>") {
		t.Errorf("no summary: %s", &errw)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), natsbus.StreamName(prefix))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for seq := uint64(1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(m.Subject, prefix+".") {
			t.Errorf("published to %s", m.Subject)
		}
		b.Write(append(m.Data, '\n'))
	}
	return b.String()
}

// foldOf is what a part of the captures' log gives.
func foldOf(t *testing.T, want func(*cti.Event) bool) string {
	t.Helper()
	log := openLog(t, capturesLog(t))
	defer log.Close()
	var b strings.Builder
	err := engine.Fold(t.Context(), log, func(_ *events.Event, r *engine.Result) error {
		for i := range r.Messages {
			if want(&r.Messages[i].Event) {
				b.Write(append(r.Messages[i].Payload, '\n'))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReplayIsThePastUnderAnotherPrefix(t *testing.T) {
	url, nc := startNATS(t)
	data := capturesLog(t)
	const account, call = "1001@demo.local", "954e8d54-41db-4c55-baf8-481bb97b3c74"
	for prefix, c := range map[string]struct {
		args string
		want func(*cti.Event) bool
	}{
		"all":    {"", func(*cti.Event) bool { return true }},
		"agent":  {"--account " + account, func(e *cti.Event) bool { return e.Account == account }},
		"domain": {"--domain nowhere.example", func(*cti.Event) bool { return false }},
		"call":   {"--call " + account + "/" + call, func(e *cti.Event) bool { return e.Account == account && e.CallID == call }},
		"range":  {"--from 100 --to 200", func(e *cti.Event) bool { return e.Position >= 100 && e.Position <= 200 }},
		"future": {"--since 2100-01-01", func(*cti.Event) bool { return false }},
		"past":   {"--until 2000-01-01", func(*cti.Event) bool { return false }},
	} {
		got := replayed(t, nc, url, "replay."+prefix, append([]string{"--data", data}, strings.Fields(c.args)...)...)
		if want := foldOf(t, c.want); got != want {
			t.Errorf("%s: the stream holds\n%s\nwant\n%s", prefix, got, want)
		}
	}
	// A second replay under the same prefix is seen as well as the first.
	once := foldOf(t, func(e *cti.Event) bool { return e.Position <= 50 })
	for n := range 2 {
		got := replayed(t, nc, url, "again", "--data", data, "--to", "50")
		if want := strings.Repeat(once, n+1); got != want {
			t.Errorf("after replay %d the stream holds\n%s\nwant\n%s", n+1, got, want)
		}
	}
	// Somebody else's prefix is not replayed to.
	m := nats.NewMsg("again.site.1001.call.c.hold")
	m.Header.Set(natsbus.HeaderSource, "callstate")
	if _, err := nc.RequestMsg(m, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	var errw bytes.Buffer
	if code := realMain([]string{"replay", "--nats", url, "--prefix", "again", "--data", data}, func(string) string { return "" }, nil, io.Discard, &errw); code != 1 || !strings.Contains(errw.String(), "callstate publishes under this --prefix") {
		t.Errorf("exit %d, %s", code, &errw)
	}
	// The live names were never touched.
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Stream(t.Context(), natsbus.StreamName(cti.DefaultPrefix)); err == nil {
		t.Error("the live stream was made")
	}
}

// TestReplayKeepsThePauses: at speed 1 nothing comes before its time, and long
// silences are cut.
func TestReplayKeepsThePauses(t *testing.T) {
	url, nc := startNATS(t)
	data := t.TempDir()
	log, err := bolt.Open(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &events.Batch{}
	for i := range 4 {
		e := events.Event{ID: fmt.Sprint(i), Version: 1, Account: "1@a.example", Call: "c", Leg: "c", RecordedAt: events.Time(i+1) * 3600e6, Payload: &events.CallDTMF{Digit: "1"}}
		if i == 0 {
			e.Payload = &events.CallNew{}
		}
		b.Events = append(b.Events, e)
	}
	if err := log.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	replayed(t, nc, url, "slow", "--data", data, "--speed", "1", "--max-pause", "30ms")
	if took := time.Since(began); took < 90*time.Millisecond {
		t.Errorf("three pauses of 30 ms took %s", took)
	}
}

func TestReplayRefuses(t *testing.T) {
	data := capturesLog(t)
	for args, want := range map[string]string{
		"":                                   "--data is missing",
		"--data D --prefix cti.v1":           "is the live one",
		"--data D --prefix ''":               "--prefix is empty",
		"--data D --prefix cti":              "meets the subjects of the live one",
		"--data D --prefix cti.v1.monday":    "meets the subjects of the live one",
		"--data D --speed 0":                 "want a number above 0",
		"--data D --speed NaN":               "want a number above 0",
		"--data D --speed fast":              "want a number above 0",
		"--data D --since x":                 "--since",
		"--data D --from 5 --to 4":           "--from is above --to",
		"--data D --prefix a..b":             "prefix",
		"--data D --call nosuch":             "no call nosuch",
		"--data D --max-pause -1s":           "below 0",
		"--data D --nats nats://127.0.0.1:1": "no JetStream at",
	} {
		if strings.Contains(args, "127.0.0.1:1") && testing.Short() {
			continue
		}
		var errw bytes.Buffer
		line := append([]string{"replay"}, strings.Fields(strings.ReplaceAll(args, "D", data))...)
		for i := range line {
			line[i] = strings.Trim(line[i], "'")
		}
		if code := realMain(line, func(string) string { return "" }, nil, io.Discard, &errw); code == 0 || !strings.Contains(errw.String(), want) {
			t.Errorf("%s: exit %d, %s", args, code, &errw)
		}
	}
}
