package engine

import (
	"slices"
	"strings"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// stateOnHook is ready; the others that can be set say why not.
var settableStates = []string{cti.AgentOnHook, "ONBREAK", "CALLFORWARD", "VOICEMAIL", "DND"}

// planState sets an agent's state: upper-cased; NONREG signs out, and any other
// state of an agent who is signed out signs in first (quirk Q22: once, and then
// the status event is waited for).
func planState(g *planning) error {
	state := strings.ToUpper(g.r.State)
	switch {
	case state == cti.AgentNotReg:
		if g.a.liveCalls() > 0 {
			return refuse(VerdictNotAllowed, "the line has a call")
		}
		g.send(Command{Action: ActionLogout})
		g.proof = g.presence(func(p events.Payload) bool { _, ok := p.(*events.AgentOffline); return ok })
	case !slices.Contains(settableStates, state):
		return refuse(VerdictBadArgument, "state %q: want %s or %s", g.r.State, strings.Join(settableStates, ", "), cti.AgentNotReg)
	case g.a.connected == presenceNo:
		g.send(Command{Action: ActionLogin})
		g.proof = g.presence(func(p events.Payload) bool { _, ok := p.(*events.AgentOnline); return ok })
		if state != cti.AgentOnHook {
			g.then(Command{Action: ActionStatus, State: state, Note: g.r.Note})
		}
	default:
		note := g.r.Note
		if state == cti.AgentOnHook {
			note = ""
		}
		g.send(Command{Action: ActionStatus, State: state, Note: note})
	}
	return nil
}

// then adds a command that follows the proof of those before.
func (g *planning) then(c Command) {
	proof := g.proof
	g.proof = nil
	c.after = proof
	g.send(c)
}

func (g *planning) presence(is func(events.Payload) bool) func(*events.Event) bool {
	account := g.a.name
	return func(ev *events.Event) bool { return ev.Account == account && is(ev.Payload) }
}

// planWrapUp is after-call work: the reference leaves it to the connector, and
// Webitel has no state of its own for it, so it is a break and its end.
func planWrapUp(g *planning) error {
	if g.r.Active {
		g.send(Command{Action: ActionStatus, State: "ONBREAK", Note: "wrap-up"})
	} else {
		g.send(Command{Action: ActionStatus, State: cti.AgentOnHook})
	}
	return nil
}

// planCallCentre signs an agent in to the queues, or out. The PBX can do that
// for the account of the connection alone.
func planCallCentre(g *planning) error {
	if g.r.Active {
		g.send(Command{Action: ActionQueueLogin})
	} else {
		g.send(Command{Action: ActionQueueLogout})
	}
	return nil
}

func planLink(action Action) func(*planning) error {
	return func(g *planning) error {
		if action == ActionDisconnect && g.a.liveCalls() > 0 {
			return refuse(VerdictNotAllowed, "the line has a call")
		}
		g.send(Command{Action: action})
		return nil
	}
}
