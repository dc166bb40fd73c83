package verto_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/callstate/callstate/adapters/verto"
	"github.com/callstate/callstate/adapters/verto/vertotest"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// flows waits until RTP goes both ways on every leg, counted at both ends: more
// packets than there were.
func flows(t *testing.T, o *observed, legs ...*vertotest.Leg) {
	t.Helper()
	before := make([]vertotest.Counts, len(legs))
	for i, l := range legs {
		before[i] = l.Counts()
	}
	for i, l := range legs {
		o.until(t, "media both ways", func() bool {
			n := l.Counts()
			return n.Received > before[i].Received+10 && n.Sent > before[i].Sent+10
		})
	}
}

// ended returns how a session ended and its last figures. It ends once, and the
// figures come right before.
func (o *observed) ended(t *testing.T, id string) (engine.SessionObservation, events.WebRTCStats) {
	t.Helper()
	is := func(s engine.SessionObservation) bool { return s.Kind == engine.SessionEnded }
	o.until(t, "end of "+id, func() bool { return slices.ContainsFunc(o.of(id), is) })
	all := o.of(id)
	last := all[len(all)-1]
	if !is(last) || slices.IndexFunc(all, is) != len(all)-1 {
		t.Fatalf("%s: something came after its end: %+v", id, all)
	}
	var stats events.WebRTCStats
	if len(all) > 1 && all[len(all)-2].Kind == engine.SessionStats {
		stats = all[len(all)-2].Stats
	}
	return last, stats
}

// place calls 1002 and waits until it has answered.
func place(t *testing.T, p *verto.Phone, o *observed) string {
	t.Helper()
	id, err := p.Call(t.Context(), "1002")
	if err != nil {
		t.Fatal(err)
	}
	o.reaches(t, id, events.DialogActive)
	return id
}

// ring calls the account and waits until its phone rings.
func ring(t *testing.T, s *vertotest.Server, o *observed, c vertotest.Call) *vertotest.Leg {
	t.Helper()
	legs, err := s.Originate(account, c)
	if err != nil {
		t.Fatal(err)
	}
	o.reaches(t, legs[0].ID(), events.DialogRinging)
	return legs[0]
}

// talk puts up a call that the account received, with media.
func talk(t *testing.T, s *vertotest.Server, p *verto.Phone, o *observed) *vertotest.Leg {
	t.Helper()
	leg := ring(t, s, o, vertotest.Call{CallerNumber: "1002"})
	if err := p.Answer(t.Context(), leg.ID(), false); err != nil {
		t.Fatal(err)
	}
	o.reaches(t, leg.ID(), events.DialogActive)
	flows(t, o, leg)
	return leg
}

// inCall starts a server and a phone, which talk.
func inCall(t *testing.T) (*vertotest.Server, *verto.Phone, *observed, *vertotest.Leg) {
	t.Helper()
	s := newServer(t, vertotest.Options{})
	p, o, _ := start(t, quick(s.URL()), verto.User{})
	o.registered(t)
	return s, p, o, talk(t, s, p, o)
}

func TestMediaIsCountedAtBothEnds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		codecs []vertotest.Codec
		codec  string
		far    vertotest.FarEnd
		audio  string
	}{
		{"tone against silence", nil, "PCMU", vertotest.Tone, verto.AudioSilence},
		{"tone that comes back", []vertotest.Codec{vertotest.PCMA}, "PCMA", vertotest.Tone, verto.AudioEcho},
		{"silence that comes back", []vertotest.Codec{vertotest.Opus}, "opus", vertotest.Echo, verto.AudioSilence},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, vertotest.Options{
				Codecs: tt.codecs, Dialplan: func(*vertotest.Leg) vertotest.Route { return vertotest.Route{Far: tt.far} },
			})
			cfg := quick(s.URL())
			cfg.StatsInterval = verto.Duration(20 * time.Millisecond)
			p, o, _ := start(t, cfg, verto.User{Login: account, Password: password, Audio: tt.audio})
			o.registered(t)
			id, err := p.Call(t.Context(), "8001")
			if err != nil {
				t.Fatal(err)
			}
			leg := s.Leg(id)
			flows(t, o, leg)
			// While the call is held the server sends nothing, so that what it has sent
			// arrives, but for what came before the phone could decrypt it.
			hold := func(do func(context.Context, string) error) {
				t.Helper()
				if err := do(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}
			missing := func() int64 {
				all := o.of(id)
				i := len(all) - 1
				for i > 0 && all[i].Kind != engine.SessionStats {
					i--
				}
				return int64(leg.Counts().Sent) - all[i].Stats.PacketsReceived
			}
			hold(p.Hold)
			early := missing()
			hold(p.Unhold)
			flows(t, o, leg)
			hold(p.Hold)
			sent := leg.Counts().Sent
			o.until(t, "all that was sent since", func() bool { return missing() <= early })
			leg.Hangup("NORMAL_CLEARING")
			_, st := o.ended(t, id)
			n := leg.Counts()
			if st.Codec != tt.codec || n.Lost != 0 || st.PacketsLost != 0 {
				t.Errorf("codec %q; the server lost %d, the phone %d", st.Codec, n.Lost, st.PacketsLost)
			}
			if n.Sent != sent || uint64(st.PacketsReceived) > sent {
				t.Errorf("the server sent %d and %d more while held, the phone received %d", sent, n.Sent-sent, st.PacketsReceived)
			}
			if n.Received > uint64(st.PacketsSent) {
				t.Errorf("the phone sent %d, the server received %d", st.PacketsSent, n.Received)
			}
		})
	}
}

func TestHoldStopsTheFarEndAndUnholdBringsItBack(t *testing.T) {
	t.Parallel()
	_, p, o, leg := inCall(t)
	if err := p.Hold(t.Context(), leg.ID()); err != nil {
		t.Fatal(err)
	}
	o.reaches(t, leg.ID(), events.DialogHeld)
	if !leg.Held() {
		t.Error("held here and not there")
	}
	sent := leg.Counts().Sent
	if err := p.Hold(t.Context(), leg.ID()); err != nil {
		t.Errorf("hold once more: %v", err)
	}
	if n := leg.Counts().Sent; n != sent {
		t.Errorf("%d packets came while held", n-sent)
	}
	if err := p.Unhold(t.Context(), leg.ID()); err != nil {
		t.Fatal(err)
	}
	flows(t, o, leg)
	leg.Hangup("NORMAL_CLEARING")
	o.ended(t, leg.ID())
	want := []string{"ringing", "answering", "active", "held", "active", "hangup", "ended: bye"}
	if got := o.states(leg.ID(), events.LayerDialog); !slices.Equal(got, want) {
		t.Errorf("dialog went %v, want %v", got, want)
	}
}

func TestDigitsBothWays(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var sent, received string
	s := newServer(t, vertotest.Options{Observe: func(e vertotest.Event) {
		if e.Kind == vertotest.Digits {
			mu.Lock()
			sent += e.Text
			mu.Unlock()
		}
	}})
	p, o, _ := start(t, quick(s.URL()), verto.User{}, func(p *verto.Phone) {
		p.OnDigit(func(_ string, digit byte, d time.Duration) {
			mu.Lock()
			received += string(digit)
			mu.Unlock()
			if d != 100*time.Millisecond {
				t.Errorf("digit %c of %s, want 100 ms", digit, d)
			}
		})
	})
	o.registered(t)
	id := place(t, p, o)
	flows(t, o, s.Leg(id))
	for _, digits := range []string{"12#", "3@100+W4"} {
		if err := p.SendDTMF(t.Context(), id, digits); err != nil {
			t.Error(err)
		}
	}
	if !s.Leg(id).SendDigits("77*A") {
		t.Fatal("telephone-event was not agreed")
	}
	o.until(t, "digits both ways", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return sent == "12#3@100+W4" && received == "77*A"
	})
}

func TestHangupFromEitherSide(t *testing.T) {
	t.Parallel()
	s := newServer(t, vertotest.Options{})
	p, o, _ := start(t, quick(s.URL()), verto.User{})
	o.registered(t)
	for _, tt := range []struct {
		name   string
		placed bool
		up     bool
		cause  string
		code   int
		by     string
	}{
		{"placed, by the phone", true, true, "NORMAL_CLEARING", 16, "account"},
		{"placed, by the far end", true, true, "NORMAL_CLEARING", 16, "other"},
		{"placed, killed", true, true, "ALLOTTED_TIMEOUT", 802, "other"},
		{"received, by the phone", false, true, "NORMAL_CLEARING", 16, "account"},
		{"received, by the far end", false, true, "NORMAL_CLEARING", 16, "other"},
		{"received, rejected", false, false, "CALL_REJECTED", 21, "account"},
		{"received, given up", false, false, "ORIGINATOR_CANCEL", 487, "other"},
		{"received, answered elsewhere", false, false, "LOSE_RACE", 702, "other"},
		{"placed, given up", true, false, "ORIGINATOR_CANCEL", 487, "account"},
		{"placed, busy", true, false, "USER_BUSY", 17, "other"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var leg *vertotest.Leg
			switch {
			case tt.placed:
				id, err := p.Call(t.Context(), "1002")
				if err != nil {
					t.Fatal(err)
				}
				leg = s.Leg(id)
				if tt.up {
					o.reaches(t, id, events.DialogActive)
				}
			case tt.up:
				leg = talk(t, s, p, o)
			default:
				leg = ring(t, s, o, vertotest.Call{CallerNumber: "1002"})
			}
			if tt.by == "account" {
				if err := p.Hangup(t.Context(), leg.ID(), tt.cause); err != nil {
					t.Fatal(err)
				}
			} else {
				leg.Hangup(tt.cause)
			}
			e, _ := o.ended(t, leg.ID())
			if e.Reason != events.SessionBye || e.Cause != tt.cause || e.CauseCode != tt.code || e.By != tt.by {
				t.Errorf("ended %+v", e)
			}
			if got := leg.Cause(); got != tt.cause {
				t.Errorf("the server ended it with %s", got)
			}
		})
	}
	if n := len(s.Legs("")); n != 0 {
		t.Errorf("%d legs left", n)
	}
}

func TestRefusedSessions(t *testing.T) {
	t.Parallel()
	s := newServer(t, vertotest.Options{})
	p, o, _ := start(t, quick(s.URL()), verto.User{})
	o.registered(t)
	for number, cause := range map[string]string{"4444": "NO_ROUTE_DESTINATION", "2000": "NORMAL_TEMPORARY_FAILURE"} {
		id, err := p.Call(t.Context(), number)
		if err != nil {
			t.Fatalf("%s: %v; the server makes the channel first", number, err)
		}
		if e, _ := o.ended(t, id); e.Cause != cause || e.By != "other" {
			t.Errorf("%s ended %+v", number, e)
		}
	}

	// A refused answer leaves the call as it was: the phone ends it.
	leg := ring(t, s, o, vertotest.Call{RefuseAnswers: 1})
	err := p.Answer(t.Context(), leg.ID(), false)
	if err == nil {
		t.Fatal("the answer was refused, and the phone says it was not")
	}
	o.ended(t, leg.ID())
	o.until(t, "end there too", func() bool { return leg.State() == vertotest.Over })

	if _, err := p.Call(t.Context(), ""); err == nil {
		t.Error("called nobody")
	}
}

func TestEarlyMediaIsHeardBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	s := newServer(t, vertotest.Options{Dialplan: func(*vertotest.Leg) vertotest.Route {
		return vertotest.Route{Ring: -1, Early: true, Bridged: true}
	}})
	p, o, _ := start(t, quick(s.URL()), verto.User{})
	o.registered(t)
	id, err := p.Call(t.Context(), "1002")
	if err != nil {
		t.Fatal(err)
	}
	o.reaches(t, id, events.DialogEarly)
	flows(t, o, s.Leg(id))
	s.Leg(id).Answer()
	o.reaches(t, id, events.DialogActive)
	flows(t, o, s.Leg(id))
}

func TestSecondPhoneTakesTheSessidAndItsCalls(t *testing.T) {
	s := newServer(t, vertotest.Options{})
	user := verto.User{Login: account, Password: password, SessID: "2e8f2d3c-6d5b-4f5e-9d55-0d4d0e6a4a11"}
	p, o, stop := start(t, quick(s.URL()), user)
	o.registered(t)
	leg := talk(t, s, p, o)
	_, second, _ := start(t, quick(s.URL()), user)
	second.reaches(t, leg.ID(), events.DialogActive)
	flows(t, second, leg)
	o.until(t, "displaced", func() bool {
		all := o.sessions()
		return all[len(all)-1].Reason == events.SessionDisplaced
	})
	if err := stop(); !errors.Is(err, verto.ErrDisplaced) {
		t.Errorf("Run: %v", err)
	}
}

func TestLoserOfTheRaceIsTold(t *testing.T) {
	s := newServer(t, vertotest.Options{})
	p, o, _ := start(t, quick(s.URL()), verto.User{})
	o.registered(t)
	_, other, _ := start(t, quick(s.URL()), verto.User{})
	other.registered(t)
	legs, err := s.Originate(account, vertotest.Call{CallerNumber: "1002"})
	if err != nil || len(legs) != 2 {
		t.Fatal(legs, err)
	}
	// Whose is which is the server's choice.
	mine, theirs := legs[0], legs[1]
	o.until(t, "ringing", func() bool {
		if len(o.of(theirs.ID())) > 0 {
			mine, theirs = theirs, mine
		}
		return len(o.of(mine.ID())) > 0
	})
	other.reaches(t, theirs.ID(), events.DialogRinging)
	if err := p.Answer(t.Context(), mine.ID(), false); err != nil {
		t.Fatal(err)
	}
	if e, _ := other.ended(t, theirs.ID()); e.Cause != "LOSE_RACE" || e.By != "other" {
		t.Errorf("the other phone's session ended %+v", e)
	}
	flows(t, o, mine)
}
