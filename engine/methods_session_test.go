package engine

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/callstate/callstate/events"
)

// TestWhoCarriesOut: what the account's web phone can do with the call's session is
// the phone's, all else the PBX's.
func TestWhoCarriesOut(t *testing.T) {
	for name, tt := range map[string]struct {
		before   func(*story)
		requests map[string]string // method: the commands, or the refusal
	}{
		"no session": {func(s *story) {}, map[string]string{
			"answerCall": "no-session", "dropCall": "pbx hangup b", "makeCall": "not-allowed",
		}},
		"a session that rings": {func(s *story) { s.tell(rings("b")) }, map[string]string{
			"answerCall": "phone answer b", "dropCall": "phone hangup b CALL_REJECTED", "holdCall": "not-allowed",
		}},
		"an active one": {func(s *story) { s.talks(rings("b")) }, map[string]string{
			"answerCall": "not-allowed", "holdCall": "phone hold b", "dropCall": "phone hangup b", "sendDtmf": "phone dtmf b",
			"setVideoState": "phone video b", "makeConsultCall": "phone hold b, pbx consult b", "blindTransferCall": "pbx transfer a",
		}},
		"one whose socket is gone": {func(s *story) { s.talks(rings("b")); s.tell(dialog("b", events.DialogDetached)) }, map[string]string{
			"holdCall": "pbx hold b", "dropCall": "pbx hangup b", "sendDtmf": "pbx dtmf b", "setVideoState": "no-session",
		}},
		"one that has ended": {func(s *story) {
			s.talks(rings("b"))
			s.tell(SessionObservation{Kind: SessionEnded, Session: "b"})
		}, map[string]string{"holdCall": "pbx hold b"}},
		"an inferred one": {func(s *story) { s.leg(verto(of(LegAnswered, "b"))) }, map[string]string{"holdCall": "pbx hold b", "setVideoState": "no-session"}},
		"one on hold":     {func(s *story) { s.talks(rings("b")); s.leg(of(LegHeld, "b")) }, map[string]string{"unholdCall": "phone unhold b", "holdCall": "phone unhold b"}},
		"one whose leg has another id": {func(s *story) {
			s.talks(rings("b"))
			s.leg(LegObservation{Kind: LegRenamed, Leg: "b2", OldLeg: "b", Vars: true})
		}, map[string]string{"holdCall": "phone hold b"}},
		"no call": {func(s *story) {
			s.leg(hangup("b", "NORMAL_CLEARING"))
			s.tell(SessionObservation{Kind: SessionRegistered})
		}, map[string]string{"makeCall": "phone call "}},
		"no call, the phone not signed in": {func(s *story) { s.leg(hangup("b", "NORMAL_CLEARING")) }, map[string]string{"makeCall": "no-session"}},
	} {
		for method, want := range tt.requests {
			s := newStory(t, Policies{})
			s.o.WebPhone = func(string) bool { return true }
			s.leg(incoming("b", "a", anna, "380"))
			tt.before(s)
			p, _, refusal := s.o.Do(Request{ID: "1", Account: anna, Method: method, Target: "100", Digits: "1", By: "test"}, s.now)
			got := ""
			if re, ok := errors.AsType[*RequestError](refusal); ok {
				got = string(re.Result)
			}
			for c, more := p.Next(); more; c, more = p.Next() {
				who := "pbx"
				if c.Phone {
					who = "phone"
				}
				if got != "" {
					got += ", "
				}
				got += fmt.Sprintf("%s %s %s", who, c.Action, c.Leg)
				if c.Cause != "" {
					got += " " + c.Cause
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s, %s (-want +got):\n%s", name, method, d)
			}
		}
	}
}

// TestCapabilitiesAreThePhones: what a line can ever do depends on the phone that the
// account has.
func TestCapabilitiesAreThePhones(t *testing.T) {
	is := func(b bool) func(string) bool { return func(string) bool { return b } }
	for want, tt := range map[string]struct{ webPhone, video func(string) bool }{
		"1979": {nil, nil},
		"1983": {is(true), is(false)},
		"4031": {is(true), is(true)},
	} {
		s := newStory(t, Policies{})
		s.o.WebPhone, s.o.PhoneVideo = tt.webPhone, tt.video
		p, _, err := s.o.Do(Request{ID: "1", Account: anna, Method: "getCapabilities", By: "test"}, s.now)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.plan.answer; got != want {
			t.Errorf("capabilities %s, want %s", got, want)
		}
	}
}

// talks answers a ringing session and its leg.
func (s *story) talks(o SessionObservation) {
	s.tell(o)
	s.leg(of(LegAnswered, "b"))
	s.tell(dialog("b", events.DialogActive))
}

// TestClickToCallIsAnsweredByThePhone: once, where the account's phone is signed in.
func TestClickToCallIsAnsweredByThePhone(t *testing.T) {
	s := newStory(t, Policies{})
	s.want(s.leg(clicked("c", anna, "100", "")), "1004 callStarted c", "1004 line 8 c", "1004 ISBUSY")
	s.leg(hangup("c", "NORMAL_CLEARING"))
	s.tell(SessionObservation{Kind: SessionRegistered})
	s.want(s.leg(clicked("d", anna, "100", "")), "1004 callStarted d", "1004 line 8 d", "1004 ISBUSY", "command auto-answer d ")
	s.want(s.leg(of(LegAnswered, "d")), "1004 agentAnswered d")
	s.leg(hangup("d", "NORMAL_CLEARING"))
	s.want(s.leg(incoming("e", "x", anna, "380")), "1004 callStarted x", "1004 line 12 x", "1004 ISBUSY")
	found := s.input(clicked("f", anna, "100", ""))
	found.Origin = events.Resync
	s.want(s.feed(found), "1004 line 0 x", "1004 callStarted f", "1004 line 0 f") // found by a comparison: nobody rings now
}
