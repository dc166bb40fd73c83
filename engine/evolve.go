package engine

import (
	"cmp"
	"maps"
	"slices"

	"github.com/callstate/callstate/events"
)

// evolve is how an event changes what correlation knows. It is applied to the
// events that are emitted and, after a restart, to those of the log.
func (k *correlator) evolve(ev *events.Event) {
	if ev.RecordedAt > k.now {
		k.now = ev.RecordedAt
	}
	k.evolveCore(&ev.Source, ev.OccurredAt)
	switch p := ev.Payload.(type) {
	case *events.CallNew:
		k.newCall(ev, p)
		return
	case *events.CallLegAdded:
		c := k.call(ev.Key())
		if l := k.legs[ev.Leg]; l != nil && l.call == c {
			k.alive(l)
		} else if c != nil {
			k.newLeg(ev, c).otherLeg = p.OtherLeg
		}
		return
	case *events.LegNew:
		k.newLeg(ev, nil).otherLeg = p.OtherLeg
		return
	case *events.ConversationMerged:
		k.mergeInto(p.From, p.Into, ev.OccurredAt)
		return
	case *events.LegUUIDChanged:
		k.relabel(k.legs[p.Old], ev.Leg)
		return
	case *events.LinkConnected, *events.LinkDisconnected:
		k.evolveLink(ev)
		return
	}
	if k.evolveSession(ev) {
		return
	}
	if ev.Account != "" && ev.Call == "" {
		k.evolveAgent(ev)
		return
	}
	if l := k.legs[ev.Leg]; l != nil {
		l.heard = ev.RecordedAt
		k.evolveLeg(l, ev)
	}
}

// evolveCore notes which run of a switch the event came from.
func (k *correlator) evolveCore(s *events.Source, at events.Time) {
	if s.Core == "" {
		return
	}
	c := k.cores[switchOf(s)]
	switch {
	case c == nil:
		k.newCore(s, at)
	case c.id == s.Core:
		c.lastSeen = max(c.lastSeen, at)
	case !slices.Contains(c.former, s.Core):
		c.former = append(c.former[max(0, len(c.former)+1-maxFormer):], c.id)
		c.id, c.seen = s.Core, seqWindow{}
		clear(k.homes) // of the former run no more are needed
	}
}

// How many switches are known, and how many former runs of each: far more than
// there are, so that a PBX that makes names up does not fill the memory with them.
const (
	maxCores  = 256
	maxFormer = 64
)

// newCore notes a switch, in the place of the one that was not heard of for longest
// where there are too many.
func (k *correlator) newCore(s *events.Source, at events.Time) {
	if len(k.cores) >= maxCores {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(k.cores)), func(a, b string) int {
			return cmp.Or(cmp.Compare(k.cores[a].lastSeen, k.cores[b].lastSeen), cmp.Compare(a, b))
		})
		delete(k.cores, oldest)
		clear(k.homes)
	}
	k.cores[switchOf(s)] = &core{id: s.Core, lastSeen: at}
}

func (k *correlator) newCall(ev *events.Event, p *events.CallNew) {
	a := k.agent(ev.Account)
	c := &callRef{agent: a, id: ev.Call, inbound: p.Direction == events.In, callback: p.Callback, parties: p.Parties}
	if p.ParentCall != "" {
		c.remember().parent = p.ParentCall
	}
	a.calls = append(a.calls, c)
	k.newLeg(ev, c).otherLeg = p.OtherLeg
}

func (k *correlator) newLeg(ev *events.Event, c *callRef) *leg {
	l := &leg{id: ev.Leg, call: c, conv: k.conversation(ev.Conversation, ev.OccurredAt), since: ev.RecordedAt}
	var at home
	if s := &ev.Source; s.Core != "" {
		at.core, at.sw, l.onServer = s.Core, switchOf(s), true
	}
	if c == nil {
		at.domain = ev.Domain
	}
	l.home = k.home(at)
	l.conv.root().legs++
	if old := k.legs[l.id]; old != nil {
		k.discard(old) // it was taken for a trunk's, or is one of long ago
	}
	k.legs[l.id] = l
	if by := k.awaited[l.id]; by != "" {
		l.remember().awaitedBy = by
		delete(k.awaited, l.id)
	}
	if c != nil {
		c.legs = append(c.legs, l)
	}
	return l
}

// home returns the one home that is like h.
func (k *correlator) home(h home) *home {
	known := k.homes[h]
	if known == nil {
		known = &h
		k.homes[h] = known
	}
	return known
}

// movedTo notes which run of a switch a leg is of by now.
func (k *correlator) movedTo(l *leg, s *events.Source) {
	l.home = k.home(home{core: s.Core, sw: switchOf(s), domain: l.home.domain})
}

func (k *correlator) evolveAgent(ev *events.Event) {
	a := k.agent(ev.Account)
	switch p := ev.Payload.(type) {
	case *events.AgentOnline:
		a.presence, a.connection = presenceYes, ev.Source.Connection
		if p.State != "" {
			a.state, a.status, a.note = p.State, p.Status, p.Note
		}
	case *events.AgentOffline:
		a.presence, a.connection = presenceNo, ""
	case *events.AgentStateChanged:
		a.state, a.status, a.note, a.queue = p.State, p.Status, p.Note, p.Queue
	}
}

func (k *correlator) evolveLeg(l *leg, ev *events.Event) {
	switch p := ev.Payload.(type) {
	case *events.CallAccepted, *events.LegAnswered:
		l.answered = true
	case *events.CallBridged:
		l.bridgedWith(p.Partner)
		k.await(l)
	case *events.LegBridged:
		l.bridgedWith(p.Partner)
		k.await(l)
	case *events.CallUnbridged, *events.LegUnbridged:
		l.bridgedWith("")
	case *events.CallHeld, *events.LegHeld:
		l.held = true
	case *events.CallUnheld, *events.LegUnheld:
		l.held = false
	case *events.CallParked, *events.LegParked:
		l.remember().parked = true
	case *events.CallUnparked, *events.LegUnparked:
		l.remember().parked = false
	case *events.CallConferenceJoined:
		l.remember().conference = true
	case *events.CallConferenceLeft:
		l.remember().conference = false
	case *events.CallRecordingStarted:
		l.recording = true
	case *events.CallRecordingStopped:
		l.recording = false
	case *events.LegHungup:
		k.legGone(l, p.Hangup, p.EndedAt, p.Inferred, ev)
	case *events.CallLegRemoved:
		k.legGone(l, p.Hangup, ev.OccurredAt, p.Inferred, ev)
	case *events.CallDetails:
		l.remember().detailed = true
	default:
		k.evolveCall(l, ev)
	}
}

func (k *correlator) evolveCall(l *leg, ev *events.Event) {
	c := l.call
	if c == nil {
		return
	}
	switch p := ev.Payload.(type) {
	case *events.CallPartiesChanged:
		c.parties = p.Parties
		if p.OtherLeg != "" {
			l.otherLeg = p.OtherLeg
		}
	case *events.CallUUIDChanged:
		if m := c.remember(); isNewAlias(m.aliases, p.Alias) {
			m.aliases = append(m.aliases, p.Alias)
		}
		if p.Reason == aliasLeg {
			k.relabel(l, p.Alias)
		}
	case *events.CallTransferred:
		c.remember().transferred = p.Result
	case *events.CallHungup:
		k.legGone(l, p.Hangup, p.EndedAt, p.Inferred, ev)
		if !c.ended {
			c.ended = true
			c.agent.calls, c.agent.over = moved(c, c.agent.calls, c.agent.over)
		}
	case *events.CallReinstated:
		if s := &ev.Source; s.Core != "" {
			k.movedTo(l, s)
		}
		k.alive(l)
		if c.ended {
			c.ended = false
			c.agent.over, c.agent.calls = moved(c, c.agent.over, c.agent.calls)
		}
	}
}

// moved takes a call out of one list and puts it at the end of another.
func moved(c *callRef, from, to []*callRef) (without, with []*callRef) {
	return slices.DeleteFunc(from, func(x *callRef) bool { return x == c }), append(to, c)
}

// bridgedWith sets the partner and remembers the one before.
func (l *leg) bridgedWith(partner string) {
	if l.partner != "" && l.partner != partner {
		l.remember().last = l.partner
	}
	l.hears(partner)
	if l.rare == nil {
		return
	}
	if l.rare.awaitedBy = ""; *l.rare == noMore {
		l.rare = nil
	}
}

// hears sets the partner. That the one before was not seen yet stays noted.
func (l *leg) hears(partner string) {
	if l.unseen && l.partner != partner {
		l.remember().awaits, l.unseen = l.partner, false
	}
	l.partner = partner
}

// await notes a partner that was not seen yet: its first frame is on its way, or
// it is a leg that is never shown.
func (k *correlator) await(l *leg) {
	if k.legs[l.partner] == nil {
		k.awaitNoMore(l)
		l.unseen = true
		k.awaited[l.partner] = l.id
	}
}

func (k *correlator) awaitNoMore(l *leg) {
	awaits := l.awaiting()
	if awaits == "" {
		return
	}
	if k.awaited[awaits] == l.id { // not what another waits for by now
		delete(k.awaited, awaits)
	}
	l.unseen = false
	if l.rare != nil {
		l.rare.awaits = ""
	}
}

func (k *correlator) legGone(l *leg, h events.Hangup, at events.Time, inferred string, ev *events.Event) {
	l.bridgedWith("")
	k.awaitNoMore(l) // an unseen partner is often never shown
	m := l.remember()
	if m.goneAt != 0 { // it was thought gone before
		same := func(x *leg) bool { return x == l }
		k.gone, k.doubtful = slices.DeleteFunc(k.gone, same), slices.DeleteFunc(k.doubtful, same)
	}
	l.ended, m.inferred = true, inferred != ""
	m.hangup, m.endedAt, m.goneAt = h, firstTime(at, ev.OccurredAt), k.now
	if m.inferred {
		k.doubtful = append(k.doubtful, l)
	} else {
		k.gone = append(k.gone, l)
	}
}

// alive takes an inferred end back. A session that was inferred ended with it.
func (k *correlator) alive(l *leg) {
	l.ended = false
	if l.rare != nil {
		l.rare.inferred = false
	}
	if k.sessions[l.sessionID()] == nil {
		l.holds("")
	}
}

func (k *correlator) relabel(l *leg, id string) {
	if l == nil {
		return
	}
	old := l.id
	delete(k.legs, old)
	if l.webPhone {
		l.webPhone, l.remember().session = false, old
	}
	l.id = id
	k.legs[id] = l
	if s := k.sessions[l.sessionID()]; s != nil && s.leg == old {
		s.leg = id
	}
	if awaits := l.awaiting(); k.awaited[awaits] == old {
		k.awaited[awaits] = id
	}
	for _, x := range k.legs { // those who hear it hear it under its new id
		if x.partner == old {
			x.hears(id)
		}
		if x.more().last == old {
			x.remember().last = id
		}
	}
}

// conversationFor returns the id of the conversation that a Channel-Call-UUID
// belongs to by now.
func (k *correlator) conversationFor(id string) string {
	if c := k.convs[id]; c != nil {
		return c.id
	}
	return id
}

// conversation returns the conversation with that id, which is made if unknown.
func (k *correlator) conversation(id string, since events.Time) *conversation {
	c := k.convs[id]
	if c == nil {
		c = &conversation{id: id, since: since}
		k.convs[id] = c
	}
	return c
}

// merge emits that two conversations are one and returns the one that survives:
// the older.
func (k *correlator) merge(a, b string) string {
	if a == b {
		return a
	}
	from, into := k.conversation(a, k.at), k.conversation(b, k.at)
	if from == into {
		return into.id
	}
	if from.since < into.since || from.since == into.since && from.id < into.id {
		from, into = into, from
	}
	k.emit(events.CallKey{}, "", into.id, &events.ConversationMerged{From: from.id, Into: into.id})
	return into.id
}

func (k *correlator) mergeInto(fromID, intoID string, at events.Time) {
	from, into := k.conversation(fromID, at), k.conversation(intoID, at)
	if from == into {
		return
	}
	into.legs += from.legs
	into.since = min(into.since, from.since)
	ids := from.ids()
	for _, id := range ids {
		k.convs[id] = into
	}
	if into.merge == nil {
		into.merge = &merge{}
	}
	into.merge.ids = append(into.merge.ids, ids...)
	from.merge = &merge{into: into}
}

// discard forgets a leg, and its call and conversation with the last of them.
func (k *correlator) discard(l *leg) {
	k.awaitNoMore(l)
	delete(k.legs, l.id)
	k.release(l.conv)
	if c := l.call; c != nil {
		c.legs = slices.DeleteFunc(c.legs, func(x *leg) bool { return x == l })
		if len(c.legs) == 0 && c.ended {
			c.agent.over = slices.DeleteFunc(c.agent.over, func(x *callRef) bool { return x == c })
		}
	}
}

// release takes a leg out of its conversation, which is forgotten with the last.
func (k *correlator) release(c *conversation) {
	r := c.root()
	if r.legs--; r.legs > 0 {
		return
	}
	for _, id := range r.ids() {
		if k.convs[id] == r {
			delete(k.convs, id)
		}
	}
}

// root is the conversation that c has become part of.
func (c *conversation) root() *conversation {
	for c.merge != nil && c.merge.into != nil {
		c = c.merge.into
	}
	return c
}
