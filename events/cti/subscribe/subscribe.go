// Package subscribe is a subscriber of CTI events that heals itself: what a
// reconnection, a slow moment or a restart lost is asked for from the engine's log
// (service callstate.v1.events.since), and what comes twice is left out.
//
// It needs nats.go and events/cti, and no JetStream.
package subscribe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/callstate/callstate/events/cti"
)

// Options say what is subscribed to. The zero value of a field means its default.
type Options struct {
	Account string // number@domain; "" means all
	Domain  string // all accounts of a domain; "" means all
	Prefix  string // of the subjects; "" means cti.v1
	Service string // what the service's subjects begin with; "" means callstate.v1

	// After is the position after which events are wanted, as Position returned it
	// in an earlier life; 0 means from now on.
	After uint64
	// Poll is how often the engine is asked for what it published since it was asked
	// last, so that a loss is healed which no later event tells of; what comes of it
	// a second time costs its way over the network. 0 means a minute, a negative
	// value never: then only reconnections and gaps are healed.
	Poll time.Duration
	// Lost is called when events are gone for good, dropped by the log's retention.
	// Nil means that nobody wants to know.
	Lost func(Loss)
	// Trouble is called when the engine does not answer; it is asked again until it
	// does. Nil means that nobody wants to know.
	Trouble func(error)
}

// Loss is a stretch that cannot be had any more: of an account after From through
// Through by lineSeq, or of all accounts by position where Account is empty.
type Loss struct {
	Account       string
	From, Through uint64
}

// Subscription delivers each CTI event once, those of one account in the order of
// lineSeq and without gaps.
type Subscription struct {
	nc     *nats.Conn
	o      Options
	fn     func(*cti.Event)
	sub    *nats.Subscription
	ctx    context.Context
	cancel context.CancelFunc
	poll   sync.WaitGroup

	mu         sync.Mutex        // held while events are delivered; guards what follows
	log        string            // id of the log that positions and sequences count in
	seen       map[string]uint64 // account → lineSeq of the last one delivered
	position   uint64            // through which the engine has told everything
	reconnects uint64            // of the connection, when all was known last
	dropped    int               // by nats.go, likewise
}

// ErrRefused is matched by an error of the service that asking again cannot mend.
var ErrRefused = errors.New("subscribe: refused")

// Start subscribes. fn is called by one goroutine at a time and must not call
// the subscription's methods. Start asks the engine where it is, so it returns
// an error when none answers before ctx ends.
func Start(ctx context.Context, nc *nats.Conn, o Options, fn func(*cti.Event)) (*Subscription, error) {
	if o.Prefix == "" {
		o.Prefix = cti.DefaultPrefix
	}
	if o.Service == "" {
		o.Service = "callstate.v1"
	}
	if o.Poll == 0 {
		o.Poll = time.Minute
	}
	s := &Subscription{nc: nc, o: o, fn: fn, seen: map[string]uint64{}, position: o.After}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.mu.Lock() // what comes meanwhile waits
	defer s.mu.Unlock()
	var err error
	if s.sub, err = nc.Subscribe(s.subject(), s.live); err != nil {
		s.cancel()
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	if err := s.begin(ctx); err != nil {
		s.cancel()
		return nil, errors.Join(err, s.sub.Unsubscribe())
	}
	if o.Poll > 0 {
		s.poll.Go(s.watch)
	}
	return s, nil
}

func (s *Subscription) subject() string {
	switch {
	case s.o.Account != "":
		return s.o.Prefix + "." + cti.LineKey(s.o.Account) + ".>"
	case s.o.Domain != "":
		return s.o.Prefix + "." + cti.Token(s.o.Domain) + ".>"
	default:
		return s.o.Prefix + ".>"
	}
}

// service is what the queries' subjects begin with: those about the account or
// domain alone, so that who may see only that may ask.
func (s *Subscription) service() string {
	switch {
	case s.o.Account != "":
		return s.o.Service + ".of." + cti.LineKey(s.o.Account)
	case s.o.Domain != "":
		return s.o.Service + ".of." + cti.Token(s.o.Domain) + "." + cti.Token("")
	default:
		return s.o.Service
	}
}

// begin finds out where every account is, and delivers what was missed since
// After.
func (s *Subscription) begin(ctx context.Context) error {
	var st struct {
		Log      string `json:"log"`
		Position uint64 `json:"position"`
		Folded   uint64 `json:"folded"`
	}
	if err := s.ask(ctx, "status", struct{}{}, &st); err != nil {
		return err
	}
	s.log = st.Log
	if s.o.After > max(st.Position, st.Folded) {
		s.position = 0 // it counts in a log that the engine does not have any more
	}
	lines, err := s.lines(ctx)
	if err != nil {
		return err
	}
	if s.o.After == 0 {
		s.seen, s.position, s.reconnects = lines, st.Folded, s.nc.Stats().Reconnects
		return nil
	}
	if err := s.catchUp(ctx); err != nil {
		return err
	}
	for account, seq := range lines { // of those nothing was missed
		if _, ok := s.seen[account]; !ok {
			s.seen[account] = seq
		}
	}
	return nil
}

// lines returns the lineSeq of every account.
func (s *Subscription) lines(ctx context.Context) (map[string]uint64, error) {
	seqs := map[string]uint64{}
	request := struct {
		Domain string `json:"domain,omitempty"`
		After  string `json:"after,omitempty"`
	}{Domain: s.o.Domain}
	for {
		var a struct {
			Lines []cti.LineView `json:"lines"`
			More  bool           `json:"more"`
		}
		if err := s.ask(ctx, "lines.list", request, &a); err != nil {
			return nil, err
		}
		for i := range a.Lines {
			seqs[a.Lines[i].Account] = a.Lines[i].LineSeq
		}
		if !a.More || len(a.Lines) == 0 {
			return seqs, nil
		}
		request.After = a.Lines[len(a.Lines)-1].Account
	}
}

// Position is the position of the log through which the engine has told
// everything, as of the last poll. A later subscription with After set to it
// misses nothing; what was delivered since comes again.
func (s *Subscription) Position() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.position
}

// Close ends the subscription. When it returns fn is not called any more.
func (s *Subscription) Close() error {
	s.cancel()
	err := s.sub.Unsubscribe()
	s.poll.Wait()
	s.mu.Lock() // a delivery under way ends first; later ones see ctx
	defer s.mu.Unlock()
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrBadSubscription) {
		return nil
	}
	return err
}

// live takes an event from NATS.
func (s *Subscription) live(m *nats.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ev cti.Event
	if s.ctx.Err() != nil || json.Unmarshal(m.Data, &ev) != nil || ev.LineSeq == 0 {
		return // closed, or somebody else's message under our subjects
	}
	s.sameLog(m)
	s.heal()
	if known := s.seen[ev.Account]; ev.LineSeq > known+1 {
		s.insist(func(ctx context.Context) error { return s.fill(ctx, ev.Account, known) })
	}
	s.take(&ev)
}

// sameLog begins anew where the engine has a new data folder: its log's id begins
// the message ids.
func (s *Subscription) sameLog(m *nats.Msg) {
	log, _, _ := strings.Cut(m.Header.Get(nats.MsgIdHdr), ".")
	if log == "" || log == s.log {
		return
	}
	if s.log != "" {
		clear(s.seen)
		s.position = 0
	}
	s.log = log
}

// take delivers an event unless it was delivered.
func (s *Subscription) take(ev *cti.Event) {
	if ev.LineSeq <= s.seen[ev.Account] || s.ctx.Err() != nil {
		return
	}
	s.seen[ev.Account] = ev.LineSeq
	s.fn(ev)
}

// heal asks for what may be lost without a gap that tells, after a reconnection
// and after nats.go dropped what we were too slow for.
func (s *Subscription) heal() {
	dropped, _ := s.sub.Dropped()
	if s.nc.Stats().Reconnects != s.reconnects || dropped != s.dropped {
		s.insist(s.catchUp)
	}
}

// insist tries until it succeeds, is refused, or the subscription is closed.
func (s *Subscription) insist(fn func(context.Context) error) {
	for pause := 50 * time.Millisecond; s.ctx.Err() == nil; pause = min(2*pause, 5*time.Second) {
		err := fn(s.ctx)
		if err == nil {
			return
		}
		if s.o.Trouble != nil && s.ctx.Err() == nil {
			s.o.Trouble(err)
		}
		if errors.Is(err, ErrRefused) {
			return
		}
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
		}
	}
}

// catchUp delivers what followed the position through which everything was told.
func (s *Subscription) catchUp(ctx context.Context) error {
	reconnects := s.nc.Stats().Reconnects
	dropped, err := s.sub.Dropped()
	if err != nil {
		return err
	}
	if s.current(ctx) {
		s.reconnects, s.dropped = reconnects, dropped
		return nil
	}
	for {
		a, err := s.since(ctx, sinceRequest{Account: s.o.Account, Domain: s.o.Domain, Position: s.position})
		if err != nil {
			return err
		}
		if a.Position > s.position {
			s.lose(Loss{From: s.position, Through: a.Position})
		}
		s.deliver(a)
		s.position = max(s.position, a.Last)
		if !a.More {
			s.reconnects, s.dropped = reconnects, dropped
			return nil
		}
	}
}

// current asks of one account where its line is: mostly where we are, and then there
// is nothing to look for in the log.
func (s *Subscription) current(ctx context.Context) bool {
	seen, known := s.seen[s.o.Account]
	if s.o.Account == "" || !known {
		return false
	}
	var line cti.LineView
	request := struct {
		Account string `json:"account"`
	}{s.o.Account}
	if err := s.ask(ctx, "lines.get", request, &line); err != nil || line.LineSeq != seen {
		return false // the log will tell
	}
	s.position = max(s.position, line.Position)
	return true
}

// fill delivers what an account is missing after a sequence.
func (s *Subscription) fill(ctx context.Context, account string, after uint64) error {
	for {
		a, err := s.since(ctx, sinceRequest{Account: account, After: after})
		if err != nil {
			return err
		}
		if a.After > after {
			s.lose(Loss{Account: account, From: after, Through: a.After})
		}
		s.deliver(a)
		if !a.More || len(a.Events) == 0 {
			return nil
		}
		after = a.Events[len(a.Events)-1].LineSeq
	}
}

func (s *Subscription) deliver(a *sinceAnswer) {
	for i := range a.Events {
		s.take(&a.Events[i])
	}
}

func (s *Subscription) lose(l Loss) {
	if s.o.Lost != nil {
		s.o.Lost(l)
	}
}

// watch looks now and then for a loss at the end, which no later event tells of.
func (s *Subscription) watch() {
	tick := time.NewTicker(s.o.Poll)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
		s.mu.Lock()
		if err := s.catchUp(s.ctx); err != nil && s.o.Trouble != nil && s.ctx.Err() == nil {
			s.o.Trouble(err)
		}
		s.mu.Unlock()
	}
}

// sinceRequest and sinceAnswer are those of callstate.v1.events.since.
type sinceRequest struct {
	Account  string `json:"account,omitempty"`
	Domain   string `json:"domain,omitempty"`
	After    uint64 `json:"after,omitempty"`
	Position uint64 `json:"position,omitempty"`
}

type sinceAnswer struct {
	Events   []cti.Event `json:"events"`
	More     bool        `json:"more"`
	After    uint64      `json:"after"`
	Position uint64      `json:"position"`
	Last     uint64      `json:"last"`
}

func (s *Subscription) since(ctx context.Context, r sinceRequest) (*sinceAnswer, error) {
	a := &sinceAnswer{}
	return a, s.ask(ctx, "events.since", r, a)
}

// ask sends one request to the engine.
func (s *Subscription) ask(ctx context.Context, verb string, request, answer any) error {
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	m, err := s.nc.RequestWithContext(short, s.service()+"."+verb, b)
	if err != nil {
		return fmt.Errorf("subscribe: ask %s: %w", verb, err)
	}
	if code := m.Header.Get("Nats-Service-Error-Code"); code != "" {
		err := fmt.Errorf("subscribe: %s: %s: %s", verb, code, m.Header.Get("Nats-Service-Error"))
		if strings.HasPrefix(code, "bad-") {
			err = fmt.Errorf("%w: %w", ErrRefused, err)
		}
		return err
	}
	return json.Unmarshal(m.Data, answer)
}
