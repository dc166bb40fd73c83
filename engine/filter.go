package engine

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// CallFilter says which calls are wanted. Empty fields let all through, and a
// call passes when all the others do. It is the filter of the command line and,
// as JSON, of the service.
type CallFilter struct {
	CallID  string `json:"callId,omitempty"` // or an alias
	Account string `json:"account,omitempty"`
	Domain  string `json:"domain,omitempty"`
	// Since and Until bound the call's start: Since belongs to the range, Until
	// does not.
	Since events.Time `json:"since,omitempty"`
	Until events.Time `json:"until,omitempty"`
	// Number is the caller's or the called one's, see [SameNumber].
	Number    string           `json:"number,omitempty"`
	Direction events.Direction `json:"direction,omitempty"`
	// Outcome is one of cti.Outcome, or several separated by commas. A call that
	// is live has none.
	Outcome string `json:"outcome,omitempty"`
	// Cause is the switch's text or the Q.850 number, or several separated by commas.
	Cause string `json:"cause,omitempty"`
	MinMs int64  `json:"minMs,omitempty"` // talk and hold together, at least
	MaxMs int64  `json:"maxMs,omitempty"` // and at most; 0 means no limit
	Live  bool   `json:"live,omitempty"`  // only calls that have not ended
	Limit int    `json:"limit,omitempty"` // at most this many, the latest; 0 means all
}

// Match reports whether f lets the call through. Limit is not its concern.
func (f *CallFilter) Match(v *cti.CallView) bool {
	c := &v.Call
	talked := c.TalkMs + c.HoldMs
	switch {
	case f.CallID != "" && v.CallID != f.CallID && !slices.Contains(c.Aliases, f.CallID):
	case f.Account != "" && v.Account != f.Account:
	case f.Domain != "" && v.Domain != f.Domain:
	case f.Since != 0 && c.StartedAt < f.Since:
	case f.Until != 0 && c.StartedAt >= f.Until:
	case f.Number != "" && !SameNumber(f.Number, c.CallerID) && !SameNumber(f.Number, c.CalledID):
	case f.Direction != "" && c.Direction != f.Direction:
	case f.Outcome != "" && !listed(f.Outcome, string(c.Outcome)):
	case f.Cause != "" && !listed(f.Cause, c.Cause) && (c.CauseCode == 0 || !listed(f.Cause, strconv.Itoa(c.CauseCode))):
	case talked < f.MinMs:
	case f.MaxMs > 0 && talked > f.MaxMs:
	case f.Live && c.Outcome != "":
	default:
		return true
	}
	return false
}

// listed reports whether one of the words of a list is w, whatever their case.
func listed(list, w string) bool {
	for word := range strings.SplitSeq(list, ",") {
		if word = strings.TrimSpace(word); word != "" && strings.EqualFold(word, w) {
			return true
		}
	}
	return false
}

// significant is how many of the last digits of two telephone numbers must be
// there and agree for them to be one number written nationally and
// internationally. Shorter ones are extensions, and are compared as they are.
const significant = 7

// SameNumber reports whether two numbers are the same, written leniently: signs
// and blanks do not count, nor do a trunk or an international prefix (0671112233
// is +380 67 111-22-33). What has no digits is compared as text.
func SameNumber(a, b string) bool {
	da, db := digits(a), digits(b)
	if da == "" || db == "" {
		return a != "" && strings.EqualFold(a, b)
	}
	if da == db {
		return true
	}
	da, db = strings.TrimLeft(da, "0"), strings.TrimLeft(db, "0")
	return min(len(da), len(db)) >= significant && (strings.HasSuffix(da, db) || strings.HasSuffix(db, da))
}

func digits(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return r
		}
		return -1
	}, s)
}

// PastCall is a call of a log, as the log leaves it.
type PastCall struct {
	View   cti.CallView // its Position is that of the call's last event
	First  uint64       // position of its first event that the log has
	Digits int          // DTMF digits in all; the view keeps the last ones
}

// ScanCalls folds a log and calls fn once for every call of it, when no later
// fact can change the call any more, and at the log's end for the others, in
// order of their first event. A log gives the same order every time. An empty
// account means all. What fn gets is its own.
//
// Memory follows the calls that the fold itself holds: live ones, and a few
// ended ones of each account.
func ScanCalls(ctx context.Context, log Reader, account string, fn func(*PastCall) error) error {
	st, err := openState(log)
	if err != nil {
		return err
	}
	return scanCalls(ctx, log, st, account, fn)
}

// scanCalls is ScanCalls for the calls that begin after a state.
func scanCalls(ctx context.Context, log Reader, st *State, account string, fn func(*PastCall) error) error {
	p := st.projection
	p.mute = ^uint64(0) // the views are wanted, the CTI events are not
	open := map[string][]*PastCall{}
	keyed := map[events.CallKey]int{} // digits of which retention has dropped the events: as many as the view keeps
	for _, a := range p.accounts {
		for _, c := range a.calls {
			if n := utf8.RuneCountInString(c.more().digits); n > 0 {
				keyed[events.CallKey{Account: a.name, Call: c.id}] = n
			}
		}
	}
	err := readOn(ctx, log, st.Position()+1, func(ev *events.Event) error {
		if ev.Account == "" || account != "" && ev.Account != account {
			return nil
		}
		p.Apply(ev)
		a, own := p.accounts[ev.Account], open[ev.Account]
		if c := a.calls[ev.Call]; c != nil {
			i := slices.IndexFunc(own, func(pc *PastCall) bool { return pc.View.CallID == c.id })
			if i < 0 {
				i = len(own)
				own = append(own, &PastCall{First: ev.Position, Digits: keyed[ev.Key()], View: cti.CallView{CallID: c.id}})
				open[ev.Account] = own
			}
			own[i].note(p, a, c, ev)
		}
		if len(own) == len(a.calls) {
			return nil
		}
		var err error
		open[ev.Account] = slices.DeleteFunc(own, func(pc *PastCall) bool {
			if a.calls[pc.View.CallID] != nil {
				return false
			}
			err = cmp.Or(err, fn(pc))
			return true
		})
		return err
	})
	if err != nil {
		return err
	}
	var rest []*PastCall
	for name, own := range open {
		a := p.accounts[name]
		for _, pc := range own {
			// One of which the fold told nothing may stand in for one that it has forgotten.
			if c := a.calls[pc.View.CallID]; c != nil && c.live() {
				last := pc.View.Position
				pc.View = p.callView(a, c)
				pc.View.Position = last
			}
			rest = append(rest, pc)
		}
	}
	slices.SortFunc(rest, func(a, b *PastCall) int { return cmp.Compare(a.First, b.First) })
	for _, pc := range rest {
		if err := fn(pc); err != nil {
			return err
		}
	}
	return nil
}

// note takes what the fold of one event of the call gave. The view is made when
// the call has ended: before that it is asked of the fold when it is needed.
func (pc *PastCall) note(p *Projection, a *account, c *call, ev *events.Event) {
	if _, ok := ev.Payload.(*events.CallDTMF); ok {
		pc.Digits++
	}
	if !c.live() {
		pc.View = p.callView(a, c)
	}
	pc.View.Position = ev.Position
}

// FindCalls folds a log and returns the calls that f lets through, the latest
// first. With a limit it keeps no more than twice as many.
func FindCalls(ctx context.Context, log Reader, f CallFilter) ([]cti.CallView, error) {
	var vs []cti.CallView
	st, err := f.before(log)
	if err != nil {
		return nil, err
	}
	err = scanCalls(ctx, log, st, f.Account, func(pc *PastCall) error {
		if !f.Match(&pc.View) {
			return nil
		}
		vs = append(vs, pc.View)
		if f.Limit > 0 && len(vs) >= 2*f.Limit {
			vs = Latest(vs, f.Limit)
		}
		return nil
	})
	return Latest(vs, f.Limit), err
}

// before returns a state by which no call had started that f lets through. It is
// looked for from the log's end, by ever longer steps.
func (f *CallFilter) before(log Reader) (*State, error) {
	l, ok := log.(stated)
	if !ok || f.Since == 0 {
		return openState(log)
	}
	last := l.Last()
	for most := last; most > 0; {
		position, b, err := l.Snapshot(most)
		if err != nil || position == 0 {
			break
		}
		if h, err := headerOf(b); err == nil && h.fold == foldVersion && h.started < f.Since {
			if st, err := LoadState(log.ID(), b); err == nil && st.Position() == position {
				return st, nil
			}
		}
		most = earlier(position, last)
	}
	return openState(log)
}

// Latest sorts calls, the latest first, and returns the first of them; a limit
// of 0 means all.
func Latest(vs []cti.CallView, limit int) []cti.CallView {
	slices.SortFunc(vs, func(a, b cti.CallView) int {
		return cmp.Or(cmp.Compare(b.Call.StartedAt, a.Call.StartedAt), cmp.Compare(a.Account, b.Account), cmp.Compare(a.CallID, b.CallID))
	})
	if limit > 0 && len(vs) > limit {
		clear(vs[limit:])
		vs = vs[:limit]
	}
	return vs
}
