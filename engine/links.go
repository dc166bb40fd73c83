package engine

import (
	"cmp"
	"slices"
	"time"

	"github.com/callstate/callstate/events"
)

// link is what correlation knows of a connection to a PBX. A restart ends them all.
type link struct {
	pbx, login, domain, mode string

	down       events.Time // 0 while it is up
	compared   events.Time // last comparison that the PBX answered
	unanswered events.Time // since when it does not answer them; 0 while it does
	reason     string      // why it is down, or does not answer
}

// sees reports whether the link shows an account's calls.
func (l *link) sees(account string) bool {
	if l.mode == linkAccount {
		return l.login == account
	}
	_, domain := splitAccount(account)
	return l.domain == domain
}

// The modes of a link.
const (
	linkDomain  = "domain"
	linkAccount = "account"
)

// observeAgent records what is new of an account.
func (k *correlator) observeAgent(o *AgentObservation) {
	if o.Account == "" {
		return
	}
	if o.At != 0 {
		k.at, k.src = o.At, o.Clock
	}
	a := k.agent(o.Account)
	key := events.CallKey{Account: o.Account}
	same := a.state == o.State && a.status == o.Status && a.note == o.Note
	switch o.Kind {
	case AgentOnline:
		a.connection = k.in.Source.Connection
		if a.presence != presenceYes || o.State != "" && !same {
			k.emit(key, "", "", &events.AgentOnline{State: o.State, Status: o.Status, Note: o.Note})
		}
	case AgentOffline:
		if a.presence != presenceNo {
			k.emit(key, "", "", &events.AgentOffline{Reason: cmp.Or(o.Reason, "Offline")})
		}
	case AgentStatus:
		if !same || a.queue != o.Queue {
			k.emit(key, "", "", &events.AgentStateChanged{State: o.State, Status: o.Status, Note: o.Note, Queue: o.Queue})
		}
	}
}

// observeLink records that an adapter's connection came or went. What the agents
// of a lost connection do is not known any more: they are offline, as in the
// reference, unless another connection shows them.
func (k *correlator) observeLink(o *LinkObservation) {
	if o.At != 0 {
		k.at = o.At
	}
	switch o.Kind {
	case LinkUnanswered:
		if l := k.links[k.in.Source.Connection]; l != nil {
			l.unanswered, l.reason = firstTime(l.unanswered, k.at), o.Reason
		}
	case LinkResynced:
		k.emit(events.CallKey{}, "", "", &events.LinkResynced{Live: o.Live, Opened: o.Opened, Closed: o.Closed})
	case LinkSilent:
		k.gaps(k.in.Source.Connection, o.Since, gapSilent)
	case LinkUp:
		down := k.downSince(o)
		k.emit(events.CallKey{}, "", "", &events.LinkConnected{Login: o.Login, Mode: o.Mode, Accounts: o.Accounts})
		k.agentsGone(o)
		k.gaps(k.in.Source.Connection, down, gapDown)
	case LinkDown:
		k.agentsGone(o)
		k.emit(events.CallKey{}, "", "", &events.LinkDisconnected{Reason: o.Reason})
	}
}

func (k *correlator) agentsGone(o *LinkObservation) {
	for _, name := range k.unwatched(k.in.Source.Connection, o) {
		k.emit(events.CallKey{Account: name}, "", "", &events.AgentOffline{Reason: linkLost})
	}
}

// cutOff reports whether the connection that told of a waiting leg is gone and no
// other has been compared with since: whether there is such a leg the PBX will say.
func (k *correlator) cutOff(w *waitingLeg, account string) bool {
	if w.asked {
		return true
	}
	s := &w.inputs[0].Source
	if l := k.links[s.Connection]; l != nil && l.down == 0 || len(k.links) == 0 || s.Connection == "" {
		return false
	}
	for _, l := range k.links {
		if l.pbx == s.PBX && l.down == 0 && l.compared >= w.since && l.sees(account) {
			return false
		}
	}
	return true
}

// Reasons of call.gap.
const (
	gapDown   = "link-down"
	gapLate   = "found-late"
	gapSilent = "events-silent"
)

// downSince is when the connection before of the same login was lost; after a
// restart, when the log ended.
func (k *correlator) downSince(o *LinkObservation) events.Time {
	for _, l := range k.links {
		if l.pbx == k.in.Source.PBX && l.login == o.Login {
			return firstTime(l.down, k.in.ReceivedAt)
		}
	}
	return k.resumed
}

// gaps records, of each call that the connection shows and no other does, that
// nothing was told of it from a time until now. Of a call that had just ended the
// last words may be missing. 0 is no time.
func (k *correlator) gaps(conn string, from events.Time, reason string) {
	l := k.links[conn]
	if l == nil || from == 0 || from >= k.in.ReceivedAt {
		return
	}
	var about []*leg
	for name, a := range k.accounts {
		if !l.sees(name) || k.seenBesides(conn, name) {
			continue
		}
		for _, c := range slices.Concat(a.calls, a.over) {
			if i := slices.IndexFunc(c.legs, func(x *leg) bool { return !x.ended || x.more().goneAt >= from.Add(-lastWords) }); i >= 0 {
				about = append(about, c.legs[i])
			}
		}
	}
	slices.SortFunc(about, func(a, b *leg) int { return compareKeys(a.call.key(), b.call.key()) })
	for _, l := range about {
		if began := l.call.legs[0].since; began < k.in.ReceivedAt { // it may have begun in the gap
			k.emitCall(l, &events.CallGap{From: max(from, began), To: k.in.ReceivedAt, Reason: reason})
		}
	}
}

// foundLate records that the beginning of a call was not told.
func (k *correlator) foundLate(l *leg, o *LegObservation) {
	age := k.at.Sub(o.CreatedAt)
	if o.Kind == LegStated || o.Kind != LegCreated && k.src == events.TimeOfEvent && age >= foundLateAfter {
		k.emitCall(l, &events.CallGap{From: firstTime(o.CreatedAt, k.at), To: k.at, Reason: gapLate})
	}
}

const (
	// foundLateAfter is how old a call may be at its first frame, in milliseconds:
	// the first is lost while a subscription is not in force yet.
	foundLateAfter = 500
	// lastWords is for how long after its end a call is told of.
	lastWords = 5 * time.Second
)

// evolveLink is evolve for a connection that came or went. The one before of the
// same login is forgotten.
func (k *correlator) evolveLink(ev *events.Event) {
	conn, pbx := ev.Source.Connection, ev.Source.PBX
	switch p := ev.Payload.(type) {
	case *events.LinkConnected:
		for id, l := range k.links {
			if l.pbx == pbx && l.login == p.Login {
				delete(k.links, id)
			}
		}
		k.links[conn] = &link{pbx: pbx, login: p.Login, domain: ev.Domain, mode: p.Mode}
		if ev.Domain != "" {
			k.domains[ev.Domain] = true
		}
	case *events.LinkDisconnected:
		if l := k.links[conn]; l != nil {
			l.down, l.reason = ev.RecordedAt, p.Reason
		}
	}
}

// unwatched returns the agents that were online and of whom, by a connection's
// coming or going, that is not known any more.
func (k *correlator) unwatched(conn string, o *LinkObservation) []string {
	var gone []string
	l := k.links[conn]
	for name, a := range k.accounts {
		if a.presence != presenceYes {
			continue
		}
		_, domain := splitAccount(name)
		lost := o.Kind == LinkDown && (a.connection == conn || l != nil && l.sees(name))
		anew := o.Kind == LinkUp && a.connection != conn && domain == o.Domain && o.Mode == linkDomain
		if (lost || anew) && !k.seenBesides(conn, name) {
			gone = append(gone, name)
		}
	}
	slices.Sort(gone)
	return gone
}

// seenBesides reports whether another connection shows the account.
func (k *correlator) seenBesides(conn, account string) bool {
	for id, l := range k.links {
		if id != conn && l.down == 0 && l.sees(account) {
			return true
		}
	}
	return false
}

func (k *correlator) agent(account string) *agent {
	a := k.accounts[account]
	if a == nil {
		a = &agent{name: account}
		k.accounts[account] = a
	}
	return a
}

// call returns a call that is remembered, nil if there is none.
func (k *correlator) call(key events.CallKey) *callRef {
	a := k.accounts[key.Account]
	if a == nil {
		return nil
	}
	for _, calls := range [...][]*callRef{a.calls, a.over} {
		if i := slices.IndexFunc(calls, func(c *callRef) bool { return c.id == key.Call }); i >= 0 {
			return calls[i]
		}
	}
	return nil
}
