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

// Status is how the engine is.
type Status struct {
	LogID       string             `json:"logId"`
	Started     time.Time          `json:"started"`
	Position    uint64             `json:"position"`  // last durable event
	Folded      uint64             `json:"folded"`    // last event in the views
	Published   uint64             `json:"published"` // last event whose CTI events the bus confirmed
	LiveCalls   int                `json:"liveCalls"`
	Lines       int                `json:"lines"`
	Snapshot    uint64             `json:"snapshot"`    // position of the last snapshot, 0 for none
	SnapshotAt  time.Time          `json:"snapshotAt"`  // when it was kept; zero where that was before the start
	Frames      events.FrameCounts `json:"frames"`      // of the whole log
	Quarantined map[string]uint64  `json:"quarantined"` // since the start, by reason
}

// Status returns how the engine is.
func (e *Engine) Status(ctx context.Context) (Status, error) {
	if err := e.read(ctx); err != nil {
		return Status{}, err
	}
	e.mu.Lock()
	s := Status{
		LogID: e.log.ID(), Started: e.started, Frames: e.frames, Quarantined: maps.Clone(e.reason),
	}
	e.mu.Unlock()
	s.Position, s.Folded, s.Published = e.appended.Load(), e.folded.Load(), e.outbox.confirmed.Load()
	s.LiveCalls, s.Lines = e.live(ctx)
	s.Snapshot = e.snapshots.kept.Load()
	if at := e.snapshots.keptAt.Load(); at != 0 {
		s.SnapshotAt = time.Unix(0, at)
	}
	return s, nil
}

// live counts live calls and lines, as far as ctx lets.
func (e *Engine) live(ctx context.Context) (calls, lines int) {
	for _, s := range e.shards {
		if err := s.do(ctx, func(p *Projection) { calls += p.live; lines += len(p.accounts) }); err != nil {
			break
		}
	}
	return calls, lines
}

// Call returns a call that is live or ended a short while ago.
func (e *Engine) Call(ctx context.Context, key events.CallKey) (v cti.CallView, ok bool, err error) {
	if err := e.read(ctx); err != nil {
		return v, false, err
	}
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
	if err := e.read(ctx); err != nil {
		return nil, err
	}
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
	if err := e.read(ctx); err != nil {
		return v, false, err
	}
	err = e.shards[e.shardOf(account)].do(ctx, func(p *Projection) {
		if a := p.accounts[account]; a != nil {
			v, ok = p.lineView(a), true
		}
	})
	return v, ok, err
}

// Lines returns the lines of a domain, or of all, in order of account.
func (e *Engine) Lines(ctx context.Context, domain string) ([]cti.LineView, error) {
	if err := e.read(ctx); err != nil {
		return nil, err
	}
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

// callView returns the call as it is now.
func (p *Projection) callView(a *account, c *call) cti.CallView {
	return cti.CallView{
		Position: p.position, Seq: c.seq, Domain: a.domain, Account: a.name, CallID: c.id, Conversation: c.conversation,
		Call: *c.view(a.name, a.features(c)),
	}
}

func (p *Projection) lineView(a *account) cti.LineView {
	return cti.LineView{Position: p.position, LineSeq: a.lineSeq, Domain: a.domain, Account: a.name, Line: *a.view()}
}

// find returns a call by its id or an alias. Calls that a queue offered one after the
// other share their record's id: of those it is the live one, else the last.
func (a *account) find(id string) *call {
	if c := a.calls[id]; c != nil {
		return c
	}
	var found *call
	for _, c := range a.calls {
		if c.live() && slices.Contains(c.more().aliases, id) && (found == nil || c.id > found.id) {
			found = c
		}
	}
	for i := len(a.ended) - 1; i >= 0 && found == nil; i-- {
		if c := a.calls[a.ended[i]]; c != nil && slices.Contains(c.more().aliases, id) {
			found = c
		}
	}
	return found
}
