package main

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
	"github.com/callstate/callstate/store"
)

// queries answers the service's questions: live and recent calls from the
// engine, the past from the log.
type queries struct {
	engine  *engine.Engine
	store   store.Store
	bus     *natsbus.Bus
	clients []*webitel.Client
	domains *commander
}

func unavailable(err error) error {
	if errors.Is(err, engine.ErrStopped) {
		return errors.Join(natsbus.ErrUnavailable, err)
	}
	return err
}

// Call implements natsbus.Queries.
func (q *queries) Call(ctx context.Context, key events.CallKey) (cti.CallView, bool, error) {
	v, ok, err := q.engine.Call(ctx, key)
	if err != nil || ok {
		return v, ok, unavailable(err)
	}
	known, err := q.store.HasCall(key)
	if err != nil || !known {
		return v, false, err
	}
	return engine.PastCall(ctx, q.store, key)
}

// Calls implements natsbus.Queries.
func (q *queries) Calls(ctx context.Context, f natsbus.CallFilter) ([]cti.CallView, error) {
	all, err := q.engine.Calls(ctx, f.Account)
	if err != nil {
		return nil, unavailable(err)
	}
	all = slices.DeleteFunc(all, func(v cti.CallView) bool {
		return f.Domain != "" && v.Domain != f.Domain ||
			f.Live && v.Call.Outcome != "" ||
			f.CallID != "" && v.CallID != f.CallID && !slices.Contains(v.Call.Aliases, f.CallID)
	})
	slices.SortFunc(all, func(a, b cti.CallView) int {
		return cmp.Or(cmp.Compare(b.Call.StartedAt, a.Call.StartedAt), cmp.Compare(a.Account, b.Account))
	})
	if f.Limit > 0 && len(all) > f.Limit {
		all = all[:f.Limit]
	}
	return all, nil
}

// History implements natsbus.Queries.
func (q *queries) History(ctx context.Context, f natsbus.HistoryFilter) ([]natsbus.HistoryEntry, error) {
	keys, err := callsNamed(ctx, q.store, f.Account, f.CallID)
	if err != nil {
		return nil, err
	}
	var out []natsbus.HistoryEntry
	for _, k := range keys {
		h, err := engine.History(ctx, q.store, k)
		if err != nil {
			return nil, err
		}
		for i := range h {
			if h[i].Event.Position > f.After {
				out = append(out, natsbus.HistoryEntry{Type: h[i].Event.Type(), Event: &h[i].Event, CTI: h[i].CTI})
			}
		}
	}
	slices.SortFunc(out, func(a, b natsbus.HistoryEntry) int { return cmp.Compare(a.Event.Position, b.Event.Position) })
	if f.Limit > 0 && len(out) > f.Limit {
		out = out[:f.Limit]
	}
	return out, nil
}

// callsNamed returns the calls that a person names: by account and id, or by a
// bare id, which is all accounts' calls of that id.
func callsNamed(ctx context.Context, log store.Store, account, id string) ([]events.CallKey, error) {
	var keys []events.CallKey
	err := log.Calls(ctx, account, func(k events.CallKey, _, _ uint64) error {
		if k.Call == id {
			keys = append(keys, k)
		}
		return nil
	})
	return keys, err
}

// Line implements natsbus.Queries.
func (q *queries) Line(ctx context.Context, account string) (cti.LineView, bool, error) {
	v, ok, err := q.engine.Line(ctx, account)
	return v, ok, unavailable(err)
}

// Lines implements natsbus.Queries.
func (q *queries) Lines(ctx context.Context, f natsbus.LineFilter) ([]cti.LineView, error) {
	all, err := q.engine.Lines(ctx, f.Domain)
	if err != nil {
		return nil, unavailable(err)
	}
	all = slices.DeleteFunc(all, func(v cti.LineView) bool { return v.Account <= f.After })
	if f.Limit > 0 && len(all) > f.Limit {
		all = all[:f.Limit]
	}
	return all, nil
}

// Status implements natsbus.Queries.
func (q *queries) Status(ctx context.Context) (natsbus.Status, error) {
	s, err := q.engine.Status(ctx)
	if err != nil {
		return natsbus.Status{}, unavailable(err)
	}
	lines, err := q.engine.Lines(ctx, "")
	if err != nil {
		return natsbus.Status{}, unavailable(err)
	}
	st := natsbus.Status{
		Log: s.LogID, StartedAt: events.At(s.Started), Position: s.Position, Folded: s.Folded, Confirmed: s.Published,
		Live: s.LiveCalls, Lines: len(lines), Frames: s.Frames, Bus: q.bus.Stats(), Links: []natsbus.LinkStatus{},
	}
	q.domains.mu.Lock()
	for domain, c := range q.domains.domain {
		st.Links = append(st.Links, natsbus.LinkStatus{Adapter: "webitel", Domain: domain, Connected: c.Connected()})
	}
	q.domains.mu.Unlock()
	slices.SortFunc(st.Links, func(a, b natsbus.LinkStatus) int { return cmp.Compare(a.Domain, b.Domain) })
	return st, nil
}
