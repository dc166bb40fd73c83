package engine

import (
	"bytes"
	"strconv"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// Projection folds events into calls and lines and says which CTI events follow.
// It is a pure function of the events given to it, in order of position: no
// clock, no randomness, no I/O (I3). Events of different accounts do not touch
// each other, so that accounts may be dealt out to several projections.
//
// A Projection is not safe for concurrent use.
type Projection struct {
	logID    string
	accounts map[string]*account
	machine  *machine
	live     int
	position uint64      // of the last event folded
	started  events.Time // the latest start of a call so far
	// mute is the position up to which CTI events are counted and not made: they
	// were published, and only what follows is wanted.
	mute uint64

	// What one event gives is made here and then copied at its size.
	messages []Message
	text     []byte
}

// NewProjection returns an empty projection of the log with that id.
func NewProjection(logID string) *Projection {
	return &Projection{logID: logID, accounts: map[string]*account{}, machine: newMachine()}
}

// Live is the number of calls that have begun and not ended.
func (p *Projection) Live() int { return p.live }

// Apply folds one event.
func (p *Projection) Apply(ev *events.Event) Result {
	r := Result{Position: ev.Position, Account: ev.Account, CallID: ev.Call}
	p.position = ev.Position
	if ev.Account == "" {
		return r
	}
	a := p.accounts[ev.Account]
	if a == nil {
		_, domain := cti.SplitAccount(ev.Account)
		a = &account{name: ev.Account, domain: domain, calls: map[string]*call{}, flags: cti.Idle}
		p.accounts[ev.Account] = a
	}
	f := folding{p: p, a: a, ev: ev}
	if !f.foldRequest() {
		f.fold()
	}
	a.forget(ev.RecordedAt)
	if ev.Position <= p.mute {
		return r
	}
	r.Messages = append([]Message(nil), p.messages...)
	clear(p.messages)
	p.messages = p.messages[:0]
	r.Line, r.LineSeq = a.view(), a.lineSeq
	if c := a.calls[ev.Call]; c != nil {
		r.Seq = c.seq
		r.Call, r.Conversation = c.view(a.name, a.features(c)), c.conversation
	}
	return r
}

// folding is the fold of one event of one account.
type folding struct {
	p  *Projection
	a  *account
	ev *events.Event
}

// fold accepts every fact. What a fact means is decided in the methods below;
// whether the state may follow is the machine's judgement.
func (f *folding) fold() {
	if _, lost := f.ev.Payload.(*events.LogLost); lost {
		return // nobody knows what it was
	}
	if f.ev.Call == "" {
		f.foldAgent()
		return
	}
	c := f.a.calls[f.ev.Call]
	if n, ok := f.ev.Payload.(*events.CallNew); ok && c == nil {
		f.begin(n)
		return
	}
	if c == nil {
		return // forgotten: nothing follows from a fact this late
	}
	if f.ev.Conversation != "" {
		c.conversation = f.ev.Conversation
	}
	c.origin = f.ev.Origin
	f.foldCall(c)
}

func (f *folding) foldCall(c *call) {
	m, t := f.p.machine, f.ev.OccurredAt
	switch p := f.ev.Payload.(type) {
	case *events.CallAccepted:
		f.accepted(c, p)
	case *events.CallBridged:
		f.bridged(c, p)
	case *events.CallUnbridged:
		if l := c.leg(f.ev.Leg); l != nil && l.partner == p.Partner {
			l.partner = ""
		}
	case *events.CallHeld:
		if c.setHeld(m, f.ev.Leg, true, t) {
			f.emit(cti.Hold, c, cti.Arguments{})
			f.lineChanged()
		}
	case *events.CallUnheld:
		if c.setHeld(m, f.ev.Leg, false, t) {
			f.emit(cti.Unhold, c, cti.Arguments{})
			f.lineChanged()
		}
	case *events.CallDTMF:
		c.addDigit(p.Digit)
		f.emit(cti.DTMFEntered, c, cti.Arguments{Digits: p.Digit})
	case *events.CallPartiesChanged:
		if p.OtherLeg != "" {
			c.otherLeg = p.OtherLeg
		}
		old := c.parties
		c.parties = p.Parties
		if old.CallerNumber != p.Parties.CallerNumber || old.CalledNumber != p.Parties.CalledNumber {
			f.emit(cti.CallInfoChanged, c, cti.Arguments{})
		}
	case *events.CallUUIDChanged:
		if p.Reason == aliasRecord {
			c.remember().recording = p.Alias
		}
		if p.Reason == aliasLeg {
			c.rename(f.ev.Leg, p.Alias)
		}
		if c.addAlias(p.Alias) {
			f.emit(cti.CallAliased, c, cti.Arguments{Alias: p.Alias, AliasReason: p.Reason})
		}
	case *events.CallHungup:
		f.hungup(c, p)
	case *events.CallDetails:
		c.details(p)
		f.emit(cti.CallDetails, c, cti.Arguments{})
	case *events.CallLegAdded:
		l := c.legOrNew(f.ev.Leg)
		l.ended, l.cause = false, "" // it may have been thought gone
		f.stateFollows(c)
	case *events.CallLegRemoved:
		f.legRemoved(c, p)
	case *events.CallParked:
		c.parked = true
		f.emit(cti.CallParked, c, cti.Arguments{})
	case *events.CallUnparked:
		c.parked = false
		f.emit(cti.CallUnparked, c, cti.Arguments{})
	case *events.CallConferenceJoined:
		f.conference(c, true, p.Conference)
	case *events.CallConferenceLeft:
		f.conference(c, false, "")
	case *events.CallRecordingStarted, *events.CallRecordingStopped:
		c.recorded = true
	case *events.CallTransferred:
		f.transferred(c, cti.Transfer{Kind: p.Kind, Result: p.Result, Target: p.Target})
	case *events.CallReinstated:
		f.reinstated(c, p)
	case *events.CallGap:
		c.gap(p)
	default:
		f.foldSession(c)
	}
}

// transferred notes a transfer and says so, once: of a blind one the PBX's answer
// and the switch's event tell the same.
func (f *folding) transferred(c *call, t cti.Transfer) {
	m := c.remember()
	again := m.transfer != nil && *m.transfer == t
	m.transfer = &t
	if !c.live() && c.ended().inferred == "" {
		c.ending().outcome = outcome(c)
	}
	if !again {
		f.emit(cti.CallTransferred, c, cti.Arguments{Transfer: &t})
	}
}

func (f *folding) begin(p *events.CallNew) {
	a, ev := f.a, f.ev
	c := &call{id: ev.Call, conversation: ev.Conversation, origin: ev.Origin}
	c.begin(f.p.machine, ev, p)
	f.p.started = max(f.p.started, c.startedAt)
	a.calls[c.id] = c
	f.p.live++
	consult, waits := a.place(c, p)
	if consult {
		f.lineNames(a.calls[a.active])
	}
	f.emit(cti.CallStarted, c, cti.Arguments{})
	if !waits {
		f.lineNames(c)
	}
	f.agentChanged()
}

// accepted: for a click-to-call it is the account's own device that picked up,
// which connects nobody (quirk Q4).
func (f *folding) accepted(c *call, p *events.CallAccepted) {
	c.legOrNew(f.ev.Leg).answered = true
	t := firstTime(p.AnsweredAt, f.ev.OccurredAt)
	if c.callback && !c.connected {
		c.agentAnsweredAt = t
		c.move(f.p.machine, triggerAgentAnswer, t)
		f.emit(cti.AgentAnswered, c, cti.Arguments{})
		f.stateFollows(c) // of several devices another may be primary for it
		return
	}
	f.connected(c, triggerAnswer, t)
}

// connected raises what follows when the two parties can talk.
func (f *folding) connected(c *call, trigger string, t events.Time) {
	if !c.live() {
		return
	}
	if !c.connect(f.p.machine, trigger, t) {
		f.stateFollows(c) // another leg may be primary for it
		return
	}
	c.follow(f.p.machine, t)
	f.emit(cti.CommutationStarted, c, cti.Arguments{})
	if f.a.isWaiting(c.id) {
		f.a.promote(c.id)
		f.emit(cti.CurrentCallChanged, c, cti.Arguments{})
	}
	f.lineChanged()
}

func (a *account) isWaiting(id string) bool {
	return id != a.active && id != a.second
}

func (f *folding) bridged(c *call, p *events.CallBridged) {
	l := c.legOrNew(f.ev.Leg)
	l.partner = p.Partner
	if c.primary() == l {
		c.otherLeg = p.Partner
	}
	if !c.live() {
		return
	}
	switch {
	case c.callback:
		f.connected(c, triggerBridge, f.ev.OccurredAt)
	case c.connected:
		c.move(f.p.machine, triggerBridge, f.ev.OccurredAt)
	}
	// A partner before the answer connects nobody: the answer is on its way.
	if c.bridgedAt == 0 {
		c.bridgedAt = f.ev.OccurredAt
	}
	c.bridged = true
	f.emit(cti.CallInfoChanged, c, cti.Arguments{})
	f.lineChanged()
}

func (f *folding) hungup(c *call, p *events.CallHungup) {
	if !c.hungup(f.p.machine, f.ev, p) {
		return
	}
	a := f.a
	f.p.live--
	a.ended = append(a.ended, c.id)
	promoted, consulted := a.leave(c.id)
	if active := a.calls[a.active]; consulted && active != nil {
		f.emit(cti.CurrentCallChanged, active, cti.Arguments{})
	}
	f.emit(cti.CallFinished, c, cti.Arguments{})
	if pc := a.calls[promoted]; promoted != "" && pc != nil {
		f.emit(cti.CurrentCallChanged, pc, cti.Arguments{})
	}
	if a.offline != "" && a.liveCalls() == 0 {
		f.disconnected(a.offline)
	} else {
		f.lineChanged()
	}
	f.agentChanged()
}

func (f *folding) legRemoved(c *call, p *events.CallLegRemoved) {
	l := c.legOrNew(f.ev.Leg)
	l.ended, l.cause, l.partner = true, p.Cause, ""
	if l.inConf {
		l.inConf = false
		c.joins(false, "")
	}
	f.stateFollows(c)
	if n := c.primary(); n != nil && n != l && n.partner != "" {
		c.otherLeg = n.partner
	}
}

// stateFollows publishes what the leg that is primary now says, where the former
// said something else.
func (f *folding) stateFollows(c *call) {
	if !c.follow(f.p.machine, f.ev.OccurredAt) {
		return
	}
	switch {
	case c.state() == stateHeld:
		f.emit(cti.Hold, c, cti.Arguments{})
	case c.oldState() == stateHeld:
		f.emit(cti.Unhold, c, cti.Arguments{})
	default:
		f.emit(cti.CallInfoChanged, c, cti.Arguments{})
	}
	f.lineChanged()
}

func (f *folding) conference(c *call, in bool, name string) {
	if in {
		f.connected(c, triggerAnswer, f.ev.OccurredAt) // a conference is company
	}
	c.legOrNew(f.ev.Leg).inConf = in
	c.joins(in, name)
	if !in {
		f.stateFollows(c)
		return
	}
	if c.move(f.p.machine, triggerJoin, f.ev.OccurredAt) {
		f.emit(cti.CallInfoChanged, c, cti.Arguments{})
		f.lineChanged()
	}
}

func (f *folding) reinstated(c *call, p *events.CallReinstated) {
	if !c.reinstate(f.p.machine, f.ev) {
		return
	}
	a := f.a
	f.p.live++
	for i, id := range a.ended {
		if id == c.id {
			a.ended = append(a.ended[:i:i], a.ended[i+1:]...)
			break
		}
	}
	if a.active == "" {
		a.active = c.id
	} else {
		a.waiting = append(a.waiting, c.id)
	}
	f.emit(cti.CallReinstated, c, cti.Arguments{Reason: p.Reason})
	f.lineChanged()
	f.agentChanged()
}

func (f *folding) foldAgent() {
	a := f.a
	switch p := f.ev.Payload.(type) {
	case *events.AgentOnline:
		a.presence = presenceYes
		if p.State != "" {
			a.userState, a.status, a.note = p.State, p.Status, p.Note
		}
		f.initialize()
	case *events.AgentOffline:
		a.presence = presenceNo
		if a.connected == presenceNo {
			break
		}
		// A lost socket is said at once; an agent who leaves with a call up is
		// disconnected when the call ends (reference/cti-model.md, section 9).
		if a.liveCalls() == 0 || p.Reason == linkLost {
			f.disconnected(p.Reason)
		} else {
			a.offline = p.Reason
		}
	case *events.AgentStateChanged:
		a.userState, a.status, a.note = p.State, p.Status, p.Note
		f.initialize()
	case *events.WebRTCRegistered:
		a.webPhone = true
	case *events.WebRTCUnregistered:
		a.webPhone = false
	}
	f.agentChanged()
}

// linkLost is the reason of agent.offline when our own connection went, in the
// reference's word.
const linkLost = "Disconnected"

// initialize raises initialized for an agent who is online, was not connected,
// and has a device.
func (f *folding) initialize() {
	a := f.a
	a.offline = ""
	if a.presence != presenceYes || a.connected == presenceYes || a.effectiveState() == cti.AgentNotReg {
		return
	}
	a.connected = presenceYes
	a.flags = a.lineFlags()
	f.emit(cti.Initialized, nil, cti.Arguments{})
}

func (f *folding) disconnected(reason string) {
	f.a.connected, f.a.offline = presenceNo, ""
	f.a.flags = f.a.lineFlags()
	f.emit(cti.Disconnected, nil, cti.Arguments{Reason: reason})
}

// agentChanged publishes the agent's state if it is another one now.
func (f *folding) agentChanged() {
	s := f.a.effectiveState()
	if s == f.a.agentState {
		return
	}
	f.a.agentState = s
	f.emit(cti.AgentStateChanged, nil, cti.Arguments{UserState: s, UserNote: f.a.note})
}

// lineChanged publishes the line's flags if they changed.
func (f *folding) lineChanged() {
	flags := f.a.lineFlags()
	if flags == f.a.flags {
		return
	}
	f.a.flags = flags
	f.emit(cti.LineStateChanged, nil, cti.Arguments{CallFeaturesSet: f.flags(flags)})
}

// lineNames publishes the line's flags with the name of the call that begins on
// it, also when they are what they were.
func (f *folding) lineNames(c *call) {
	f.a.flags = f.a.lineFlags()
	f.emit(cti.LineStateChanged, c, cti.Arguments{CallFeaturesSet: f.flags(f.a.features(c)), FeaturesCallID: c.id})
}

// flags are an argument of what is published; nothing is made where nothing is.
func (f *folding) flags(v cti.Features) *cti.Features {
	if f.ev.Position <= f.p.mute {
		return nil
	}
	return &v
}

// emit adds one CTI event. A nil call is an event about the line.
func (f *folding) emit(name cti.Name, c *call, args cti.Arguments) {
	a := f.a
	a.lineSeq++
	if f.ev.Position <= f.p.mute {
		if c != nil {
			c.seq++
		}
		return
	}
	e := cti.Event{
		Event: name, Position: f.ev.Position, LineSeq: a.lineSeq, Time: f.ev.OccurredAt,
		Domain: a.domain, Account: a.name, Line: a.view(), Arguments: args,
	}
	if c != nil {
		c.seq++
		e.Seq, e.CallID, e.Conversation = c.seq, c.id, c.conversation
		e.Call = c.view(a.name, a.features(c))
	}
	p := f.p
	p.text = append(p.text[:0], p.logID...)
	p.text = strconv.AppendUint(append(p.text, '.'), f.ev.Position, 10)
	p.text = strconv.AppendInt(append(p.text, '.'), int64(len(p.messages)), 10)
	id := string(p.text)
	p.text = cti.AppendEvent(p.text[:0], &e)
	p.messages = append(p.messages, Message{ID: id, Event: e, Payload: bytes.Clone(p.text)})
}
