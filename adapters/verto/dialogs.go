package verto

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/callstate/callstate/events"
)

// Dialogs follows one phone's conversation with its server: from the frames of
// both directions, and the loss of sockets, it knows the state of every dialog.
// It is pure: no clock, no socket, and the same frames give the same changes,
// live and from a recording. The zero value is ready.
//
// A dialog that is over stays until [Dialogs.Destroy], so that its owner can tell
// the last of it.
type Dialogs struct {
	// TakesVideo says that the phone shows video where a dialog has it. It is for
	// recordings: a [Phone] tells of video when it comes.
	TakesVideo bool

	calls      map[string]*dialog
	asked      map[string]asked // by the id of our request, until its answer
	byes       []string         // the last calls that ended over the present socket
	registered bool
	punted     bool
}

// maxByes is how many of those are remembered. It is for a verto.attach that was
// on its way when the call ended.
const maxByes = 32

// maxDialogs is how many calls a phone takes at once: what a server offers beyond is
// not taken, since each has a goroutine and keeps its description of up to a
// megabyte until the server ends it.
const maxDialogs = 128

// asked is a request of ours that waits for its answer.
type asked struct {
	method string
	callID string
}

// Step is what a frame or a loss did.
type Step struct {
	Changes    []Change
	Registered bool   // the phone is signed in now
	Lost       string // and no longer: an events.Session constant
	Fault      string // what the server did against the protocol; the state was kept
}

// Sent takes a frame that the phone sends.
func (d *Dialogs) Sent(f *Frame) Step {
	if f.Kind != KindRequest {
		return Step{}
	}
	var s Step
	ask := asked{method: f.Method}
	if f.Method != MethodLogin && ParamsOf(f.Method, false) != nil {
		var p CallRequest
		if err := Read(f.Params, &p); err != nil {
			return Step{Fault: err.Error()}
		}
		ask.callID = p.Dialog.CallID
		if f.Method == MethodInvite && d.calls[ask.callID] != nil {
			ask.callID = "" // its refusal leaves the call of that id alone
		} else {
			s = d.sentRequest(f.Method, &p)
		}
	}
	switch f.Method {
	case MethodLogin, MethodInvite, MethodAnswer, MethodAttach, MethodModify, MethodBye: // whose answer says something
		if d.asked == nil {
			d.asked = make(map[string]asked)
		}
		d.asked[string(f.ID)] = ask
	}
	return s
}

func (d *Dialogs) sentRequest(method string, p *CallRequest) Step {
	c := d.calls[p.Dialog.CallID]
	switch method {
	case MethodInvite:
		if p.Dialog.CallID == "" {
			return Step{}
		}
		c = d.open(p.Dialog.CallID, events.Out, p.SDP)
		c.norecov = p.Dialog.RecoverCall != nil && !*p.Dialog.RecoverCall
		return c.begin(events.DialogRequesting)
	case MethodAnswer, MethodAttach:
		return c.to(events.DialogAnswering)
	case MethodBye:
		if c == nil || c.To == events.DialogHangup {
			return Step{}
		}
		c.By = byAccount
		// What is no cause of the server's is none: it then goes by the number.
		if events.CauseCode(p.Cause) == 0 {
			p.Cause = ""
		}
		c.cause(p.Cause, int(p.CauseCode))
		if c.Cause == "" {
			c.cause("NORMAL_CLEARING", 0)
		}
		return c.to(events.DialogHangup)
	}
	return Step{}
}

// Received takes a frame of the server.
func (d *Dialogs) Received(f *Frame) Step {
	switch f.Kind {
	case KindRequest:
		return d.request(f)
	case KindResult, KindError:
		ask, ok := d.asked[string(f.ID)]
		if !ok {
			return Step{}
		}
		delete(d.asked, string(f.ID))
		if f.Kind == KindError {
			return d.refused(ask, f.Error)
		}
		return d.answered(ask, f.Result)
	}
	return Step{}
}

// request takes a request of the server.
func (d *Dialogs) request(f *Frame) Step {
	switch f.Method {
	case MethodPunt:
		d.punted = true
		return Step{}
	case MethodInvite, MethodMedia, MethodAnswer, MethodBye, MethodAttach:
	default:
		return Step{}
	}
	var p Call
	if err := Read(f.Params, &p); err != nil {
		return Step{Fault: err.Error()}
	}
	if p.CallID == "" {
		return Step{Fault: f.Method + " without callID"}
	}
	if n := len(p.CallID); n > events.MaxID {
		return Step{Fault: fmt.Sprintf("%s with a callID of %d bytes", f.Method, n)}
	}
	c := d.calls[p.CallID]
	if offered := f.Method == MethodInvite || f.Method == MethodAttach; offered && c == nil && len(d.calls) >= maxDialogs {
		return Step{Fault: fmt.Sprintf("%s beyond %d calls", f.Method, maxDialogs)}
	}
	switch f.Method {
	case MethodInvite:
		if c != nil {
			return Step{Fault: "verto.invite for a call that exists"}
		}
		return d.open(p.CallID, events.In, p.SDP).begin(events.DialogRinging)
	case MethodMedia:
		return c.to(events.DialogEarly)
	case MethodAnswer:
		return c.to(events.DialogActive)
	case MethodAttach:
		return d.attach(c, &p)
	default:
		if c == nil {
			return Step{}
		}
		if c.To == events.DialogHangup { // the byes crossed
			return c.end(events.SessionBye)
		}
		c.By = byOther
		c.cause(p.Cause, int(p.CauseCode))
		return c.end(events.SessionBye)
	}
}

// attach takes a call that the server offers again. One that is unknown is of
// the time before our start.
func (d *Dialogs) attach(c *dialog, p *Call) Step {
	if c != nil && c.unsure && !c.over { // to be hung up again
		c.attached = true
		return Step{}
	}
	if c != nil {
		if c.over || !mayFollow(c.To, events.DialogRecovering) {
			return c.to(events.DialogRecovering)
		}
		c.Attempt++
		c.attached = true
		return c.to(events.DialogRecovering)
	}
	if slices.Contains(d.byes, p.CallID) {
		return Step{Fault: "verto.attach after the call's end"}
	}
	dir := events.Out
	if p.DisplayDirection == DisplayOutbound {
		dir = events.In
	}
	c = d.open(p.CallID, dir, p.SDP)
	c.attached = true
	return c.begin(events.DialogRecovering)
}

// answered takes the result of a request of ours.
func (d *Dialogs) answered(ask asked, result json.RawMessage) Step {
	if ask.method == MethodLogin {
		was := d.registered
		d.registered = true
		return Step{Registered: !was}
	}
	c := d.calls[ask.callID]
	if c == nil {
		return Step{}
	}
	var r CallResult
	if err := Read(result, &r); err != nil {
		return Step{Fault: err.Error()}
	}
	switch ask.method {
	case MethodInvite:
		if c.To != events.DialogRequesting { // media, the answer or a bye came first
			return Step{}
		}
		return c.to(events.DialogTrying)
	case MethodAnswer, MethodAttach:
		if c.To != events.DialogAnswering { // a bye crossed
			return Step{}
		}
		if c.held {
			return c.to(events.DialogHeld)
		}
		return c.to(events.DialogActive)
	case MethodModify:
		return c.hold(r.HoldState)
	case MethodBye:
		c.cause(r.Cause, int(r.CauseCode))
		return c.end(events.SessionBye)
	}
	return Step{}
}

// refused takes the refusal of a request of ours.
func (d *Dialogs) refused(ask asked, e *Error) Step {
	if ask.method == MethodLogin {
		if d.registered || !errors.Is(e, ErrCredentials) {
			return Step{} // a refused repetition leaves the phone signed in
		}
		return Step{Lost: events.SessionAuthFailed}
	}
	c := d.calls[ask.callID]
	if c == nil || c.over {
		return Step{}
	}
	switch ask.method {
	case MethodInvite, MethodAttach:
		c.cause(e.Cause, int(e.CauseCode))
		return c.end(events.SessionFailed)
	case MethodAnswer:
		if errors.Is(e, ErrCodec) {
			return c.to(events.DialogRinging)
		}
		return c.end(events.SessionFailed)
	case MethodBye:
		return c.end(events.SessionBye) // it was gone before
	}
	return Step{}
}

// Settled ends what the server did not offer again over the present socket. It is
// for the time after verto.clientReady: builds differ in whether all verto.attach
// come before it, and in whether it comes at all.
func (d *Dialogs) Settled() Step {
	var s Step
	for _, c := range d.sorted() {
		switch {
		case c.attached || c.over:
		case c.unsure:
			s.add(c.end(events.SessionBye))
		case c.To == events.DialogDetached:
			s.add(c.end(events.SessionNotReattached))
		}
	}
	return s
}

// Disconnected takes the loss of the socket, for one of the reasons of events.
// Calls that were answered are kept by the server for a while; all others it ends.
func (d *Dialogs) Disconnected(reason string) Step {
	if d.punted {
		reason, d.punted = events.SessionDisplaced, false
	}
	var s Step
	if d.registered {
		d.registered = false
		s.Lost = reason
	}
	clear(d.asked)
	d.byes = nil
	for _, c := range d.sorted() {
		c.attached = false
		switch {
		case c.over:
		case reason == events.SessionDisplaced:
			s.add(c.end(events.SessionDisplaced))
		case c.To == events.DialogHangup:
			c.unsure = true
		case c.To == events.DialogDetached:
		case mayFollow(c.To, events.DialogDetached) && !c.norecov:
			s.add(c.to(events.DialogDetached))
		default:
			s.add(c.end(events.SessionSocketLost))
		}
	}
	return s
}

// Fail ends a dialog whose media could not be made, or that was not taken up again
// in time.
func (d *Dialogs) Fail(callID, reason string) Step {
	c := d.calls[callID]
	if c == nil || c.over {
		return Step{}
	}
	return c.end(reason)
}

// Failing says that a dialog ends since its media could not be made, also where the
// server answers our bye first.
func (d *Dialogs) Failing(callID string) Step {
	if c := d.calls[callID]; c != nil {
		c.failing = true
	}
	return Step{}
}

// Destroy removes a dialog that is over.
func (d *Dialogs) Destroy(callID string) Step {
	c := d.calls[callID]
	if c == nil || !c.over {
		return Step{}
	}
	delete(d.calls, callID)
	if c.Reason == events.SessionBye {
		d.byes = append(d.byes[max(0, len(d.byes)+1-maxByes):], callID)
	}
	ch := c.Change
	ch.From, ch.To = c.To, dialogDestroyed
	return Step{Changes: []Change{ch}}
}

// Over returns the dialogs that wait for Destroy.
func (d *Dialogs) Over() []string {
	var over []string
	for _, c := range d.sorted() {
		if c.over {
			over = append(over, c.CallID)
		}
	}
	return over
}

// State returns the state of a dialog, empty where there is none, and whether it
// is over.
func (d *Dialogs) State(callID string) (state string, over bool) {
	if c := d.calls[callID]; c != nil {
		return c.To, c.over
	}
	return "", false
}

func (d *Dialogs) sorted() []*dialog {
	return slices.SortedFunc(maps.Values(d.calls), func(a, b *dialog) int { return strings.Compare(a.CallID, b.CallID) })
}

func (d *Dialogs) open(callID string, dir events.Direction, sdp string) *dialog {
	c := &dialog{Change: Change{CallID: callID, Direction: dir, Video: d.TakesVideo && offersVideo(sdp)}}
	if d.calls == nil {
		d.calls = make(map[string]*dialog)
	}
	d.calls[callID] = c
	return c
}

func (s *Step) add(t Step) {
	s.Changes = append(s.Changes, t.Changes...)
	if s.Fault == "" {
		s.Fault = t.Fault
	}
}
