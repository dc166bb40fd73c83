package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/events/cti"
	"github.com/callstate/callstate/store/bolt"
)

// TestVerifyFindsWhatWasTamperedWith changes, one after the other, a message of
// the stream and the snapshot of a finished demo.
func TestVerifyFindsWhatWasTamperedWith(t *testing.T) {
	data := t.TempDir()
	runVerb(t, "demo", "--data", data, "--json", "--rate", "8", "--speed", "6", "--duration", "2s")
	mustVerify(t, data, 0, "verdict   all is what the log says")

	account := tamper(t, data)
	out := mustVerify(t, data, 1, "changed", "callStarted", "- call.callerId: 000", "1 differences in 1 calls")
	if !strings.Contains(out, account+"/") {
		t.Errorf("the call is not named:\n%s", out)
	}

	log, err := bolt.Open(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.SetSnapshot(1, []byte("something else")); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, data, 1, "snapshot differs from the log, at position 1")
	if err := os.WriteFile(filepath.Join(data, bolt.SnapshotName(1)), []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, data, 1, "snapshot  callstate-00000000000000000001.snapshot: it has another form; delete it")
}

func mustVerify(t *testing.T, data string, code int, wants ...string) string {
	t.Helper()
	var out, errw bytes.Buffer
	got := realMain([]string{"verify", "--data", data, "--diff"}, func(string) string { return "" }, nil, &out, &errw)
	if got != code {
		t.Fatalf("verify returned %d, want %d\n%s%s", got, code, &out, &errw)
	}
	for _, w := range wants {
		if !strings.Contains(out.String(), w) {
			t.Errorf("verify does not say %q:\n%s", w, &out)
		}
	}
	return out.String()
}

// tamper puts the first callStarted of the stream at its end once more, with
// another caller, in place of the one that was there, and returns its account.
func tamper(t *testing.T, data string) (account string) {
	t.Helper()
	s, err := natsbus.StartServer(natsbus.ServerOptions{StoreDir: filepath.Join(data, "nats"), Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	nc, err := nats.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), natsbus.StreamName(cti.DefaultPrefix))
	if err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); ; seq++ {
		m, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(m.Subject, ".callStarted.") {
			continue
		}
		var doc map[string]any
		if err := json.Unmarshal(m.Data, &doc); err != nil {
			t.Fatal(err)
		}
		doc["call"].(map[string]any)["callerId"] = "000"
		b, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.DeleteMsg(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
		publishAgain(t, js, &nats.Msg{Subject: m.Subject, Header: m.Header, Data: b})
		return doc["account"].(string)
	}
}

// publishAgain publishes a message whose id the stream has had, which it forgets
// after a moment.
func publishAgain(t *testing.T, js jetstream.JetStream, m *nats.Msg) {
	t.Helper()
	stream, err := js.Stream(t.Context(), "CTI")
	if err != nil {
		t.Fatal(err)
	}
	c := stream.CachedInfo().Config
	c.Duplicates = 100 * time.Millisecond
	if _, err := js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	for {
		ack, err := js.PublishMsg(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		if !ack.Duplicate {
			return
		}
	}
}
