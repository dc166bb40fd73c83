package main

import (
	"context"
	"errors"
	"slices"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
	"github.com/callstate/callstate/store"
)

// queries answers the service's questions: live and recent calls from the
// engine, the past from the log.
type queries struct {
	engine *engine.Engine
	store  store.Store
	bus    *natsbus.Bus
	links  *links
	phones *phones
}

func unavailable(err error) error {
	if errors.Is(err, engine.ErrStopped) {
		return errors.Join(natsbus.ErrUnavailable, err)
	}
	return err
}

// Call implements natsbus.Queries. An id that is another call's alias is first that
// of the call of that id, also where only the log knows it: of calls that came to
// the account under one id, the later ones have it as an alias.
func (q *queries) Call(ctx context.Context, key events.CallKey) (cti.CallView, bool, error) {
	v, ok, err := q.engine.Call(ctx, key)
	if err != nil || ok && v.CallID == key.Call {
		return v, ok, unavailable(err)
	}
	known, err := q.store.HasCall(key)
	if err != nil || !known {
		return v, ok, err
	}
	found, err := engine.FindCalls(ctx, q.store, engine.CallFilter{Account: key.Account, CallID: key.Call})
	for i := range found {
		if found[i].CallID == key.Call {
			return found[i], true, err
		}
	}
	return v, ok, err
}

// Calls implements natsbus.Queries. Calls that are live, and those of an id that
// are all remembered, are answered from memory; all else from the log.
func (q *queries) Calls(ctx context.Context, f natsbus.CallFilter) ([]cti.CallView, error) {
	if f.Live || f.CallID != "" {
		all, err := q.engine.Calls(ctx, f.Account)
		if err != nil {
			return nil, unavailable(err)
		}
		known := map[events.CallKey]bool{}
		for i := range all {
			known[events.CallKey{Account: all[i].Account, Call: all[i].CallID}] = true
		}
		all = slices.DeleteFunc(all, func(v cti.CallView) bool { return !f.Match(&v) })
		enough := f.Live
		if !enough && len(all) > 0 {
			if enough, err = q.remembered(ctx, f, known); err != nil {
				return nil, err
			}
		}
		if enough {
			return engine.Latest(all, f.Limit), nil
		}
	}
	return engine.FindCalls(ctx, q.store, f)
}

// remembered reports whether all accounts' calls of the filter's id are among the
// known ones: a busy agent's may be forgotten while another's is not.
func (q *queries) remembered(ctx context.Context, f natsbus.CallFilter, known map[events.CallKey]bool) (bool, error) {
	lines, err := q.Lines(ctx, natsbus.LineFilter{Account: f.Account, Domain: f.Domain})
	if err != nil {
		return false, err
	}
	for i := range lines {
		key := events.CallKey{Account: lines[i].Account, Call: f.CallID}
		if known[key] {
			continue
		}
		if has, err := q.store.HasCall(key); has || err != nil {
			return false, err
		}
	}
	return true, nil
}

// History implements natsbus.Queries.
func (q *queries) History(ctx context.Context, f natsbus.HistoryFilter) ([]natsbus.HistoryEntry, error) {
	h, err := historyOf(ctx, q.store, f)
	if err != nil {
		return nil, err
	}
	var out []natsbus.HistoryEntry
	for i := range h {
		if h[i].Event.Position <= f.After || !f.Tells(h[i].Event.Account) {
			continue
		}
		if f.Limit > 0 && len(out) == f.Limit {
			break
		}
		out = append(out, natsbus.HistoryEntry{Type: h[i].Event.Type(), Event: &h[i].Event, CTI: h[i].CTI, Aside: h[i].Aside})
	}
	return out, nil
}

// historyOf returns the events of the calls that f names, or of their conversation.
func historyOf(ctx context.Context, log store.Store, f natsbus.HistoryFilter) ([]engine.HistoryEntry, error) {
	keys, err := callsNamed(ctx, log, f.Account, f.CallID)
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	if f.Conversation {
		return engine.ConversationHistory(ctx, log, keys)
	}
	return engine.History(ctx, log, keys...)
}

// Explain implements natsbus.Queries.
func (q *queries) Explain(ctx context.Context, f natsbus.HistoryFilter) ([]engine.Evidence, error) {
	all, err := evidenceOf(ctx, q.store, f)
	return slices.DeleteFunc(all, func(e engine.Evidence) bool { return !f.Tells(e.Account) }), err
}

// evidenceOf explains the calls that f names, or all of their conversation.
func evidenceOf(ctx context.Context, log store.Store, f natsbus.HistoryFilter) ([]engine.Evidence, error) {
	h, err := historyOf(ctx, log, f)
	if err != nil {
		return nil, err
	}
	var all []engine.Evidence
	seen := map[events.CallKey]bool{{}: true}
	for i := range h {
		key := h[i].Event.Key()
		if h[i].Aside || seen[key] || key.IsZero() {
			continue
		}
		seen[key] = true
		ev, err := engine.Explain(ctx, log, key)
		if err != nil {
			return nil, err
		}
		all = append(all, ev...)
	}
	return all, nil
}

// At implements natsbus.Queries.
func (q *queries) At(ctx context.Context, f natsbus.AtFilter) (engine.Moment, error) {
	return engine.At(ctx, q.store, f)
}

// Since implements natsbus.Queries.
func (q *queries) Since(ctx context.Context, f natsbus.SinceFilter) (engine.Missed, error) {
	return engine.Since(ctx, q.store, f)
}

// callsNamed returns the calls that a person names: by account and id, or by a
// bare id, which is all accounts' calls of that id. An id that no call has may be
// an alias of some.
func callsNamed(ctx context.Context, log store.Store, account, id string) ([]events.CallKey, error) {
	var keys []events.CallKey
	err := log.Calls(ctx, account, func(k events.CallKey, _, _ uint64) error {
		if k.Call == id {
			keys = append(keys, k)
		}
		return nil
	})
	if err != nil || len(keys) > 0 {
		return keys, err
	}
	err = log.Read(ctx, 1, func(ev *events.Event) error {
		p, ok := ev.Payload.(*events.CallUUIDChanged)
		if ok && p.Alias == id && (account == "" || ev.Account == account) && !slices.Contains(keys, ev.Key()) {
			keys = append(keys, ev.Key())
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
	all = slices.DeleteFunc(all, func(v cti.LineView) bool {
		return v.Account <= f.After || f.Account != "" && v.Account != f.Account
	})
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
	doubts, err := q.engine.Doubtful(ctx, engine.DoubtFilter{})
	if err != nil {
		return natsbus.Status{}, unavailable(err)
	}
	st := natsbus.Status{
		Log: s.LogID, StartedAt: events.At(s.Started), Position: s.Position, Folded: s.Folded, Confirmed: s.Published,
		Live: s.LiveCalls, Doubtful: len(doubts), Lines: s.Lines, Frames: s.Frames, Bus: q.bus.Stats(), Links: connections(q.links, q.phones),
	}
	return st, nil
}

// Doubtful implements natsbus.Queries.
func (q *queries) Doubtful(ctx context.Context, f natsbus.DoubtFilter) ([]engine.Doubt, error) {
	ds, err := q.engine.Doubtful(ctx, f)
	return ds, unavailable(err)
}
