package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	// Skip pages through calls: how many the pages before had.
	Skip int `json:"skip,omitempty"`
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
// switch's clock events are left out one by one, which takes a fold of the whole log;
// an event that says no time counts by our clock. What retention has dropped can only
// be left out as a whole, so that a time before the first event that it has left gets
// no answer.
func At(ctx context.Context, log Reader, f AtFilter) (Moment, error) {
	m := Moment{Calls: []cti.CallView{}, Lines: []cti.LineView{}}
	st, last, err := before(ctx, log, f)
	if err != nil {
		return m, err
	}
	p, from := st.projection, st.Position()+1
	p.mute, m.Position = ^uint64(0), st.Position()
	err = readOn(ctx, log, from, func(ev *events.Event) error {
		switch {
		case ev.Position > last:
			return errEnough
		case f.Occurred && firstTime(ev.OccurredAt, ev.RecordedAt) > f.Time:
			if ev.Position == from && from > 1 {
				return f.dropped(from - 1)
			}
			return nil
		}
		m.Position = ev.Position
		if f.Account != "" && ev.Account != f.Account || f.Domain != "" && ev.Domain != f.Domain {
			return nil
		}
		p.Apply(ev)
		return nil
	})
	if err != nil {
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

// before returns a state of before the moment, and the position of the last event
// that may count.
func before(ctx context.Context, log Reader, f AtFilter) (st *State, last uint64, err error) {
	if f.Occurred {
		st, err := openState(log)
		return st, ^uint64(0), err
	}
	base, _, err := log.Base()
	if err == nil {
		last, err = lastBy(ctx, log, base, f.Time)
	}
	switch l, ok := log.(stated); {
	case err != nil:
		return nil, 0, err
	case base > 0 && last == base:
		return nil, 0, f.dropped(base)
	case ok:
		st, err = lastState(l, last, slog.New(slog.DiscardHandler))
	default:
		st, err = openState(log)
	}
	return st, last, err
}

func (f *AtFilter) dropped(base uint64) error {
	return fmt.Errorf("%w: event %d is the first that retention has left, and it is of after %s", ErrDropped, base+1, f.Time)
}

// lastBy returns the position of the last event that was recorded by then, base for
// none. It looks for it from the log's end, by ever longer stretches.
func lastBy(ctx context.Context, log Reader, base uint64, t events.Time) (uint64, error) {
	from, size := base+1, uint64(0)
	end := ^uint64(0)
	if l, ok := log.(stated); ok {
		end, size = l.Last(), 1<<15
	}
	for {
		if size > 0 {
			from = max(base, end-min(end, size)) + 1
		}
		last := uint64(0)
		err := log.Read(ctx, from, func(ev *events.Event) error {
			if ev.Position > end {
				return errEnough
			}
			if ev.RecordedAt <= t {
				last = ev.Position
			}
			return nil
		})
		switch {
		case err != nil && !errors.Is(err, errEnough):
			return 0, err
		case last > 0:
			return last, nil
		case from == base+1:
			return base, nil
		}
		end, size = from-1, 2*size
	}
}

var errEnough = errors.New("engine: read far enough")
