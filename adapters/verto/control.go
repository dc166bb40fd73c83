package verto

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

var _ engine.Phone = (*Phone)(nil)

// Registered implements [engine.Phone].
func (p *Phone) Registered() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.link != nil && p.signedIn
}

// Call implements [engine.Phone].
func (p *Phone) Call(ctx context.Context, number string) (string, error) {
	if number == "" || len(number) > 128 || strings.ContainsFunc(number, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return "", requestError(fmt.Errorf("%w: %q is no number", ErrArgument, number))
	}
	id := uuid.NewString()
	p.mu.Lock()
	if p.link == nil || !p.signedIn || p.stop == nil {
		p.mu.Unlock()
		return "", requestError(fmt.Errorf("call: %w", ErrDisconnected))
	}
	s := p.begin(id)
	p.mu.Unlock()
	if err := s.ask(ctx, (*session).place, number); err != nil {
		return "", err
	}
	return id, nil
}

// Answer implements [engine.Phone]. Video is taken and sent where it is asked for,
// the server offers it and the user has it (User.Video).
func (p *Phone) Answer(ctx context.Context, id string, video bool) error {
	if p.user.Answer == AnswerNever {
		return &engine.RequestError{Result: engine.VerdictNotAllowed, Text: `the phone is never to answer (answer = "never")`}
	}
	return p.ask(ctx, id, func(s *session, c *command) { s.answer(c, video) }, "")
}

// AutoAnswer implements [engine.Phone].
func (p *Phone) AutoAnswer(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.sessions[id]; s != nil {
		s.box.put(autoMsg{})
		return
	}
	now := time.Now()
	maps.DeleteFunc(p.auto, func(_ string, until time.Time) bool { return now.After(until) })
	p.auto[id] = now.Add(autoAnswerTime)
}

// autoAnswerTime is how long the invite may come after the leg's channel event.
const autoAnswerTime = 5 * time.Second

// Hold implements [engine.Phone].
func (p *Phone) Hold(ctx context.Context, id string) error {
	return p.ask(ctx, id, (*session).modify, ActionHold)
}

// Unhold implements [engine.Phone].
func (p *Phone) Unhold(ctx context.Context, id string) error {
	return p.ask(ctx, id, (*session).modify, ActionUnhold)
}

// Hangup implements [engine.Phone]. The cause is a name of FreeSWITCH's, such as
// NORMAL_CLEARING.
func (p *Phone) Hangup(ctx context.Context, id, cause string) error {
	if cause != "" && events.CauseCode(cause) == 0 {
		return requestError(fmt.Errorf("%w: %q is no hangup cause", ErrArgument, cause))
	}
	err := p.ask(ctx, id, (*session).hangup, cause)
	if re, ok := errors.AsType[*engine.RequestError](err); ok && re.Result == engine.VerdictNoSession {
		return nil
	}
	return err
}

// SendDTMF implements [engine.Phone]: digits, w and W for pauses, F for a flash,
// in groups joined by + that may end in @milliseconds.
func (p *Phone) SendDTMF(ctx context.Context, id, digits string) error {
	if err := checkDigits(digits); err != nil {
		return requestError(err)
	}
	return p.ask(ctx, id, (*session).dtmf, digits)
}

// SetVideo implements [engine.Phone]. A phone without video (User.Video) can only
// leave it off.
func (p *Phone) SetVideo(ctx context.Context, id string, on bool) error {
	return p.ask(ctx, id, func(s *session, c *command) { c.finish(s.setVideo(on)) }, "")
}

// ask has a session do something and waits for the outcome.
func (p *Phone) ask(ctx context.Context, id string, do func(*session, *command), arg string) error {
	p.mu.Lock()
	s := p.sessions[id]
	p.mu.Unlock()
	if s == nil {
		return requestError(fmt.Errorf("%w: %s", ErrNoSession, id))
	}
	return s.ask(ctx, do, arg)
}

func (s *session) ask(ctx context.Context, do func(*session, *command), arg string) error {
	c := &command{do: do, arg: arg, done: make(chan error, 1)}
	s.box.put(c)
	select {
	case err := <-c.done:
		return requestError(err)
	case <-s.done:
	case <-ctx.Done():
		return requestError(fmt.Errorf("%w: %w", ErrNoReply, context.Cause(ctx)))
	}
	select {
	case err := <-c.done:
		return requestError(err)
	default:
		return requestError(fmt.Errorf("%w: it is over", ErrNoSession))
	}
}

// modify holds or takes back, as the command says. What the server reports counts.
func (s *session) modify(c *command) {
	if state := s.state(); state != events.DialogActive && state != events.DialogHeld {
		c.finish(fmt.Errorf("%s: %w: it is %s", c.arg, ErrNoSession, state))
		return
	}
	want := HoldStateHeld
	if c.arg == ActionUnhold {
		want = HoldStateActive
	}
	err := s.request(MethodModify, CallRequest{Action: c.arg}, func(f *Frame, err error) {
		if err = outcome(f, err); err != nil {
			c.finish(err)
			return
		}
		var r CallResult
		if err = Read(f.Result, &r); err == nil && r.HoldState != want {
			err = fmt.Errorf("%w: %s: the call stays %s", ErrRefused, c.arg, r.HoldState)
		}
		c.finish(err)
	})
	if err != nil {
		c.finish(err)
	}
}

// hangup ends the call. One whose invite is not answered yet has to wait for that,
// and one that the server has not offered again over a new socket for that: the
// server would not know it, and go on.
func (s *session) hangup(c *command) {
	state := s.state()
	switch {
	case state == events.DialogDetached && !s.p.Registered():
		c.finish(fmt.Errorf("hang up: %w", ErrDisconnected))
	case state == events.DialogDetached, s.placing != nil && !s.invited:
		s.hangups = append(s.hangups, c)
	case state == events.DialogHangup:
		c.finish(nil)
	default:
		s.bye(c.arg, c.finish)
	}
}

// hangupsDue does what had to wait.
func (s *session) hangupsDue() {
	due := s.hangups
	s.hangups = nil
	for _, h := range due {
		s.hangup(h)
	}
}

// dtmf sends digits by verto.info, which works with every codec, and before the
// answer too.
func (s *session) dtmf(c *command) {
	state := s.state()
	switch state {
	case events.DialogEarly, events.DialogActive, events.DialogHeld:
	default: // the server would lose them and say that it sent them
		c.finish(fmt.Errorf("dtmf: %w: it is %s", ErrNoSession, state))
		return
	}
	err := s.request(MethodInfo, CallRequest{DTMF: c.arg}, func(f *Frame, err error) { c.finish(outcome(f, err)) })
	if err != nil {
		c.finish(err)
	}
}

// setVideo sends video or stops sending it. It begins again with a key frame.
func (s *session) setVideo(on bool) error {
	state := s.state()
	switch {
	case s.p.video == nil && !on:
		return nil
	case s.p.video == nil:
		return fmt.Errorf(`%w: this phone sends none: its user has no "video" setting`, ErrNoVideo)
	case state != events.DialogEarly && state != events.DialogActive && state != events.DialogHeld:
		return fmt.Errorf("video: %w: it is %s", ErrNoSession, state)
	case !s.peers.sendsVideo():
		return fmt.Errorf("%w in this session: it was not agreed, or its transport has failed", ErrNoVideo)
	}
	s.muted = !on
	s.peers.video.out.mute(s.muted)
	return nil
}

// requestError gives an error the engine's word for it.
func requestError(err error) error {
	if err == nil {
		return nil
	}
	for _, w := range []struct {
		err  error
		word engine.Verdict
	}{
		{ErrArgument, engine.VerdictBadArgument},
		{ErrDisconnected, engine.VerdictNotConnected},
		{ErrNoReply, engine.VerdictNoReply},
		{ErrNoSession, engine.VerdictNoSession},
		{ErrNoCall, engine.VerdictNoSession},
		{ErrNoVideo, engine.VerdictNotSupported},
		{ErrUnknown, engine.VerdictNotPermitted},
		{ErrNotPermitted, engine.VerdictNotPermitted},
	} {
		if errors.Is(err, w.err) {
			return &engine.RequestError{Result: w.word, Text: err.Error()}
		}
	}
	return &engine.RequestError{Result: engine.VerdictRefused, Text: err.Error()}
}
