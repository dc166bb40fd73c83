package engine

import (
	"cmp"
	"slices"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// call is the state of one call: what the facts so far add up to. It is owned by
// the account's shard and changed by fold alone. The wire numbers are those of its
// stored form, see [wholeCall]. What few calls have is in more, what one that has
// ended has in ended.
type call struct {
	id           string `wire:"1"`
	conversation string `wire:"2"`

	parties  events.Parties `wire:"14"`
	otherLeg string         `wire:"15"`
	legs     []callLeg      `wire:"24"`

	startedAt       events.Time `wire:"30"`
	agentAnsweredAt events.Time `wire:"31"`
	answeredAt      events.Time `wire:"32"`
	bridgedAt       events.Time `wire:"33"`
	changedAt       events.Time `wire:"35"` // of the last change of state
	ringMs          int64       `wire:"36"`
	talkMs          int64       `wire:"37"`
	holdMs          int64       `wire:"38"`

	seq  uint64    `wire:"39"` // CTI events so far
	rare *callMore `wire:"-"`
	end  *callEnd  `wire:"-"`

	now, before stateNumber   `wire:"-"` // the state, and the last one
	inbound     bool          `wire:"-"`
	callback    bool          `wire:"6"`
	answerable  bool          `wire:"7"`
	connected   bool          `wire:"9"`  // answered by whom it was for; a fact of its own (quirk Q31)
	bridged     bool          `wire:"10"` // bridged at some time
	parked      bool          `wire:"12"`
	recorded    bool          `wire:"13"`
	origin      events.Origin `wire:"29"`
}

// callMore is what few calls have.
type callMore struct {
	refused    bool          `wire:"8"`
	conference bool          `wire:"11"`
	parent     string        `wire:"16"`
	queue      string        `wire:"17"`
	data       string        `wire:"18"`
	recording  string        `wire:"19"`
	inConf     string        `wire:"20"`
	digits     string        `wire:"21"`
	aliases    []string      `wire:"23"`
	transfer   *cti.Transfer `wire:"25"`
	sessions   []callSession `wire:"26"`
	gaps       []cti.Gap     `wire:"41"`
}

// callEnd is how a call ended.
type callEnd struct {
	inferred string        `wire:"22"`
	hangup   events.Hangup `wire:"27"`
	outcome  cti.Outcome   `wire:"28"`
	at       events.Time   `wire:"34"`
	recorded events.Time   `wire:"40"`
}

// What the calls have that have nothing more, or have not ended. They are never
// written.
var (
	noCallMore callMore
	noCallEnd  callEnd
)

// more returns what few calls have, to be read.
func (c *call) more() *callMore { return cmp.Or(c.rare, &noCallMore) }

// remember returns the same as more, to be written.
func (c *call) remember() *callMore { return made(&c.rare) }

// ended returns how the call ended, to be read.
func (c *call) ended() *callEnd { return cmp.Or(c.end, &noCallEnd) }

// ending returns the same as ended, to be written.
func (c *call) ending() *callEnd { return made(&c.end) }

// made returns what p points to, made where there is nothing yet.
func made[T any](p **T) *T {
	if *p == nil {
		*p = new(T)
	}
	return *p
}

func (c *call) state() string    { return states[c.now] }
func (c *call) oldState() string { return states[c.before] }

func (c *call) direction() events.Direction { return wayOf(c.inbound) }

func wayOf(inbound bool) events.Direction {
	if inbound {
		return events.In
	}
	return events.Out
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

func (c *call) live() bool { return c.state() != stateEnded }

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
	sessions := c.more().sessions
	for i := range sessions {
		if s := &sessions[i]; s.leg == old {
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
	to, changed, err := m.next(c.state(), trigger)
	if err != nil || !changed {
		return false
	}
	c.account(t)
	c.before, c.now = c.now, numberOf(to)
	return true
}

// account adds the time since the last change to the clock of the present state.
func (c *call) account(t events.Time) {
	d := t.Sub(c.changedAt)
	switch {
	case !c.connected:
		c.ringMs += d
	case c.state() == stateHeld:
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
	c.inbound, c.callback, c.answerable = p.Direction == events.In, p.Callback, p.Answerable
	c.parties, c.otherLeg = p.Parties, p.OtherLeg
	if p.Refused || p.ParentCall != "" || p.Queue != "" || p.Data != "" {
		m := c.remember()
		m.refused, m.parent, m.queue, m.data = p.Refused, p.ParentCall, p.Queue, p.Data
	}
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
	case c.more().conference:
		trigger = triggerJoin
	case !c.connected:
		trigger = triggerResumeRing
	case c.state() == stateConferenced:
		trigger = triggerLeave
	}
	return c.move(m, trigger, t)
}

// joins notes that the call joined a conference, or left it.
func (c *call) joins(in bool, name string) {
	if in || c.rare != nil {
		m := c.remember()
		m.conference, m.inConf = in, name
	}
}

// hungup folds call.hungup.
func (c *call) hungup(m *machine, ev *events.Event, p *events.CallHungup) bool {
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
	c.end = &callEnd{hangup: p.Hangup, inferred: p.Inferred, at: t, recorded: ev.RecordedAt}
	c.end.outcome = outcome(c)
	return true
}

// reinstate folds call.reinstated: the end is withdrawn, the facts before it hold.
func (c *call) reinstate(m *machine, ev *events.Event) bool {
	if !c.move(m, triggerReinstate, 0) {
		return false
	}
	c.end = nil
	if l := c.leg(ev.Leg); l != nil {
		l.ended = false
	}
	if c.connected {
		c.move(m, triggerAnswer, 0)
	}
	if c.more().conference {
		c.move(m, triggerJoin, 0)
	}
	if l := c.primary(); l != nil && l.held {
		c.move(m, triggerHold, 0)
	}
	return true
}

// details folds call.details: what later frames know of the end.
func (c *call) details(p *events.CallDetails) {
	e := c.ending()
	if p.Cause != "" {
		e.hangup.Cause, e.hangup.CauseCode = p.Cause, p.CauseCode
		e.inferred = "" // the switch confirms the end
	}
	if p.By != "" {
		e.hangup.By = p.By
	}
	if p.Disposition != "" {
		e.hangup.Disposition = p.Disposition
	}
	if e.inferred == "" {
		e.outcome = outcome(c)
	}
	c.correctEnd(p.EndedAt)
}

// correctEnd takes a better time of the end: the clock that ran last was stopped
// too early or too late.
func (c *call) correctEnd(t events.Time) {
	if t == 0 || c.ended().at == 0 || t < c.answeredAt {
		return
	}
	d := int64(t-c.end.at) / 1000
	switch {
	case !c.connected:
		c.ringMs = max(0, c.ringMs+d)
	case c.oldState() == stateHeld:
		c.holdMs = max(0, c.holdMs+d)
	default:
		c.talkMs = max(0, c.talkMs+d)
	}
	c.end.at = t
}

func (c *call) facts(r role, consultBridged bool) facts {
	return facts{
		state: c.state(), inbound: c.inbound, answerable: c.answerable,
		bridged: c.bridged, role: r, consultBridged: consultBridged,
	}
}

// view returns the call as it is published.
func (c *call) view(account string, f cti.Features) *cti.Call {
	number, _ := cti.SplitAccount(account)
	m, end := c.more(), c.ended()
	state := ctiState(c.state())
	v := &cti.Call{
		ID: c.id, Aliases: append(make([]string, 0, len(m.aliases)), m.aliases...),
		State: state, StateName: state.String(), OldState: ctiState(c.oldState()),
		Direction: c.direction(), Callback: c.callback,
		CallerID: c.parties.CallerNumber, CallerName: c.parties.CallerName,
		CalledID: c.parties.CalledNumber, CalledName: c.parties.CalledName,
		CallFeaturesSet: f, Features: f.Names(), DeviceID: number,
		OtherLegUUID: c.otherLeg, ParentCallID: m.parent, Queue: m.queue, Data: m.data,
		Cause: end.hangup.Cause, CauseCode: end.hangup.CauseCode, HungupBy: end.hangup.By, Outcome: end.outcome,
		StartedAt: c.startedAt, AgentAnsweredAt: c.agentAnsweredAt, AnsweredAt: c.answeredAt,
		BridgedAt: c.bridgedAt, EndedAt: end.at,
		RingMs: c.ringMs, TalkMs: c.talkMs, HoldMs: c.holdMs,
		Recording: m.recording, Recorded: c.recorded, Conference: m.inConf, Parked: c.parked, Digits: m.digits,
		Legs: make([]cti.Leg, len(c.legs)), Origin: c.origin, Inferred: end.inferred, Gaps: slices.Clone(m.gaps),
	}
	if m.transfer != nil {
		t := *m.transfer
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
	m := c.remember()
	if n := len(m.gaps); n > 0 {
		if last := &m.gaps[n-1]; n == maxGaps || p.From <= last.To {
			last.To = max(last.To, p.To)
			return
		}
	}
	m.gaps = append(m.gaps, cti.Gap{From: p.From, To: p.To, Reason: p.Reason})
}

// maxAliases is how many further ids a call is known by. Each of its CTI events
// has them all, so a switch that gives it ever new ones must not make them grow.
const maxAliases = 64

// isNewAlias reports whether a call that is known by aliases takes another.
func isNewAlias(aliases []string, id string) bool {
	return len(aliases) < maxAliases && !slices.Contains(aliases, id)
}

// addAlias notes a further id and returns whether it was new.
func (c *call) addAlias(id string) bool {
	if id == "" || id == c.id || !isNewAlias(c.more().aliases, id) {
		return false
	}
	m := c.remember()
	m.aliases = append(m.aliases, id)
	return true
}

// maxDigits is how many digits the panel of the reference shows.
const maxDigits = 20

func (c *call) addDigit(d string) {
	m := c.remember()
	m.digits += d
	if len(m.digits) > maxDigits {
		m.digits = m.digits[len(m.digits)-maxDigits:]
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
