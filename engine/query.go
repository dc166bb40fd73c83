package engine

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// HistoryEntry is one stored event of a call and the CTI events that follow from it.
type HistoryEntry struct {
	Event events.Event `json:"event"`
	CTI   []cti.Event  `json:"cti"`
}

// Status is how the engine is.
type Status struct {
	LogID       string             `json:"logId"`
	Started     time.Time          `json:"started"`
	Position    uint64             `json:"position"`  // last durable event
	Folded      uint64             `json:"folded"`    // last event in the views
	Published   uint64             `json:"published"` // last event whose CTI events the bus confirmed
	LiveCalls   int                `json:"liveCalls"`
	Frames      events.FrameCounts `json:"frames"`      // of the whole log
	Quarantined map[string]uint64  `json:"quarantined"` // since the start, by reason
}

// Status returns how the engine is.
func (e *Engine) Status(ctx context.Context) (Status, error) {
	e.mu.Lock()
	s := Status{
		LogID: e.log.ID(), Started: e.started, Frames: e.frames, Quarantined: maps.Clone(e.reason),
	}
	e.mu.Unlock()
	s.Position, s.Folded, s.Published = e.appended.Load(), e.folded.Load(), e.outbox.confirmed.Load()
	s.LiveCalls = e.live(ctx)
	return s, nil
}

func (e *Engine) live(ctx context.Context) int {
	n := 0
	for _, s := range e.shards {
		if err := s.do(ctx, func(p *Projection) { n += p.live }); err != nil {
			return n
		}
	}
	return n
}

// Call returns a call that is live or ended a short while ago.
func (e *Engine) Call(ctx context.Context, key events.CallKey) (v cti.CallView, ok bool, err error) {
	err = e.shards[e.shardOf(key.Account)].do(ctx, func(p *Projection) {
		if a := p.accounts[key.Account]; a != nil {
			if c := a.find(key.Call); c != nil {
				v, ok = p.callView(a, c), true
			}
		}
	})
	return v, ok, err
}

// Calls returns the calls that are live or ended a short while ago, of one
// account or of all, in order of account and start.
func (e *Engine) Calls(ctx context.Context, account string) ([]cti.CallView, error) {
	var vs []cti.CallView
	for _, s := range e.shards {
		err := s.do(ctx, func(p *Projection) {
			for name, a := range p.accounts {
				if account != "" && name != account {
					continue
				}
				for _, c := range a.calls {
					vs = append(vs, p.callView(a, c))
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(vs, func(a, b cti.CallView) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Call.StartedAt, b.Call.StartedAt), cmp.Compare(a.CallID, b.CallID))
	})
	return vs, nil
}

// Line returns an account's line.
func (e *Engine) Line(ctx context.Context, account string) (v cti.LineView, ok bool, err error) {
	err = e.shards[e.shardOf(account)].do(ctx, func(p *Projection) {
		if a := p.accounts[account]; a != nil {
			v, ok = p.lineView(a), true
		}
	})
	return v, ok, err
}

// Lines returns the lines of a domain, or of all, in order of account.
func (e *Engine) Lines(ctx context.Context, domain string) ([]cti.LineView, error) {
	var vs []cti.LineView
	for _, s := range e.shards {
		err := s.do(ctx, func(p *Projection) {
			for _, a := range p.accounts {
				if domain == "" || a.domain == domain {
					vs = append(vs, p.lineView(a))
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(vs, func(a, b cti.LineView) int { return cmp.Compare(a.Account, b.Account) })
	return vs, nil
}

// History returns a call's stored events, each with the CTI events that follow
// from it. It folds the events of the call's account around it anew, from the
// log, so that what it says is what was published.
func (e *Engine) History(ctx context.Context, key events.CallKey) ([]HistoryEntry, error) {
	return History(ctx, e.log, key)
}

// callView returns the call as it is now.
func (p *Projection) callView(a *account, c *call) cti.CallView {
	return cti.CallView{
		Position: p.position, Domain: a.domain, Account: a.name, CallID: c.id, Conversation: c.conversation,
		Call: *c.view(a.name, a.features(c)),
	}
}

func (p *Projection) lineView(a *account) cti.LineView {
	return cti.LineView{Position: p.position, Domain: a.domain, Account: a.name, Line: *a.view()}
}

// find returns a call by its id or an alias.
func (a *account) find(id string) *call {
	if c := a.calls[id]; c != nil {
		return c
	}
	for _, c := range a.calls {
		if slices.Contains(c.aliases, id) {
			return c
		}
	}
	return nil
}

// reader is what offline queries need of a log.
type reader interface {
	ID() string
	Read(ctx context.Context, from uint64, fn func(*events.Event) error) error
}

// History folds a log and returns the events of one call with what follows from
// each. The CTI events depend on the account's other calls, so that the whole of
// the account is folded.
func History(ctx context.Context, log reader, key events.CallKey) ([]HistoryEntry, error) {
	p := NewProjection(log.ID())
	var out []HistoryEntry
	err := log.Read(ctx, 1, func(ev *events.Event) error {
		if ev.Account != key.Account {
			return nil
		}
		r := p.Apply(ev)
		if ev.Call != key.Call {
			return nil
		}
		h := HistoryEntry{Event: *ev, CTI: make([]cti.Event, len(r.Messages))}
		for i := range r.Messages {
			h.CTI[i] = r.Messages[i].Event
		}
		out = append(out, h)
		return nil
	})
	return out, err
}

// PastCall returns a call of the log as it is after its last event.
func PastCall(ctx context.Context, log reader, key events.CallKey) (v cti.CallView, ok bool, err error) {
	err = PastCalls(ctx, log, key.Account, func(c cti.CallView) error {
		if c.CallID == key.Call {
			v, ok = c, true
		}
		return nil
	})
	return v, ok, err
}

// PastCalls folds a log and calls fn for every call of it, in the order in which
// they began, as it is after its last event. An empty account means all.
func PastCalls(ctx context.Context, log reader, account string, fn func(cti.CallView) error) error {
	p := NewProjection(log.ID())
	last := map[events.CallKey]*cti.CallView{}
	var order []events.CallKey
	err := log.Read(ctx, 1, func(ev *events.Event) error {
		if account != "" && ev.Account != account {
			return nil
		}
		r := p.Apply(ev)
		if r.Call == nil {
			return nil
		}
		key := ev.Key()
		v := last[key]
		if v == nil {
			_, domain := cti.SplitAccount(ev.Account)
			v = &cti.CallView{Domain: domain, Account: ev.Account, CallID: ev.Call}
			last[key] = v
			order = append(order, key)
		}
		v.Position, v.Conversation, v.Call = ev.Position, ev.Conversation, *r.Call
		return nil
	})
	if err != nil {
		return err
	}
	for _, key := range order {
		if err := fn(*last[key]); err != nil {
			return err
		}
	}
	return nil
}
