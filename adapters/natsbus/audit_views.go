package natsbus

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// auditedViews is what one bucket holds of our log.
type auditedViews struct {
	what   string
	held   map[string]*auditedView // by key
	floor  uint64                  // views through this position were written
	absent map[string]view         // live, and not in the bucket
}

type auditedView struct {
	position uint64
	data     []byte
	last     uint64 // position of the last event that changed it
	matched  bool
}

func (v *auditedViews) load(ctx context.Context, s jetstream.Stream, log string) error {
	v.held, v.absent = map[string]*auditedView{}, map[string]view{}
	t, err := newTape(ctx, s, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy}, 0)
	if err != nil {
		return err
	}
	for {
		m, err := t.next()
		if err != nil || m == nil {
			return err
		}
		if at, ok := floorOf(m.Headers(), log); ok {
			v.held[m.Subject()] = &auditedView{position: at, data: m.Data()}
			v.floor = at // they come in the order in which they were written
		}
	}
}

// view compares a view with its bucket where that has it of this position.
func (a *audit) view(v *auditedViews, w *view, live bool) error {
	if v.held == nil {
		return nil
	}
	m := a.views.encode(w, "")
	h := v.held[m.Subject]
	switch {
	case h != nil:
		if h.last = w.position; h.position != w.position {
			return nil
		}
		h.matched = true
		if !bytes.Equal(h.data, m.Data) {
			return a.differ(Difference{
				Kind: Changed, What: v.what, Position: w.position, Account: w.key.account, CallID: w.key.call,
				Published: string(h.data), Expected: string(m.Data),
			})
		}
	case live:
		v.absent[m.Subject] = view{key: w.key, position: w.position}
	default:
		delete(v.absent, m.Subject)
	}
	return nil
}

func (a *audit) finishViews(v *auditedViews) error {
	held := slices.SortedFunc(maps.Values(v.held), func(x, y *auditedView) int { return cmp.Compare(x.position, y.position) })
	for _, h := range held {
		d := Difference{What: v.what, Position: h.position, Published: string(h.data)}
		switch {
		case !h.matched && h.position <= a.base:
			a.report.Dropped++
			continue
		case !h.matched:
			d.Kind = Unexpected
		case h.last > h.position && h.last <= v.floor:
			d.Kind = Stale
		case h.last > h.position:
			a.report.ViewsBehind++
			continue
		default:
			continue
		}
		if err := a.differ(d); err != nil {
			return err
		}
	}
	for _, w := range v.absent {
		if w.position > v.floor {
			a.report.ViewsBehind++
			continue
		}
		d := Difference{Kind: Missing, What: v.what, Position: w.position, Account: w.key.account, CallID: w.key.call}
		if err := a.differ(d); err != nil {
			return err
		}
	}
	return nil
}
