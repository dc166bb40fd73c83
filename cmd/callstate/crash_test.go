package main

import (
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
	"github.com/callstate/callstate/store/bolt"
)

var (
	kills    = flag.Int("kills", 6, "how often TestKilledAnywhereLosesNothing kills the daemon")
	killSeed = flag.Uint64("kill-seed", 0, "what the moments of the kills are drawn from; 0 draws that, too")
)

// killsAFolder is how often the daemon is killed on one data folder.
const killsAFolder = 10

// TestKilledAnywhereLosesNothing kills the daemon under load, at random moments
// and in the middle of what is rare: a file of the log sealed, a snapshot written,
// old files dropped, the outbox resuming. Each time
//
//   - what the log had acknowledged is in it, as it was acknowledged, or in the
//     export of what retention dropped;
//   - what a subscriber had seen follows from it, byte for byte (I1);
//   - positions have no gap and frames reconcile (I2);
//   - verify finds stream, views and snapshot to be what the log says, as far as
//     they go (I3, I4).
//
// At the end of a folder the daemon stops cleanly, and the stream holds what
// follows from the log, each message once, in order (I5).
func TestKilledAnywhereLosesNothing(t *testing.T) {
	seed := *killSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	var sum killTally
	defer func() { t.Logf("-kill-seed %d: %s", seed, &sum) }()
	for folder := 0; sum.kills < *kills && !t.Failed(); folder++ {
		t.Run(fmt.Sprintf("folder %d", folder), func(t *testing.T) {
			killFolder(t, rand.New(rand.NewPCG(seed, uint64(folder))), folder, &sum)
		})
	}
	if sum.acknowledged == 0 || *kills > 20 && (sum.seen == 0 || sum.ahead == 0) {
		t.Errorf("there was nothing to lose: %s", &sum)
	}
}

// killTally is what happened.
type killTally struct {
	kills, acknowledged, seen, events, ahead, dropped int
	at                                                map[place]int
}

func (s *killTally) String() string {
	var at []string
	for _, p := range slices.Sorted(maps.Keys(s.at)) {
		at = append(at, fmt.Sprintf("%s %d", cmp.Or(p, "anywhere"), s.at[p]))
	}
	return fmt.Sprintf("%d kills (%s), %d events stored, %d of them seen acknowledged, %d by retention dropped, %d CTI events seen by a subscriber; the log was ahead after %d kills",
		s.kills, strings.Join(at, ", "), s.events, s.acknowledged, s.dropped, s.seen, s.ahead)
}

// killFolder kills the daemon several times on one folder.
func killFolder(t *testing.T, rnd *rand.Rand, folder int, sum *killTally) {
	r := newWitness(t)
	conf := childConfig{Data: r.data, Export: r.export}
	// Every other folder has small files, snapshots and retention, which now and then
	// leaves the newest file alone; every third publishes to a server that lives on.
	if small := folder%2 == 0; small {
		conf.SegmentBytes, conf.SnapshotEvery, conf.RetainBytes = 96<<10, 150, 640<<10
		if folder%4 == 0 {
			conf.RetainBytes = 200 << 10
		}
	}
	if folder%3 == 1 {
		r.serve(t)
		conf.NATS = r.url
	}
	places := []place{"", "", inAppend, inResume}
	if conf.RetainBytes > 0 {
		places = append(places, inRoll, inRoll, inSnapshot, inRetention)
	}
	pbx := webiteltest.New(webiteltest.Options{
		Accounts: append(webiteltest.Agents(demoDomain, 1001, 100, demoSecret), webiteltest.Account{Login: watcherLogin, Secret: demoSecret, Role: "admin"}),
	})
	defer pbx.Close()
	conf.PBX = pbx.URL()
	ctx, hush := context.WithCancel(t.Context())
	var load sync.WaitGroup
	defer load.Wait()
	defer hush()
	calls := rnd.Uint64()
	load.Go(func() {
		_, _ = pbx.Generate(ctx, webiteltest.GenerateOptions{
			Agents: webiteltest.Numbers(1001, 100), Domain: demoDomain, Rate: 250, Speed: 60, Seed: calls,
		})
	})

	for range min(killsAFolder, *kills-sum.kills) {
		conf.Place = places[rnd.IntN(len(places))]
		conf.After, conf.Delay = 1+rnd.IntN(12), time.Duration(rnd.Int64N(int64(4*time.Millisecond)))
		switch conf.Place {
		case inResume:
			conf.After, conf.Delay = 1, time.Duration(rnd.Int64N(int64(40*time.Millisecond)))
		case inRoll, inSnapshot, inRetention:
			conf.After = 1 + rnd.IntN(2)
		}
		p := startChild(t, conf)
		patience := 1500 * time.Millisecond // for the place to be come to
		if conf.Place == "" {
			patience = time.Duration(rnd.Int64N(int64(500 * time.Millisecond)))
		}
		r.kill(t, p, patience, rnd.IntN(3) > 0, sum)
	}

	conf.Place = ""
	l := &loaded{pbx: pbx, child: startChild(t, conf)}
	if l.hello() == "" {
		t.Fatalf("the last daemon did not start: %s", l.child.stop())
	}
	l.until(t, "it is connected", func(st childStats) bool { return st.Settled })
	hush()
	load.Wait()
	l.settle(t)
	l.stop(t)
	r.recall(t, <-l.acked, sum)
	r.complete(t)
	sum.events += len(r.events)
	sum.dropped += int(r.dropped)
}

// witness knows what the daemon promised, and holds the log to it.
type witness struct {
	data, export string
	srv          *natsbus.Server // nil where the daemon has its own
	url          string

	events     []uint64 // hash of each event of the log, from position 1
	projection *engine.Projection
	ids        []string          // of the messages that follow, in order
	want       map[string]uint64 // their payloads' hashes
	dropped    uint64            // position through which retention dropped

	mu   sync.Mutex        // guards what follows
	seen map[string]uint64 // by a subscriber
}

func newWitness(t *testing.T) *witness {
	dir := t.TempDir()
	return &witness{
		data: filepath.Join(dir, "data"), export: filepath.Join(dir, "export"),
		want: map[string]uint64{}, seen: map[string]uint64{},
	}
}

// serve starts a NATS server that is not killed.
func (r *witness) serve(t *testing.T) {
	t.Helper()
	srv, err := natsbus.StartServer(natsbus.ServerOptions{StoreDir: filepath.Join(t.TempDir(), "nats"), Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	r.srv, r.url = srv, srv.URL()
}

// kill subscribes, waits for a child to kill itself or kills it, and looks at
// what is left. The patience begins with the process, or when it is up.
func (r *witness) kill(t *testing.T, p *child, patience time.Duration, up bool, sum *killTally) {
	t.Helper()
	var watching sync.WaitGroup
	said := make(chan struct{})
	watching.Go(func() {
		url := p.hello()
		close(said)
		if url != "" {
			r.watch(url, p.done)
		}
	})
	if up {
		<-said
	}
	at := p.place
	select {
	case <-p.done:
	case <-time.After(patience):
		at = ""
		_ = p.cmd.Process.Kill()
	}
	<-p.done
	watching.Wait()
	if p.cmd.ProcessState.Exited() {
		t.Fatalf("the daemon ended by itself: %s", p.stop())
	}
	sum.kills++
	if sum.at == nil {
		sum.at = map[place]int{}
	}
	sum.at[at]++
	r.recall(t, <-p.acked, sum)
	if r.verify(t) {
		sum.ahead++
	}
}

// watch is a subscriber, until the child has ended and all that it sent has come.
func (r *witness) watch(url string, done <-chan struct{}) {
	closed := make(chan struct{})
	nc, err := nats.Connect(url, nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	if err != nil {
		return // killed meanwhile
	}
	in := make(chan *nats.Msg, 1<<16)
	if _, err := nc.ChanSubscribe(cti.DefaultPrefix+".>", in); err != nil {
		return
	}
	note := func(m *nats.Msg) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen[m.Header.Get(jetstream.MsgIDHeader)] = hashBytes(m.Data)
	}
	for {
		select {
		case m := <-in:
			note(m)
			continue
		case <-closed:
		case <-done:
			_ = nc.Flush() // of a server that lives on
			nc.Close()
			<-closed
		}
		for len(in) > 0 {
			note(<-in)
		}
		return
	}
}

// recall reads the log and holds it to what was acknowledged and seen.
func (r *witness) recall(t *testing.T, acked map[uint64]uint64, sum *killTally) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(r.data, bolt.FileName)); errors.Is(err, fs.ErrNotExist) && len(acked) == 0 && len(r.events) == 0 {
		return
	}
	log := openLog(t, r.data)
	defer log.Close()
	if err := r.follow(t.Context(), log); err != nil {
		t.Fatal(err)
	}
	if log.Last() != uint64(len(r.events)) {
		t.Fatalf("the log ends at %d, it had %d events", log.Last(), len(r.events))
	}
	// A frame that waits for its leg is received, and disposed of by the next start.
	if frames := log.Frames(); frames.Disposed() > frames.Received {
		t.Errorf("frames do not reconcile: %+v", frames)
	}
	for position, hash := range acked {
		switch {
		case position > log.Last():
			t.Fatalf("event %d was acknowledged, and the log ends at %d", position, log.Last())
		case r.events[position-1] != hash:
			t.Fatalf("event %d is not what was acknowledged", position)
		}
	}
	sum.acknowledged += len(acked)
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, hash := range r.seen {
		if w, ok := r.want[id]; !ok || w != hash {
			t.Errorf("a subscriber saw %s, which does not follow from the log", id)
		}
	}
	sum.seen += len(r.seen)
	clear(r.seen)
}

// follow takes in what is new in the log, and compares the rest with what it was.
func (r *witness) follow(ctx context.Context, log *bolt.Store) error {
	if r.projection == nil {
		r.projection = engine.NewProjection(log.ID())
	}
	base, _, err := log.Base()
	if err != nil {
		return err
	}
	if base > uint64(len(r.events)) {
		if err := r.followExport(base); err != nil {
			return err
		}
	}
	if r.dropped = base; base > uint64(len(r.events)) {
		return fmt.Errorf("events %d to %d were dropped and are not in the export", len(r.events)+1, base)
	}
	at := base
	return log.Read(ctx, base+1, func(ev *events.Event) error {
		if at++; ev.Position != at {
			return fmt.Errorf("position %d after %d", ev.Position, at-1)
		}
		return r.take(ev)
	})
}

func (r *witness) take(ev *events.Event) error {
	hash := hashOf(ev)
	switch n := uint64(len(r.events)); {
	case ev.Position <= n && r.events[ev.Position-1] != hash:
		return fmt.Errorf("event %d is not what it was", ev.Position)
	case ev.Position <= n:
		return nil
	case ev.Position != n+1:
		return fmt.Errorf("position %d after %d", ev.Position, n)
	}
	r.events = append(r.events, hash)
	res := r.projection.Apply(ev)
	for i := range res.Messages {
		r.ids = append(r.ids, res.Messages[i].ID)
		r.want[res.Messages[i].ID] = hashBytes(res.Messages[i].Payload)
	}
	return nil
}

// followExport takes in the events through a position that retention dropped
// before they were read here.
func (r *witness) followExport(through uint64) error {
	files, err := filepath.Glob(filepath.Join(r.export, "events-*.jsonl.gz"))
	if err != nil {
		return err
	}
	slices.Sort(files)
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		z, err := gzip.NewReader(f)
		if err != nil {
			return err
		}
		for dec := json.NewDecoder(z); ; {
			var row exportedEvent
			err := dec.Decode(&row)
			if err == nil && row.Position <= through {
				var ev *events.Event
				if ev, err = row.event(); err == nil {
					err = r.take(ev)
				}
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return errors.Join(fmt.Errorf("%s: %w", filepath.Base(name), err), f.Close())
			}
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// exportedEvent is a row of `callstate export --events`, which has all of the event.
type exportedEvent struct {
	Position     uint64
	ID           string
	Type         events.Type
	Version      int
	Domain       string
	Account      string
	Call         string `json:"call_id"`
	Leg          string `json:"leg_id"`
	Conversation string
	Occurred     events.Time
	TimeSource   json.RawMessage `json:"time_source"`
	Recorded     events.Time
	Origin       json.RawMessage
	events.Source
	Data json.RawMessage
}

// event is what was exported, by way of its JSON.
func (x *exportedEvent) event() (*events.Event, error) {
	b, err := json.Marshal(map[string]any{
		"position": x.Position, "id": x.ID, "type": x.Type, "version": x.Version, "domain": x.Domain,
		"account": x.Account, "callId": x.Call, "legId": x.Leg, "conversation": x.Conversation,
		"occurredAt": x.Occurred, "timeSource": x.TimeSource, "recordedAt": x.Recorded, "origin": x.Origin,
		"source": x.Source, "data": x.Data,
	})
	if err != nil {
		return nil, err
	}
	ev := &events.Event{}
	return ev, json.Unmarshal(b, ev)
}

// verify runs the verb, and reports whether it found the log ahead of what was
// published.
func (r *witness) verify(t *testing.T) (ahead bool) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(r.data, bolt.FileName)); errors.Is(err, fs.ErrNotExist) {
		return false
	}
	args := []string{"verify", "--data", r.data}
	if r.srv != nil {
		args = append(args, "--nats", r.url)
	}
	out, _ := runVerb(t, args...)
	if !strings.Contains(out, "all is what the log says") {
		t.Errorf("verify:\n%s", out)
	}
	return strings.Contains(out, "the log is ahead")
}

// complete checks what a clean stop leaves: nothing is owed, and the stream holds
// each message that follows from the log once, in order.
func (r *witness) complete(t *testing.T) {
	t.Helper()
	if r.verify(t) {
		t.Error("the log is ahead after a clean stop")
	}
	log := openLog(t, r.data)
	defer log.Close()
	if frames := log.Frames(); !frames.Reconciles() {
		t.Errorf("frames do not reconcile: %+v", frames)
	}
	for _, dir := range []string{r.data, r.export} {
		left, _ := os.ReadDir(dir) // there may have been nothing to export
		for _, f := range left {
			if strings.HasPrefix(f.Name(), ".") || strings.HasSuffix(f.Name(), ".new") {
				t.Errorf("%s is left over in %s", f.Name(), dir)
			}
		}
	}
	if r.srv == nil {
		srv, err := natsbus.StartServer(natsbus.ServerOptions{StoreDir: filepath.Join(r.data, "nats"), Port: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		r.url = srv.URL()
	}
	got := streamed(t, r.url)
	for i := range max(len(got), len(r.ids)) {
		switch {
		case i >= len(got):
			t.Fatalf("stream ends after %d messages, the log gives %d", len(got), len(r.ids))
		case i >= len(r.ids):
			t.Fatalf("stream has %d messages, the log gives %d", len(got), len(r.ids))
		case got[i].id != r.ids[i] || got[i].hash != r.want[r.ids[i]]:
			t.Fatalf("message %d of the stream is %s, the log gives %s", i, got[i].id, r.ids[i])
		}
	}
}

func openLog(t *testing.T, data string) *bolt.Store {
	t.Helper()
	log, err := bolt.Open(data, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

type streamedMessage struct {
	id   string
	hash uint64 // of the payload
}

// streamed reads a server's stream of CTI events.
func streamed(t *testing.T, url string) []streamedMessage {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
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
		msgs, err := c.Fetch(int(min(500, info.State.Msgs-uint64(len(out)))), jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for m := range msgs.Messages() {
			out = append(out, streamedMessage{m.Headers().Get(jetstream.MsgIDHeader), hashBytes(m.Data())})
		}
		if ctx.Err() != nil {
			t.Fatal(ctx.Err())
		}
	}
	return out
}
