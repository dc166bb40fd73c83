package engine

import (
	"cmp"
	"slices"

	"github.com/callstate/callstate/events"
)

// Reasons of call.uuid-changed.
const (
	aliasLeg    = "leg-renamed" // the switch gave the leg another id
	aliasRecord = "record"      // under this id the call's record and recording are found
	aliasCallID = "call-id"     // the call id proper came after the call had to be named
)

// Reasons of an inferred end.
const (
	inferredRestart = "switch-restarted"     // the switch was started again and knows nothing of it
	inferredAbsent  = "absent-from-snapshot" // the switch, asked, has no such leg
)

// aliveReason is why an inferred end is withdrawn.
const aliveReason = "seen-alive"

// observeLeg decides what a frame about a leg means.
func (k *correlator) observeLeg(o *LegObservation) disposition {
	l := k.legs[o.Leg]
	switch {
	case l != nil && k.repeated(l):
		return dispDuplicate
	case o.Kind == LegAbsent:
		k.absent(l)
		return dispNoOp
	case l == nil && o.Kind == LegRenamed:
		k.rename(o)
		return dispNoOp
	case l == nil && o.Ending && !o.Vars:
		return dispNoOp // a state after the leg was gone must not bring it back
	case l == nil && !o.Vars && o.Kind != LegCreated:
		return k.wait(o)
	}
	if l != nil && o.Asked != 0 && l.heard >= o.Asked {
		return dispNoOp // frames came while the switch was being asked: they may be newer than what it says
	}
	unknown := l == nil
	if w := k.waiting[o.Leg]; w != nil && l == nil {
		// The leg begins with this frame, though those that waited came before it.
		l = k.begin(o)
		k.awaitedSeen(l) // now, and not at the time of a frame that waited
		in, at, src, n := k.in, k.at, k.src, k.n
		k.settle(o.Leg, -1)
		k.in, k.at, k.src, k.n = in, at, src, n
	} else if l == nil {
		l = k.begin(o)
	}
	if unknown && o.Kind == LegStated && o.TransferStamp != "" {
		l.remember().stamp = o.TransferStamp // who heard the leg then was not seen
	}
	k.note(l)
	k.awaitedSeen(l)
	if l.call == nil && !l.ended && (o.Vars || o.Kind == LegCreated) && k.accountOf(o.Presence) != "" {
		k.adopt(l, o)
	}
	if l.ended && !k.revive(l, o) {
		return k.late(l, o)
	}
	k.catchUp(l, o)
	k.transferSeen(l, o)
	k.fact(l, o)
	return dispNoOp
}

// awaitedSeen bridges a leg with one that was bridged with it before it was seen.
func (k *correlator) awaitedSeen(l *leg) {
	if p := k.legs[l.more().awaitedBy]; p != nil && p.partner == l.id {
		k.bridge(l.id, p.id)
	}
}

// observeCore ends what a switch carried that has been started again: nobody
// will send the hangups (reference/captures/freeswitch/README.md, point 17).
func (k *correlator) observeCore() {
	s := &k.in.Source
	if s.Core == "" {
		return
	}
	c := k.cores[switchOf(s)]
	switch {
	case c == nil:
		k.newCore(s, k.at)
	case c.id == s.Core:
		if k.in.Leg != nil {
			c.lastSeen = max(c.lastSeen, k.at)
		}
	case slices.Contains(c.former, s.Core): // a straggler of the former run
	default:
		k.closeCore(switchOf(s), c)
	}
}

func (k *correlator) closeCore(sw string, c *core) {
	old := *c // the events of its end already name the new one
	var lost []*leg
	for _, l := range k.legs {
		if l.home.core == old.id && l.home.sw == sw && !l.ended {
			lost = append(lost, l)
		}
	}
	for id, w := range k.waiting {
		if s := &w.inputs[0].Source; s.Core == old.id && switchOf(s) == sw {
			k.drop(id) // nobody will tell which call it was
		}
	}
	slices.SortFunc(lost, func(a, b *leg) int { return cmp.Compare(a.id, b.id) })
	at, src, origin := k.at, k.src, k.in.Origin
	// The switch died at some moment after its last frame; that is all we know.
	k.at, k.in.Origin = old.lastSeen, events.Resync
	for _, l := range lost {
		k.end(l, events.Hangup{}, old.lastSeen, inferredRestart, nil)
	}
	k.at, k.src, k.in.Origin = at, src, origin
	k.evolveCore(&k.in.Source, k.at)
}

// switchOf names a switch: two PBXs may have given theirs the same name.
func switchOf(s *events.Source) string {
	if s.PBX == "" {
		return s.Switch
	}
	return s.PBX + " " + s.Switch
}

// repeated reports whether the frame was seen before, and remembers it.
func (k *correlator) repeated(l *leg) bool {
	s := &k.in.Source
	switch {
	case s.Core != "" && s.Sequence != 0:
		c := k.cores[switchOf(s)]
		return c != nil && c.id == s.Core && c.seen.has(s.Sequence)
	case s.Path == events.PathAccount && l.onServer && k.in.Leg.Kind == LegDTMF:
		return true // the server path has told this digit, and states repeat themselves
	}
	return false
}

// note remembers the frame and the way it came. A channel that a switch recovers
// when it is started again keeps its id and counts anew.
func (k *correlator) note(l *leg) {
	s := &k.in.Source
	l.heard = k.in.ReceivedAt
	if s.Core == "" {
		return
	}
	c := k.cores[switchOf(s)]
	present := c != nil && c.id == s.Core // not a straggler of a former run
	if l.home.core == "" || l.home.core != s.Core && present {
		k.movedTo(l, s)
	}
	if present && s.Sequence != 0 {
		c.seen.add(s.Sequence)
	}
	l.onServer = true
}

// wait keeps a frame that does not say to which call its leg belongs.
func (k *correlator) wait(o *LegObservation) disposition {
	w := k.waiting[o.Leg]
	if w == nil {
		w = &waitingLeg{since: k.now} // not the frame's time: clocks jump
		k.waiting[o.Leg] = w
	}
	s := &k.in.Source
	for i := range w.inputs {
		if x := &w.inputs[i].Source; s.Core != "" && s.Sequence != 0 && x.Core == s.Core && x.Sequence == s.Sequence {
			return dispDuplicate
		}
	}
	if len(w.inputs) == maxWaiting {
		k.count(&w.inputs[0], dispNoOp)
		w.inputs = slices.Delete(w.inputs, 0, 1)
	}
	w.inputs = append(w.inputs, *k.in)
	return dispWaiting
}

// begin names a leg at first sight: a call's, or a trunk's.
func (k *correlator) begin(o *LegObservation) *leg {
	if account := k.accountOf(o.Presence); account != "" {
		return k.beginCall(account, o)
	}
	conv := k.conversationFor(cmp.Or(o.ChannelCall, o.Leg))
	k.emit(events.CallKey{}, o.Leg, conv, &events.LegNew{
		Presence: o.Presence, Destination: o.Destination, OtherLeg: o.OtherLeg,
		Parties:    parties(o, trunkDirection(o), ""),
		Discovered: o.Kind != LegCreated, Channel: o.Channel, StartedAt: o.CreatedAt,
	})
	return k.legs[o.Leg]
}

func trunkDirection(o *LegObservation) events.Direction {
	if o.Inbound {
		return events.Out // it calls the switch, as an account's own phone does
	}
	return events.In
}

// adopt gives a leg that was taken for a trunk's to the account that it turns
// out to be of: its first frames had no presence id.
func (k *correlator) adopt(l *leg, o *LegObservation) {
	onServer := l.onServer
	n := k.beginCall(k.accountOf(o.Presence), o)
	n.onServer = onServer
	*l = *n
	k.legs[l.id] = l
	for i, x := range l.call.legs {
		if x == n {
			l.call.legs[i] = l
		}
	}
}

// beginCall emits call.new, or call.leg-added where the call lives already.
func (k *correlator) beginCall(account string, o *LegObservation) *leg {
	base := cmp.Or(o.CallGroup, o.ChannelCall, o.Leg)
	if c := k.liveCall(account, base); c != nil {
		conv := c.legs[0].conv.root().id
		k.emit(c.key(), o.Leg, conv, &events.CallLegAdded{OtherLeg: cmp.Or(o.OtherLeg, o.OriginatingLeg), Channel: o.Channel})
		k.joinSession(k.legs[o.Leg])
		k.inferSession(k.legs[o.Leg], o)
		return k.legs[o.Leg]
	}
	p := &events.CallNew{
		OtherLeg: cmp.Or(o.OtherLeg, o.OriginatingLeg), Parent: o.Parent, Queue: o.Queue, Data: o.Data,
		Discovered: o.Kind != LegCreated, StartedAt: o.CreatedAt, Channel: o.Channel,
	}
	p.Direction, p.Callback = direction(o)
	p.Parties = update(events.Parties{}, parties(o, p.Direction, account))
	p.Answerable = k.rules.Answerable == nil || k.rules.Answerable(account)
	p.Refused = k.rules.RejectSecond && p.Direction == events.In && len(k.agent(account).calls) > 0
	conv := k.conversationFor(cmp.Or(o.ChannelCall, o.Leg))
	if parent := k.parentCall(account, o.Parent); parent != nil {
		p.ParentCall = parent.id
		conv = k.merge(conv, parent.legs[0].conv.root().id)
	}
	k.emit(k.freeKey(account, base), o.Leg, conv, p)
	l := k.legs[o.Leg]
	k.foundLate(l, o)
	k.joinSession(l)
	k.inferSession(l, o)
	return l
}

// direction is fixed when the call begins (client quirk 18). A leg that the
// switch placed for a click-to-call is out, whatever the switch calls it.
func direction(o *LegObservation) (dir events.Direction, callback bool) {
	switch {
	case o.OriginateNumber != "":
		return events.Out, true
	case o.LogicalInbound:
		return events.Out, false
	default:
		return events.In, false
	}
}

// late handles a frame of a leg that has ended: the details of the end, and the
// outcome of a transfer, may still come.
func (k *correlator) late(l *leg, o *LegObservation) disposition {
	k.transferSeen(l, o)
	if (o.Kind == LegDetails || o.Kind == LegDestroyed) && (o.HasTimes || o.HungupAt != 0) && !l.more().detailed {
		k.details(l, o)
	}
	return dispNoOp
}

// catchUp records what earlier frames would have told, had they arrived, and
// what changed of the parties.
func (k *correlator) catchUp(l *leg, o *LegObservation) {
	if !l.answered && o.AnsweredAt != 0 && o.Kind != LegAnswered {
		k.answered(l, o)
	}
	c := l.call
	if c == nil {
		return
	}
	if o.BridgedTo != "" && l.answered && l.partner == "" && l.more().last == "" && o.Kind != LegBridged {
		k.bridge(l.id, o.BridgedTo) // the bridge itself was missed
	}
	if o.CallGroup != "" && o.CallGroup != c.id && isNewAlias(c.more().aliases, o.CallGroup) && !isRepeatOf(c.id, o.CallGroup) {
		k.emitCall(l, &events.CallUUIDChanged{Alias: o.CallGroup, Reason: aliasCallID})
	}
	k.inferSession(l, o)
	if !o.Profiled || o.Ending || c.primaryLeg() != l || c.callback && !o.HitDialplan {
		return
	}
	p := update(c.parties, parties(o, wayOf(c.inbound), c.agent.name))
	if p != c.parties {
		k.emitCall(l, &events.CallPartiesChanged{Parties: p, OtherLeg: o.OtherLeg})
	}
}

// fact records what the frame itself tells.
func (k *correlator) fact(l *leg, o *LegObservation) {
	switch o.Kind {
	case LegAnswered:
		if !l.answered {
			k.answered(l, o)
		}
	case LegBridged:
		a, b := cmp.Or(o.BridgeA, o.Leg), cmp.Or(o.BridgeB, o.OtherLeg)
		k.bridge(a, b)
		k.bridge(b, a)
	case LegUnbridged:
		a, b := cmp.Or(o.BridgeA, o.Leg), cmp.Or(o.BridgeB, o.OtherLeg)
		k.unbridge(a, b)
		k.unbridge(b, a)
	case LegHeld:
		k.hold(l, true)
	case LegUnheld:
		k.hold(l, false)
	case LegDTMF:
		k.digit(l, o)
	case LegHungup:
		k.hungup(l, o)
	case LegDetails, LegDestroyed:
		k.hungup(l, o) // the hangup itself was missed
		if (o.HasTimes || o.HungupAt != 0) && !l.more().detailed {
			k.details(l, o)
		}
	case LegParked, LegUnparked:
		k.park(l, o.Kind == LegParked)
	case LegConferenceJoined, LegConferenceLeft:
		k.conference(l, o)
	case LegRecordingStarted, LegRecordingStopped:
		k.recorded(l, o)
	case LegStated:
		if o.Ending {
			k.hungup(l, o)
		} else {
			k.stated(l, o)
		}
	case LegSeen, LegCreated, LegRenamed, LegAbsent:
	}
}

// answered records an answer. A called leg that is answered with a known partner
// is bridged by that: the switch raises BRIDGE on the other leg only.
func (k *correlator) answered(l *leg, o *LegObservation) {
	if l.call == nil {
		k.emitLeg(l, &events.LegAnswered{AnsweredAt: o.AnsweredAt})
		return
	}
	c := l.call
	k.emitCall(l, &events.CallAccepted{AnsweredAt: o.AnsweredAt})
	if id := recordID(c, l, o); id != "" {
		k.alias(l, id)
	}
	if !c.inbound {
		return
	}
	partner := cmp.Or(o.OtherLeg, l.otherLeg, o.OriginatingLeg)
	if partner == "" && o.Queue != "" {
		partner = o.QueueMember
	}
	if partner != "" && l.partner != partner {
		k.bridgeCall(l, partner, true)
	}
}

// recordID is the id under which the call's record and recording are found: the
// cdr id of the client semantics, section 6 (quirks 13 to 16).
func recordID(c *callRef, l *leg, o *LegObservation) string {
	if !c.inbound {
		return l.id
	}
	id := cmp.Or(o.OriginatingLeg, o.OtherLeg, o.QueueMember, o.ChannelCall)
	if id == l.id {
		return ""
	}
	return id
}

func (k *correlator) alias(l *leg, id string) {
	if id != l.call.id && !slices.Contains(l.call.more().aliases, id) {
		k.emitCall(l, &events.CallUUIDChanged{Alias: id, Reason: aliasRecord})
	}
}

// bridge records, for one of the two legs, that it hears the other.
func (k *correlator) bridge(id, partner string) {
	l := k.legs[id]
	if l == nil || l.ended || partner == "" || l.partner == partner {
		return
	}
	if l.call == nil {
		k.emitLeg(l, &events.LegBridged{Partner: partner})
		k.join(l, partner)
		return
	}
	if l.call.inbound && !l.answered && l.otherLeg == partner {
		return // its answer, which is on its way, says so
	}
	k.bridgeCall(l, partner, false)
}

func (k *correlator) bridgeCall(l *leg, partner string, implied bool) {
	k.join(l, partner)
	p := &events.CallBridged{Partner: partner, Implied: implied}
	if o := k.legs[partner]; o != nil && o.call != nil {
		p.PartnerAccount = o.call.agent.name
	}
	k.emitCall(l, p)
}

// join makes one conversation of two legs' that hear each other.
func (k *correlator) join(l *leg, partner string) {
	if o := k.legs[partner]; o != nil && o.conv.root() != l.conv.root() {
		k.merge(l.conv.root().id, o.conv.root().id)
	}
}

func (k *correlator) unbridge(id, partner string) {
	l := k.legs[id]
	if l == nil || l.ended || partner == "" || l.partner != partner {
		return
	}
	if l.call == nil {
		k.emitLeg(l, &events.LegUnbridged{Partner: partner})
		return
	}
	k.emitCall(l, &events.CallUnbridged{Partner: partner})
}

// hold records hold and retrieval. The UNHOLD in the tear-down of a confirmed
// transfer is none (client quirk 9).
func (k *correlator) hold(l *leg, held bool) {
	if l.held == held || !held && k.in.Leg.TransferResult == transferConfirmed {
		return
	}
	switch {
	case l.call == nil && held:
		k.emitLeg(l, &events.LegHeld{})
	case l.call == nil:
		k.emitLeg(l, &events.LegUnheld{})
	case held:
		k.emitCall(l, &events.CallHeld{})
	default:
		k.emitCall(l, &events.CallUnheld{})
	}
}

func (k *correlator) digit(l *leg, o *LegObservation) {
	if l.call == nil {
		k.emitLeg(l, &events.LegDTMF{Digit: o.Digit, Via: o.DigitVia})
		return
	}
	k.emitCall(l, &events.CallDTMF{Digit: o.Digit, DurationMs: o.DigitMs, Via: o.DigitVia})
}

func (k *correlator) park(l *leg, parked bool) {
	if l.more().parked == parked {
		return
	}
	switch {
	case l.call == nil && parked:
		k.emitLeg(l, &events.LegParked{})
	case l.call == nil:
		k.emitLeg(l, &events.LegUnparked{})
	case parked:
		k.emitCall(l, &events.CallParked{})
	default:
		k.emitCall(l, &events.CallUnparked{})
	}
}

func (k *correlator) conference(l *leg, o *LegObservation) {
	in := o.Kind == LegConferenceJoined
	if l.call == nil || l.more().conference == in {
		return
	}
	if in {
		k.emitCall(l, &events.CallConferenceJoined{Conference: o.Conference})
	} else {
		k.emitCall(l, &events.CallConferenceLeft{Conference: o.Conference})
	}
}

// recorded records a recording of the leg, or of the call whose partner the leg
// is: the switch records the leg that it was told to, which is often the trunk.
func (k *correlator) recorded(l *leg, o *LegObservation) {
	started := o.Kind == LegRecordingStarted
	if l.recording == started {
		return
	}
	about := l
	if p := k.legs[l.partner]; l.call == nil && p != nil && !p.ended {
		about = p
	}
	l.recording = started
	switch {
	case about.call == nil:
	case started:
		k.emitCall(about, &events.CallRecordingStarted{Recording: o.Recording})
	default:
		k.emitCall(about, &events.CallRecordingStopped{Recording: o.Recording, DurationMs: o.RecordMs})
	}
}

// hungup ends a leg by what the switch said.
func (k *correlator) hungup(l *leg, o *LegObservation) {
	h := events.Hangup{Cause: o.Cause, CauseCode: o.CauseCode, By: hungupBy(o.Disposition), Disposition: o.Disposition}
	if h.CauseCode == 0 {
		h.CauseCode = events.CauseQ850(h.Cause)
	}
	k.end(l, h, firstTime(o.HungupAt, k.at), "", o)
}

// end ends a leg and, if it was the last, the call. o is nil where nobody sent
// the end.
func (k *correlator) end(l *leg, h events.Hangup, at events.Time, inferred string, o *LegObservation) {
	c := l.call
	if c == nil {
		k.emitLeg(l, &events.LegHungup{Hangup: h, Inferred: inferred, EndedAt: at})
		return
	}
	k.legEnds(l, &h, inferred != "")
	if c.alive() > 1 {
		k.emitCall(l, &events.CallLegRemoved{Hangup: h, Inferred: inferred})
		return
	}
	if o != nil && h.Cause != "LOSE_RACE" && !l.answered {
		if id := recordID(c, l, o); id != "" {
			k.alias(l, id)
		}
	}
	// The device that answered tells how the call ended, though another lingered.
	if w := c.winner(); w != nil && w != l && !l.answered {
		h = w.more().hangup
	}
	p := &events.CallHungup{Hangup: h, Inferred: inferred, EndedAt: at}
	if o != nil {
		p.BillSec, p.HasBillSec = o.BillSec, o.HasBillSec
	}
	k.emitCall(l, p)
}

// hungupBy reads from FreeSWITCH's disposition which side ended the leg: what it
// received came from the leg's own party.
func hungupBy(disposition string) string {
	switch {
	case disposition == "":
		return ""
	case len(disposition) > 5 && disposition[:5] == "recv_":
		return "account"
	case len(disposition) > 5 && disposition[:5] == "send_":
		return "other"
	default:
		return ""
	}
}

// details records what is known after the end: of a call's deciding leg only.
func (k *correlator) details(l *leg, o *LegObservation) {
	if l.call == nil || !l.call.ended || l.call.primaryLeg() != l {
		return
	}
	h := events.Hangup{Cause: o.Cause, CauseCode: o.CauseCode, By: hungupBy(o.Disposition), Disposition: o.Disposition}
	if h.CauseCode == 0 {
		h.CauseCode = events.CauseQ850(h.Cause)
	}
	p := &events.CallDetails{Hangup: h, WaitMs: o.WaitMs, BillMs: o.BillMs, HoldMs: o.HoldMs}
	if o.HungupAt != l.more().endedAt {
		p.EndedAt = o.HungupAt
	}
	k.emitCall(l, p)
}

// rename gives a known leg its new id.
func (k *correlator) rename(o *LegObservation) {
	l := k.legs[o.OldLeg]
	switch {
	case l == nil || o.OldLeg == "" || o.OldLeg == o.Leg:
	case l.call == nil:
		ev := k.emitLeg(l, &events.LegUUIDChanged{Old: o.OldLeg})
		ev.Leg = o.Leg
		k.relabel(l, o.Leg)
		k.note(l)
	default:
		k.emitCall(l, &events.CallUUIDChanged{Alias: o.Leg, Reason: aliasLeg})
		k.note(l)
	}
}
