package engine

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/callstate/callstate/events"
)

// DoubtReason is the word for why a call is doubtful.
type DoubtReason string

// The reasons.
const (
	DoubtLinkDown   DoubtReason = "link-down"   // no connection shows the account
	DoubtUnanswered DoubtReason = "unanswered"  // the PBX does not answer what channels it has
	DoubtUnlisted   DoubtReason = "unlisted"    // the last comparisons did not find the call among the PBX's channels
	DoubtNotChecked DoubtReason = "not-checked" // no comparison for long, and no frame
	DoubtNoFrame    DoubtReason = "no-frame"    // the PBX has the call, and tells nothing of it for very long
)

// Doubt is a live call that may have ended without our being told, or that the
// PBX itself may have forgotten to end.
type Doubt struct {
	Account   string      `json:"account"`
	CallID    string      `json:"callId"`
	StartedAt events.Time `json:"startedAt"` // when we first saw it, by our clock
	HeardAt   events.Time `json:"heardAt"`   // its last frame
	// ListedAt is the last comparison that found it among the PBX's channels.
	ListedAt events.Time `json:"listedAt,omitempty"`
	Legs     []string    `json:"legs"`
	Reasons  []Because   `json:"reasons"`
}

// Because is one reason for a doubt.
type Because struct {
	Reason DoubtReason `json:"reason"`
	Since  events.Time `json:"since,omitempty"`
	Detail string      `json:"detail,omitempty"` // the PBX's or the connection's own words
}

// DoubtFilter says what counts as doubtful.
type DoubtFilter struct {
	Account string `json:"account,omitempty"` // empty means all
	Domain  string `json:"domain,omitempty"`  // empty means all
	// Unchecked is for how long a call may be neither heard of nor found by a
	// comparison; 0 means five minutes.
	Unchecked time.Duration `json:"-"`
	// Silent is for how long the PBX may have a call and tell nothing of it; 0 means
	// two hours.
	Silent time.Duration `json:"-"`
	Limit  int           `json:"limit,omitempty"` // at most this many, those in doubt for longest; 0 means all
}

// Doubtful returns the live calls that are doubtful, in order of the time since
// when they are. Nothing is ended by that.
func (e *Engine) Doubtful(ctx context.Context, f DoubtFilter) ([]Doubt, error) {
	f.Unchecked = cmp.Or(f.Unchecked, 5*time.Minute)
	f.Silent = cmp.Or(f.Silent, 2*time.Hour)
	now := events.At(e.cfg.Now())
	return ask(ctx, e, func(k *correlator) []Doubt { return k.doubts(now, &f) })
}

func (k *correlator) doubts(now events.Time, f *DoubtFilter) []Doubt {
	var ds []Doubt
	for name, a := range k.accounts {
		if _, domain := splitAccount(name); f.Account != "" && name != f.Account || f.Domain != "" && domain != f.Domain {
			continue
		}
		for _, c := range a.calls {
			if d := k.doubt(c, now, f); len(d.Reasons) > 0 {
				ds = append(ds, d)
			}
		}
	}
	slices.SortFunc(ds, func(a, b Doubt) int {
		return cmp.Or(cmp.Compare(a.Reasons[0].Since, b.Reasons[0].Since), cmp.Compare(a.Account, b.Account), cmp.Compare(a.CallID, b.CallID))
	})
	if f.Limit > 0 && len(ds) > f.Limit {
		ds = ds[:f.Limit]
	}
	return ds
}

// doubt gathers the reasons, the one that holds for longest first.
func (k *correlator) doubt(c *callRef, now events.Time, f *DoubtFilter) Doubt {
	d := Doubt{Account: c.agent.name, CallID: c.id}
	unlisted := false
	for _, l := range c.legs {
		if l.ended {
			continue
		}
		d.Legs = append(d.Legs, l.id)
		d.StartedAt = firstTime(d.StartedAt, l.since)
		d.HeardAt = max(d.HeardAt, l.heard, l.since)
		d.ListedAt = max(d.ListedAt, l.listed)
		unlisted = unlisted || l.unlisted
	}
	because := func(r DoubtReason, since events.Time, detail string) {
		d.Reasons = append(d.Reasons, Because{Reason: r, Since: since, Detail: detail})
	}
	up, last := k.watchers(c.agent.name)
	switch {
	case up == nil && last == nil:
		because(DoubtLinkDown, k.began, "no connection since the start")
	case up == nil:
		because(DoubtLinkDown, last.down, last.reason)
	case up.unanswered != 0:
		because(DoubtUnanswered, up.unanswered, up.reason)
	}
	checked := max(d.HeardAt, d.ListedAt)
	switch {
	case unlisted:
		because(DoubtUnlisted, firstTime(d.ListedAt, d.HeardAt), "")
	case checked < now.Add(-f.Unchecked):
		because(DoubtNotChecked, checked, "")
	case d.HeardAt < now.Add(-f.Silent):
		because(DoubtNoFrame, d.HeardAt, "")
	}
	slices.SortStableFunc(d.Reasons, func(a, b Because) int { return cmp.Compare(a.Since, b.Since) })
	return d
}

// watchers returns a connection that shows the account, one that is answered if
// there is, and where there is none that which was lost last.
func (k *correlator) watchers(account string) (up, last *link) {
	for _, l := range k.links {
		switch {
		case !l.sees(account):
		case l.down != 0:
			if last == nil || l.down > last.down {
				last = l
			}
		case up == nil || up.unanswered != 0 && l.unanswered == 0:
			up = l
		}
	}
	return up, last
}
