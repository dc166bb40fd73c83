package verto

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/callstate/callstate/events"
)

// session is one call of the phone: its media, and what is asked of it. All of it
// runs on one goroutine, so that what arrives back to back is done one after the
// other.
type session struct {
	p   *Phone
	id  string // the Verto callID
	log *slog.Logger
	box *mailbox[any] // of the types below

	done     chan struct{} // closed when nothing is done any more
	sawVideo atomic.Bool   // of the far end; it is told once

	// What follows belongs to the session's goroutine.
	attempt  int
	offer    string // of the server
	link     *link  // over which it came: elsewhere its answer would mean nothing
	peers    *peers // nil while there are none
	accepted bool   // the server's answer to our offer
	video    bool   // wanted, where the server has it too
	muted    bool   // the video that we send
	rec      *recorder
	before   events.WebRTCStats // of the attempts that were given up

	invited  bool       // our invite was answered
	placing  *command   // the call, until the server has made the channel
	hangups  []*command // that wait for what they are to end
	deadline *time.Timer
}

// What a session is told, beside the Change of its dialog and *command.
type (
	// fromServerMsg is a request of the server.
	fromServerMsg struct {
		method string
		call   *Call
		link   *link
	}
	// repliedMsg is the answer to a request of ours.
	repliedMsg struct {
		then func(*Frame, error)
		f    *Frame
		err  error
	}
	// autoMsg says that the session is to be answered.
	autoMsg struct{}
	// lostWay says that ICE of an attempt has failed.
	lostWay struct{ attempt int }
	// isOver says that the dialog is over.
	isOver struct{}
)

// command is what somebody asks of a session.
type command struct {
	do   func(*session, *command)
	arg  string
	done chan error // holds one
}

// finish tells the outcome. Only the first counts, and nobody has to listen.
func (c *command) finish(err error) {
	if c == nil {
		return
	}
	select {
	case c.done <- err:
	default:
	}
}

// begin makes a session and starts it. p.mu is held, and Run is running.
func (p *Phone) begin(id string) *session {
	s := &session{
		p: p, id: id, log: p.log.With("session", id), box: newMailbox[any](), done: make(chan struct{}),
		video: p.video != nil,
	}
	p.sessions[id] = s
	if until, ok := p.auto[id]; ok {
		delete(p.auto, id)
		if time.Now().Before(until) {
			s.box.put(autoMsg{})
		}
	}
	stop := p.stop
	p.running.Go(func() { s.run(stop) })
	return s
}

// run does what the session is told, until its dialog is over or the phone stops.
func (s *session) run(stop <-chan struct{}) {
	defer close(s.done)
	interval := time.NewTicker(time.Duration(s.p.cfg.StatsInterval))
	defer interval.Stop()
	s.deadline = time.NewTimer(time.Hour)
	s.deadline.Stop()
	defer s.deadline.Stop()
	var auto, over bool
	for !over {
		select {
		case <-stop:
			s.end(false)
			return
		case <-interval.C:
			s.tellStats(false)
		case <-s.deadline.C:
			s.expired()
		case <-s.box.wake:
			for _, m := range s.box.take() {
				switch m := m.(type) {
				case Change:
					s.changed(m)
				case fromServerMsg:
					s.fromServer(m)
				case repliedMsg:
					m.then(m.f, m.err)
				case *command:
					m.do(s, m)
				case lostWay:
					s.findWay(m.attempt)
				case autoMsg:
					auto = true
				case isOver:
					over = true
				}
			}
			if auto && !over && s.offer != "" && s.state() == events.DialogRinging {
				auto = false
				s.answer(nil, true)
			}
		}
	}
	s.end(true)
}

// state is that of the dialog now, which may be ahead of what the session was told.
func (s *session) state() string {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	state, _ := s.p.dialogs.State(s.id)
	return state
}

// changed follows the dialog.
func (s *session) changed(c Change) {
	s.attempt = c.Attempt
	s.deadline.Stop()
	switch c.To {
	case events.DialogDetached:
		s.deadline.Reset(time.Duration(s.p.cfg.RecoveryTime))
	case events.DialogRequesting, events.DialogTrying:
		if ring := time.Duration(s.p.cfg.RingTimeout); ring > 0 {
			s.deadline.Reset(ring)
		}
	case events.DialogRinging:
		if c.From == "" && s.p.user.Answer == AnswerAlways {
			s.box.put(autoMsg{})
		}
	}
}

// expired gives up a call that was not taken up again, or not answered.
func (s *session) expired() {
	switch s.state() {
	case events.DialogDetached:
		s.p.apply(func(d *Dialogs) Step { return d.Fail(s.id, events.SessionSocketLost) })
	case events.DialogHangup:
		s.p.apply(func(d *Dialogs) Step { return d.Fail(s.id, events.SessionBye) })
	case events.DialogTrying:
		s.log.Info("not answered in time")
		s.bye("NO_ANSWER", func(error) {})
	}
}

// fromServer does what a request of the server asks for.
func (s *session) fromServer(m fromServerMsg) {
	switch m.method {
	case MethodInvite:
		s.offer, s.link = m.call.SDP, m.link
	case MethodMedia, MethodAnswer:
		s.accept(m)
	case MethodAttach:
		s.offer, s.link = m.call.SDP, m.link
		s.reattach()
	default:
		s.log.Debug("told", "method", m.method)
	}
}

// place calls a number. The dialog begins with our invite; the call is placed when
// the server has made the channel.
func (s *session) place(c *command) {
	s.placing = c
	ctx, cancel := s.timeout()
	defer cancel()
	sdp, err := "", s.open(s.video)
	if err == nil {
		if sdp, err = s.peers.offer(ctx, false); err != nil {
			err = fmt.Errorf("%w: %w", ErrMedia, err)
		}
	}
	if err == nil {
		err = s.request(MethodInvite, CallRequest{SDP: sdp, Dialog: Dialog{
			DestinationNumber: c.arg, RemoteCallerIDName: c.arg, RemoteCallerIDNumber: c.arg,
		}}, s.placed)
	}
	if err != nil {
		s.placing = nil
		s.shut()
		s.before = events.WebRTCStats{} // of a session that nobody heard of
		s.box.put(isOver{})             // there is no dialog to end
		c.finish(err)
		return
	}
	s.tellICE()
}

func (s *session) placed(f *Frame, err error) {
	s.invited = true
	c := s.placing
	s.placing = nil
	if err = outcome(f, err); err != nil {
		if f == nil {
			// Whether the channel exists is not known: a server that is there ends it.
			s.fail(err)
		}
		c.finish(err)
		return
	}
	c.finish(nil)
	s.hangupsDue()
}

// timeout bounds what is done to make a description: milliseconds, and seconds
// where very many calls begin at once.
func (s *session) timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Duration(s.p.cfg.ReplyTimeout))
}

// request sends a request about the session; then runs on its goroutine.
func (s *session) request(method string, r CallRequest, then func(*Frame, error)) error {
	return s.requestOver(nil, method, r, then)
}

func (s *session) requestOver(l *link, method string, r CallRequest, then func(*Frame, error)) error {
	return s.p.request(l, method, func(sessID string) Object {
		r.SessID, r.Dialog.CallID = sessID, s.id
		return &r
	}, func(f *Frame, err error) { s.box.put(repliedMsg{then, f, err}) })
}

// bye hangs up.
func (s *session) bye(cause string, done func(error)) {
	err := s.request(MethodBye, CallRequest{Cause: cause, CauseCode: Number(events.CauseCode(cause))}, func(f *Frame, err error) {
		if err = outcome(f, err); errors.Is(err, ErrNoCall) {
			err = nil
		}
		switch {
		case f != nil:
		case errors.Is(err, ErrDisconnected): // whether it came there shows when the call is offered again, or not
			s.deadline.Reset(time.Duration(s.p.cfg.RecoveryTime))
		default:
			s.p.apply(func(d *Dialogs) Step { return d.Fail(s.id, events.SessionBye) })
		}
		done(err)
	})
	if err != nil {
		done(err)
	}
}

// fail ends a call that has no media: for the server by a bye, for us at once.
func (s *session) fail(err error) {
	s.log.Error("session failed", "err", err)
	if !errors.Is(err, ErrDisconnected) {
		s.p.apply(func(d *Dialogs) Step { return d.Failing(s.id) })
		s.bye("INCOMPATIBLE_DESTINATION", func(error) {})
		s.p.apply(func(d *Dialogs) Step { return d.Fail(s.id, events.SessionFailed) })
	}
}

// end tells the last of the session and closes its media. Without destroy the
// dialog stays: the phone stops, and the server may keep the call.
func (s *session) end(destroy bool) {
	s.tellStats(destroy)
	if s.peers != nil {
		s.peers.mute()
	}
	if destroy {
		s.p.destroy(s)
	}
	s.shut()
	if s.rec != nil {
		s.rec.close()
	}
	s.placing.finish(fmt.Errorf("call: %w: it is over", ErrNoSession))
	for _, h := range s.hangups {
		h.finish(nil)
	}
	s.refuseRest()
}

// destroy removes a session that is over.
func (p *Phone) destroy(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sessions, s.id)
	p.took(p.dialogs.Destroy(s.id), false)
}

// refuseRest answers what was asked too late.
func (s *session) refuseRest() {
	for _, m := range s.box.take() {
		switch m := m.(type) {
		case *command:
			m.finish(fmt.Errorf("%w: it is over", ErrNoSession))
		case repliedMsg:
			m.then(m.f, m.err)
		}
	}
}
