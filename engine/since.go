package engine

import (
	"context"
	"log/slog"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// SinceFilter says which CTI events a subscriber missed. All that is given
// counts; what is empty means all.
type SinceFilter struct {
	Account string `json:"account,omitempty"`
	CallID  string `json:"callId,omitempty"` // needs Account
	Domain  string `json:"domain,omitempty"`
	// After is the last sequence that is known: with CallID the call's (seq), with
	// Account alone the line's (lineSeq). It needs one of them.
	After uint64 `json:"after,omitempty"`
	// Position is the last position that is known.
	Position uint64 `json:"position,omitempty"`
	Limit    int    `json:"limit,omitempty"` // 0 means no limit
}

// Missed is what was published, or will be, after what a subscriber knows.
type Missed struct {
	Events []cti.Event // in order of position; those of one position are never torn apart
	More   bool        // ask again, after the last one
	// After and Position are those that were asked for, or where retention has
	// dropped what follows them, the last ones that were dropped.
	After    uint64
	Position uint64
	Last     uint64 // position of the last event that was looked at
}

// Since folds the log and returns the CTI events that f asks for. It begins at
// the latest snapshot that is early enough, so that what was missed just now is
// found without reading the whole log.
func Since(ctx context.Context, log Log, f SinceFilter) (Missed, error) {
	m := Missed{Events: []cti.Event{}, After: f.After, Position: f.Position}
	st, err := openState(log)
	if err != nil {
		return m, err
	}
	m.After = max(m.After, st.sequence(&f))
	m.Position = max(m.Position, st.Position())
	st, err = st.lateFor(ctx, log, &f, &m)
	if err != nil {
		return m, err
	}
	p := st.projection
	p.mute = m.Position
	m.Last = max(p.position, m.Position)
	err = readOn(ctx, log, p.position+1, func(ev *events.Event) error {
		m.Last = max(m.Last, ev.Position)
		if !f.about(ev) {
			return nil
		}
		r := p.Apply(ev)
		for i := range r.Messages {
			if e := &r.Messages[i].Event; f.wants(e, m.After) {
				m.Events = append(m.Events, *e)
			}
		}
		if f.Limit > 0 && len(m.Events) >= f.Limit {
			m.More = true
			return errEnough
		}
		return nil
	})
	return m, err
}

// lateFor returns the latest state from which a fold gives all that f asks for: s, or
// a snapshot. It goes back by ever longer steps, so that what is read is at most
// about twice what was missed.
func (s *State) lateFor(ctx context.Context, log Log, f *SinceFilter, m *Missed) (*State, error) {
	last := log.Last()
	most := last
	if f.Account == "" && f.Domain == "" {
		most = m.Position
	}
	for most > s.Position() {
		late, err := lastState(log, most, slog.New(slog.DiscardHandler))
		if err != nil || late.Position() <= s.Position() || late.known(f, m.After, m.Position) {
			return late, err
		}
		if none, err := f.untouched(ctx, log, m.Position, late.Position()); none || err != nil {
			return late, err
		}
		most = earlier(late.Position(), last)
	}
	return s, nil
}

// about reports whether an event is of an account that is asked for.
func (f *SinceFilter) about(ev *events.Event) bool {
	return (f.Account == "" || ev.Account == f.Account) && (f.Domain == "" || inDomain(ev.Account, f.Domain))
}

// untouched reports whether no event between two positions is of those asked for: a
// state that is later than the first then gives all. It mostly looks at few: who asks
// has been told all but the last minute's.
func (f *SinceFilter) untouched(ctx context.Context, log Reader, position, through uint64) (bool, error) {
	if f.Account == "" && f.Domain == "" || f.After != 0 || f.CallID != "" {
		return false, nil
	}
	untouched := true
	err := readOn(ctx, log, position+1, func(ev *events.Event) error {
		if ev.Position > through {
			return errEnough
		}
		if f.about(ev) {
			untouched = false
			return errEnough
		}
		return nil
	})
	return untouched, err
}

func inDomain(account, domain string) bool {
	_, d := cti.SplitAccount(account)
	return d == domain
}

func (f *SinceFilter) wants(e *cti.Event, after uint64) bool {
	switch {
	case f.CallID != "":
		return e.CallID == f.CallID && e.Seq > after
	case f.Account != "":
		return e.LineSeq > after
	default:
		return true
	}
}

// sequence is how far the sequence that f counts in has come.
func (s *State) sequence(f *SinceFilter) uint64 {
	a := s.projection.accounts[f.Account]
	if a == nil {
		return 0
	}
	if f.CallID == "" {
		return a.lineSeq
	}
	if c := a.calls[f.CallID]; c != nil {
		return c.seq
	}
	return 0
}

// known reports whether a fold that begins at s gives all that f asks for.
func (s *State) known(f *SinceFilter, after, position uint64) bool {
	if s.Position() <= position {
		return true
	}
	a := s.projection.accounts[f.Account]
	if a == nil {
		return false
	}
	if f.CallID == "" {
		return a.lineSeq <= after
	}
	c := a.calls[f.CallID]
	return c != nil && c.seq <= after
}
