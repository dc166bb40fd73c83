package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testLog = "6f1e0000-0000-4000-8000-00000000000a"

// startServer starts an embedded server on a port of the system's choice.
func startServer(t testing.TB, o ServerOptions) *Server {
	t.Helper()
	if o.Port == 0 {
		o.Port = -1
	}
	if o.StoreDir == "" {
		o.StoreDir = t.TempDir()
	}
	s, err := StartServer(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func portOf(t testing.TB, s *Server) int {
	t.Helper()
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	p, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// deadline bounds every wait of a test.
func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// startBus connects a bus, runs it and waits until it is ready. The function it
// returns stops and closes the bus; the test's cleanup calls it too.
func startBus(t testing.TB, o Options) (*Bus, func()) {
	t.Helper()
	b, stop := runBus(t, o)
	if _, err := b.Resume(deadline(t), 0); err != nil {
		t.Fatal(err)
	}
	return b, stop
}

// runBus is startBus without the wait.
func runBus(t testing.TB, o Options) (*Bus, func()) {
	t.Helper()
	if o.LogID == "" {
		o.LogID = testLog
	}
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	t.Cleanup(stop)
	return b, stop
}

// result is position p of a story in which account's call changes at every
// position, with n CTI events.
func result(p uint64, account, call string, n int) engine.Result {
	_, domain := cti.SplitAccount(account)
	view := &cti.Call{ID: call, State: cti.StateConnected, StateName: "CONNECTED", TalkMs: int64(p), Direction: events.In}
	line := &cti.Line{Connected: true, ActiveCall: call, CallFeaturesSet: cti.Talk}
	r := engine.Result{Position: p, Account: account, CallID: call, Conversation: "conv", Call: view, Line: line}
	for i := range n {
		e := cti.Event{
			Event: cti.CallInfoChanged, Position: p, Seq: p, LineSeq: p, Time: events.Time(1750000000000000 + p*1000),
			Domain: domain, Account: account, CallID: call, Conversation: "conv", Call: view,
		}
		r.Messages = append(r.Messages, engine.Message{
			ID: fmt.Sprintf("%s.%d.%d", testLog, p, i), Event: e, Payload: cti.AppendEvent(nil, &e),
		})
	}
	return r
}

// results is the positions from to through, one in five without a message.
func results(from, through uint64, account, call string) []engine.Result {
	var rs []engine.Result
	for p := from; p <= through; p++ {
		rs = append(rs, result(p, account, call, int(p%5)%3))
	}
	return rs
}

func ids(rs []engine.Result) []string {
	var out []string
	for _, r := range rs {
		for _, m := range r.Messages {
			out = append(out, m.ID)
		}
	}
	return out
}

// readStream returns what the stream of prefix holds, in order.
func readStream(t testing.TB, b *Bus, prefix string) []jetstream.Msg {
	t.Helper()
	ctx := deadline(t)
	s, err := b.js.Stream(ctx, StreamName(prefix))
	if err != nil {
		t.Fatal(err)
	}
	n := s.CachedInfo().State.Msgs
	c, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var out []jetstream.Msg
	for uint64(len(out)) < n {
		batch, err := c.Fetch(int(n)-len(out), jetstream.FetchContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		for m := range batch.Messages() {
			out = append(out, m)
		}
		if err := batch.Error(); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func streamIDs(t testing.TB, b *Bus, prefix string) []string {
	t.Helper()
	var out []string
	for _, m := range readStream(t, b, prefix) {
		out = append(out, m.Headers().Get(HeaderID))
	}
	return out
}

func mustPublish(t testing.TB, b *Bus, rs []engine.Result) {
	t.Helper()
	ctx := deadline(t)
	if err := b.Publish(ctx, rs); err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// publishUntilDone is the engine's part of the contract.
func publishUntilDone(t testing.TB, b *Bus, rs []engine.Result) {
	t.Helper()
	ctx := deadline(t)
	for {
		var left []engine.Result
		for _, r := range rs {
			if r.Position > b.Confirmed() {
				left = append(left, r)
			}
		}
		err := b.Publish(ctx, left)
		if err == nil {
			err = b.Flush(ctx)
		}
		if err == nil {
			return
		}
		if !errors.Is(err, ErrNotReady) {
			t.Fatalf("Publish: %v, want ErrNotReady", err)
		}
		if err := b.Ready(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// The server goes away in the middle and comes back on the same folder and port:
// Publish says so, and after Ready nothing is lost, doubled or out of order.
func TestServerRestartLosesAndDoublesNothing(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, ServerOptions{StoreDir: dir})
	b, _ := startBus(t, Options{URL: s.URL(), Window: 64})
	port := portOf(t, s)
	first, then := results(1, 400, "1004@acme.example", "a2e6"), results(401, 1200, "1004@acme.example", "a2e6")
	mustPublish(t, b, first)
	if err := b.Publish(deadline(t), then[:200]); err != nil { // some of it is on its way when the server goes
		t.Fatal(err)
	}
	s.Close()

	ctx := deadline(t)
	for err := error(nil); err == nil; {
		if err = b.Publish(ctx, nil); err == nil {
			err = b.Flush(ctx)
		}
		if err == nil && b.Confirmed() == 600 { // confirmed before it stopped
			err = b.Publish(ctx, then[200:400])
		}
		if err != nil && !errors.Is(err, ErrNotReady) {
			t.Fatalf("Publish without a server: %v, want ErrNotReady", err)
		}
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if err := b.Ready(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Ready without a server: %v, want the deadline", err)
	}
	if got := b.Confirmed(); got < 400 || got > 800 {
		t.Errorf("Confirmed = %d without a server", got)
	}

	startServer(t, ServerOptions{StoreDir: dir, Port: port})
	if err := b.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	publishUntilDone(t, b, then)
	if got := b.Confirmed(); got != 1200 {
		t.Errorf("Confirmed = %d, want 1200", got)
	}
	if d := cmp.Diff(append(ids(first), ids(then)...), streamIDs(t, b, cti.DefaultPrefix)); d != "" {
		t.Errorf("stream (-published +stream):\n%s", d)
	}
}

// The connection drops again and again while the engine publishes.
func TestReconnectStormKeepsTheOrder(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL(), Window: 100, FlushInterval: 5 * time.Millisecond})
	var rs []engine.Result
	for from := uint64(1); from < 4000; from += 200 {
		part := results(from, from+199, "1004@acme.example", "a2e6")
		rs = append(rs, part...)
		if err := b.Conn().ForceReconnect(); err != nil {
			t.Fatal(err)
		}
		publishUntilDone(t, b, part)
	}
	if d := cmp.Diff(ids(rs), streamIDs(t, b, cti.DefaultPrefix)); d != "" {
		t.Errorf("stream (-published +stream):\n%s", d)
	}
	if v := getCall(t, b, cti.DefaultPrefix, "1004@acme.example", "a2e6"); v.Position != 4000 {
		t.Errorf("view is of position %d, want 4000", v.Position)
	}
}

// Nobody publishes while the server is away: Run brings the bus back and sends
// what was unconfirmed again.
func TestRunHealsAnIdleBus(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, ServerOptions{StoreDir: dir})
	b, _ := startBus(t, Options{URL: s.URL()})
	rs := results(1, 50, "1004@acme.example", "a2e6")
	b.mu.Lock() // the confirmations cannot be taken before the server is gone
	for i := range rs {
		b.win.through(rs[i].Position - 1)
		for j := range rs[i].Messages {
			m := &rs[i].Messages[j]
			b.win.push(m) // taken over, lost before it was sent
		}
		b.win.through(rs[i].Position)
	}
	b.published = 50
	b.mu.Unlock()
	b.views.take(rs)
	s.Close()
	startServer(t, ServerOptions{StoreDir: dir, Port: portOf(t, s)})

	ctx := deadline(t)
	b.mu.Lock()
	for b.confirmedLocked() < 50 {
		if err := b.waitLocked(ctx, 0); err != nil {
			b.mu.Unlock()
			t.Fatal(err)
		}
	}
	b.mu.Unlock()
	if d := cmp.Diff(ids(rs), streamIDs(t, b, cti.DefaultPrefix)); d != "" {
		t.Errorf("stream (-published +stream):\n%s", d)
	}
	mustPublish(t, b, results(51, 60, "1004@acme.example", "a2e6"))
}

// A server that has nothing yet has lost nothing, even if Run is there before Resume.
func TestRunFindsAnEmptyServer(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := runBus(t, Options{URL: s.URL()})
	ctx := deadline(t)
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.down != nil {
		if b.owed {
			t.Fatal("what it had confirmed is thought to be lost")
		}
		if err := b.waitLocked(ctx, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVanishedStreamAndBucketsAreMadeAgain(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL()})
	mustPublish(t, b, results(1, 10, "1004@acme.example", "a2e6"))
	ctx := deadline(t)
	if err := b.js.DeleteStream(ctx, "CTI"); err != nil {
		t.Fatal(err)
	}
	for _, bucket := range []string{"cti-calls", "cti-lines"} {
		if err := b.js.DeleteKeyValue(ctx, bucket); err != nil {
			t.Fatal(err)
		}
	}
	rs := results(11, 30, "1004@acme.example", "a2e6")
	publishUntilDone(t, b, rs)
	if d := cmp.Diff(ids(rs), streamIDs(t, b, cti.DefaultPrefix)); d != "" {
		t.Errorf("stream (-published +stream):\n%s", d)
	}
}

func TestReadyBeforeTheServer(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, ServerOptions{StoreDir: dir})
	port, addr := portOf(t, s), s.URL()
	s.Close()
	b, err := New(Options{URL: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Publish(deadline(t), results(1, 1, "a@b", "c")); !errors.Is(err, ErrNotReady) {
		t.Errorf("Publish before Ready: %v, want ErrNotReady", err)
	}
	ready := make(chan error, 1)
	ctx := deadline(t)
	go func() { ready <- b.Ready(ctx) }()
	startServer(t, ServerOptions{StoreDir: dir, Port: port})
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
}

func TestCloseEndsWaiting(t *testing.T) {
	b, err := New(Options{URL: "nats://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	ready, run := make(chan error, 1), make(chan error, 1)
	go func() { ready <- b.Ready(context.Background()) }()
	go func() { run <- b.Run(context.Background()) }()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ready; !errors.Is(err, ErrClosed) {
		t.Errorf("Ready: %v, want ErrClosed", err)
	}
	if err := <-run; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := b.Publish(t.Context(), nil); err != nil {
		t.Errorf("Publish of nothing: %v", err)
	}
	if err := b.Publish(t.Context(), results(1, 1, "a@b", "c")); !errors.Is(err, ErrClosed) {
		t.Errorf("Publish: %v, want ErrClosed", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// Only our own server may put off writing to its files, and only where nobody asked
// it to sync.
func TestPersistMode(t *testing.T) {
	for name, c := range map[string]struct {
		syncAlways, own bool
		want            jetstream.PersistModeType
	}{
		"own server":            {false, true, jetstream.AsyncPersistMode},
		"own server that syncs": {true, true, jetstream.DefaultPersistMode},
		"somebody's server":     {false, false, jetstream.DefaultPersistMode},
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, ServerOptions{SyncAlways: c.syncAlways})
			o := Options{URL: s.URL()}
			if c.own {
				o.Server = s
			}
			b, _ := startBus(t, o)
			stream, err := b.js.Stream(deadline(t), "CTI")
			if err != nil {
				t.Fatal(err)
			}
			if got := stream.CachedInfo().Config.PersistMode; got != c.want {
				t.Errorf("persist mode %v, want %v", got, c.want)
			}
			mustPublish(t, b, results(1, 50, "1004@acme.example", "a2e6"))
		})
	}
}

// The process is killed with the server in it, which had not written the last
// messages yet. Who reads the stream by a consumer that is kept misses nothing,
// although the end of what it has read is gone.
func TestKeptConsumerAfterAKill(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, ServerOptions{StoreDir: dir})
	b, stop := startBus(t, Options{Server: s})
	rs := results(1, 3000, "1004@acme.example", "a2e6")
	seen := map[string]bool{}
	read := func(b *Bus, last string) {
		t.Helper()
		c, err := b.js.CreateOrUpdateConsumer(deadline(t), "CTI", jetstream.ConsumerConfig{Durable: "reader", AckPolicy: jetstream.AckExplicitPolicy})
		if err != nil {
			t.Fatal(err)
		}
		for ctx := deadline(t); !seen[last]; {
			msgs, err := c.Fetch(500, jetstream.FetchMaxWait(100*time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			for m := range msgs.Messages() {
				seen[m.Headers().Get(jetstream.MsgIDHeader)] = true
				if err := m.Ack(); err != nil {
					t.Fatal(err)
				}
			}
			if ctx.Err() != nil {
				t.Fatalf("the consumer stands still; it saw %d messages", len(seen))
			}
		}
	}
	all := ids(rs)
	for i := 0; i < 2000; i += 500 {
		mustPublish(t, b, rs[i:i+500])
		read(b, ids(rs[i : i+500])[len(ids(rs[i:i+500]))-1])
	}
	stop()
	s.Close()
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "CTI", "msgs", "*.blk"))
	if err != nil || len(blocks) != 1 {
		t.Fatalf("blocks of the stream: %v, %v", blocks, err)
	}
	info, err := os.Stat(blocks[0])
	if err == nil {
		err = os.Truncate(blocks[0], info.Size()*3/4)
	}
	if err != nil {
		t.Fatal(err)
	}

	s = startServer(t, ServerOptions{StoreDir: dir})
	b, _ = startBus(t, Options{Server: s})
	from, err := b.Resume(deadline(t), 2000)
	if err != nil || from < 1000 || from > 1800 {
		t.Fatalf("published again from %d, %v", from, err)
	}
	mustPublish(t, b, rs[from-1:])
	read(b, all[len(all)-1])
	for _, id := range all {
		if !seen[id] {
			t.Errorf("the consumer did not see %s", id)
		}
	}
	if d := cmp.Diff(all, streamIDs(t, b, cti.DefaultPrefix)); d != "" {
		t.Errorf("stream (-published +stream):\n%s", d)
	}
}

// The server takes us for broken and closes the connection, which the client then
// keeps closed: whoever runs the bus is told.
func TestClosedForGood(t *testing.T) {
	b, err := New(Options{URL: outside(t, &server.Options{MaxControlLine: 300}), LogID: testLog})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ran := make(chan error, 1)
	go func() { ran <- b.Run(t.Context()) }()
	if _, err := b.Resume(deadline(t), 0); err != nil {
		t.Fatal(err)
	}
	r := result(1, "1004@acme.example", strings.Repeat("c", 300), 1)
	if err := b.Publish(deadline(t), []engine.Result{r}); err != nil && !errors.Is(err, ErrNotReady) {
		t.Fatal(err)
	}
	if err := <-ran; !errors.Is(err, ErrConnectionClosed) || !strings.Contains(err.Error(), "control line") {
		t.Errorf("Run: %v", err)
	}
	if _, err := b.Resume(deadline(t), 0); !errors.Is(err, ErrConnectionClosed) {
		t.Errorf("Resume: %v", err)
	}
}

// An old log may have ids that no subject has room for.
func TestLongID(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL()})
	rs := []engine.Result{result(1, "a@b.c", "d", 1), result(2, "a@b.c", strings.Repeat("d", maxSubject), 2), result(3, "a@b.c", "d", 1)}
	mustPublish(t, b, rs)
	if d := cmp.Diff([]string{rs[0].Messages[0].ID, rs[2].Messages[0].ID}, streamIDs(t, b, cti.DefaultPrefix)); d != "" {
		t.Errorf("stream (-want +got):\n%s", d)
	}
	if st := b.Stats(); st.Rejected != 2 || st.Failures != 0 {
		t.Errorf("%+v", st)
	}
}

func TestPrefixesDoNotMeet(t *testing.T) {
	s := startServer(t, ServerOptions{})
	live, _ := startBus(t, Options{URL: s.URL()})
	replay, _ := startBus(t, Options{URL: s.URL(), Prefix: "replay.2026-10"})
	mustPublish(t, live, results(1, 20, "1004@acme.example", "a2e6"))
	mustPublish(t, replay, results(1, 10, "1004@acme.example", "a2e6"))
	if got := len(readStream(t, live, cti.DefaultPrefix)); got != len(ids(results(1, 20, "", ""))) {
		t.Errorf("%d live messages", got)
	}
	msgs := readStream(t, replay, "replay.2026-10")
	if len(msgs) != len(ids(results(1, 10, "", ""))) {
		t.Errorf("%d replayed messages", len(msgs))
	}
	if got, want := msgs[0].Subject(), "replay.2026-10.acme_example.1004.callInfoChanged.a2e6"; got != want {
		t.Errorf("subject = %q, want %q", got, want)
	}
	if v := getCall(t, live, cti.DefaultPrefix, "1004@acme.example", "a2e6"); v.Position != 20 {
		t.Errorf("live view is of position %d, want 20", v.Position)
	}
	if v := getCall(t, replay, "replay.2026-10", "1004@acme.example", "a2e6"); v.Position != 10 {
		t.Errorf("replayed view is of position %d, want 10", v.Position)
	}
}

func TestOverlappingStreamIsExplained(t *testing.T) {
	s := startServer(t, ServerOptions{})
	nc, err := nats.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx := deadline(t)
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "theirs", Subjects: []string{"cti.>"}}); err != nil {
		t.Fatal(err)
	}
	b, err := New(Options{URL: s.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	var hint *HintError
	if err := b.Ready(short); !errors.As(err, &hint) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Ready: %v, want a hint and the deadline", err)
	}
}

func TestStreamOptionsAreApplied(t *testing.T) {
	s := startServer(t, ServerOptions{})
	_, stop := startBus(t, Options{URL: s.URL()})
	stop()
	b, _ := startBus(t, Options{URL: s.URL(), MaxAge: time.Hour, MaxBytes: 1 << 20})
	st, err := b.js.Stream(deadline(t), "CTI")
	if err != nil {
		t.Fatal(err)
	}
	c := st.CachedInfo().Config
	if c.MaxAge != time.Hour || c.MaxBytes != 1<<20 || c.Duplicates != 2*time.Minute ||
		c.Retention != jetstream.LimitsPolicy || c.Storage != jetstream.FileStorage || c.Discard != jetstream.DiscardOld {
		t.Errorf("stream config %+v", c)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]Options{
		"wildcard prefix": {Prefix: "cti.>"}, "empty token": {Prefix: "cti..v1"}, "blank": {Prefix: "a b"},
		"stream with dot": {Stream: "a.b"}, "source": {Source: "a b"}, "interval": {FlushInterval: -1},
		"window": {Window: -1}, "age": {MaxAge: time.Second}, "ttl": {EndedTTL: 1}, "bytes": {MaxBytes: -1},
		"replicas": {Replicas: 9}, "ack": {AckTimeout: -1}, "credentials": {Access: Access{CredentialsFile: "/nowhere/x.creds"}},
	} {
		b, err := New(o)
		if err == nil {
			b.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestNamesOfPrefixesDiffer(t *testing.T) {
	seen := map[string]string{}
	for _, p := range []string{"cti.v1", "cti-v1", "cti_v1", "cti", "a.-b", "a-.b", "a._b", "a_.b", "a-u", "a_", "CTI.v1"} {
		for _, n := range []string{StreamName(p), CallsBucket(p), LinesBucket(p)} {
			if q, ok := seen[n]; ok {
				t.Errorf("%s and %s share %s", p, q, n)
			}
			seen[n] = p
		}
	}
	if StreamName("cti.v1") != "CTI" || CallsBucket("cti.v1") != "cti-calls" || LinesBucket("cti.v1") != "cti-lines" {
		t.Error("the default prefix must give the names of the design")
	}
}

func TestServerErrorsHaveHints(t *testing.T) {
	s := startServer(t, ServerOptions{})
	_, err := StartServer(ServerOptions{StoreDir: t.TempDir(), Port: portOf(t, s)})
	var hint *HintError
	if !errors.Is(err, ErrPortInUse) || !errors.As(err, &hint) {
		t.Errorf("taken port: %v", err)
	}
	_, err = StartServer(ServerOptions{StoreDir: "/dev/null/x", Port: -1})
	if !errors.Is(err, ErrStoreDir) || !errors.As(err, &hint) {
		t.Errorf("store folder: %v", err)
	}
	if _, err = StartServer(ServerOptions{}); err == nil {
		t.Error("no store folder was accepted")
	}
}

// getCall reads one call's view.
func getCall(t testing.TB, b *Bus, prefix, account, call string) cti.CallView {
	t.Helper()
	var v cti.CallView
	get(t, b, CallsBucket(prefix), cti.CallKey(account, call), &v)
	return v
}

func get(t testing.TB, b *Bus, bucket, key string, v any) jetstream.KeyValueEntry {
	t.Helper()
	ctx := deadline(t)
	kv, err := b.js.KeyValue(ctx, bucket)
	if err != nil {
		t.Fatal(err)
	}
	e, err := kv.Get(ctx, key)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	if err := json.Unmarshal(e.Value(), v); err != nil {
		t.Fatalf("value of %s: %v: %s", key, err, e.Value())
	}
	return e
}
