package engine

import (
	"github.com/callstate/callstate/events"
)

// onLeg sends a command about the call's own leg to whoever can do it: the web
// phone that holds its session, else the PBX.
func (g *planning) onLeg(c *call, cmd Command) error {
	leg, err := g.leg(c)
	if err != nil {
		return err
	}
	cmd.Leg = leg
	if s := c.sessionOf(leg); s != nil {
		cmd.Leg, cmd.Phone = s.Session, true
	}
	g.send(cmd)
	return nil
}

// planCall: an account with a web phone calls with it (reference/cti-model.md,
// section 5).
func planCall(g *planning) error {
	if g.web && !g.a.webPhone {
		return refuse(VerdictNoSession, "the account's web phone is not signed in")
	}
	g.send(Command{Action: ActionCall, Target: g.r.Target, Phone: g.web})
	return nil
}

// planAnswer answers a ringing session; the PBX cannot (quirk Q24).
func planAnswer(g *planning) error {
	for i := range g.c.legs {
		l := &g.c.legs[i]
		if s := g.c.sessionOf(l.id); s != nil && !l.ended && s.State == events.DialogRinging {
			g.send(Command{Action: ActionAnswer, Leg: s.Session, Phone: true, Video: g.r.Active})
			g.proof = g.happened(func(p events.Payload) bool { _, ok := p.(*events.CallAccepted); return ok })
			return nil
		}
	}
	return refuse(VerdictNoSession, "only a web phone's session can answer, and none of the account's rings")
}

func planVideo(g *planning) error {
	leg, err := g.leg(g.c)
	if err != nil {
		return err
	}
	s := g.c.sessionOf(leg)
	if s == nil {
		return refuse(VerdictNoSession, "only a web phone's session has video, and the call has none")
	}
	g.send(Command{Action: ActionVideo, Leg: s.Session, Phone: true, Video: g.r.Active})
	return nil
}

// planDrop ends every leg of the call, each with a command of its own. A web
// phone that has not answered rejects.
func planDrop(g *planning) error {
	for i := range g.c.legs {
		l := &g.c.legs[i]
		if l.ended {
			continue
		}
		c := Command{Action: ActionHangup, Leg: l.id}
		if s := g.c.sessionOf(l.id); s != nil {
			c.Leg, c.Phone = s.Session, true
			if s.State == events.DialogRinging {
				c.Cause = "CALL_REJECTED"
			}
		}
		g.send(c)
	}
	if len(g.commands) == 0 {
		return refuse(VerdictNoChannel, "call %s has no live leg", g.c.id)
	}
	return nil
}
