package engine

import (
	"cmp"
	"slices"

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
	case LinkUp:
		k.emit(events.CallKey{}, "", "", &events.LinkConnected{Login: o.Login, Mode: o.Mode, Accounts: o.Accounts})
		k.agentsGone(o)
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
		a = &agent{}
		k.accounts[account] = a
	}
	return a
}
