package verto

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// accept takes the server's answer. It comes once, in verto.media or in
// verto.answer.
func (s *session) accept(m fromServerMsg) {
	switch {
	case s.peers == nil || s.accepted && m.call.SDP == "":
	case m.call.SDP == "":
		s.fail(fmt.Errorf("%w: %s without sdp", ErrMedia, m.method))
	default:
		s.accepted = true
		if err := s.peers.accept(m.call.SDP); err != nil {
			s.fail(fmt.Errorf("%w: %w", ErrMedia, err))
		}
	}
}

// open makes the media of an attempt; with video if that can be made.
func (s *session) open(video bool) error {
	user := &s.p.user
	if s.rec == nil && user.Record != "" {
		s.rec = newRecorder(user.Record, s.id, time.Now(), s.log)
	}
	out := newOutTrack(s.id, s.p.clip, user.Audio == AudioEcho)
	audio, err := newPeer(s.p.media, out, attempt{s, s.attempt}, s.rec)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMedia, err)
	}
	s.peers = &peers{audio: audio, log: s.log}
	if video {
		out := newVideoTrack(s.id, s.p.video, s.muted)
		if s.peers.video, err = newVideoPeer(s.p.media, out, attempt{s, s.attempt}.videoSeen, s.log); err != nil {
			s.log.Warn("the call has no video", "err", err)
		}
	}
	return nil
}

// shut ends the media of an attempt, and keeps its figures.
func (s *session) shut() {
	if s.peers == nil {
		return
	}
	s.before = total(s.before, s.peers.audio.stats())
	if err := s.peers.close(); err != nil {
		s.log.Warn("close the PeerConnections", "err", err)
	}
	s.peers = nil
}

// answer answers a ringing call, with video where it is offered and the phone has
// it; c may be nil.
func (s *session) answer(c *command, video bool) {
	if state := s.state(); state != events.DialogRinging || s.offer == "" {
		c.finish(fmt.Errorf("answer: %w: it is %s", ErrNoSession, state))
		return
	}
	ctx, cancel := s.timeout()
	defer cancel()
	s.shut() // of an answer that was refused
	s.video = video && s.p.video != nil
	err := s.open(s.video && offersVideo(s.offer))
	if err == nil {
		s.tellICE()
		err = s.send(ctx, MethodAnswer, s.offer, func(f *Frame, err error) {
			if err = outcome(f, err); err != nil {
				s.fail(err)
			}
			c.finish(err)
		})
	}
	if err != nil {
		s.fail(err)
		c.finish(err)
	}
}

// reattach takes up a call that the server offers again, unless it was hung up in
// the meantime. The old PeerConnection goes first: FreeSWITCH uses the same port
// again and would hear both.
func (s *session) reattach() {
	s.shut()
	switch {
	case s.state() == events.DialogHangup:
		s.bye("", func(error) {})
		return
	case len(s.hangups) > 0:
		s.hangupsDue()
		return
	case s.link.lost():
		return // it will be offered once more
	}
	ctx, cancel := s.timeout()
	defer cancel()
	err := s.open(s.video && offersVideo(s.offer))
	if err == nil {
		s.tellICE()
		err = s.send(ctx, MethodAttach, healed(s.offer), func(f *Frame, err error) {
			if err = outcome(f, err); err != nil {
				s.log.Warn("not taken up again", "err", err)
			}
		})
	}
	switch {
	case err == nil:
	case errors.Is(err, ErrDisconnected):
		s.shut() // until it is offered once more
	default: // the server waits for an answer, and would keep a call without media
		s.fail(err)
	}
}

// findWay looks for another way for the media of an attempt whose ICE has failed.
// The call is up all the while, and stays so if there is none.
func (s *session) findWay(attempt int) {
	state := s.state()
	if s.peers == nil || s.attempt != attempt || state != events.DialogActive && state != events.DialogHeld {
		return
	}
	ctx, cancel := s.timeout()
	defer cancel()
	peers := s.peers
	offer, err := peers.offer(ctx, true)
	if err == nil {
		err = s.request(MethodModify, CallRequest{Action: ActionUpdateMedia, SDP: offer}, func(f *Frame, err error) {
			var r CallResult
			if err = outcome(f, err); err == nil {
				err = Read(f.Result, &r)
			}
			if err == nil && peers == s.peers {
				err = peers.accept(r.SDP)
			}
			if err != nil {
				s.log.Warn("no other way for the media", "err", err)
			}
		})
	}
	if err != nil {
		s.log.Warn("no other way for the media", "err", err)
	}
}

// send answers an offer of the server.
func (s *session) send(ctx context.Context, method, offer string, then func(*Frame, error)) error {
	sdp, err := s.peers.answer(ctx, offer)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMedia, err)
	}
	s.accepted = true
	r := CallRequest{SDP: sdp}
	if method == MethodAnswer {
		number, _, _ := strings.Cut(s.p.user.Login, "@")
		r.Dialog.CalleeIDName, r.Dialog.CalleeIDNumber = number, number
	}
	return s.requestOver(s.link, method, r, then)
}

// tellStats tells the figures so far, and at the end the last ones. Figures so far
// are not worth a place in a queue that nobody takes from.
func (s *session) tellStats(final bool) {
	if !final && s.p.out.len() > maxQueued {
		return
	}
	if s.peers == nil && (!final || s.before == (events.WebRTCStats{})) {
		return
	}
	var now events.WebRTCStats
	if s.peers != nil {
		now = s.peers.audio.stats()
	}
	now = total(s.before, now)
	now.Session, now.Final, now.MOS = s.id, final, estimateMOS(now)
	s.p.tell(engine.SessionObservation{
		Kind: engine.SessionStats, Session: s.id, Transport: transport, Attempt: s.attempt, Stats: now,
	})
}

// tellICE tells that there is a PeerConnection.
func (s *session) tellICE() { attempt{s, s.attempt}.transportState(events.LayerICE, "new") }

// attempt is what the media of one attempt of the session tell.
type attempt struct {
	s *session
	n int
}

func (a attempt) transportState(layer, state string) {
	if layer == events.LayerICE && state == webrtc.ICEConnectionStateFailed.String() {
		a.s.box.put(lostWay{a.n})
	}
	a.s.p.tellOf(engine.SessionObservation{
		Kind: engine.SessionState, Session: a.s.id, Attempt: a.n, Layer: layer, State: state,
	})
}

// videoSeen tells, once a session, that video comes in.
func (a attempt) videoSeen(codec string) {
	if a.s.sawVideo.Swap(true) {
		return
	}
	a.s.p.tellOf(engine.SessionObservation{Kind: engine.SessionVideo, Session: a.s.id, Attempt: a.n, Codec: codec})
}

func (a attempt) digit(digit byte, d time.Duration) {
	a.s.log.Debug("digit received", "digit", string(digit), "duration", d)
	if a.s.p.onDigit != nil {
		a.s.p.onDigit(a.s.id, digit, d)
	}
}
