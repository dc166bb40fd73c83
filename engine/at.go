package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// AtFilter says which moment is wanted, and of whom. Empty fields mean all.
type AtFilter struct {
	Time    events.Time `json:"time"`
	Account string      `json:"account,omitempty"`
	Domain  string      `json:"domain,omitempty"`
	// Occurred goes by the switch's clock: the facts that had happened by then,
	// also those that we heard of later. Without it the answer is what this log
	// knew then, by our own clock: what subscribers had been told.
	Occurred bool `json:"occurred,omitempty"`
	// After and Limit page through lines: only accounts that sort after After,
	// and at most Limit of them; 0 means all. They do not concern calls.
	After string `json:"after,omitempty"`
	Limit int    `json:"limit,omitempty"`
}

// Moment is the PBX at one time.
type Moment struct {
	Position uint64         // of the last event that counts
	Calls    []cti.CallView // live then, in order of start
	Lines    []cti.LineView // with their agents, in order of account
}

// At folds a log as far as f.Time and returns the PBX as it was. By our clock
// that is the log up to its last event recorded by then, so that the answer is a
// state which the engine was in, also where the clock was set back. By the
// switch's clock events are left out one by one; an event that says no time
// counts by our clock.
func At(ctx context.Context, log Reader, f AtFilter) (Moment, error) {
	m := Moment{Calls: []cti.CallView{}, Lines: []cti.LineView{}}
	last := ^uint64(0)
	base, _, err := log.Base()
	if err != nil {
		return m, err
	}
	if !f.Occurred {
		last = base
		if err := log.Read(ctx, 1, func(ev *events.Event) error {
			if ev.RecordedAt <= f.Time {
				last = ev.Position
			}
			return nil
		}); err != nil {
			return m, err
		}
		if base > 0 && last == base {
			return m, fmt.Errorf("%w: event %d is the first that retention has left, and it is of after %s", ErrDropped, base+1, f.Time)
		}
	}
	p, from, err := openProjection(log)
	if err != nil {
		return m, err
	}
	p.mute, m.Position = ^uint64(0), from-1
	err = readOn(ctx, log, from, func(ev *events.Event) error {
		switch {
		case ev.Position > last:
			return errEnough
		case f.Occurred && firstTime(ev.OccurredAt, ev.RecordedAt) > f.Time:
			return nil
		}
		m.Position = ev.Position
		if f.Account != "" && ev.Account != f.Account || f.Domain != "" && ev.Domain != f.Domain {
			return nil
		}
		p.Apply(ev)
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return m, err
	}
	p.position = m.Position
	for _, a := range p.accounts {
		if f.Account != "" && a.name != f.Account || f.Domain != "" && a.domain != f.Domain {
			continue // of the state before the log's beginning
		}
		m.Lines = append(m.Lines, p.lineView(a))
		for _, c := range a.calls {
			if c.live() {
				m.Calls = append(m.Calls, p.callView(a, c))
			}
		}
	}
	slices.SortFunc(m.Calls, func(a, b cti.CallView) int {
		return cmp.Or(cmp.Compare(a.Call.StartedAt, b.Call.StartedAt), cmp.Compare(a.Account, b.Account), cmp.Compare(a.CallID, b.CallID))
	})
	slices.SortFunc(m.Lines, func(a, b cti.LineView) int { return cmp.Compare(a.Account, b.Account) })
	return m, nil
}

var errEnough = errors.New("engine: read far enough")
