package natsbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events/cti"
)

func TestPublishedEventsAreInTheStreamInOrder(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL()})
	rs := results(1, 500, "1004@acme.example", "a2e6")
	mustPublish(t, b, rs)

	if got := b.Confirmed(); got != 500 {
		t.Errorf("Confirmed = %d, want 500", got)
	}
	if d := cmp.Diff(ids(rs), streamIDs(t, b, cti.DefaultPrefix)); d != "" {
		t.Errorf("stream differs from what was published (-published +stream):\n%s", d)
	}
	m, sent := readStream(t, b, cti.DefaultPrefix)[0], rs[0].Messages[0]
	if got, want := m.Subject(), "cti.v1.acme_example.1004.callInfoChanged.a2e6"; got != want {
		t.Errorf("subject = %q, want %q", got, want)
	}
	if got := string(m.Data()); got != string(sent.Payload) {
		t.Errorf("payload = %s, want %s", got, sent.Payload)
	}
	want := map[string][]string{
		"ce-specversion": {"1.0"}, "ce-id": {sent.ID}, "ce-source": {"callstate"},
		"ce-type": {"callstate.cti.v1.callInfoChanged"}, "ce-subject": {"1004@acme.example/a2e6"},
		"ce-time": {"2025-06-15T15:06:40.001000Z"}, "content-type": {"application/json"}, "Nats-Msg-Id": {sent.ID},
	}
	if d := cmp.Diff(want, map[string][]string(m.Headers())); d != "" {
		t.Errorf("headers (-want +got):\n%s", d)
	}
}

func TestRepeatsAreOneMessage(t *testing.T) {
	s := startServer(t, ServerOptions{})
	rs := results(1, 100, "1004@acme.example", "a2e6")
	b, stop := startBus(t, Options{URL: s.URL()})
	mustPublish(t, b, rs)
	stop()

	// A new process knows nothing of the first: the stream's end tells it.
	b, stop = startBus(t, Options{URL: s.URL()})
	if got := b.Confirmed(); got != 0 {
		t.Errorf("Confirmed = %d before the first Publish, want 0", got)
	}
	mustPublish(t, b, rs)
	if got, want := b.Stats().Skipped, uint64(len(ids(rs))); got != want {
		t.Errorf("%d messages skipped, want %d", got, want)
	}
	stop()

	// Without a log id to look for, JetStream's window does it.
	b, _ = startBus(t, Options{URL: s.URL(), LogID: "another"})
	mustPublish(t, b, rs)
	if got, want := b.Stats().Duplicates, uint64(len(ids(rs))); got != want {
		t.Errorf("%d duplicates, want %d", got, want)
	}
	if d := cmp.Diff(ids(rs), streamIDs(t, b, cti.DefaultPrefix)); d != "" {
		t.Errorf("stream (-published +stream):\n%s", d)
	}
}

func TestWindowBoundsWhatIsUnconfirmed(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL(), Window: 3})
	rs := results(1, 300, "1004@acme.example", "a2e6")
	mustPublish(t, b, rs)
	if d := cmp.Diff(ids(rs), streamIDs(t, b, cti.DefaultPrefix)); d != "" {
		t.Errorf("stream (-published +stream):\n%s", d)
	}
	if got := b.Confirmed(); got != 300 {
		t.Errorf("Confirmed = %d, want 300", got)
	}
}

func TestPublishStopsWithItsContext(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL(), Window: 1})
	b.mu.Lock()
	b.win.push(&engine.Message{ID: "stuck"}) // never sent, so never confirmed
	b.progress = time.Now()
	b.mu.Unlock()
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	rs := results(1, 2, "a@b.c", "d")
	if err := b.Publish(ctx, rs); !errors.Is(err, cause) {
		t.Errorf("Publish: %v, want the cause", err)
	}
	if err := b.Ready(deadline(t)); err != nil {
		t.Fatal(err)
	}
	publishUntilDone(t, b, rs)
}

func TestNoConfirmationInTime(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL(), AckTimeout: 20 * time.Millisecond, FlushInterval: time.Millisecond})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.owed = true // keep Run from healing what this looks at
	b.win.push(&engine.Message{ID: "stuck"})
	b.progress = time.Now()
	for b.down == nil {
		if err := b.waitLocked(deadline(t), 0); err != nil {
			t.Fatal(err)
		}
	}
	if !errors.Is(b.down, ErrAckTimeout) {
		t.Errorf("down: %v, want ErrAckTimeout", b.down)
	}
}

func TestTooLargeEventIsLeftOut(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL()})
	rs := []engine.Result{result(1, "a@b.c", "d", 1), result(2, "a@b.c", "d", 2), result(3, "a@b.c", "d", 1)}
	rs[1].Messages[0].Payload = make([]byte, 2<<20)
	huge := *rs[2].Call
	huge.Data = string(make([]byte, 2<<20))
	rs[2].Call = &huge
	mustPublish(t, b, rs)
	want := []string{rs[0].Messages[0].ID, rs[1].Messages[1].ID, rs[2].Messages[0].ID}
	if d := cmp.Diff(want, streamIDs(t, b, cti.DefaultPrefix)); d != "" {
		t.Errorf("stream (-want +got):\n%s", d)
	}
	if got := b.Stats().Rejected; got != 1 {
		t.Errorf("Rejected = %d, want 1", got)
	}
}

// confirmations counts what the stream confirms from now on.
func confirmations(t *testing.T, s *Server) *nats.Subscription {
	t.Helper()
	nc, err := nats.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	sub, err := nc.SubscribeSync("_INBOX." + acksToken + ".*.m.>")
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

func TestManyMessagesShareAConfirmation(t *testing.T) {
	s := startServer(t, ServerOptions{})
	said := &warnings{}
	b, _ := startBus(t, Options{URL: s.URL(), Logger: slog.New(slog.NewTextHandler(said, nil))})
	sub := confirmations(t, s)
	rs := results(1, 2000, "1004@acme.example", "a2e6")
	mustPublish(t, b, rs)
	mustPublish(t, b, results(2001, 2001, "1004@acme.example", "a2e6")) // alone
	sent := uint64(len(ids(rs)) + 1)
	if st := b.Stats(); st.Sent != sent || st.Confirmed != sent {
		t.Errorf("%d sent, %d confirmed, want %d each", st.Sent, st.Confirmed, sent)
	}
	if b.each {
		t.Errorf("each message is confirmed by itself: %s", said)
	}
	got, _, err := sub.Pending()
	if most := 3 + int(sent)/askEvery; err != nil || got == 0 || got > most {
		t.Errorf("%d messages were confirmed %d times, want at most %d, %v", sent, got, most, err)
	}
}

// Another process writes to the stream: its sequence tells less, and it is said.
func TestOthersWriteToTheStream(t *testing.T) {
	s := startServer(t, ServerOptions{})
	said := &warnings{}
	b, _ := startBus(t, Options{URL: s.URL(), Logger: slog.New(slog.NewTextHandler(said, nil))})
	other, _ := startBus(t, Options{URL: s.URL(), LogID: "another"})
	rs := results(1, 2000, "1004@acme.example", "a2e6")
	theirs := make(chan struct{})
	go func() {
		defer close(theirs)
		for p := uint64(1); p <= 500; p++ {
			r := result(p, "1005@acme.example", "b", 1)
			r.Messages[0].ID = fmt.Sprintf("another.%d.0", p)
			if err := other.Publish(t.Context(), []engine.Result{r}); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for i := 0; i < len(rs); i += 100 {
		mustPublish(t, b, rs[i:i+100])
	}
	<-theirs
	one := result(501, "1005@acme.example", "b", 1)
	one.Messages[0].ID = "another.501.0"
	mustPublish(t, other, []engine.Result{one}) // between two of ours in any case
	more := results(2001, 2001, "1004@acme.example", "a2e6")
	mustPublish(t, b, more)
	rs = append(rs, more...)
	var ours []string
	for _, id := range streamIDs(t, b, cti.DefaultPrefix) {
		if _, ok := parseID(id, testLog); ok {
			ours = append(ours, id)
		}
	}
	if d := cmp.Diff(ids(rs), ours); d != "" {
		t.Errorf("stream (-published +stream):\n%s", d)
	}
	if n := strings.Count(said.String(), "somebody else writes"); n != 1 {
		t.Errorf("it is said %d times that somebody else writes", n)
	}
}

// limitMessages has the stream refuse what is larger.
func limitMessages(t *testing.T, b *Bus, size int32) {
	t.Helper()
	ctx := deadline(t)
	stream, err := b.js.Stream(ctx, "CTI")
	if err != nil {
		t.Fatal(err)
	}
	c := stream.CachedInfo().Config
	c.MaxMsgSize = size
	if _, err := b.js.UpdateStream(ctx, c); err != nil {
		t.Fatal(err)
	}
}

// The stream refuses messages that nobody asked it to confirm.
func TestRefusedAmongMany(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL()})
	limitMessages(t, b, 10_000)
	rs := results(1, 200, "1004@acme.example", "a2e6")
	refused := map[string]bool{}
	for i, size := range map[int]int{2: 20_000, 3: 20_000, 100: 20_000, 150: 2 << 20, 198: 20_000} { // the largest by the connection
		for len(rs[i].Messages) == 0 {
			i--
		}
		m := &rs[i].Messages[0]
		m.Payload, refused[m.ID] = make([]byte, size), true
	}
	mustPublish(t, b, rs)
	want := map[string]bool{}
	for _, id := range ids(rs) {
		want[id] = !refused[id]
	}
	for _, id := range streamIDs(t, b, cti.DefaultPrefix) {
		if !want[id] {
			t.Errorf("%s is in the stream, or twice", id)
		}
		delete(want, id)
	}
	for id, stored := range want {
		if stored {
			t.Errorf("%s is not in the stream", id)
		}
	}
	if got := b.Stats().Rejected; got != uint64(len(refused)) {
		t.Errorf("Rejected = %d, want %d", got, len(refused))
	}
	if b.Confirmed() != 200 {
		t.Errorf("Confirmed = %d, want 200", b.Confirmed())
	}
}

// A stream that takes no message that we have refuses each; who waits for room, or
// for the end, is told.
func TestStreamThatTakesNothing(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL(), Window: 1})
	limitMessages(t, b, 10)
	rs := results(1, 20, "1004@acme.example", "a2e6")
	mustPublish(t, b, rs)
	if got := b.Stats().Rejected; got != uint64(len(ids(rs))) || b.Confirmed() != 20 {
		t.Errorf("Rejected = %d of %d, Confirmed = %d, want 20", got, len(ids(rs)), b.Confirmed())
	}
}

// Whatever the PBX puts into an id, it names one subject and no header.
func TestHostileIDs(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL()})
	hostile := []string{
		"a.b", "*", ">", "a b", "a\r\nNats-Msg-Id: x", "\x00", "ї", "$KV.cti-lines.x", "", ".", "a=b_c", `"%`, "x\xff",
	}
	var rs []engine.Result
	for i, h := range hostile {
		rs = append(rs, result(uint64(i+1), h+"@"+h, "call"+h, 1))
	}
	mustPublish(t, b, rs)
	got := readStream(t, b, cti.DefaultPrefix)
	if len(got) != len(hostile) {
		t.Fatalf("%d messages, want %d", len(got), len(hostile))
	}
	for i, m := range got {
		account, call := hostile[i]+"@"+hostile[i], "call"+hostile[i]
		if want := cti.Subject(cti.DefaultPrefix, account, cti.CallInfoChanged, call); m.Subject() != want {
			t.Errorf("subject = %q, want %q", m.Subject(), want)
		}
		if id := m.Headers().Values(HeaderID); len(id) != 1 || id[0] != rs[i].Messages[0].ID {
			t.Errorf("ids = %q, want one", id)
		}
		unescaped, err := url.PathUnescape(m.Headers().Get(HeaderSubject))
		if err != nil || unescaped != account+"/"+call {
			t.Errorf("ce-subject = %q, want %q", unescaped, account+"/"+call)
		}
		if v := getCall(t, b, cti.DefaultPrefix, account, call); v.Position != uint64(i+1) {
			t.Errorf("view of %q/%q is of position %d, want %d", account, call, v.Position, i+1)
		}
	}
}

// BenchmarkPublish is the way of a position to its confirmation: 1.5 CTI events
// and two views each, over a thousand calls of two hundred agents.
func BenchmarkPublish(b *testing.B) {
	s := startServer(b, ServerOptions{})
	bus, _ := startBus(b, Options{URL: s.URL(), Logger: slog.New(slog.DiscardHandler)})
	var story []engine.Result
	for p := uint64(1); p <= 2048; p++ {
		story = append(story, result(p, fmt.Sprintf("%d@acme.example", 1000+p%200),
			fmt.Sprintf("a2e60000-0000-4000-8000-%012d", p%1000), 1+int(p%2)))
	}
	const batch = 64
	ctx := context.Background()
	messages, position := 0, uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		rs := make([]engine.Result, 0, batch)
		for range batch {
			r := story[position%uint64(len(story))]
			position++
			r.Position = position
			r.Messages = append([]engine.Message(nil), r.Messages...)
			for i := range r.Messages {
				r.Messages[i].ID = testLog + "." + strconv.FormatUint(position, 10) + "." + strconv.Itoa(i)
			}
			messages += len(r.Messages)
			rs = append(rs, r)
		}
		if err := bus.Publish(ctx, rs); err != nil {
			b.Fatal(err)
		}
	}
	if err := bus.Flush(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(messages)/b.Elapsed().Seconds(), "msgs/s")
	b.ReportMetric(float64(position)/b.Elapsed().Seconds(), "positions/s")
	b.ReportMetric(float64(bus.Stats().ViewWrites)/b.Elapsed().Seconds(), "views/s")
}

// BenchmarkPublishMsgAsync is the peer: nats.go's own asynchronous publishing of
// a message with the same headers and payload, without positions, views and
// what happens when it fails.
func BenchmarkPublishMsgAsync(b *testing.B) {
	s := startServer(b, ServerOptions{})
	bus, _ := startBus(b, Options{URL: s.URL()})
	js, err := jetstream.New(bus.Conn(), jetstream.WithPublishAsyncMaxPending(4096))
	if err != nil {
		b.Fatal(err)
	}
	enc := newEncoder(cti.DefaultPrefix, "callstate")
	r := result(1, "1004@acme.example", "a2e60000-0000-4000-8000-000000000001", 1)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		m := &r.Messages[0]
		m.ID = testLog + "." + strconv.Itoa(n) + ".0"
		msg := *enc.encode(m, "")
		msg.Header = nats.Header{}
		for k, v := range enc.msg.Header {
			msg.Header[k] = []string{v[0]}
		}
		if _, err := js.PublishMsgAsync(&msg); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msgs/s")
}

// BenchmarkPublishEvents is Publish without views, one CTI event an iteration,
// to set beside BenchmarkPublishMsgAsync.
func BenchmarkPublishEvents(b *testing.B) {
	s := startServer(b, ServerOptions{})
	bus, _ := startBus(b, Options{URL: s.URL()})
	ctx, position := context.Background(), uint64(0)
	story := result(1, "1004@acme.example", "a2e60000-0000-4000-8000-000000000001", 1)
	story.Call, story.Line = nil, nil
	b.ReportAllocs()
	for b.Loop() {
		position++
		r := story
		r.Position = position
		r.Messages = append([]engine.Message(nil), r.Messages...)
		r.Messages[0].ID = testLog + "." + strconv.FormatUint(position, 10) + ".0"
		if err := bus.Publish(ctx, []engine.Result{r}); err != nil {
			b.Fatal(err)
		}
	}
	if err := bus.Flush(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(position)/b.Elapsed().Seconds(), "msgs/s")
}

func BenchmarkEncode(b *testing.B) {
	e := newEncoder(cti.DefaultPrefix, "callstate")
	r := result(1, "1004@acme.example", "a2e60000-0000-4000-8000-000000000001", 1)
	b.ReportAllocs()
	for b.Loop() {
		e.encode(&r.Messages[0], "_INBOX.x.m.1.1")
	}
}
