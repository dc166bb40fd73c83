package engine

import (
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// callSession is a web phone's session of one of the call's legs.
type callSession struct {
	cti.WebRTC
	started bool   `wire:"20"` // webRtcStarted was raised
	leg     string `wire:"21"` // id of its leg by now
}

func (c *call) session(id string) *callSession {
	sessions := c.more().sessions
	for i := range sessions {
		if sessions[i].Session == id {
			return &sessions[i]
		}
	}
	return nil
}

// sessionOf is the one that the account's web phone holds on a leg now, so that it
// can be told what to do with it; nil if there is none.
func (c *call) sessionOf(leg string) *callSession {
	sessions := c.more().sessions
	for i := range sessions {
		if s := &sessions[i]; s.leg == leg && s.held() {
			return s
		}
	}
	return nil
}

// shownSession is the one that the view shows: of the call's own leg, else the
// last that has not ended, else the last.
func (c *call) shownSession() *callSession {
	sessions := c.more().sessions
	if len(sessions) == 0 {
		return nil
	}
	own, shown := c.primary(), &sessions[len(sessions)-1]
	for i := range sessions {
		s := &sessions[i]
		if own != nil && s.leg == own.id {
			return s
		}
		if !s.Ended {
			shown = s
		}
	}
	return shown
}

func (c *call) viewSession() *cti.WebRTC {
	s := c.shownSession()
	if s == nil {
		return nil
	}
	w := s.WebRTC
	if w.Quality != nil {
		q := *w.Quality
		w.Quality = &q
	}
	return &w
}

// held: the phone can be told what to do with it.
func (s *callSession) held() bool {
	return !s.Inferred && !s.Ended && s.State != events.DialogDetached && s.State != events.DialogHangup
}

// foldSession folds what a web phone told, or what was inferred instead. Nothing
// of it changes the call's state: a session that dies ends no call.
func (f *folding) foldSession(c *call) {
	switch p := f.ev.Payload.(type) {
	case *events.WebRTCSessionNew:
		f.sessionNew(c, p)
	case *events.WebRTCStateChanged:
		s := c.session(p.Session)
		if s == nil {
			return
		}
		s.changed(p)
		// A browser asks for its media element when its media is set up, which is
		// when the PeerConnection is made.
		if p.Layer == events.LayerICE || p.State == events.DialogActive {
			f.sessionStarted(c, s)
		}
	case *events.WebRTCVideoStarted:
		if s := c.session(p.Session); s != nil {
			s.Video = true
		}
		f.emit(cti.WebRTCVideoStarted, c, cti.Arguments{SessionID: p.Session})
	case *events.WebRTCStats:
		s := c.session(p.Session)
		if s == nil {
			return
		}
		s.Quality = &cti.Quality{
			Codec: p.Codec, PacketsReceived: p.PacketsReceived, PacketsSent: p.PacketsSent, PacketsLost: p.PacketsLost,
			JitterMs: p.JitterMs, RoundTripMs: p.RoundTripMs, MOS: p.MOS,
		}
		q := *s.Quality
		f.emit(cti.SessionQuality, c, cti.Arguments{SessionID: p.Session, Quality: &q})
	case *events.WebRTCSessionEnded:
		if s := c.session(p.Session); s != nil {
			s.Ended = true
			if !s.Inferred {
				s.Cause, s.Reason = p.Cause, p.Reason
			}
		}
		f.emit(cti.WebRTCDestroyed, c, cti.Arguments{SessionID: p.Session})
	}
}

// sessionNew: what a phone tells replaces what was inferred of the same leg.
func (f *folding) sessionNew(c *call, p *events.WebRTCSessionNew) {
	n := callSession{leg: f.ev.Leg, WebRTC: cti.WebRTC{
		Session: p.Session, Transport: p.Transport, Inferred: p.Inferred, State: p.State, Attempt: p.Attempt, Video: p.Video,
	}}
	s := c.session(p.Session)
	if s == nil {
		m := c.remember()
		m.sessions = append(m.sessions, n)
		s = &m.sessions[len(m.sessions)-1]
	} else {
		n.started, n.Quality = s.started && !s.Ended, s.Quality
		*s = n
	}
	if p.Inferred || p.State == events.DialogActive {
		f.sessionStarted(c, s)
	}
}

func (f *folding) sessionStarted(c *call, s *callSession) {
	if s.started {
		return
	}
	s.started = true
	f.emit(cti.WebRTCStarted, c, cti.Arguments{SessionID: s.Session})
}

func (s *callSession) changed(p *events.WebRTCStateChanged) {
	switch p.Layer {
	case events.LayerDialog:
		s.State = p.State
	case events.LayerICE:
		s.ICE = p.State
	case events.LayerDTLS:
		s.DTLS = p.State
	}
	s.Attempt = p.Attempt
}
