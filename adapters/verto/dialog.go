package verto

import (
	"slices"
	"strings"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// transport is the SessionObservation.Transport of everything that comes from here.
const transport = "verto"

// dialogDestroyed is the state after the last one that is told.
const dialogDestroyed = "destroy"

// next are the transitions of section 7 of the protocol reference, with what the
// browser's table lacks: the reply to an invite may be overtaken by media, a
// refused answer can be given again, and what a lost socket leaves is detached.
var next = map[string][]string{
	events.DialogRequesting: {events.DialogTrying, events.DialogEarly, events.DialogActive},
	events.DialogTrying:     {events.DialogEarly, events.DialogActive},
	events.DialogEarly:      {events.DialogActive},
	events.DialogRinging:    {events.DialogAnswering},
	events.DialogAnswering:  {events.DialogActive, events.DialogHeld, events.DialogRinging, events.DialogDetached, events.DialogRecovering},
	events.DialogActive:     {events.DialogHeld, events.DialogDetached, events.DialogRecovering},
	events.DialogHeld:       {events.DialogActive, events.DialogDetached, events.DialogRecovering},
	events.DialogDetached:   {events.DialogRecovering},
	events.DialogRecovering: {events.DialogAnswering, events.DialogDetached, events.DialogRecovering},
	events.DialogHangup:     {dialogDestroyed},
}

// mayFollow reports whether a dialog may go from one state to another. Every
// living dialog may be hung up or destroyed.
func mayFollow(from, to string) bool {
	if from != events.DialogHangup && from != dialogDestroyed && (to == events.DialogHangup || to == dialogDestroyed) {
		return true
	}
	return slices.Contains(next[from], to)
}

// Change is a change of one dialog, in the words of the events.Dialog constants.
type Change struct {
	CallID    string
	From      string // empty for a dialog that is new
	To        string // "destroy" for one that is over
	Direction events.Direction
	Attempt   int
	Video     bool // the dialog has video and the phone takes it
	Cause     string
	CauseCode int
	By        string // "account", "other", or empty where nobody hung up
	Reason    string // of a destroyed one: an events.Session constant
}

// Observations is what the change says to the engine. At and Account are left to
// the caller.
func (c Change) Observations() []engine.SessionObservation {
	o := engine.SessionObservation{
		Session: c.CallID, Transport: transport, Direction: c.Direction, Attempt: c.Attempt,
		Cause: c.Cause, CauseCode: c.CauseCode,
	}
	switch {
	case c.From == "":
		o.Kind, o.State, o.Video = engine.SessionNew, c.To, c.Video
	case c.To == dialogDestroyed:
		o.Kind, o.By, o.Reason = engine.SessionEnded, c.By, c.Reason
	default:
		o.Kind, o.Layer, o.State = engine.SessionState, events.LayerDialog, c.To
	}
	if c.To == events.DialogActive && c.Video {
		return []engine.SessionObservation{o, {Kind: engine.SessionVideo, Session: c.CallID, Transport: transport, Attempt: c.Attempt}}
	}
	return []engine.SessionObservation{o}
}

// dialog is one call of the phone.
type dialog struct {
	Change // To is the state

	held     bool // also while it is detached or recovering
	over     bool // nothing follows but destroy
	norecov  bool // the loss of the socket ends it
	attached bool // offered again over the present socket
	unsure   bool // we hung up, and the socket was lost before the server said so
	failing  bool // whatever ends it, its media could not be made
}

// Who hung up, as SessionObservation.By.
const (
	byAccount = "account"
	byOther   = "other"
)

// hold takes the state that the server reports, whatever was asked.
func (c *dialog) hold(state string) Step {
	switch {
	case state == HoldStateHeld && c.To == events.DialogActive:
		c.held = true
		return c.to(events.DialogHeld)
	case state == HoldStateActive && c.To == events.DialogHeld:
		c.held = false
		return c.to(events.DialogActive)
	}
	return Step{}
}

func (c *dialog) begin(state string) Step {
	c.To = state
	return Step{Changes: []Change{c.Change}}
}

// to moves the dialog, or says why not.
func (c *dialog) to(state string) Step {
	if c == nil || c.over {
		return Step{Fault: state + " for a call that is not ours"}
	}
	if !mayFollow(c.To, state) {
		return Step{Fault: state + " after " + c.To}
	}
	c.From, c.To = c.To, state
	return Step{Changes: []Change{c.Change}}
}

// end marks the dialog as over. Where somebody hung up, that is a state; a lost
// or failed dialog has none.
func (c *dialog) end(reason string) Step {
	if c.over {
		return Step{}
	}
	var s Step
	if reason == events.SessionBye && c.To != events.DialogHangup {
		s = c.to(events.DialogHangup)
	}
	if c.failing {
		reason = events.SessionFailed
	}
	c.Reason, c.over = reason, true
	return s
}

// cause keeps a cause in the server's spelling, and what is missing of name and
// number.
func (c *dialog) cause(name string, code int) {
	name = strings.ReplaceAll(strings.TrimSpace(name), " ", "_")
	if name == "" && code > 0 {
		name = events.CauseText(code)
	}
	if code == 0 {
		code = events.CauseCode(name)
	}
	if name != "" {
		c.Cause, c.CauseCode = name, code
	}
}
