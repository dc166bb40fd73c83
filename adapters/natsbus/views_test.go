package natsbus

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events/cti"
)

// watchCalls collects every write to the bucket of calls, until the test ends.
func watchCalls(t *testing.T, b *Bus) <-chan jetstream.KeyValueEntry {
	t.Helper()
	kv, err := b.js.KeyValue(deadline(t), CallsBucket(cti.DefaultPrefix))
	if err != nil {
		t.Fatal(err)
	}
	w, err := kv.WatchAll(t.Context(), jetstream.UpdatesOnly())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Stop() })
	return w.Updates()
}

// next waits for one write.
func next(t *testing.T, ch <-chan jetstream.KeyValueEntry) jetstream.KeyValueEntry {
	t.Helper()
	select {
	case e := <-ch:
		return e
	case <-deadline(t).Done():
		t.Fatal("no view in time")
		return nil
	}
}

func TestViewsAreConflatedAndFinal(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL(), FlushInterval: time.Minute}) // flushed by Flush alone
	updates := watchCalls(t, b)
	ctx := deadline(t)
	var rs []engine.Result
	for p := uint64(1); p <= 1000; p++ {
		rs = append(rs, result(p, fmt.Sprintf("%d@acme.example", 1000+p%3), "a2e6", 1))
	}
	if err := b.Publish(ctx, rs); err != nil {
		t.Fatal(err)
	}
	if got := b.Confirmed(); got != 0 {
		t.Errorf("Confirmed = %d before the views are written, want 0", got)
	}
	if err := b.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if got := b.Stats().ViewWrites; got != 6 {
		t.Errorf("%d writes, want 6: three calls and three lines", got)
	}
	for _, want := range []string{"998", "999", "1000"} { // in order of position
		e := next(t, updates)
		v := getCall(t, b, cti.DefaultPrefix, fmt.Sprintf("%d@acme.example", 1000+atoi(t, want)%3), "a2e6")
		if got := fmt.Sprint(v.Position); got != want {
			t.Errorf("%s is of position %s, want %s", e.Key(), got, want)
		}
		if v.Call.TalkMs != int64(v.Position) || v.Conversation != "conv" || v.Domain != "acme.example" || v.CallID != "a2e6" {
			t.Errorf("view %+v", v)
		}
	}
	var l cti.LineView
	get(t, b, LinesBucket(cti.DefaultPrefix), "acme_example.1001", &l)
	if l.Position != 1000 || l.Account != "1001@acme.example" || l.Domain != "acme.example" || l.Line.CallFeaturesSet != cti.Talk {
		t.Errorf("line %+v", l)
	}
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Not every result has a message that names the conversation.
func TestViewKeepsItsConversation(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL()})
	mustPublish(t, b, []engine.Result{result(1, "1004@acme.example", "a2e6", 1)})
	mustPublish(t, b, []engine.Result{result(2, "1004@acme.example", "a2e6", 0)})
	if v := getCall(t, b, cti.DefaultPrefix, "1004@acme.example", "a2e6"); v.Position != 2 || v.Conversation != "conv" {
		t.Errorf("view %+v, want position 2 in conversation conv", v)
	}
	ended := result(3, "1004@acme.example", "a2e6", 1)
	over := *ended.Call
	over.EndedAt = 1750000000000000
	ended.Call = &over
	mustPublish(t, b, []engine.Result{ended})
	if v := getCall(t, b, cti.DefaultPrefix, "1004@acme.example", "a2e6"); v.Position != 3 || v.Conversation != "conv" {
		t.Errorf("view %+v, want position 3 in conversation conv", v)
	}
}

func TestViewsAreWrittenWithinTheInterval(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL(), FlushInterval: time.Millisecond})
	updates := watchCalls(t, b)
	if err := b.Publish(deadline(t), results(1, 1, "1004@acme.example", "a2e6")); err != nil {
		t.Fatal(err)
	}
	if e := next(t, updates); e.Key() != "acme_example.1004.a2e6" {
		t.Errorf("key = %q", e.Key())
	}
}

// A process that begins again behind what the one before wrote shows nobody an
// older state than they have seen.
func TestViewsNeverGoBackAcrossRestart(t *testing.T) {
	s := startServer(t, ServerOptions{})
	rs := results(1, 40, "1004@acme.example", "a2e6")
	b, stop := startBus(t, Options{URL: s.URL()})
	mustPublish(t, b, rs)
	stop()

	b, stop = startBus(t, Options{URL: s.URL(), FlushInterval: time.Millisecond})
	updates := watchCalls(t, b)
	for i := range rs { // one by one, so that nothing is conflated
		mustPublish(t, b, rs[i:i+1])
	}
	if got := b.Stats().ViewWrites; got != 0 {
		t.Errorf("%d views of the past were written", got)
	}
	mustPublish(t, b, []engine.Result{result(41, "1004@acme.example", "a2e6", 1)})
	next(t, updates)
	if v := getCall(t, b, cti.DefaultPrefix, "1004@acme.example", "a2e6"); v.Position != 41 {
		t.Errorf("view is of position %d, want 41", v.Position)
	}
	stop()

	// A new data folder is a new log, whose positions begin again.
	b, _ = startBus(t, Options{URL: s.URL(), LogID: "another"})
	mustPublish(t, b, results(1, 3, "1004@acme.example", "a2e6"))
	if v := getCall(t, b, cti.DefaultPrefix, "1004@acme.example", "a2e6"); v.Position != 3 {
		t.Errorf("view is of position %d, want 3", v.Position)
	}
}

func TestEndedCallsExpireAndLiveOnesDoNot(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL(), EndedTTL: time.Second})
	updates := watchCalls(t, b)
	ended, live, back := result(1, "1004@acme.example", "ended", 1), result(2, "1004@acme.example", "live", 1),
		result(3, "1004@acme.example", "back", 1)
	for _, r := range []*engine.Result{&ended, &back} {
		over := *r.Call
		over.EndedAt, over.State = 1750000000000000, cti.StateNone
		r.Call = &over
	}
	mustPublish(t, b, []engine.Result{ended, live, back})
	for range 3 {
		next(t, updates)
	}
	mustPublish(t, b, []engine.Result{result(4, "1004@acme.example", "back", 1)}) // reinstated
	next(t, updates)

	e := next(t, updates) // the server says that it expired
	if e.Key() != "acme_example.1004.ended" || e.Operation() == jetstream.KeyValuePut {
		t.Errorf("%s %s, want the ended call's removal", e.Operation(), e.Key())
	}
	if v := getCall(t, b, cti.DefaultPrefix, "1004@acme.example", "live"); v.Position != 2 {
		t.Errorf("live call is of position %d, want 2", v.Position)
	}
	if v := getCall(t, b, cti.DefaultPrefix, "1004@acme.example", "back"); v.Position != 4 {
		t.Errorf("reinstated call is of position %d, want 4", v.Position)
	}
}

// A bucket that is gone does not hold up the events, and its views are written
// once it is back.
func TestViewsNeverBlockPublish(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, err := New(Options{URL: s.URL(), LogID: testLog})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx := deadline(t)
	if err := b.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	// Nobody runs Run: nothing takes the views away.
	rs := results(1, 20000, "1004@acme.example", "a2e6")
	if err := b.Publish(ctx, rs); err != nil {
		t.Fatal(err)
	}
	b.views.mu.Lock()
	if n := len(b.views.dirty); n != 2 {
		t.Errorf("%d views kept, want 2: as many as keys", n)
	}
	b.views.mu.Unlock()
	runCtx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- b.Run(runCtx) }()
	if err := b.Flush(ctx); err != nil {
		t.Error(err)
	}
	if got := b.Confirmed(); got != 20000 {
		t.Errorf("Confirmed = %d, want 20000", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// lateHandler runs after a log line, as long as the goroutine that logs is held up.
type lateHandler struct {
	slog.Handler

	then func()
}

func (h lateHandler) Handle(context.Context, slog.Record) error { h.then(); return nil }

func (h lateHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h lateHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

// A round is over while one of its confirmations is being looked at: it does not
// count for the next.
func TestLateConfirmationOfAView(t *testing.T) {
	var v *views
	begin := func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.round++
		v.missing, v.done = 1, make(chan struct{})
	}
	o, err := Options{LogID: testLog}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	v = newViews(o, "inbox", slog.New(lateHandler{then: func() { v.fail(ErrAckTimeout); begin() }}))
	begin()
	m := natsMsg(fmt.Sprintf(`{"error":{"code":400,"err_code":%d,"description":"too large"},"stream":"KV_cti-calls","seq":0}`, codeTooLarge))
	m.Subject = "inbox.v.1"
	v.onAck(m)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.round != 2 || v.missing != 1 || v.done == nil {
		t.Errorf("round %d misses %d confirmations, want 1 in round 2", v.round, v.missing)
	}
}

func TestWindowConfirmsInOrder(t *testing.T) {
	w := newWindow(4)
	m := &engine.Message{}
	w.through(1) // no messages
	if w.confirmed != 1 {
		t.Errorf("confirmed = %d, want 1", w.confirmed)
	}
	a, b := w.push(m), w.push(m)
	w.through(2)
	w.through(3)
	c := w.push(m)
	w.through(4)
	for _, step := range []struct{ n, want uint64 }{{c, 1}, {b, 1}, {b, 1}, {a, 4}} {
		w.confirm(step.n)
		if w.confirmed != step.want {
			t.Errorf("after %d: confirmed = %d, want %d", step.n, w.confirmed, step.want)
		}
	}
	for range 4 {
		w.push(m)
	}
	if !w.full() {
		t.Error("window of 4 with 4 messages is not full")
	}
	w.clear()
	if w.confirm(3) || w.confirm(99) || w.len() != 0 {
		t.Error("a late confirmation must meet no slot")
	}
}

func TestWindowIsBoundedInBytes(t *testing.T) {
	w := newWindow(4096)
	large := &engine.Message{ID: "large", Payload: make([]byte, 1<<20)}
	n := 0
	for ; !w.full(); n++ {
		w.push(large)
	}
	if n != maxWindowBytes>>20+1 {
		t.Errorf("full with %d MB", n)
	}
	if w.confirm(0); w.full() {
		t.Error("full although one is confirmed")
	}
	w.push(large)
	if w.clear(); w.full() || w.bytes != 0 {
		t.Errorf("%d bytes after it was cleared", w.bytes)
	}
}

func TestParseAck(t *testing.T) {
	ok := []byte(`{"stream":"CTI","seq":`)
	for _, c := range []struct {
		data  string
		want  ack
		fails bool
	}{
		{`{"stream":"CTI","seq":7}`, ack{Seq: 7}, false},
		{`{"stream":"CTI","seq":70, "domain":"hub"}`, ack{Seq: 70}, false},
		{`{"stream":"CTI","seq":7,"duplicate": true}`, ack{Seq: 7, Duplicate: true}, false},
		{`{"stream":"CTI","domain":"hub","seq":7}`, ack{Stream: "CTI", Seq: 7}, false},
		{`{"stream":"CTI","domain":"hub","seq":7,"duplicate":true}`, ack{Stream: "CTI", Seq: 7, Duplicate: true}, false},
		{`{"error":{"code":503,"err_code":10077,"description":"full"},"stream":"CTI","seq":0}`, ack{}, true},
		{`{"stream":"CTI","seq":0}`, ack{}, true},
		{`{"stream":"CTI","seq":99999999999999999999}`, ack{}, true},
		{`{}`, ack{}, true},
		{`x`, ack{}, true},
		{``, ack{}, true},
	} {
		got, err := parseAck(natsMsg(c.data), ok)
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%s: %+v, error %v", c.data, got, err)
		}
	}
}

func TestParseID(t *testing.T) {
	for _, c := range []struct {
		id   string
		want storedID
		ok   bool
	}{
		{"log.12.3", storedID{12, 3}, true},
		{"log.12", storedID{}, false},
		{"log2.12.3", storedID{}, false},
		{"other.12.3", storedID{}, false},
		{"log.x.3", storedID{}, false},
		{"", storedID{}, false},
	} {
		got, ok := parseID(c.id, "log")
		if ok != c.ok || (ok && got != c.want) {
			t.Errorf("parseID(%q) = %v, %v", c.id, got, ok)
		}
	}
}
