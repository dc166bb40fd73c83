package engine

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/callstate/callstate/events"
)

const (
	// waitForChannel is how long what a web phone tells of a session waits for the
	// leg's first frame, how long a leg of an account with a web phone waits for the
	// phone's word before a session is inferred, and how long a session has to end
	// after its leg (reference/verto-protocol.md, section 12).
	waitForChannel = 5 * time.Second
	// keepSilent is how long a session without a live leg lives that nothing is
	// heard of: its phone's process has ended.
	keepSilent = time.Hour
)

// session is a web phone's session as the phone tells of it. One that was inferred
// from a leg's headers is known by its leg alone.
type session struct {
	id        string           `wire:"1"` // the Verto callID
	account   string           `wire:"2"`
	transport string           `wire:"3"`
	direction events.Direction `wire:"4"`
	video     bool             `wire:"5"` // in use
	seesVideo bool             `wire:"6"` // and seen, since the dialog became active
	attempt   int              `wire:"7"`
	dialog    string           `wire:"8"`
	ice       string           `wire:"9"`
	dtls      string           `wire:"10"`
	leg       string           `wire:"11"` // id of its leg by now; empty while it was not seen
	statsAt   events.Time      `wire:"12"` // of the last figures, the phone's clock
	heard     events.Time      `wire:"13"` // last event, our clock
	ended     bool             `wire:"14"`
}

// waitingSession is what was told of a session whose leg was not seen yet.
type waitingSession struct {
	since  events.Time
	inputs []Input
}

// observeSession decides what a web phone's word means.
func (k *correlator) observeSession(o *SessionObservation) disposition {
	if o.At != 0 {
		k.at = o.At
	}
	switch {
	case o.Account == "":
		return dispNoOp
	case o.Kind == SessionRegistered || o.Kind == SessionUnregistered:
		return k.registration(o)
	case o.Session == "":
		return dispNoOp
	}
	if w := k.early[o.Session]; w != nil {
		return k.waitForChannel(o, w)
	}
	s := k.sessions[o.Session]
	if s != nil && s.ended && s.account == o.Account && o.Kind == SessionNew && o.State == events.DialogRecovering {
		s = nil // another phone of the account has taken it over
	}
	switch {
	case s != nil && (s.ended || s.account != o.Account):
		return dispDuplicate // late: its end was told or inferred
	case s != nil:
		return k.sessionTold(s, o)
	case o.Kind != SessionNew:
		return dispNoOp
	}
	l := k.legs[o.Session]
	if l == nil || l.call == nil || l.call.agent.name != o.Account {
		if k.unjoined != o.Session {
			w := &waitingSession{since: k.now}
			k.early[o.Session] = w
			return k.waitForChannel(o, w)
		}
		l = nil
	}
	k.emitSession(o.Account, o.Session, l, &events.WebRTCSessionNew{
		Session: o.Session, Transport: o.Transport, Direction: o.Direction, State: o.State, Attempt: o.Attempt, Video: o.Video,
	})
	return dispNoOp
}

// registration records that an account's web phone came or went. A socket of
// before that is noticed late says nothing of the present one.
func (k *correlator) registration(o *SessionObservation) disposition {
	a, conn := k.agent(o.Account), k.in.Source.Connection
	key := events.CallKey{Account: o.Account}
	switch {
	case o.Kind == SessionRegistered && a.registered && a.phone == conn,
		o.Kind == SessionUnregistered && a.registered && a.phone != conn,
		o.Kind == SessionUnregistered && !a.registered && a.phoneReason == o.Reason:
		return dispDuplicate
	case o.Kind == SessionRegistered:
		k.emit(key, "", "", &events.WebRTCRegistered{Server: o.Server})
	default:
		k.emit(key, "", "", &events.WebRTCUnregistered{Reason: o.Reason})
	}
	return dispNoOp
}

// sessionTold records what is new of a session that is known.
func (k *correlator) sessionTold(s *session, o *SessionObservation) disposition {
	before := len(k.out)
	switch o.Kind {
	case SessionNew: // told again by a phone that was started anew
		k.sessionState(s, events.LayerDialog, o)
	case SessionState:
		k.sessionState(s, o.Layer, o)
	case SessionVideo:
		if !s.seesVideo {
			k.emitOf(s, &events.WebRTCVideoStarted{Session: s.id, Codec: o.Codec})
		}
	case SessionStats:
		if k.at > s.statsAt {
			p := o.Stats
			p.Session = s.id
			p.JitterMs, p.RoundTripMs, p.MOS = finite(p.JitterMs), finite(p.RoundTripMs), finite(p.MOS)
			p.SentLoss, p.SentJitterMs = finite(p.SentLoss), finite(p.SentJitterMs)
			k.emitOf(s, &p)
		}
	case SessionEnded:
		k.emitOf(s, &events.WebRTCSessionEnded{Session: s.id, Reason: o.Reason, Cause: o.Cause, CauseCode: o.CauseCode, By: o.By})
	case SessionRegistered, SessionUnregistered:
	}
	if len(k.out) == before {
		return dispDuplicate
	}
	return dispNoOp
}

// finite is f where JSON can say it. No figure of a session is negative.
func finite(f float64) float64 {
	if f > 0 && !math.IsInf(f, 1) {
		return f
	}
	return 0
}

func (k *correlator) sessionState(s *session, layer string, o *SessionObservation) {
	from := s.layer(layer)
	if from == nil || o.State == "" || *from == o.State && s.attempt >= o.Attempt {
		return
	}
	k.emitOf(s, &events.WebRTCStateChanged{
		Session: s.id, Layer: layer, State: o.State, From: *from, Attempt: max(s.attempt, o.Attempt), Cause: o.Cause,
	})
}

// layer is where the state of a layer is kept, nil for one that is none.
func (s *session) layer(name string) *string {
	switch name {
	case events.LayerDialog:
		return &s.dialog
	case events.LayerICE:
		return &s.ice
	case events.LayerDTLS:
		return &s.dtls
	default:
		return nil
	}
}

// legOf is the leg of a session, nil while it was not seen or when it is
// forgotten.
func (k *correlator) legOf(s *session) *leg {
	if l := k.legs[s.leg]; l != nil && l.sessionID() == s.id {
		return l
	}
	return nil
}

// emitOf emits a fact about a session that is known: of its leg's call, or of the
// account alone. The call is looked up at the leg, never copied: after a transfer
// it is another.
func (k *correlator) emitOf(s *session, p events.Payload) {
	k.emitSession(s.account, s.id, k.legOf(s), p)
}

func (k *correlator) emitSession(account, id string, l *leg, p events.Payload) {
	if l == nil {
		k.emit(events.CallKey{Account: account}, id, "", p)
		return
	}
	k.emitCall(l, p)
}

// waitForChannel keeps what was told of a session until its leg is seen.
func (k *correlator) waitForChannel(o *SessionObservation, w *waitingSession) disposition {
	s := &k.in.Source
	for i := range w.inputs {
		if x := &w.inputs[i].Source; x.Connection == s.Connection && x.Sequence == s.Sequence && s.Sequence != 0 {
			return dispDuplicate
		}
	}
	if len(w.inputs) == maxWaiting {
		k.unjoined = o.Session
		defer func() { k.unjoined = "" }()
		k.settleSession(o.Session)
		return k.observeSession(o)
	}
	w.inputs = append(w.inputs, *k.in)
	return dispWaiting
}

// settleSession hands on what waited for a leg.
func (k *correlator) settleSession(id string) {
	w := k.early[id]
	if w == nil {
		return
	}
	delete(k.early, id)
	in, at, src, n := k.in, k.at, k.src, k.n
	for i := range w.inputs {
		k.count(&w.inputs[i], k.decide(&w.inputs[i]))
	}
	k.in, k.at, k.src, k.n = in, at, src, n
}

// joinSession gives a leg that was not seen before the session that the phone told
// of. What it is by now is said again, of the call.
func (k *correlator) joinSession(l *leg) {
	if k.early[l.id] != nil {
		k.settleSession(l.id)
		return
	}
	s := k.sessions[l.id]
	if s == nil || s.ended || s.account != l.call.agent.name || k.legOf(s) != nil {
		return
	}
	was := *s
	k.emitCall(l, &events.WebRTCSessionNew{
		Session: s.id, Transport: s.transport, Direction: s.direction, State: s.dialog, Attempt: s.attempt, Video: s.video, Joined: true,
	})
	for _, layer := range []string{events.LayerICE, events.LayerDTLS} {
		if state := *was.layer(layer); state != "" {
			k.emitCall(l, &events.WebRTCStateChanged{Session: s.id, Layer: layer, State: state, Attempt: s.attempt})
		}
	}
}

// inferSession infers a web phone's session from the leg (client semantics 7.1).
// Where the account has a web phone of ours, that one's word is waited for.
func (k *correlator) inferSession(l *leg, o *LegObservation) {
	if o.WebRTC == "" || l.sessionID() != "" || l.call.agent.registered && k.now < l.since.Add(waitForChannel) {
		return
	}
	k.emitCall(l, &events.WebRTCSessionNew{Session: l.id, Transport: o.WebRTC, Inferred: true})
}

// legEnds says what a leg's end is for its session: of an inferred one the end, of
// one that a phone holds that it is to hang up.
func (k *correlator) legEnds(l *leg, h *events.Hangup, inferred bool) {
	session := l.sessionID()
	if session == "" || l.more().sessionOver {
		return
	}
	s := k.sessions[session]
	switch {
	case s == nil:
		k.emitCall(l, &events.WebRTCSessionEnded{Session: session, Cause: h.Cause, Inferred: true})
	case !inferred && !s.ended && s.dialog != events.DialogHangup: // a live session is evidence against an inferred end
		k.emitCall(l, &events.WebRTCStateChanged{
			Session: s.id, Layer: events.LayerDialog, State: events.DialogHangup, From: s.dialog,
			Attempt: s.attempt, Cause: h.Cause, Inferred: true,
		})
	}
}

// expireSessions gives up waiting for legs, and ends sessions that their phone
// will not tell of any more.
func (k *correlator) expireSessions(deadline events.Time) {
	for _, id := range slices.Sorted(maps.Keys(k.early)) {
		if k.early[id].since < deadline {
			k.unjoined = id
			k.settleSession(id)
			k.unjoined = ""
		}
	}
	for _, id := range slices.Sorted(maps.Keys(k.sessions)) {
		s := k.sessions[id]
		if s.ended {
			continue
		}
		p := &events.WebRTCSessionEnded{Session: id, Inferred: true}
		switch l := k.legOf(s); {
		case l != nil && l.ended && !l.more().inferred && l.more().goneAt < deadline:
			p.Reason, p.Cause = events.SessionLegGone, l.more().hangup.Cause
		case (l == nil || l.ended) && s.heard < k.now.Add(-keepSilent):
			p.Reason = events.SessionSilent
		default:
			continue
		}
		k.in, k.n = &Input{ReceivedAt: k.now, Origin: events.Resync, Source: events.Source{Adapter: "verto"}}, 0
		k.at, k.src = k.now, events.TimeOfArrival
		k.emitOf(s, p)
	}
}

// evolveSession is evolve for what a web phone told, and for what was inferred
// instead.
func (k *correlator) evolveSession(ev *events.Event) bool {
	var s *session
	switch p := ev.Payload.(type) {
	case *events.WebRTCRegistered:
		a := k.agent(ev.Account)
		a.registered, a.phone, a.phoneReason = true, ev.Source.Connection, ""
		return true
	case *events.WebRTCUnregistered:
		a := k.agent(ev.Account)
		a.registered, a.phone, a.phoneReason = false, "", p.Reason
		return true
	case *events.WebRTCSessionNew:
		k.newSession(ev, p)
		return true
	case *events.WebRTCStateChanged:
		if s = k.sessions[p.Session]; s != nil {
			s.changed(p)
		}
	case *events.WebRTCVideoStarted:
		if s = k.sessions[p.Session]; s != nil {
			s.video, s.seesVideo = true, true
		}
	case *events.WebRTCStats:
		if s = k.sessions[p.Session]; s != nil {
			s.statsAt = max(s.statsAt, ev.OccurredAt)
		}
	case *events.WebRTCSessionEnded:
		k.sessionOver(ev, p)
		return true
	default:
		return false
	}
	if s != nil {
		s.heard = ev.RecordedAt
	}
	return true
}

func (k *correlator) newSession(ev *events.Event, p *events.WebRTCSessionNew) {
	l := k.legs[ev.Leg]
	if ev.Call != "" && l != nil {
		l.holds(p.Session)
	}
	if p.Inferred {
		return
	}
	s := k.sessions[p.Session]
	if s == nil || s.ended {
		s = &session{id: p.Session}
		k.sessions[p.Session] = s
	}
	s.account, s.transport, s.direction = ev.Account, p.Transport, p.Direction
	s.dialog, s.attempt, s.video, s.heard = p.State, p.Attempt, p.Video, ev.RecordedAt
	if ev.Call != "" {
		s.leg = ev.Leg
	}
}

func (s *session) changed(p *events.WebRTCStateChanged) {
	if to := s.layer(p.Layer); to != nil {
		*to = p.State
	}
	s.attempt = p.Attempt
	if p.Layer == events.LayerDialog && p.State != events.DialogActive {
		s.seesVideo = false
	}
}

func (k *correlator) sessionOver(ev *events.Event, p *events.WebRTCSessionEnded) {
	if l := k.legs[ev.Leg]; l != nil && l.sessionID() == p.Session {
		l.remember().sessionOver = true // and no second one is inferred from its headers
	}
	if s := k.sessions[p.Session]; s != nil && !s.ended {
		s.ended, s.heard = true, ev.RecordedAt
		k.over = append(k.over, s)
	}
}

// forgetSessions drops those that ended long ago.
func (k *correlator) forgetSessions(deadline events.Time) {
	for len(k.over) > 0 && k.over[0].heard < deadline {
		if s := k.over[0]; k.sessions[s.id] == s {
			delete(k.sessions, s.id)
		}
		k.over = k.over[1:]
	}
}

// overIDs are the sessions that ended and are remembered, in their order.
func (k *correlator) overIDs() []string {
	var ids []string
	for _, s := range k.over {
		if k.sessions[s.id] == s {
			ids = append(ids, s.id)
		}
	}
	return ids
}
