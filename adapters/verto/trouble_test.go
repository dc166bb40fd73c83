package verto_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/callstate/callstate/adapters/verto"
	"github.com/callstate/callstate/adapters/verto/vertotest"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// wellTold checks what was said of one session: it begins once, ends at most once,
// nothing comes after its end, and no state of the dialog is said twice. It begins
// again where the server offers what the phone had to take for lost.
func (o *observed) wellTold(t *testing.T, id string) {
	t.Helper()
	live, state := false, ""
	for _, s := range o.of(id) {
		switch {
		case (s.Kind == engine.SessionNew) == live:
			t.Errorf("%s: live is %v at %+v", id, live, s)
		case s.Kind == engine.SessionNew:
			live, state = true, s.State
		case s.Kind == engine.SessionEnded:
			live = false
		case s.Kind == engine.SessionState && s.Layer == events.LayerDialog:
			if s.State == state {
				t.Errorf("%s: %s said twice", id, state)
			}
			state = s.State
		}
	}
}

// TestSessionNeverEndsTheCall loses a session's media, or its socket, in every way:
// the call stays, is not reported as ended, and can still be ended.
func TestSessionNeverEndsTheCall(t *testing.T) {
	seen := func(o *observed, id, layer, state string) bool { return slices.Contains(o.states(id, layer), state) }
	for _, tt := range []struct {
		name   string
		call   vertotest.Call
		lose   func(*vertotest.Server, *vertotest.Leg)
		noted  func(*observed, string) bool
		attach bool // the phone comes back
	}{
		{
			name: "DTLS closed", lose: func(_ *vertotest.Server, l *vertotest.Leg) { l.CloseDTLS() },
			noted: func(o *observed, id string) bool { return seen(o, id, events.LayerDTLS, "closed") },
		},
		{
			name: "ICE disconnected", lose: func(_ *vertotest.Server, l *vertotest.Leg) { l.Cut(true) },
			noted: func(o *observed, id string) bool { return seen(o, id, events.LayerICE, "disconnected") },
		},
		{
			name: "ICE failed", call: vertotest.Call{Deaf: true}, lose: func(*vertotest.Server, *vertotest.Leg) {},
			noted: func(o *observed, id string) bool { return seen(o, id, events.LayerICE, "failed") },
		},
		{
			name: "socket gone", attach: true, lose: func(s *vertotest.Server, _ *vertotest.Leg) { s.Drop(account) },
			noted: func(o *observed, id string) bool { return seen(o, id, events.LayerDialog, events.DialogDetached) },
		},
		{
			name: "socket dead", attach: true, lose: func(s *vertotest.Server, _ *vertotest.Leg) { s.Freeze(account) },
			noted: func(o *observed, id string) bool { return seen(o, id, events.LayerDialog, events.DialogDetached) },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, vertotest.Options{})
			cfg := quick(s.URL())
			cfg.PingInterval = verto.Duration(time.Second)
			p, o := startImpatient(t, cfg)
			o.registered(t)
			leg := ring(t, s, o, tt.call)
			if err := p.Answer(t.Context(), leg.ID(), false); err != nil {
				t.Fatal(err)
			}
			o.reaches(t, leg.ID(), events.DialogActive)
			if !tt.call.Deaf {
				flows(t, o, leg)
			}
			tt.lose(s, leg)
			o.until(t, tt.name, func() bool { return tt.noted(o, leg.ID()) })
			if tt.attach {
				o.reaches(t, leg.ID(), events.DialogActive)
				flows(t, o, leg)
			}
			if leg.State() != vertotest.Up {
				t.Fatalf("the call ended with its session: %s", leg.Cause())
			}
			for _, e := range o.of(leg.ID()) {
				if e.Kind == engine.SessionEnded {
					t.Fatalf("told as ended: %+v", e)
				}
			}
			if err := p.Hangup(t.Context(), leg.ID(), ""); err != nil {
				t.Fatalf("hang up what is left: %v", err)
			}
			if e, _ := o.ended(t, leg.ID()); e.By != "account" || leg.Cause() != "NORMAL_CLEARING" {
				t.Errorf("ended %+v, there %s", e, leg.Cause())
			}
			o.wellTold(t, leg.ID())
		})
	}
}

func TestReattachedWhileHeldStaysHeld(t *testing.T) {
	t.Parallel()
	s := newServer(t, vertotest.Options{})
	p, o, _ := start(t, quick(s.URL()), verto.User{})
	o.registered(t)
	id := place(t, p, o)
	leg := s.Leg(id)
	flows(t, o, leg)
	for n := range 2 {
		s.Drop(account)
		o.until(t, "taken up again", func() bool {
			all := o.of(id)
			l := all[len(all)-1]
			return slices.ContainsFunc(all, func(e engine.SessionObservation) bool {
				return e.State == events.DialogActive && e.Attempt == n+1
			}) && l.Attempt == n+1
		})
		flows(t, o, leg)
	}
	if err := p.Hold(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	s.Drop(account)
	o.until(t, "held again", func() bool {
		return slices.ContainsFunc(o.of(id), func(e engine.SessionObservation) bool {
			return e.State == events.DialogHeld && e.Attempt == 3
		})
	})
	sent := leg.Counts().Sent
	if err := p.Unhold(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if !leg.Held() && leg.Counts().Sent < sent {
		t.Error("counted backwards")
	}
	flows(t, o, leg)
	leg.Hangup("NORMAL_CLEARING")
	o.ended(t, id)
	o.wellTold(t, id)
}

func TestCallThatIsNotOfferedAgainEnds(t *testing.T) {
	t.Parallel()
	s := newServer(t, vertotest.Options{DetachTimeout: time.Millisecond})
	cfg := quick(s.URL())
	cfg.BackoffMin, cfg.BackoffMax = verto.Duration(500*time.Millisecond), verto.Duration(time.Second)
	cfg.SettleTime = verto.Duration(100 * time.Millisecond)
	p, o, _ := start(t, cfg, verto.User{})
	o.registered(t)
	leg := talk(t, s, p, o)
	s.Drop(account)
	e, _ := o.ended(t, leg.ID())
	if e.Reason != events.SessionNotReattached || e.By == "account" || leg.Cause() != "RECOVERY_ON_TIMER_EXPIRE" {
		t.Errorf("ended %+v, there %s", e, leg.Cause())
	}
	o.wellTold(t, leg.ID())
}

// An offer to take a call up again that cannot be answered ends the call at both
// ends: the server would keep it without media.
func TestAttachThatCannotBeAnswered(t *testing.T) {
	t.Parallel()
	s, _, o, leg := inCall(t)
	s.Send(account, `{"jsonrpc":"2.0","id":4711,"method":"verto.attach","params":{"callID":"`+leg.ID()+`","sdp":"v=0\r\n"}}`)
	if e, _ := o.ended(t, leg.ID()); e.Reason != events.SessionFailed {
		t.Errorf("ended %+v", e)
	}
	o.until(t, "the end there", func() bool { return s.Leg(leg.ID()) == nil })
	if leg.Cause() != "INCOMPATIBLE_DESTINATION" {
		t.Errorf("there it ended with %s", leg.Cause())
	}
	o.wellTold(t, leg.ID())
}

func TestNonsenseInTheMiddleOfACall(t *testing.T) {
	t.Parallel()
	s, p, o, leg := inCall(t)
	for _, text := range []string{
		"#SPD 12", "{not json", "[]", `{"jsonrpc":"2.0","id":1,"method":"verto.nosuch","params":{}}`,
		`{"jsonrpc":"2.0","id":1,"method":"verto.bye","params":{"callID":"nobody's","cause":"NORMAL_CLEARING"}}`,
		`{"jsonrpc":"2.0","id":1,"method":"verto.answer","params":{"callID":"` + leg.ID() + `","sdp":"v=0"}}`,
		`{"jsonrpc":"2.0","id":424242,"result":{"message":"CALL ENDED","callID":"` + leg.ID() + `"}}`,
		`{"jsonrpc":"2.0","id":1,"method":"verto.event","params":{"eventChannel":"x","data":{}}}`,
	} {
		s.Send(account, text)
	}
	leg.Display("Far End", "380441234567")
	flows(t, o, leg)
	if err := p.Hold(t.Context(), leg.ID()); err != nil {
		t.Fatal(err)
	}
	if leg.State() != vertotest.Up {
		t.Errorf("the call ended: %s", leg.Cause())
	}
	leg.Hangup("NORMAL_CLEARING")
	o.ended(t, leg.ID())
	o.wellTold(t, leg.ID())
}

// TestEveryBadMoment hangs up, drops the socket, and ends the media at each moment
// of a call's life. Whatever comes first: in the end both sides agree, nothing is
// said twice, and nothing is left.
func TestEveryBadMoment(t *testing.T) {
	moments := map[string]vertotest.Kind{
		"invited": vertotest.Invited, "offered": vertotest.Offered, "early media": vertotest.EarlyMedia,
		"answering": vertotest.Answering, "answered": vertotest.Answered, "media up": vertotest.MediaUp,
		"detached": vertotest.Detached, "attaching": vertotest.Attaching, "recovering": vertotest.Recovering,
		"reattached": vertotest.Reattached,
	}
	harms := map[string]func(*vertotest.Server, *vertotest.Leg){
		"hang up":    func(_ *vertotest.Server, l *vertotest.Leg) { l.Hangup("MANAGER_REQUEST") },
		"drop":       func(s *vertotest.Server, _ *vertotest.Leg) { s.Drop(account) },
		"close DTLS": func(_ *vertotest.Server, l *vertotest.Leg) { l.CloseDTLS() },
	}
	for name, moment := range moments {
		for how, harm := range harms {
			for _, placed := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%s/placed %v", name, how, placed), func(t *testing.T) {
					t.Parallel()
					badMoment(t, moment, harm, placed)
				})
			}
		}
	}
}

func badMoment(t *testing.T, moment vertotest.Kind, harm func(*vertotest.Server, *vertotest.Leg), placed bool) {
	var s *vertotest.Server
	var once sync.Once
	var harmed atomic.Bool
	var dropped sync.Once
	late := moment >= vertotest.Detached
	s = newServer(t, vertotest.Options{
		Tick: 5 * time.Millisecond, // there are many moments
		Dialplan: func(*vertotest.Leg) vertotest.Route {
			return vertotest.Route{Early: moment == vertotest.EarlyMedia, Bridged: true}
		},
		Observe: func(e vertotest.Event) {
			if e.Kind == moment {
				once.Do(func() {
					harmed.Store(true)
					harm(s, e.Leg)
				})
			}
			if late && e.Kind == vertotest.MediaUp {
				dropped.Do(func() { s.Drop(account) })
			}
		},
	})
	cfg := quick(s.URL())
	cfg.SettleTime = verto.Duration(500 * time.Millisecond)
	p, o, _ := start(t, cfg, verto.User{Login: account, Password: password, Answer: verto.AnswerAlways})
	o.registered(t)
	if placed {
		if _, err := p.Call(t.Context(), "1002"); err != nil {
			if _, ok := errors.AsType[*engine.RequestError](err); !ok {
				t.Fatal(err)
			}
		}
	} else if _, err := s.Originate(account, vertotest.Call{CallerNumber: "1002"}); err != nil {
		t.Fatal(err)
	}
	never := placed && (moment == vertotest.Offered || moment == vertotest.Answering) ||
		!placed && (moment == vertotest.Invited || moment == vertotest.EarlyMedia)
	if !never {
		o.until(t, "the moment", harmed.Load)
	}
	// Both ends come to the same: no session without a leg, no leg without one.
	agree := func() bool {
		live := 0
		for id := range o.ids() {
			states := o.states(id, events.LayerDialog)
			l := s.Leg(id)
			switch last := states[len(states)-1]; {
			case strings.HasPrefix(last, "ended") && l == nil:
			case last == events.DialogActive && l != nil && l.State() == vertotest.Up && l.Attached():
				live++
			default:
				return false
			}
		}
		return p.Registered() && s.Sockets(account) == 1 && len(s.Legs("")) == live
	}
	o.until(t, "agreement", agree)
	for _, l := range s.Legs("") {
		l.Hangup("NORMAL_CLEARING")
	}
	o.until(t, "end of all", func() bool { return agree() && len(s.Legs("")) == 0 })
	for id := range o.ids() {
		o.wellTold(t, id)
	}
}

// ids are the sessions that were told of.
func (o *observed) ids() map[string]bool {
	ids := make(map[string]bool)
	for _, e := range o.sessions() {
		if e.Session != "" {
			ids[e.Session] = true
		}
	}
	return ids
}
