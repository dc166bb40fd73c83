package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// TestKilledDemoGoesOn kills a running demo without warning, several times, and
// lets the last run end. Then the log must have no gap, all that a subscriber
// saw must follow from it, and the stream must hold what follows from the log,
// each CTI event once, in order, byte for byte (I1, I3, I5).
func TestKilledDemoGoesOn(t *testing.T) {
	data := t.TempDir()
	seen := map[string]string{} // what a subscriber saw, by position and line sequence
	for round := range 3 {
		kill(t, data, 40+30*round, seen)
		if round == 0 && liveCalls(t, data) == 0 {
			t.Error("no call was live when the demo was killed")
		}
	}
	out, err := demoCommand(t, data, "--duration", "2s").CombinedOutput()
	if err != nil {
		t.Fatalf("last run: %v\n%s", err, out)
	}

	want := folded(t, data)
	for key, payload := range seen {
		if p, ok := want.payload[key]; !ok || p != payload {
			t.Errorf("seen by a subscriber and not in the log: %s", payload)
		}
	}
	got := streamed(t, data)
	for i := range max(len(want.ids), len(got)) {
		switch {
		case i >= len(got):
			t.Fatalf("stream ends after %d messages, the log gives %d", len(got), len(want.ids))
		case i >= len(want.ids):
			t.Fatalf("stream has %d messages, the log gives %d", len(got), len(want.ids))
		case got[i].id != want.ids[i] || got[i].payload != want.byID[want.ids[i]]:
			t.Fatalf("message %d of the stream is %s, the log gives %s", i, got[i].id, want.ids[i])
		}
	}
}

func demoCommand(t *testing.T, data string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := exec.LookPath("callstate") // testscript.Main puts the test binary there
	if err != nil {
		exe = callstateBinary(t)
	}
	return exec.Command(exe, append([]string{"demo", "--data", data, "--json", "--rate", "8", "--speed", "6"}, args...)...)
}

// callstateBinary builds the command under test.
func callstateBinary(t *testing.T) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "callstate")
	if out, err := exec.Command("go", "build", "-o", exe, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return exe
}

// kill runs the demo until it has printed n CTI events and kills it.
func kill(t *testing.T, data string, n int, seen map[string]string) {
	t.Helper()
	cmd := demoCommand(t, data)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(out)
	s.Buffer(nil, 1<<20)
	for n > 0 && s.Scan() {
		var ev cti.Event
		if err := json.Unmarshal(s.Bytes(), &ev); err != nil {
			t.Errorf("printed %q: %v", s.Text(), err)
		}
		seen[messageKey(&ev)] = s.Text()
		n--
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if n > 0 {
		t.Fatalf("the demo ended by itself, %d events too early", n)
	}
}

func messageKey(ev *cti.Event) string {
	return fmt.Sprintf("%d/%s/%d", ev.Position, ev.Account, ev.LineSeq)
}

func liveCalls(t *testing.T, data string) int {
	t.Helper()
	log := openLog(t, data)
	defer log.Close()
	p := engine.NewProjection(log.ID())
	err := log.Read(t.Context(), 1, func(ev *events.Event) error {
		p.Apply(ev)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return p.Live()
}

func openLog(t *testing.T, data string) *bolt.Store {
	t.Helper()
	log, err := bolt.Open(data, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

type foldedLog struct {
	ids     []string
	byID    map[string]string
	payload map[string]string // by messageKey
}

// folded is what the log gives, and checks that it has no gap.
func folded(t *testing.T, data string) foldedLog {
	t.Helper()
	log := openLog(t, data)
	defer log.Close()
	f := foldedLog{byID: map[string]string{}, payload: map[string]string{}}
	p := engine.NewProjection(log.ID())
	at := uint64(0)
	err := log.Read(t.Context(), 1, func(ev *events.Event) error {
		if at++; ev.Position != at {
			return fmt.Errorf("position %d after %d", ev.Position, at-1)
		}
		r := p.Apply(ev)
		for i := range r.Messages {
			m := &r.Messages[i]
			f.ids = append(f.ids, m.ID)
			f.byID[m.ID] = string(m.Payload)
			f.payload[messageKey(&m.Event)] = string(m.Payload)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if frames := log.Frames(); !frames.Reconciles() {
		t.Errorf("frames do not reconcile: %+v", frames)
	}
	return f
}

type streamedMessage struct{ id, payload string }

// streamed reads the stream of CTI events that the demo left.
func streamed(t *testing.T, data string) []streamedMessage {
	t.Helper()
	srv, err := natsbus.StartServer(natsbus.ServerOptions{StoreDir: filepath.Join(data, "nats"), Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	nc, err := nats.Connect(srv.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := js.Stream(ctx, natsbus.StreamName(cti.DefaultPrefix))
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var out []streamedMessage
	for uint64(len(out)) < info.State.Msgs {
		msgs, err := c.Fetch(500, jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for m := range msgs.Messages() {
			out = append(out, streamedMessage{m.Headers().Get("Nats-Msg-Id"), string(m.Data())})
		}
		if ctx.Err() != nil {
			t.Fatal(ctx.Err())
		}
	}
	return out
}
