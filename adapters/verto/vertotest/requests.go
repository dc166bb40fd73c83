package vertotest

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/callstate/callstate/adapters/verto"
	"github.com/callstate/callstate/events"
)

// errMedia marks a description that FreeSWITCH would have taken and pion did not.
var errMedia = errors.New("the media could not be set up")

var errNoCall = sessionError("CALL DOES NOT EXIST")

// inDialog reads the params of a request about a call.
func inDialog(fn func(*socket, *verto.Frame, *verto.CallRequest)) func(*socket, *verto.Frame) bool {
	return func(k *socket, f *verto.Frame) bool {
		var p verto.CallRequest
		switch err := verto.Read(f.Params, &p); {
		case err != nil:
			k.refuse(f.ID, errInvalidRequest)
		case p.Dialog.CallID == "":
			k.refuse(f.ID, sessionError("CallID missing"))
		default:
			fn(k, f, &p)
		}
		return true
	}
}

// legOf returns the socket's live leg with that callID, nil if it has none.
func (k *socket) legOf(callID string) *Leg {
	l := k.s.Leg(callID)
	if l == nil || l.sessid != k.sessionID() {
		return nil
	}
	return l
}

func callError(cause string) verto.Error {
	e := sessionError("CALL ERROR")
	e.Cause, e.CauseCode = cause, verto.Number(events.CauseCode(cause))
	return e
}

func (k *socket) invite(f *verto.Frame, p *verto.CallRequest) {
	if p.SDP == "" {
		k.refuse(f.ID, callError("INVALID_MSG_UNSPECIFIED"))
		return
	}
	s := k.s
	l := s.newLeg(p.Dialog.CallID, k.loggedIn().Login, k.sessionID())
	l.placed, l.invited = true, *p
	if l.invited.Dialog.DestinationNumber == "" {
		l.invited.Dialog.DestinationNumber = "service"
	}
	l.party = verto.Call{
		CallerIDName: p.Dialog.CallerIDName, CallerIDNumber: p.Dialog.CallerIDNumber, DisplayDirection: "inbound",
	}
	if !s.add(l) {
		k.refuse(f.ID, callError("DESTINATION_OUT_OF_ORDER"))
		return
	}
	k.reply(f, &verto.CallResult{Message: verto.MessageCallCreated, CallID: l.id, SessID: l.sessid})
	l.tell(Invited, "")
	s.run(l.proceed)
}

// proceed does with a client's call what the dialplan says.
func (l *Leg) proceed() {
	if o, err := readOffered(l.invited.SDP); err != nil {
		l.end("INCOMPATIBLE_DESTINATION", false)
		return
	} else if _, err := choose(o.codecs, l.s.opts.Codecs); err != nil {
		l.end("INCOMPATIBLE_DESTINATION", false)
		return
	}
	r := l.s.opts.Dialplan(l)
	l.mu.Lock()
	l.route, l.far = r, r.Far
	if r.Bridged {
		l.party.CalleeIDName, l.party.CalleeIDNumber = "Outbound Call", l.Destination()
	}
	l.mu.Unlock()
	if r.Early {
		l.Early()
	}
	switch {
	case r.Ring < 0:
		return
	case !l.s.sleep(r.Ring, l.ended):
		return
	case r.Cause != "":
		l.Hangup(r.Cause)
	default:
		l.Answer()
	}
}

func (k *socket) answer(f *verto.Frame, p *verto.CallRequest) {
	l := k.legOf(p.Dialog.CallID)
	if l == nil || l.placed {
		k.refuse(f.ID, errNoCall)
		return
	}
	if p.SDP == "" {
		k.refuse(f.ID, sessionError("SDP missing"))
		return
	}
	l.tell(Answering, "")
	if l.refusals.Add(-1) >= 0 {
		k.refuse(f.ID, sessionError("CODEC ERROR"))
		return
	}
	l.mu.Lock()
	if l.state != Ringing {
		over := l.state == Over
		l.mu.Unlock()
		if over {
			k.refuse(f.ID, errNoCall)
		} else {
			k.refuse(f.ID, callError("WRONG_CALL_STATE"))
		}
		return
	}
	err := l.acceptLocked(p.SDP)
	if err == nil {
		l.state = Up
		if p.Dialog.CalleeIDName != "" {
			l.party.CalleeIDName = p.Dialog.CalleeIDName
		}
		if p.Dialog.CalleeIDNumber != "" {
			l.party.CalleeIDNumber = p.Dialog.CalleeIDNumber
		}
		l.flowLocked()
	}
	l.mu.Unlock()
	switch {
	case errors.Is(err, errMedia):
		k.refuse(f.ID, sessionError("MEDIA ERROR"))
		l.end("DESTINATION_OUT_OF_ORDER", false)
		return
	case err != nil:
		k.refuse(f.ID, sessionError("CODEC ERROR"))
		return
	}
	k.reply(f, &verto.CallResult{SessID: l.sessid})
	close(l.answered)
	l.tell(Answered, "")
	for _, other := range l.race {
		if other != l {
			other.Hangup("LOSE_RACE")
		}
	}
	l.introduce()
}

func (k *socket) attach(f *verto.Frame, p *verto.CallRequest) {
	l := k.legOf(p.Dialog.CallID)
	if l == nil {
		k.refuse(f.ID, errNoCall)
		return
	}
	l.tell(Recovering, "")
	l.mu.Lock()
	switch {
	case l.state == Over:
		l.mu.Unlock()
		k.refuse(f.ID, errNoCall)
		return
	case l.state != Up:
		l.mu.Unlock()
		k.refuse(f.ID, sessionError("Cannot attach to a call that has not been answered."))
		l.end("DESTINATION_OUT_OF_ORDER", false)
		return
	case l.detached == nil:
		l.mu.Unlock()
		k.refuse(f.ID, sessionError("CALL ERROR"))
		return
	}
	err := l.acceptLocked(p.SDP)
	if err == nil {
		close(l.detached)
		l.detached = nil
		l.flowLocked()
	}
	l.mu.Unlock()
	if err != nil {
		k.refuse(f.ID, sessionError("CODEC ERROR"))
		l.end("BEARERCAPABILITY_NOTAVAIL", false)
		return
	}
	k.reply(f, &verto.CallResult{SessID: l.sessid})
	l.tell(Reattached, "")
	l.display()
}

func (k *socket) bye(f *verto.Frame, p *verto.CallRequest) {
	cause := "NORMAL_CLEARING"
	if text := events.CauseText(int(p.CauseCode)); text != "" && p.CauseCode != 0 {
		cause = text
	}
	if events.CauseCode(p.Cause) != 0 {
		cause = p.Cause
	}
	l := k.legOf(p.Dialog.CallID)
	if l == nil || !l.end(cause, true) {
		e := errNoCall
		e.CallID = p.Dialog.CallID
		k.refuse(f.ID, e)
		return
	}
	for _, other := range l.race {
		other.Hangup("ORIGINATOR_CANCEL")
	}
	k.reply(f, &verto.CallResult{
		CallID: l.id, Message: verto.MessageCallEnded, SessID: l.sessid,
		CauseCode: verto.Number(events.CauseCode(cause)), Cause: cause,
	})
}

func (k *socket) modify(f *verto.Frame, p *verto.CallRequest) {
	result := &verto.CallResult{CallID: p.Dialog.CallID, Action: p.Action, SessID: k.sessionID()}
	refusal, after := "CALL DOES NOT EXIST", func() {}
	l := k.legOf(p.Dialog.CallID)
	if l != nil {
		refusal, after = k.act(l, p, result)
	}
	if refusal != "" {
		e := sessionError(refusal)
		e.CallID, e.Action = p.Dialog.CallID, p.Action
		k.refuse(f.ID, e)
		return
	}
	if result.HoldState = verto.HoldStateActive; l.Held() {
		result.HoldState = verto.HoldStateHeld
	}
	k.reply(f, result)
	after()
}

// act does what a verto.modify asks for, and returns why not, or what follows the
// reply. An action that it does not know succeeds.
func (k *socket) act(l *Leg, p *verto.CallRequest, result *verto.CallResult) (refusal string, after func()) {
	after = func() {}
	switch p.Action {
	case verto.ActionHold:
		l.hold(func(bool) bool { return true })
	case verto.ActionUnhold:
		l.hold(func(bool) bool { return false })
	case verto.ActionToggleHold:
		l.hold(func(held bool) bool { return !held })
	case verto.ActionTransfer:
		switch {
		case p.Destination == "":
			return "destination missing", after
		case !l.bridged():
			return "call is not bridged", after
		}
		result.Message = "CALL TRANSFERRED"
		l.tell(Transferred, p.Destination)
		after = func() { l.Hangup("NORMAL_CLEARING") }
	case verto.ActionReplace:
		other := k.legOf(p.ReplaceCallID)
		if other == nil || !l.bridged() || !other.bridged() {
			return "call is not bridged", after
		}
		after = func() {
			other.Hangup("NORMAL_CLEARING")
			l.Hangup("NORMAL_CLEARING")
		}
	case verto.ActionUpdateMedia:
		var err error
		if result.SDP, err = l.updateMedia(p.SDP); err != nil {
			k.s.log.Debug("update of media refused", "call_id", l.id, "err", err)
			return "MEDIA ERROR", after
		}
	}
	return "", after
}

// updateMedia takes a new offer in an answered call.
func (l *Leg) updateMedia(offer string) (answer string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != Up || l.media == nil {
		return "", errMedia
	}
	return l.answerOfferLocked(offer)
}

// hold holds or resumes an answered leg, which takes its time. The socket waits.
func (l *Leg) hold(wish func(held bool) bool) {
	l.mu.Lock()
	held := wish(l.held)
	same := held == l.held || l.state != Up
	l.mu.Unlock()
	if same || !l.s.sleep(l.s.opts.HoldDelay, l.ended) {
		return
	}
	l.mu.Lock()
	if l.state != Up {
		l.mu.Unlock()
		return
	}
	l.held = held
	l.flowLocked()
	l.mu.Unlock()
	if held {
		l.tell(Held, "")
	} else {
		l.tell(Unheld, "")
	}
}

// bridged reports whether the leg talks to a phone.
func (l *Leg) bridged() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state == Up && (!l.placed || l.route.Bridged)
}

func (k *socket) info(f *verto.Frame, p *verto.CallRequest) {
	l := k.legOf(p.Dialog.CallID)
	if l == nil {
		k.reply(f, &verto.CallResult{SessID: k.sessionID()}) // what was to be sent is lost
		return
	}
	k.reply(f, &verto.CallResult{Message: verto.MessageSent, SessID: l.sessid})
	if p.DTMF != "" {
		l.tell(Digits, p.DTMF)
	}
	if p.Msg != nil {
		l.tell(Texted, p.Msg.Body)
	}
}

// channelData is what FreeSWITCH puts beside the variables meant for the client.
func (s *Server) channelData(variables map[string]string) map[string]string {
	v := map[string]string{
		"Event-Name": "CHANNEL_DATA", "Core-UUID": s.core, "FreeSWITCH-Hostname": "pbx1", "FreeSWITCH-Switchname": "fs-demo",
		"FreeSWITCH-IPv4": "127.0.0.1", "FreeSWITCH-IPv6": "::1",
		"Event-Calling-File": "switch_channel.c", "Event-Calling-Function": "switch_channel_get_variables_prefix",
		"Event-Calling-Line-Number": "4464", "Event-Sequence": strconv.FormatUint(s.requests.Load(), 10),
	}
	addTimes(v)
	for name, value := range variables {
		v["verto_svar_"+name] = value
	}
	return v
}

// addTimes adds the time in FreeSWITCH's spellings.
func addTimes(v map[string]string) {
	now := time.Now()
	v["Event-Date-Local"] = now.Format("2006-01-02 15:04:05")
	v["Event-Date-GMT"] = now.UTC().Format(http.TimeFormat)
	v["Event-Date-Timestamp"] = strconv.FormatInt(now.UnixMicro(), 10)
}
