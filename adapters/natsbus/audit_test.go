package natsbus

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events/cti"
)

// auditOf compares what the bus published with rs, and returns the differences
// as "kind what position".
func auditOf(t *testing.T, b *Bus, rs []engine.Result) (AuditReport, string) {
	t.Helper()
	var found []string
	o := AuditOptions{LogID: b.o.LogID, Found: func(d Difference) error {
		if d.Account == "" {
			t.Errorf("difference without an account: %+v", d)
		}
		found = append(found, fmt.Sprintf("%s %s %d", d.Kind, d.What, d.Position))
		return nil
	}}
	report, err := Audit(deadline(t), b.Conn(), o, func(fn func(*engine.Result) error) error {
		for i := range rs {
			if err := fn(&rs[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if report.Differences != len(found) {
		t.Errorf("%d differences counted, %d told", report.Differences, len(found))
	}
	return report, strings.Join(found, ", ")
}

// story is results with one message a position.
func story(from, through uint64, account, call string) []engine.Result {
	var rs []engine.Result
	for p := from; p <= through; p++ {
		rs = append(rs, result(p, account, call, 1))
	}
	return rs
}

func TestAudit(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL(), FlushInterval: time.Minute})
	if _, err := Audit(deadline(t), b.Conn(), AuditOptions{LogID: "log", Prefix: "elsewhere"}, nil); !errors.Is(err, ErrNotPublished) {
		t.Errorf("audit of nothing: %v", err)
	}
	ctx := deadline(t)
	rs := story(1, 30, "1001@acme.example", "a2e6")
	rs[29].Call.EndedAt = 5
	mustPublish(t, b, rs[:20])
	if err := b.Flush(ctx); err != nil {
		t.Fatal(err)
	}

	report, found := auditOf(t, b, rs[:20])
	want := AuditReport{Stream: "CTI", Messages: 20, First: 1, Last: 20, Calls: 1, Lines: 1}
	if report != want || found != "" {
		t.Errorf("all was published: %+v, %s", report, found)
	}
	report, found = auditOf(t, b, rs)
	want.Unpublished, want.ViewsBehind = 10, 2
	if report != want || found != "" {
		t.Errorf("the log is ahead: %+v, want %+v, %s", report, want, found)
	}

	// What the fold says otherwise.
	other := story(1, 20, "1001@acme.example", "a2e6")
	other[6].Messages[0].Payload = []byte(`{}`)
	other[19].Line.AgentState = "another"
	if _, found = auditOf(t, b, other); found != "changed message 7, changed line view 20" {
		t.Errorf("changed: %s", found)
	}
	other = story(1, 20, "1001@acme.example", "a2e6")
	other[8].Messages = nil
	other[19].Call = nil
	if _, found = auditOf(t, b, other); found != "unexpected message 9, unexpected call view 20" {
		t.Errorf("unexpected: %s", found)
	}

	// What the server lost, at its beginning and between, and holds twice.
	stream, err := b.js.Stream(ctx, "CTI")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(ctx, jetstream.WithPurgeSequence(4)); err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(ctx, 9); err != nil {
		t.Fatal(err)
	}
	repeat(t, b, stream, 12)
	report, found = auditOf(t, b, rs[:20])
	want = AuditReport{Stream: "CTI", Messages: 17, First: 4, Last: 20, Repeats: 1, AgedOut: 3, Calls: 1, Lines: 1, Differences: 1}
	if report != want || found != "missing message 9" {
		t.Errorf("lost: %+v, want %+v, %s", report, want, found)
	}

	// A view that was forgotten while later ones were written.
	mustPublish(t, b, []engine.Result{result(21, "1002@acme.example", "b", 1), result(22, "1001@acme.example", "a2e6", 1), result(23, "1002@acme.example", "b", 1)})
	if err := b.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	kv, err := b.js.KeyValue(ctx, CallsBucket(cti.DefaultPrefix))
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Purge(ctx, cti.CallKey("1001@acme.example", "a2e6")); err != nil {
		t.Fatal(err)
	}
	rs = append(rs[:20], result(21, "1002@acme.example", "b", 1), result(22, "1001@acme.example", "a2e6", 1), result(23, "1002@acme.example", "b", 1), result(24, "1003@acme.example", "c", 0))
	if _, found = auditOf(t, b, rs); found != "missing call view 22, missing message 9" {
		t.Errorf("view lost: %s", found)
	}
}

// repeat stores a message of the stream once more, after JetStream has forgotten its id.
func repeat(t *testing.T, b *Bus, s jetstream.Stream, seq uint64) {
	t.Helper()
	ctx := deadline(t)
	c := s.CachedInfo().Config
	// Twice: nats-server 2.15 starts to forget before it takes over the new window,
	// and may go by the one before.
	for _, window := range []time.Duration{100 * time.Millisecond, 101 * time.Millisecond} {
		c.Duplicates = window
		if _, err := b.js.UpdateStream(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	m, err := s.GetMsg(ctx, seq)
	if err != nil {
		t.Fatal(err)
	}
	for {
		ack, err := b.js.PublishMsg(ctx, &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data})
		if err != nil {
			t.Fatal(err)
		}
		if !ack.Duplicate {
			return
		}
	}
}
