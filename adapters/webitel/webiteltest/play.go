package webiteltest

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// ErrClosed is returned when the server is closed.
var ErrClosed = errors.New("webiteltest: server closed")

// PlayOptions says how a scenario is played.
type PlayOptions struct {
	// Speed multiplies the pace of the recording: 1 is the original, 0 as fast as
	// possible. Event times keep the recording's distances and end at the present.
	Speed float64
	// Numbers replaces numbers of the scenario by others; the rest stays.
	Numbers map[string]string
	Domain  string // replaces the scenario's; empty keeps it
	// Seed makes the ids of the playing the same each time; 0 makes them random.
	Seed uint64

	keep string // an id that stays as it is
	stay bool   // the legs stay up: nothing is played from the first hangup on
}

// playing is one run of a scenario.
type playing struct {
	core  string     // of the switch that it is played on
	mu    sync.Mutex // held while an event is raised, guards ended
	ended bool       // a command has ended the calls: the rest is not played
}

// Play plays a scenario and returns how many frames went out for it. It returns
// early when ctx ends or the server closes, leaving the legs up as a lost switch
// would.
//
// Commands act on the legs as follows: hold, unhold and dtmf raise their events;
// hangup ends all legs of the playing, and so does transfer, as if the new
// destination had hung up at once; call, att_xfer2 and attended_transfer play a
// click-to-call; att_xfer_bridge ends both calls with its result. What the
// recording would have brought next is not played after a call was ended so.
func (s *Server) Play(ctx context.Context, sc *Scenario, opts PlayOptions) (Counts, error) {
	return s.play(ctx, sc, opts, nil)
}

// play calls raised, if not nil, after each event with its name and leg.
func (s *Server) play(ctx context.Context, sc *Scenario, opts PlayOptions, raised func(name, leg string)) (Counts, error) {
	var rnd *rand.Rand
	if opts.Seed != 0 {
		rnd = rand.New(rand.NewPCG(opts.Seed, 0))
	}
	start := time.Now()
	ends := start
	if opts.Speed > 0 {
		ends = start.Add(time.Duration(float64(sc.took) / opts.Speed))
	}
	shift := ends.Add(-sc.took).UnixMicro() - sc.first
	core := s.Core()
	seq := s.sequence.Add(sc.seqN) - sc.seqN + 1
	f := sc.fill(core, shift, seq, opts.Numbers, opts.Domain, rnd)
	if i, ok := sc.names[opts.keep]; ok {
		f.ids[i] = opts.keep
	}
	s.mu.Lock()
	window := s.faults.window
	s.mu.Unlock()
	p := &playing{core: core}
	counts := Counts{Calls: 1}
	for _, st := range shuffle(sc.steps, window, rnd) {
		if opts.Speed > 0 {
			if err := s.sleep(ctx, time.Until(start.Add(time.Duration(float64(st.at)/opts.Speed)))); err != nil {
				return counts, err
			}
		} else if err := s.sleep(ctx, 0); err != nil {
			return counts, err
		}
		ev := st.event(f)
		if opts.stay && (ev.name == "CHANNEL_UNBRIDGE" || ev.name == "CHANNEL_HANGUP") {
			return counts, nil
		}
		p.mu.Lock()
		if p.ended || !s.runs(core) {
			p.mu.Unlock()
			return counts, nil
		}
		counts.add(s.raise(ev, p))
		p.mu.Unlock()
		if raised != nil {
			raised(ev.name, ev.leg)
		}
	}
	return counts, nil
}

// runs reports whether that run of the switch goes on.
func (s *Server) runs(core string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.down && s.core == core
}

func (s *Server) sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.done:
			return ErrClosed
		default:
			return nil
		}
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.done:
		return ErrClosed
	}
}

// shuffle returns the steps in an order that differs within a window, never
// within a leg.
func shuffle(steps []step, window int, rnd *rand.Rand) []*step {
	pick := rand.IntN
	if rnd != nil {
		pick = rnd.IntN
	}
	pending := make([]*step, len(steps))
	for i := range steps {
		pending[i] = &steps[i]
	}
	if window <= 1 {
		return pending
	}
	out := make([]*step, 0, len(steps))
	for len(pending) > 0 {
		i := pick(min(window, len(pending)))
		for j := range i {
			if pending[j].leg == pending[i].leg {
				i = j // the oldest of its leg goes first
				break
			}
		}
		out = append(out, pending[i])
		pending = slices.Delete(pending, i, i+1)
	}
	return out
}

// event is an event of a leg, ready to be sent.
type event struct {
	routing

	leg     string
	full    []byte // as FreeSWITCH raised it
	account []byte // as accounts get it; nil if they do not
	vars    bool
	ending  bool
}

func (st *step) event(f *filling) event {
	ev := event{
		routing: routing{
			name: st.name, custom: st.custom,
			presence: string(st.routing[0].render(nil, f)),
			data:     string(st.routing[1].render(nil, f)),
			domain:   string(st.routing[2].render(nil, f)),
		},
		full: st.full.render(make([]byte, 0, st.size), f),
		vars: st.vars, ending: st.ending,
	}
	if st.leg >= 0 {
		ev.leg = f.ids[st.leg]
	}
	if st.account != nil {
		ev.account = st.account.render(make([]byte, 0, 2<<10), f)
	}
	return ev
}

// eventOf prepares an event that is not from a scenario.
func eventOf(f fields) event {
	ev := event{
		routing: f.routing(), leg: f.get("Unique-ID"), full: f.encode(), vars: f.hasVariables(),
		ending: f.get("Event-Name") == "CHANNEL_DESTROY" || f.get("Channel-State") == "CS_DESTROY",
	}
	if accountNames[ev.name] && !ev.custom && ev.presence != "" {
		ev.account = f.accountFrame()
	}
	return ev
}

// Raise sends one FreeSWITCH event as it is, with its own ids and times.
func (s *Server) Raise(line []byte) (Counts, error) {
	f, err := parseFields(line)
	if err != nil {
		return Counts{}, err
	}
	return s.raise(eventOf(f), nil), nil
}

// raise updates the legs and sends the event to whom it concerns. The caller
// holds p.mu if the event is p's.
func (s *Server) raise(ev event, p *playing) Counts {
	var counts Counts
	s.mu.Lock()
	if s.down || p != nil && p.core != s.core {
		s.mu.Unlock()
		return counts
	}
	s.trackLocked(&ev, p)
	server, account := s.audienceLocked(&ev)
	due := s.faults.dueLocked()
	double := make([]bool, len(server)+len(account))
	for i := range double {
		double[i] = s.faults.doubleLocked()
	}
	s.mu.Unlock()
	deliver := func(to []*socket, b []byte, path Path, double []bool, n *uint64) {
		for i, k := range to {
			if !k.send(outgoing{b: b, path: path, due: due, double: double[i]}) {
				continue
			}
			*n++
			if double[i] {
				*n++
				counts.Doubled++
			}
		}
	}
	if len(server) > 0 {
		deliver(server, serverBytes(ev.full), ServerPath, double[:len(server)], &counts.Server)
	}
	if len(account) > 0 {
		deliver(account, ev.account, AccountPath, double[len(server):], &counts.Account)
	}
	return counts
}

// audienceLocked returns the sockets that get the event on either path. A domain
// is matched twice (protocol 6.5.3): by the broker's routing key and by the
// engine; root matches everything that has a presence at all.
func (s *Server) audienceLocked(ev *event) (server, account []*socket) {
	if name := "SE:" + ev.name; !ev.custom && slices.Contains(serverNames, name) && (ev.presence != "" || ev.data != "") {
		root := s.bound[binding{"", name}] // a wildcard that masks a lost binding
		for k := range s.sockets {
			u := k.user
			if u == nil || !slices.Contains(k.names, name) {
				continue
			}
			if u.role == "root" && root ||
				u.role != "root" && ev.data == u.domain && ev.domain == u.domain && (root || s.bound[binding{u.domain, name}]) {
				server = append(server, k)
			}
		}
	}
	if ev.account != nil {
		if u := s.users[ev.presence]; u != nil && u.logged && u.bound {
			account = slices.Clone(u.sockets)
		}
	}
	return server, account
}

// serverBytes renames an event for the server path without reading it: the name
// is the first member of what FreeSWITCH writes.
func serverBytes(full []byte) []byte {
	head := []byte(`{"Event-Name":"`)
	if !bytes.HasPrefix(full, head) {
		f, err := parseFields(full)
		if err != nil {
			return full
		}
		return f.serverFrame()
	}
	b := make([]byte, 0, len(full)+40)
	b = append(b, head...)
	b = append(b, "SE:"...)
	b = append(b, full[len(head):len(full)-1]...)
	return append(b, `,"webitel-event-name":"server"}`...)
}
