package engine

import (
	"slices"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// call is the state of one call: what the facts so far add up to. It is owned by
// the account's shard and changed by fold alone.
type call struct {
	id           string `wire:"1"`
	conversation string `wire:"2"`
	state        string `wire:"3"`
	oldState     string `wire:"4"`

	direction  events.Direction `wire:"5"`
	callback   bool             `wire:"6"`
	answerable bool             `wire:"7"`
	refused    bool             `wire:"8"`
	connected  bool             `wire:"9"`  // answered by whom it was for; a fact of its own (quirk Q31)
	bridged    bool             `wire:"10"` // bridged at some time
	conference bool             `wire:"11"`
	parked     bool             `wire:"12"`
	recorded   bool             `wire:"13"`

	parties   events.Parties `wire:"14"`
	otherLeg  string         `wire:"15"`
	parent    string         `wire:"16"`
	queue     string         `wire:"17"`
	data      string         `wire:"18"`
	recording string         `wire:"19"`
	inConf    string         `wire:"20"`
	digits    string         `wire:"21"`
	inferred  string         `wire:"22"`
	aliases   []string       `wire:"23"`
	legs      []callLeg      `wire:"24"`
	transfer  *cti.Transfer  `wire:"25"`
	sessions  []callSession  `wire:"26"`
	hangup    events.Hangup  `wire:"27"`
	outcome   cti.Outcome    `wire:"28"`
	origin    events.Origin  `wire:"29"`

	startedAt       events.Time `wire:"30"`
	agentAnsweredAt events.Time `wire:"31"`
	answeredAt      events.Time `wire:"32"`
	bridgedAt       events.Time `wire:"33"`
	endedAt         events.Time `wire:"34"`
	changedAt       events.Time `wire:"35"` // of the last change of state
	ringMs          int64       `wire:"36"`
	talkMs          int64       `wire:"37"`
	holdMs          int64       `wire:"38"`

	seq      uint64      `wire:"39"` // CTI events so far
	endedRec events.Time `wire:"40"`
	gaps     []cti.Gap   `wire:"41"`
}

// callLeg is one channel of the account in the call.
type callLeg struct {
	id       string `wire:"1"`
	partner  string `wire:"2"`
	answered bool   `wire:"3"`
	held     bool   `wire:"4"`
	ended    bool   `wire:"5"`
	inConf   bool   `wire:"6"`
	cause    string `wire:"7"`
}

func (c *call) live() bool { return c.state != stateEnded }

func (c *call) leg(id string) *callLeg {
	for i := range c.legs {
		if c.legs[i].id == id {
			return &c.legs[i]
		}
	}
	return nil
}

// legOrNew returns the leg, which is added if the call does not know it: a fact
// about a leg proves that the leg is.
func (c *call) legOrNew(id string) *callLeg {
	if l := c.leg(id); l != nil {
		return l
	}
	c.legs = append(c.legs, callLeg{id: id})
	return &c.legs[len(c.legs)-1]
}

// rename gives a leg its new id.
func (c *call) rename(old, id string) {
	if l := c.leg(old); l != nil {
		l.id = id
	}
	for i := range c.sessions {
		if s := &c.sessions[i]; s.leg == old {
			s.leg = id
		}
	}
}

// primary is the leg that the call's state, partner and commands are about: the
// one that answered, else the first that is alive, else the first (client quirks
// 1 and 10).
func (c *call) primary() *callLeg {
	var alive *callLeg
	for i := range c.legs {
		l := &c.legs[i]
		if l.ended {
			continue
		}
		if l.answered {
			return l
		}
		if alive == nil {
			alive = l
		}
	}
	if alive != nil {
		return alive
	}
	for i := range c.legs {
		if c.legs[i].answered {
			return &c.legs[i]
		}
	}
	if len(c.legs) > 0 {
		return &c.legs[0]
	}
	return nil
}

// move applies a trigger at time t and accounts the time spent in the state that
// is left. A refused trigger changes nothing: the fact stays recorded, the state
// stays defensible.
func (c *call) move(m *machine, trigger string, t events.Time) bool {
	to, changed, err := m.next(c.state, trigger)
	if err != nil || !changed {
		return false
	}
	c.account(t)
	c.oldState, c.state = c.state, to
	return true
}

// account adds the time since the last change to the clock of the present state.
func (c *call) account(t events.Time) {
	d := t.Sub(c.changedAt)
	switch {
	case !c.connected:
		c.ringMs += d
	case c.state == stateHeld:
		c.holdMs += d
	default:
		c.talkMs += d
	}
	if t > c.changedAt {
		c.changedAt = t
	}
}

// begin folds call.new.
func (c *call) begin(m *machine, ev *events.Event, p *events.CallNew) {
	c.direction, c.callback, c.answerable, c.refused = p.Direction, p.Callback, p.Answerable, p.Refused
	c.parties, c.otherLeg, c.parent = p.Parties, p.OtherLeg, p.ParentCall
	c.queue, c.data = p.Queue, p.Data
	c.startedAt = firstTime(p.StartedAt, ev.OccurredAt)
	c.changedAt = c.startedAt
	c.legs = append(c.legs, callLeg{id: ev.Leg})
	c.move(m, triggerNew, c.startedAt)
}

// connect notes that the two parties can talk.
func (c *call) connect(m *machine, trigger string, t events.Time) (started bool) {
	if !c.connected {
		c.account(t) // the time until now was ringing, even on hold
		c.connected, c.answeredAt, started = true, t, true
	}
	c.move(m, trigger, t)
	return started
}

// setHeld notes hold on a leg and returns whether the call's state changed.
func (c *call) setHeld(m *machine, legID string, held bool, t events.Time) bool {
	l := c.legOrNew(legID)
	l.held = held
	if c.primary() != l {
		return false // the device that lost the race does not hold the call
	}
	return c.follow(m, t)
}

// follow brings the state in line with what the leg that is primary now says, and
// returns whether it changed.
func (c *call) follow(m *machine, t events.Time) bool {
	trigger := triggerRetrieve
	switch l := c.primary(); {
	case l != nil && l.held:
		trigger = triggerHold
	case c.conference:
		trigger = triggerJoin
	case !c.connected:
		trigger = triggerResumeRing
	case c.state == stateConferenced:
		trigger = triggerLeave
	}
	return c.move(m, trigger, t)
}

// end folds call.hungup.
func (c *call) end(m *machine, ev *events.Event, p *events.CallHungup) bool {
	t := firstTime(p.EndedAt, ev.OccurredAt)
	if l := c.leg(ev.Leg); l != nil {
		l.ended, l.cause = true, p.Cause
	}
	if !c.move(m, triggerHangup, t) {
		return false
	}
	for i := range c.legs {
		c.legs[i].ended = true
	}
	c.hangup, c.inferred, c.endedAt, c.endedRec = p.Hangup, p.Inferred, t, ev.RecordedAt
	c.outcome = outcome(c)
	return true
}

// reinstate folds call.reinstated: the end is withdrawn, the facts before it hold.
func (c *call) reinstate(m *machine, ev *events.Event) bool {
	if !c.move(m, triggerReinstate, 0) {
		return false
	}
	c.hangup, c.inferred, c.outcome, c.endedAt, c.endedRec = events.Hangup{}, "", "", 0, 0
	if l := c.leg(ev.Leg); l != nil {
		l.ended = false
	}
	if c.connected {
		c.move(m, triggerAnswer, 0)
	}
	if c.conference {
		c.move(m, triggerJoin, 0)
	}
	if l := c.primary(); l != nil && l.held {
		c.move(m, triggerHold, 0)
	}
	return true
}

// details folds call.details: what later frames know of the end.
func (c *call) details(p *events.CallDetails) {
	if p.Cause != "" {
		c.hangup.Cause, c.hangup.CauseCode = p.Cause, p.CauseCode
		c.inferred = "" // the switch confirms the end
	}
	if p.By != "" {
		c.hangup.By = p.By
	}
	if p.Disposition != "" {
		c.hangup.Disposition = p.Disposition
	}
	if c.inferred == "" {
		c.outcome = outcome(c)
	}
	c.correctEnd(p.EndedAt)
}

// correctEnd takes a better time of the end: the clock that ran last was stopped
// too early or too late.
func (c *call) correctEnd(t events.Time) {
	if t == 0 || c.endedAt == 0 || t < c.answeredAt {
		return
	}
	d := int64(t-c.endedAt) / 1000
	switch {
	case !c.connected:
		c.ringMs = max(0, c.ringMs+d)
	case c.oldState == stateHeld:
		c.holdMs = max(0, c.holdMs+d)
	default:
		c.talkMs = max(0, c.talkMs+d)
	}
	c.endedAt = t
}

func (c *call) facts(r role, consultBridged bool) facts {
	return facts{
		state: c.state, inbound: c.direction == events.In, answerable: c.answerable,
		bridged: c.bridged, role: r, consultBridged: consultBridged,
	}
}

// view returns the call as it is published.
func (c *call) view(account string, f cti.Features) *cti.Call {
	number, _ := cti.SplitAccount(account)
	v := &cti.Call{
		ID: c.id, Aliases: append(make([]string, 0, len(c.aliases)), c.aliases...),
		State: ctiState(c.state), StateName: ctiState(c.state).String(), OldState: ctiState(c.oldState),
		Direction: c.direction, Callback: c.callback,
		CallerID: c.parties.CallerNumber, CallerName: c.parties.CallerName,
		CalledID: c.parties.CalledNumber, CalledName: c.parties.CalledName,
		CallFeaturesSet: f, Features: f.Names(), DeviceID: number,
		OtherLegUUID: c.otherLeg, ParentCallID: c.parent, Queue: c.queue, Data: c.data,
		Cause: c.hangup.Cause, CauseCode: c.hangup.CauseCode, HungupBy: c.hangup.By, Outcome: c.outcome,
		StartedAt: c.startedAt, AgentAnsweredAt: c.agentAnsweredAt, AnsweredAt: c.answeredAt,
		BridgedAt: c.bridgedAt, EndedAt: c.endedAt,
		RingMs: c.ringMs, TalkMs: c.talkMs, HoldMs: c.holdMs,
		Recording: c.recording, Recorded: c.recorded, Conference: c.inConf, Parked: c.parked, Digits: c.digits,
		Legs: make([]cti.Leg, len(c.legs)), Origin: c.origin, Inferred: c.inferred, Gaps: slices.Clone(c.gaps),
	}
	if c.transfer != nil {
		t := *c.transfer
		v.Transfer = &t
		if t.Result == "confirmed" {
			v.RedirectingID, v.RedirectionID = number, t.Target
		}
	}
	v.WebRTC = c.viewSession()
	primary := c.primary()
	for i := range c.legs {
		l := &c.legs[i]
		v.Legs[i] = cti.Leg{
			ID: l.id, Partner: l.partner, Primary: l == primary, Answered: l.answered,
			Held: l.held, Ended: l.ended, Cause: l.cause,
		}
	}
	return v
}

// maxGaps is how many gaps a call keeps apart; later ones lengthen the last.
const maxGaps = 16

// gap notes a time of which nothing is known. One that goes on, or begins where
// the last ended, is one with it.
func (c *call) gap(p *events.CallGap) {
	if n := len(c.gaps); n > 0 {
		if last := &c.gaps[n-1]; n == maxGaps || p.From <= last.To {
			last.To = max(last.To, p.To)
			return
		}
	}
	c.gaps = append(c.gaps, cti.Gap{From: p.From, To: p.To, Reason: p.Reason})
}

// addAlias notes a further id and returns whether it was new.
func (c *call) addAlias(id string) bool {
	if id == "" || id == c.id || slices.Contains(c.aliases, id) {
		return false
	}
	c.aliases = append(c.aliases, id)
	return true
}

// maxDigits is how many digits the panel of the reference shows.
const maxDigits = 20

func (c *call) addDigit(d string) {
	c.digits += d
	if len(c.digits) > maxDigits {
		c.digits = c.digits[len(c.digits)-maxDigits:]
	}
}

// firstTime returns the first known time.
func firstTime(ts ...events.Time) events.Time {
	for _, t := range ts {
		if t != 0 {
			return t
		}
	}
	return 0
}
