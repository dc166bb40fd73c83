package subscribe_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
	"github.com/callstate/callstate/events/cti/subscribe"
	"github.com/callstate/callstate/store/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pbx is a log, its fold, and the service that answers from it.
type pbx struct {
	t *testing.T
	natsbus.Queries
	log  *memory.Store
	fold *engine.Projection
	url  string
	nc   *nats.Conn

	mu   sync.Mutex
	away bool
	read int // questions for what was missed

	lined chan struct{} // holds one: a line was asked for
}

func (p *pbx) Since(ctx context.Context, f natsbus.SinceFilter) (engine.Missed, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.read++; p.away {
		return engine.Missed{}, natsbus.ErrUnavailable
	}
	return engine.Since(ctx, p.log, f)
}

func (p *pbx) Status(context.Context) (natsbus.Status, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return natsbus.Status{Log: p.log.ID(), Position: p.log.Last(), Folded: p.log.Last()}, nil
}

func (p *pbx) Lines(context.Context, natsbus.LineFilter) ([]cti.LineView, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m, err := engine.At(context.Background(), p.log, engine.AtFilter{Time: 1 << 60})
	return m.Lines, err
}

func (p *pbx) Line(ctx context.Context, account string) (cti.LineView, bool, error) {
	lines, err := p.Lines(ctx, natsbus.LineFilter{})
	i := slices.IndexFunc(lines, func(l cti.LineView) bool { return l.Account == account })
	if err != nil || i < 0 {
		return cti.LineView{}, false, err
	}
	lines[i].Position = p.log.Last()
	select {
	case p.lined <- struct{}{}:
	default:
	}
	return lines[i], true, nil
}

func (p *pbx) setAway(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
}

// anew gives the engine a new data folder.
func (p *pbx) anew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = memory.New()
	p.fold = engine.NewProjection(p.log.ID())
}

func newPBX(t *testing.T) *pbx {
	t.Helper()
	s, err := natsbus.StartServer(natsbus.ServerOptions{StoreDir: t.TempDir(), Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	p := &pbx{t: t, log: memory.New(), url: s.URL(), lined: make(chan struct{}, 1)}
	p.fold = engine.NewProjection(p.log.ID())
	p.nc = p.connect()
	svc, err := natsbus.StartService(p.nc, p, natsbus.ServiceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { svc.Close() })
	return p
}

func (p *pbx) connect() *nats.Conn {
	p.t.Helper()
	nc, err := nats.Connect(p.url, nats.ReconnectWait(time.Millisecond), nats.MaxReconnects(-1))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(nc.Close)
	return nc
}

// happen stores n events of a few accounts' calls and returns the messages that follow.
func (p *pbx) happen(n int) []engine.Message {
	p.t.Helper()
	var out []engine.Message
	for range n {
		at := p.log.Last()
		account := fmt.Sprintf("10%02d@acme.example", at%3)
		e := events.Event{ID: fmt.Sprint(at), Account: account, Call: "call", Conversation: "call", Leg: "call", Payload: &events.CallHeld{}, Version: 1}
		switch {
		case at < 3:
			e.Payload = &events.CallNew{Direction: events.In}
		case at < 6:
			e.Payload = &events.CallAccepted{}
		case at/3%2 == 0:
			e.Payload = &events.CallUnheld{}
		}
		b := &events.Batch{Events: []events.Event{e}}
		if err := p.log.Append(p.t.Context(), b); err != nil {
			p.t.Fatal(err)
		}
		out = append(out, p.fold.Apply(&b.Events[0]).Messages...)
	}
	return out
}

func (p *pbx) publish(ms []engine.Message) {
	p.t.Helper()
	for i := range ms {
		e := &ms[i].Event
		m := nats.NewMsg(cti.Subject(cti.DefaultPrefix, e.Account, e.Event, e.CallID))
		m.Header.Set(nats.MsgIdHdr, ms[i].ID)
		m.Data = ms[i].Payload
		if err := p.nc.PublishMsg(m); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := p.nc.Flush(); err != nil {
		p.t.Fatal(err)
	}
}

// reader collects what a subscription delivers.
type reader struct {
	mu  sync.Mutex
	got []string
	new chan struct{}
}

func newReader() *reader { return &reader{new: make(chan struct{}, 1)} }

func name(e *cti.Event) string { return fmt.Sprintf("%s %d %s", e.Account, e.LineSeq, e.Event) }

func (r *reader) take(e *cti.Event) {
	r.mu.Lock()
	r.got = append(r.got, name(e))
	r.mu.Unlock()
	select {
	case r.new <- struct{}{}:
	default:
	}
}

// want waits until all of ms were delivered, and checks that each was once, and
// those of one account in order.
func (r *reader) want(t *testing.T, ms []engine.Message) {
	t.Helper()
	var want []string
	for i := range ms {
		want = append(want, name(&ms[i].Event))
	}
	timeout := time.After(20 * time.Second)
	for {
		r.mu.Lock()
		got := slices.Clone(r.got)
		r.mu.Unlock()
		if len(got) >= len(want) {
			byAccount := func(a, b string) int { return strings.Compare(a[:4], b[:4]) }
			slices.SortStableFunc(got, byAccount)
			slices.SortStableFunc(want, byAccount)
			if !slices.Equal(got, want) {
				t.Fatalf("delivered\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			return
		}
		select {
		case <-r.new:
		case <-timeout:
			t.Fatalf("%d of %d events were delivered", len(got), len(want))
		}
	}
}

func start(t *testing.T, nc *nats.Conn, o subscribe.Options, r *reader) *subscribe.Subscription {
	t.Helper()
	s, err := subscribe.Start(t.Context(), nc, o, r.take)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestLossAndRepeatsAreHealed publishes with every kind of disorder that a
// network and a crash can make.
func TestLossAndRepeatsAreHealed(t *testing.T) {
	p := newPBX(t)
	before := p.happen(9)
	p.publish(before)
	r := newReader()
	start(t, p.connect(), subscribe.Options{}, r)

	rnd := rand.New(rand.NewPCG(1, 2))
	var all []engine.Message
	for range 40 {
		ms := p.happen(6)
		all = append(all, ms...)
		var sent []engine.Message
		for _, m := range ms {
			switch rnd.IntN(4) {
			case 0: // lost
			case 1: // sent twice
				sent = append(sent, m, m)
			default:
				sent = append(sent, m)
			}
		}
		p.publish(sent)
	}
	end := p.happen(3)
	p.publish(end) // tells of the gaps before
	r.want(t, append(all, end...))
}

func TestLossAtTheEndIsFoundByPolling(t *testing.T) {
	p := newPBX(t)
	r := newReader()
	start(t, p.connect(), subscribe.Options{Domain: "acme.example", Poll: 10 * time.Millisecond}, r)
	all := p.happen(12) // none is published
	r.want(t, all)
}

func TestReconnectionIsHealed(t *testing.T) {
	p := newPBX(t)
	r := newReader()
	nc := p.connect()
	start(t, nc, subscribe.Options{Poll: -1}, r)
	all := p.happen(12)
	p.publish(all)
	r.want(t, all)
	back := nc.StatusChanged(nats.CONNECTED)
	if err := nc.ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	<-back
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	all = append(all, p.happen(12)...) // lost: of accounts that are known
	last := p.happen(1)
	p.publish(last)
	r.want(t, append(all, last...))
}

func TestResumeAfterARestart(t *testing.T) {
	p := newPBX(t)
	all := p.happen(12)
	r := newReader()
	s := start(t, p.connect(), subscribe.Options{Account: "1001@acme.example", After: 4}, r)
	var own []engine.Message
	for _, m := range all {
		if m.Event.Account == "1001@acme.example" && m.Event.Position > 4 {
			own = append(own, m)
		}
	}
	r.want(t, own)
	if s.Position() < 11 { // 1001's last event
		t.Errorf("position %d", s.Position())
	}
}

func TestEngineAway(t *testing.T) {
	p := newPBX(t)
	r := newReader()
	trouble := make(chan error, 100)
	start(t, p.connect(), subscribe.Options{Poll: -1, Trouble: func(err error) {
		select {
		case trouble <- err:
		default:
		}
	}}, r)
	all := p.happen(30)
	p.setAway(true)
	p.publish(all[:8])
	p.publish(all[20:]) // a gap
	if err := <-trouble; err == nil {
		t.Error("trouble without an error")
	}
	p.setAway(false)
	r.want(t, all)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := subscribe.Start(ctx, p.connect(), subscribe.Options{After: 1}, r.take); err == nil {
		t.Error("started with nobody to ask")
	}
}

// TestPollingAnAccount: where its line is where we are the log is not asked; what is
// lost at the end is found.
func TestPollingAnAccount(t *testing.T) {
	p := newPBX(t)
	p.happen(6)
	const account = "1000@acme.example"
	r := newReader()
	s := start(t, p.connect(), subscribe.Options{Account: account, Poll: time.Millisecond}, r)
	b := &events.Batch{Events: []events.Event{{ID: "other", Account: "1001@acme.example", Call: "call", Leg: "call", Payload: &events.CallHeld{}, Version: 1}}}
	if err := p.log.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	p.fold.Apply(&b.Events[0])
	for range 4 { // the first may be of before, and what the last but one answered is taken
		<-p.lined
	}
	if n := s.Position(); n != 7 {
		t.Errorf("position %d, want 7", n)
	}
	p.mu.Lock()
	if p.read != 0 {
		t.Errorf("the log was asked %d times", p.read)
	}
	p.mu.Unlock()
	var lost []engine.Message
	for _, m := range p.happen(6) {
		if m.Event.Account == account {
			lost = append(lost, m)
		}
	}
	r.want(t, lost)
}

// TestNewDataFolder: positions and sequences of the log before say nothing of the
// new one, of which nothing is missed.
func TestNewDataFolder(t *testing.T) {
	t.Run("while nobody subscribed", func(t *testing.T) {
		p := newPBX(t)
		p.happen(30)
		p.anew()
		all := p.happen(12)
		r := newReader()
		s := start(t, p.connect(), subscribe.Options{After: 30}, r)
		r.want(t, all)
		if n := s.Position(); n != 12 {
			t.Errorf("position %d, want 12", n)
		}
	})
	t.Run("before the first event came", func(t *testing.T) {
		p := newPBX(t)
		p.happen(30)
		r := newReader()
		start(t, p.connect(), subscribe.Options{}, r)
		p.anew()
		all := p.happen(12)
		p.publish(all)
		r.want(t, all)
	})
}

// TestDroppedByRetention: what is gone is told, and the rest comes.
func TestDroppedByRetention(t *testing.T) {
	p := newPBX(t)
	all := p.happen(12)
	r := newReader()
	var lost []subscribe.Loss
	gone := &dropped{pbx: p, through: 6}
	svc, err := natsbus.StartService(p.connect(), gone, natsbus.ServiceOptions{Prefix: "other.v1"})
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Close()
	s := start(t, p.connect(), subscribe.Options{After: 2, Service: "other.v1", Lost: func(l subscribe.Loss) { lost = append(lost, l) }}, r)
	var left []engine.Message
	for _, m := range all {
		if m.Event.Position > 6 {
			left = append(left, m)
		}
	}
	r.want(t, left)
	if p := s.Position(); p != 12 || len(lost) != 1 || lost[0] != (subscribe.Loss{From: 2, Through: 6}) {
		t.Errorf("position %d, lost %+v", p, lost)
	}
}

// dropped is a log of which the first events are gone.
type dropped struct {
	*pbx
	through uint64
}

func (d *dropped) Since(ctx context.Context, f natsbus.SinceFilter) (engine.Missed, error) {
	f.Position = max(f.Position, d.through)
	return d.pbx.Since(ctx, f)
}
