package engine

import (
	"slices"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// account is one agent: the line, its calls, and what is known of the agent. It
// is owned by one shard and changed by fold alone.
type account struct {
	name   string           `wire:"1"` // number@domain
	domain string           `wire:"2"`
	calls  map[string]*call `wire:"-"` // live ones, and some that ended (see forget)
	ended  []string         `wire:"4"` // ids of the ended ones, oldest first

	active     string   `wire:"5"` // call ids
	second     string   `wire:"6"`
	consulting bool     `wire:"7"` // the second call is a consultation
	waiting    []string `wire:"8"`

	presence  presence `wire:"9"`  // of a client at the PBX
	connected presence `wire:"10"` // as the model means it: initialized and not yet disconnected
	offline   string   `wire:"11"` // why, while disconnected waits for the last call's end
	userState string   `wire:"12"` // Account-User-State
	status    string   `wire:"13"` // Account-Status
	note      string   `wire:"14"`

	agentState string       `wire:"15"` // last one published
	flags      cti.Features `wire:"16"` // last ones published
	lineSeq    uint64       `wire:"17"`
	requests   []requested  `wire:"18"` // the last ones
	webPhone   bool         `wire:"19"` // is signed in
}

// presence is a fact that may not be known yet.
type presence uint8

const (
	presenceUnknown presence = iota
	presenceYes
	presenceNo
)

// keepEnded is how many ended calls of an account stay for late facts, and
// keepEndedFor for how long by the log's own clock. The rule reads nothing but
// the account's own events, so that every fold of the log forgets alike (I3).
const (
	keepEnded    = 8
	keepEndedFor = 3600 * 1000000 // microseconds
)

// forget drops ended calls that no late fact is expected for. One whose end was
// inferred is kept for as long as correlation keeps its legs, however many have
// ended since: it may turn out to live.
func (a *account) forget(now events.Time) {
	inferred := 0
	for len(a.ended) > inferred {
		c := a.calls[a.ended[inferred]]
		if c != nil && !c.live() && now < c.ended().recorded+keepEndedFor {
			if len(a.ended) <= keepEnded {
				return
			}
			if c.ended().inferred != "" {
				inferred++
				continue
			}
			if len(a.ended)-a.doubtful() <= keepEnded {
				return
			}
		}
		if c != nil && !c.live() {
			delete(a.calls, a.ended[inferred])
		}
		a.ended = slices.Delete(a.ended, inferred, inferred+1)
	}
}

// doubtful counts the ended calls whose end was inferred.
func (a *account) doubtful() (n int) {
	for _, id := range a.ended {
		if c := a.calls[id]; c != nil && c.ended().inferred != "" {
			n++
		}
	}
	return n
}

func (a *account) liveCalls() int {
	n := len(a.waiting)
	if a.active != "" {
		n++
	}
	if a.second != "" {
		n++
	}
	return n
}

// role is a call's place on the line.
func (a *account) role(c *call) role {
	switch {
	case !a.consulting || !c.live():
		return roleOther
	case c.id == a.second:
		return roleConsult
	case c.id == a.active:
		return roleConsulting
	default:
		return roleOther
	}
}

func (a *account) features(c *call) cti.Features {
	consultBridged := false
	if a.consulting {
		if s := a.calls[a.second]; s != nil {
			consultBridged = s.bridged
		}
	}
	return features(c.facts(a.role(c), consultBridged))
}

// lineFlags are those of the active call, else 2 when connected to the PBX and 0
// when not. An agent of whom no presence was ever heard counts as connected: the
// PBX serves its phone.
func (a *account) lineFlags() cti.Features {
	if c := a.calls[a.active]; c != nil && a.active != "" {
		return a.features(c)
	}
	if a.connected == presenceNo {
		return cti.CanNothing
	}
	return cti.Idle
}

// place puts a new call on the line and says whether it is a consultation or
// waits. An outgoing call that names the active call as its parent, or names
// none, is a consultation while the second slot is free (quirk Q30).
func (a *account) place(c *call, p *events.CallNew) (consult, waits bool) {
	switch {
	case a.active == "":
		a.active = c.id
	case p.Direction == events.Out && a.second == "" && (p.ParentCall == a.active || p.Parent == "" && p.ParentCall == ""):
		a.second, a.consulting = c.id, true
		consult = true
	default:
		a.waiting = append(a.waiting, c.id)
		waits = true
	}
	return consult, waits
}

// promote makes an answered waiting call the active one. The active call becomes
// the second; a call that held that slot waits.
func (a *account) promote(id string) {
	a.waiting = slices.DeleteFunc(a.waiting, func(w string) bool { return w == id })
	if a.second != "" {
		a.waiting = append(a.waiting, a.second)
	}
	a.second, a.consulting, a.active = a.active, false, id
}

// leave takes an ended call off the line. promoted is the call that became
// active for it; consulted says that the call was a consultation.
func (a *account) leave(id string) (promoted string, consulted bool) {
	switch id {
	case a.active:
		a.active, a.consulting = a.second, false
		a.second = ""
		if a.active == "" && len(a.waiting) > 0 {
			a.active = a.waiting[0]
			a.waiting = slices.Delete(a.waiting, 0, 1)
		}
		return a.active, false
	case a.second:
		consulted = a.consulting
		a.second, a.consulting = "", false
		return "", consulted
	default:
		a.waiting = slices.DeleteFunc(a.waiting, func(w string) bool { return w == id })
		return "", false
	}
}

// effectiveState is the agent's state from presence and own calls (quirk Q21),
// "" while nothing is known.
func (a *account) effectiveState() string {
	switch {
	case a.presence == presenceNo || a.userState == cti.AgentNotReg:
		return cti.AgentNotReg
	case a.status != "" && a.status != "NONE":
		return a.status
	case a.liveCalls() > 0:
		return cti.AgentBusy
	case a.userState != "":
		return a.userState
	case a.agentState != "":
		return cti.AgentOnHook // its calls are over, and nobody said otherwise
	default:
		return ""
	}
}

// view returns the line as it is published.
func (a *account) view() *cti.Line {
	f := a.lineFlags()
	return &cti.Line{
		Connected:       a.connected != presenceNo,
		CallFeaturesSet: f,
		Features:        f.Names(),
		ActiveCall:      a.active,
		SecondCall:      a.second,
		Consulting:      a.consulting,
		Waiting:         slices.Clone(a.waiting),
		AgentState:      a.effectiveState(),
		AgentNote:       a.note,
		Online:          a.presence == presenceYes,
		WebPhone:        a.webPhone,
	}
}
