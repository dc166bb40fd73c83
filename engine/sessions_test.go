package engine

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// told is an input of anna's web phone, 10 ms after what came before.
func (s *story) told(o SessionObservation) Input {
	s.seq++
	s.now += 10_000
	if o.Account == "" {
		o.Account = anna
	}
	o.At = s.now
	return Input{ReceivedAt: s.now, Session: &o, Source: events.Source{Adapter: "verto", Connection: "phone", Sequence: s.seq}}
}

func (s *story) tell(o SessionObservation) []string { s.t.Helper(); return s.feed(s.told(o)) }

// pass lets time go by.
func (s *story) pass(d time.Duration) []string {
	s.t.Helper()
	s.now = s.now.Add(d)
	steps, err := s.o.tick(s.now)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.take(steps)
}

// since returns the events after the n first ones, in short.
func (s *story) since(n int) []string {
	var out []string
	for i := range s.evs[n:] {
		ev := &s.evs[n+i]
		text := string(ev.Type())
		switch p := ev.Payload.(type) {
		case *events.WebRTCSessionNew:
			text = fmt.Sprintf("new %s inferred=%v joined=%v", p.State, p.Inferred, p.Joined)
		case *events.WebRTCStateChanged:
			text = fmt.Sprintf("%s %s>%s", p.Layer, p.From, p.State)
		case *events.WebRTCSessionEnded:
			text = fmt.Sprintf("ended %s %s inferred=%v", p.Reason, p.Cause, p.Inferred)
		}
		if ev.Call == "" {
			text += " (no call)"
		}
		out = append(out, text)
	}
	return out
}

func rings(id string) SessionObservation {
	return SessionObservation{Kind: SessionNew, Session: id, Transport: "verto", Direction: events.In, State: events.DialogRinging}
}

func dialog(id, state string) SessionObservation {
	return SessionObservation{Kind: SessionState, Session: id, Layer: events.LayerDialog, State: state}
}

func ice(id, state string) SessionObservation {
	return SessionObservation{Kind: SessionState, Session: id, Layer: events.LayerICE, State: state}
}

func verto(o LegObservation) LegObservation { o.WebRTC = "verto"; return o }

// TestSessionJoinsItsLegWhicheverSpeaksFirst: what the phone tells before the
// leg's first frame waits for it.
func TestSessionJoinsItsLegWhicheverSpeaksFirst(t *testing.T) {
	leg := func(s *story) []string { return s.leg(verto(incoming("b", "a", anna, "380"))) }
	phone := func(s *story) []string { return append(s.tell(rings("b")), s.tell(ice("b", "new"))...) }
	want := []string{"call.new", "new ringing inferred=false joined=false", "ice >new"}

	s := newStory(t, Policies{})
	s.tell(SessionObservation{Kind: SessionRegistered, Server: "pbx:8081"})
	s.want(phone(s))
	s.want(leg(s), "1004 callStarted a", "1004 line 12 a", "1004 ISBUSY", "1004 webRtcStarted a")
	s.want(s.since(1), want...)

	s = newStory(t, Policies{})
	s.tell(SessionObservation{Kind: SessionRegistered})
	leg(s)
	s.want(phone(s), "1004 webRtcStarted a")
	s.want(s.since(1), want...)
	if f := s.o.Frames(); !f.Reconciles() {
		t.Errorf("frames: %+v", f)
	}
}

// TestUnjoinedSessionIsRecordedAndJoinedLater: after 5 s it is the account's, and
// the call's as soon as its leg is seen.
func TestUnjoinedSessionIsRecordedAndJoinedLater(t *testing.T) {
	s := newStory(t, Policies{})
	s.tell(rings("b"))
	s.tell(ice("b", "new"))
	if s.pass(4 * time.Second); len(s.evs) != 0 {
		t.Fatalf("recorded too early: %v", s.since(0))
	}
	s.want(s.pass(2 * time.Second)) // no CTI event without a call
	s.want(s.since(0), "new ringing inferred=false joined=false (no call)", "ice >new (no call)")
	s.want(s.tell(dialog("b", events.DialogActive)))

	s.want(s.leg(incoming("b", "a", anna, "380")), "1004 callStarted a", "1004 line 12 a", "1004 ISBUSY", "1004 webRtcStarted a")
	s.want(s.since(3), "call.new", "new active inferred=false joined=true", "ice >new")
	s.want(s.tell(dialog("b", events.DialogHeld)))
	s.want(s.since(6), "dialog active>held")
	if w := s.steps[len(s.steps)-1].Result.Call.WebRTC; w == nil || w.State != "held" || w.ICE != "new" || w.Inferred {
		t.Errorf("the view shows %+v", w)
	}
}

// TestRealSessionReplacesInferred: no second webRtcStarted, and none is inferred
// where the phone of the account has told.
func TestRealSessionReplacesInferred(t *testing.T) {
	s := newStory(t, Policies{})
	s.want(s.leg(verto(incoming("b", "a", anna, "380"))), "1004 callStarted a", "1004 line 12 a", "1004 ISBUSY", "1004 webRtcStarted a")
	s.want(s.tell(rings("b")))
	s.want(s.tell(ice("b", "new")))
	s.want(s.since(1), "new  inferred=true joined=false", "new ringing inferred=false joined=false", "ice >new")
	s.want(s.tell(SessionObservation{Kind: SessionEnded, Session: "b", Reason: events.SessionSocketLost}), "1004 webRtcDestroyed a")
	n := len(s.evs)
	s.leg(verto(of(LegAnswered, "b")))
	s.want(s.since(n), "call.accepted", "call.bridged") // neither inferred anew nor ended
	s.want(s.leg(hangup("b", "NORMAL_CLEARING")), "1004 callFinished a answered", "1004 line 2", "1004 ONHOOK")
}

// TestRegisteredPhoneIsWaitedFor: its word counts, and a session is inferred where
// it does not come.
func TestRegisteredPhoneIsWaitedFor(t *testing.T) {
	s := newStory(t, Policies{})
	s.tell(SessionObservation{Kind: SessionRegistered})
	s.leg(verto(incoming("b", "a", anna, "380")))
	s.leg(verto(of(LegAnswered, "b")))
	s.want(s.since(1), "call.new", "call.accepted", "call.bridged")
	s.pass(5 * time.Second)
	n := len(s.evs)
	s.leg(verto(of(LegSeen, "b")))
	s.want(s.since(n), "new  inferred=true joined=false")
}

// TestDeadSessionEndsNoCall: the call ends when the switch says so, and a leg's
// end tells the phone.
func TestDeadSessionEndsNoCall(t *testing.T) {
	s := newStory(t, Policies{})
	s.tell(SessionObservation{Kind: SessionRegistered})
	s.leg(incoming("b", "a", anna, "380"))
	s.tell(rings("b"))
	s.leg(of(LegAnswered, "b"))
	s.tell(ice("b", "failed"))
	s.tell(SessionObservation{Kind: SessionState, Session: "b", Layer: events.LayerDTLS, State: "closed"})
	s.tell(dialog("b", events.DialogDetached))
	s.tell(SessionObservation{Kind: SessionUnregistered, Reason: events.SessionSocketLost})
	if c := s.steps[len(s.steps)-2].Result.Call; c.State != cti.StateConnected || c.WebRTC.ICE != "failed" || c.WebRTC.State != events.DialogDetached {
		t.Fatalf("call %+v, session %+v", c, c.WebRTC)
	}
	n := len(s.evs)
	s.want(s.leg(hangup("b", "NORMAL_CLEARING")), "1004 callFinished a answered", "1004 line 2", "1004 ONHOOK")
	s.want(s.since(n), "dialog detached>hangup", "call.hungup")
	s.want(s.pass(4 * time.Second))
	s.want(s.pass(2*time.Second), "1004 webRtcDestroyed a")
	s.want(s.since(n+2), "ended leg-gone NORMAL_CLEARING inferred=true")
	n = len(s.evs)
	s.want(s.tell(SessionObservation{Kind: SessionEnded, Session: "b", Cause: "NORMAL_CLEARING"})) // too late
	s.want(s.since(n))
}

// TestLegThatIsGoneTakesItsSessionAlong: the phone is told, before the call ends.
func TestLegThatIsGoneTakesItsSessionAlong(t *testing.T) {
	s := newStory(t, Policies{})
	s.leg(incoming("b", "a", anna, "380"))
	s.talks(rings("b"))
	s.want(s.leg(hangup("b", "USER_BUSY")), "command hangup b USER_BUSY", "1004 callFinished a answered", "1004 line 2", "1004 ONHOOK")
	s.want(s.tell(dialog("b", events.DialogHangup))) // it knows by now
	s.want(s.tell(SessionObservation{Kind: SessionEnded, Session: "b", Reason: events.SessionBye}), "1004 webRtcDestroyed a")
}

// TestSessionIsToldOnce (I6): what a phone repeats gives nothing, by state where
// there is no number.
func TestSessionIsToldOnce(t *testing.T) {
	s := newStory(t, Policies{})
	s.leg(incoming("b", "a", anna, "380"))
	stats := s.told(SessionObservation{Kind: SessionStats, Session: "b", Stats: events.WebRTCStats{PacketsReceived: 500, JitterMs: math.NaN(), SentLoss: math.NaN(), SentJitterMs: math.Inf(1), MOS: 4.4}})
	inputs := []Input{
		s.told(SessionObservation{Kind: SessionRegistered}),
		s.told(rings("b")), s.told(ice("b", "new")), s.told(dialog("b", events.DialogActive)),
		s.told(SessionObservation{Kind: SessionVideo, Session: "b", Codec: "VP8"}), stats,
	}
	for _, in := range inputs {
		s.feed(in)
		n := len(s.evs)
		again := in
		again.recorded, again.n = false, 0
		again.Source.Sequence = 0
		s.feed(again)
		s.want(s.since(n))
	}
	q := s.steps[len(s.steps)-1].Result.Call.WebRTC.Quality
	if d := cmp.Diff(&cti.Quality{PacketsReceived: 500, MOS: 4.4}, q); d != "" {
		t.Errorf("quality (-want +got):\n%s", d)
	}
	for _, ev := range s.evs {
		if p, ok := ev.Payload.(*events.WebRTCStats); ok && (p.SentLoss != 0 || p.SentJitterMs != 0) {
			t.Errorf("no numbers were told as %+v", p)
		}
	}
	seen := 0
	for _, ev := range s.evs {
		if v, is := ev.Payload.(*events.WebRTCVideoStarted); is && *v == (events.WebRTCVideoStarted{Session: "b", Codec: "VP8"}) {
			seen++
		}
	}
	if seen != 1 {
		t.Errorf("video is told of %d times", seen)
	}
	if f := s.o.Frames(); !f.Reconciles() || f.Duplicates != 6 {
		t.Errorf("frames: %+v", f)
	}
}

// TestSessionFollowsItsLeg: after a transfer or a new id its events are of the call
// that the leg is in.
func TestSessionFollowsItsLeg(t *testing.T) {
	s := newStory(t, Policies{})
	s.leg(incoming("b", "a", anna, "380"))
	s.tell(rings("b"))
	s.leg(LegObservation{Kind: LegRenamed, Leg: "b2", OldLeg: "b", Vars: true})
	s.tell(dialog("b", events.DialogActive))
	if ev := s.evs[len(s.evs)-1]; ev.Leg != "b2" || ev.Call != "a" {
		t.Errorf("%s of leg %s, call %s", ev.Type(), ev.Leg, ev.Call)
	}
	s.leg(hangup("b2", "NORMAL_CLEARING"))
	s.want(s.tell(SessionObservation{Kind: SessionEnded, Session: "b", Reason: events.SessionBye}), "1004 webRtcDestroyed a")
}

// TestManyWordsBeforeTheLegAreNotLost: what waits is bounded, and the rest is
// recorded at once.
func TestManyWordsBeforeTheLegAreNotLost(t *testing.T) {
	s := newStory(t, Policies{})
	s.tell(rings("b"))
	for i := range 2 * maxWaiting {
		s.tell(ice("b", fmt.Sprint("state-", i)))
	}
	if len(s.evs) != 1+2*maxWaiting {
		t.Errorf("%d events", len(s.evs))
	}
	s.finish()
	if f := s.o.Frames(); !f.Reconciles() || f.Recorded != uint64(len(s.evs)) {
		t.Errorf("frames: %+v", f)
	}
}

// TestSessionIsTakenOverByAnotherPhone: the one that was displaced has ended it,
// the switch offers it to the other.
func TestSessionIsTakenOverByAnotherPhone(t *testing.T) {
	s := newStory(t, Policies{})
	s.leg(incoming("b", "a", anna, "380"))
	s.tell(rings("b"))
	s.tell(ice("b", "new"))
	s.want(s.tell(SessionObservation{Kind: SessionEnded, Session: "b", Reason: events.SessionDisplaced}), "1004 webRtcDestroyed a")
	n := len(s.evs)
	taken := rings("b")
	taken.State = events.DialogRecovering
	s.tell(taken)
	s.want(s.tell(dialog("b", events.DialogActive)), "1004 webRtcStarted a")
	s.want(s.since(n), "new recovering inferred=false joined=false", "dialog recovering>active")
	if w := s.steps[len(s.steps)-1].Result.Call.WebRTC; w.Ended || w.Reason != "" {
		t.Errorf("the view shows %+v", w)
	}
}

// drawSession is a word of one of two phones about one of the legs, in any order.
func drawSession(t *rapid.T, s *story) Input {
	in := s.told(SessionObservation{
		Kind:    SessionKind(rapid.IntRange(int(SessionRegistered), int(SessionEnded)).Draw(t, "session kind")),
		Account: rapid.SampledFrom([]string{anna, anna, bert}).Draw(t, "phone of"),
		Session: rapid.SampledFrom([]string{"l1", "l2", "l3", "l4", "x", ""}).Draw(t, "session"), Transport: "verto", Direction: events.In,
		Layer:   rapid.SampledFrom([]string{events.LayerDialog, events.LayerICE, events.LayerDTLS, "y"}).Draw(t, "layer"),
		State:   rapid.SampledFrom([]string{"ringing", "active", "held", "new", "failed", "hangup", "recovering", ""}).Draw(t, "session state"),
		Attempt: rapid.IntRange(0, 2).Draw(t, "attempt"), Video: rapid.Bool().Draw(t, "video"),
		Stats:  events.WebRTCStats{PacketsReceived: int64(s.seq), MOS: rapid.SampledFrom([]float64{0, 4.4, math.Inf(1), math.NaN(), -1}).Draw(t, "mos")},
		Reason: rapid.SampledFrom([]string{"", events.SessionBye}).Draw(t, "session reason"),
	})
	in.Source.Connection = rapid.SampledFrom([]string{"phone-1", "phone-2"}).Draw(t, "phone connection")
	in.Unframed = rapid.Bool().Draw(t, "unframed")
	return in
}

// TestSessionsChangeNoCall: with what phones tell left out, the calls are the same
// calls with the same states, and end the same way.
func TestSessionsChangeNoCall(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStory(t, Policies{})
		s.steady = true // what is forgotten when goes by the clock, which phones move
		bare := newStory(t, Policies{})
		for range rapid.IntRange(1, 60).Draw(t, "inputs") {
			in := drawWide(t, s)
			for in.Session == nil && rapid.Bool().Draw(t, "a phone speaks") {
				s.feed(drawSession(t, s))
				in.ReceivedAt = max(in.ReceivedAt, s.now)
			}
			same := in
			if in.Leg != nil {
				leg := *in.Leg
				same.Leg = &leg
			}
			s.feed(in)
			if in.Session == nil {
				bare.feed(same)
			} else {
				bare.now = in.ReceivedAt
				bare.pass(0)
			}
		}
		s.finish()
		bare.finish()
		if d := cmp.Diff(callStory(bare), callStory(s)); d != "" {
			t.Fatalf("-without phones +with:\n%s", d)
		}
	})
}

// callStory is what happened to calls, without a word of sessions.
func callStory(s *story) []string {
	var out []string
	for i := range s.steps {
		for _, m := range s.steps[i].Result.Messages {
			e := &m.Event
			if slices.Contains([]cti.Name{cti.WebRTCStarted, cti.WebRTCVideoStarted, cti.WebRTCDestroyed, cti.SessionQuality}, e.Event) {
				continue
			}
			text := short(e)
			if c := e.Call; c != nil {
				text += fmt.Sprintf(" %s %d %d %d %d %s", c.StateName, c.CallFeaturesSet, c.RingMs, c.TalkMs, c.HoldMs, c.Cause)
			}
			out = append(out, text)
		}
	}
	return out
}

// TestSnapshotOfOneSessionIsTakenUp: a state of before, which kept one session a
// call, is still a state.
func TestSnapshotOfOneSessionIsTakenUp(t *testing.T) {
	type before struct {
		id     string `wire:"1"`
		webrtc *struct {
			Session   string `wire:"1"`
			Transport string `wire:"2"`
			Inferred  bool   `wire:"3"`
		} `wire:"26"`
	}
	b := before{id: "a"}
	b.webrtc = new(struct {
		Session   string `wire:"1"`
		Transport string `wire:"2"`
		Inferred  bool   `wire:"3"`
	})
	b.webrtc.Session, b.webrtc.Transport, b.webrtc.Inferred = "leg", "verto", true
	form := events.FormOf[before]()
	var whole wholeCall
	if err := callForm.Decode(form.Append(nil, &b), &whole); err != nil {
		t.Fatal(err)
	}
	c := whole.parts()
	want := &cti.WebRTC{Session: "leg", Transport: "verto", Inferred: true}
	if d := cmp.Diff(want, c.viewSession()); d != "" {
		t.Errorf("session (-before +now):\n%s", d)
	}
}
