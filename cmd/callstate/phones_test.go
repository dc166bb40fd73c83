package main

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/callstate/callstate/adapters/verto/vertotest"
	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

const (
	phoneLogin = "1040@" + demoDomain
	otherPhone = "1041@" + demoDomain
)

// phoneDaemon is a daemon whose PBX has web phones: one switch behind both servers.
type phoneDaemon struct {
	*daemon
	sw    *demoSwitch
	video string // the phone's clip
	seen  chan vertotest.Event
}

func startPhoneDaemon(t *testing.T, data, video string) *phoneDaemon {
	t.Helper()
	d := &phoneDaemon{video: video, seen: make(chan vertotest.Event, 1024)}
	var err error
	d.sw, err = startDemoSwitch(vertotest.Options{
		Users: []vertotest.User{
			{Login: phoneLogin, Password: demoSecret}, {Login: otherPhone, Password: demoSecret},
		},
		Dialplan: func(*vertotest.Leg) vertotest.Route {
			return vertotest.Route{Ring: 50 * time.Millisecond, Bridged: true}
		},
		Observe: func(ev vertotest.Event) { d.seen <- ev }, Video: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.sw.Close)
	d.daemon = startDaemon(t, data, d.configure)
	d.sw.pbx = d.pbx
	d.signedIn(t)
	return d
}

func (d *phoneDaemon) configure(c *config) {
	w := &c.Webitel[0]
	w.WebRTCConnectionString, w.Protocol = d.sw.verto.URL(), "verto"
	w.Users = append(w.Users,
		webitel.User{Login: phoneLogin, Password: demoSecret, UseWebPhone: true, Video: d.video},
		webitel.User{Login: otherPhone, Password: "sesame", UseWebPhone: true})
}

func (d *phoneDaemon) signedIn(t *testing.T) {
	t.Helper()
	d.saw(t, vertotest.LoggedIn)
	d.awaitLine(t, func(l *cti.Line) bool { return l.WebPhone })
}

// restart stops the daemon and starts it again before the same PBX.
func (d *phoneDaemon) restart(t *testing.T) {
	t.Helper()
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	pbx := d.pbx
	d.daemon = startDaemon(t, d.cfg.Data, d.configure, func(c *config) { c.Webitel[0].ConnectionString = pbx.URL() })
	d.pbx = pbx
	d.signedIn(t)
}

// TestWebPhoneTakesItsCallsUpAfterARestart: the call goes on, and its session too.
func TestWebPhoneTakesItsCallsUpAfterARestart(t *testing.T) {
	data := t.TempDir()
	d := startPhoneDaemon(t, data, "")
	k := d.desk(t, phoneLogin)
	leg, err := d.sw.ring(phoneLogin, "+380671112233", "")
	if err != nil {
		t.Fatal(err)
	}
	started := k.await(cti.CallStarted)
	d.awaitSession(t, k, events.DialogRinging)
	k.must("answerCall", `{}`)
	k.await(cti.CommutationStarted)
	d.awaitSession(t, k, events.DialogActive)

	d.restart(t)
	k = d.desk(t, phoneLogin)
	d.saw(t, vertotest.Reattached)
	d.awaitSession(t, k, events.DialogActive)
	k.must("holdCall", `{}`)
	if !leg.Held() {
		t.Error("held, and the switch does not know")
	}
	k.must("unholdCall", `{}`)
	leg.Hangup("NORMAL_CLEARING")
	finished, gone := k.awaitBoth(cti.CallFinished, cti.WebRTCDestroyed)
	if finished.CallID != started.CallID || gone.SessionID != leg.ID() || gone.Call.WebRTC.Inferred {
		t.Errorf("call %s, session %s: %+v", finished.CallID, gone.SessionID, gone.Call.WebRTC)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, data, 0, "verdict   all is what the log says")
}

// saw waits until something happens at the Verto server.
func (d *phoneDaemon) saw(t *testing.T, kind vertotest.Kind) vertotest.Event {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case ev := <-d.seen:
			if ev.Kind == kind {
				return ev
			}
		case <-limit:
			t.Fatalf("the Verto server did not see %d", kind)
		}
	}
}

// awaitBoth waits for two events of which either may come first: the switch and the
// phone speak on streams of their own.
func (k *desk) awaitBoth(a, b cti.Name) (ofA, ofB cti.Event) {
	k.t.Helper()
	limit := time.After(20 * time.Second)
	for ofA.Event == "" || ofB.Event == "" {
		select {
		case ev := <-k.events:
			switch ev.Event {
			case a:
				ofA = ev
			case b:
				ofB = ev
			}
		case <-limit:
			k.t.Fatalf("%s and %s did not both come", a, b)
		}
	}
	return ofA, ofB
}

func (d *phoneDaemon) awaitLine(t *testing.T, is func(*cti.Line) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		v, ok, err := d.engine.Line(ctx, phoneLogin)
		if err != nil {
			t.Fatalf("the line did not become so: %v", err)
		}
		if ok && is(&v.Line) {
			return
		}
		runtime.Gosched()
	}
}

// TestWebPhoneCallOverNATS: a call to a web phone is answered, held, taken back,
// keyed into and dropped over NATS, by the session; the log tells of session and
// call as one story.
func TestWebPhoneCallOverNATS(t *testing.T) {
	data := t.TempDir()
	d := startPhoneDaemon(t, data, "")
	k := d.desk(t, phoneLogin)

	leg, err := d.sw.ring(phoneLogin, "+380671112233", "")
	if err != nil {
		t.Fatal(err)
	}
	started := k.await(cti.CallStarted)
	d.saw(t, vertotest.Offered)
	d.awaitSession(t, k, events.DialogRinging)
	answered := k.must("answerCall", `{}`)
	if ev := k.await(cti.WebRTCStarted); ev.SessionID != leg.ID() || ev.CallID != started.CallID || answered.Call != started.CallID {
		t.Errorf("session %s of call %s, the leg is %s of %s", ev.SessionID, ev.CallID, leg.ID(), started.CallID)
	}
	k.await(cti.CommutationStarted)
	d.saw(t, vertotest.MediaUp)
	k.must("holdCall", `{}`)
	if ev := k.await(cti.Hold); !leg.Held() || ev.CallID != started.CallID {
		t.Errorf("held: at the switch %v, call %s", leg.Held(), ev.CallID)
	}
	k.must("unholdCall", `{}`)
	k.await(cti.Unhold)
	k.must("sendDtmf", `{"digits":"12#"}`)
	if ev := d.saw(t, vertotest.Digits); ev.Text != "12#" {
		t.Errorf("the switch got digits %q", ev.Text)
	}
	for _, want := range []string{"1", "2", "#"} {
		if ev := k.await(cti.DTMFEntered); ev.Digits != want {
			t.Errorf("digit %q, want %q", ev.Digits, want)
		}
	}
	k.refused("setVideoState", `{"active":true}`, engine.VerdictNotSupported)
	k.must("dropCall", `{}`)
	finished, gone := k.awaitBoth(cti.CallFinished, cti.WebRTCDestroyed)
	if finished.Call.Cause != "NORMAL_CLEARING" || finished.Call.HoldMs == 0 {
		t.Errorf("ended with %s, held %d ms", finished.Call.Cause, finished.Call.HoldMs)
	}
	if w := gone.Call.WebRTC; w == nil || w.Inferred || !w.Ended || w.Quality == nil || w.Quality.PacketsSent == 0 || w.Quality.PacketsReceived == 0 {
		t.Errorf("the call shows session %+v", w)
	}
	if n := d.logs.containing("out of service"); n != 1 || d.logs.containing("sesame") != 0 {
		t.Errorf("%d lines about the phone with the wrong password, %d with the password", n, d.logs.containing("sesame"))
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}

	log := openLog(t, data)
	story := callStory(t, log.Read, events.CallKey{Account: phoneLogin, Call: started.CallID})
	log.Close()
	want := []string{
		"call.new", "session ringing", "requested answerCall", "ice new", "dialog answering", "call.accepted", "dialog active",
		"call.held", "dialog held", "call.unheld", "call.dtmf", "call.hungup", "webrtc.stats", "webrtc.session-ended",
	}
	for _, w := range want {
		if !slices.Contains(story, w) {
			t.Errorf("the story has no %s: %v", w, story)
		}
	}
	mustVerify(t, data, 0, "verdict   all is what the log says")
}

// awaitSession waits until the active call's session is in a state.
func (d *phoneDaemon) awaitSession(t *testing.T, k *desk, state string) {
	t.Helper()
	limit := time.Now().Add(20 * time.Second)
	for {
		o := k.ask("queryActiveCallSnapshot", `{}`)
		if o.View != nil && o.View.WebRTC != nil && o.View.WebRTC.State == state {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("the session is not %s: %+v", state, o.View)
		}
		runtime.Gosched()
	}
}

// callStory is what happened to a call, in short.
func callStory(t *testing.T, read func(context.Context, uint64, func(*events.Event) error) error, key events.CallKey) []string {
	t.Helper()
	var out []string
	err := read(t.Context(), 1, func(ev *events.Event) error {
		if ev.Key() != key {
			return nil
		}
		switch p := ev.Payload.(type) {
		case *events.WebRTCSessionNew:
			out = append(out, "session "+p.State)
		case *events.WebRTCStateChanged:
			out = append(out, p.Layer+" "+p.State)
		case *events.CommandRequested:
			out = append(out, "requested "+p.Method)
		default:
			out = append(out, string(ev.Type()))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestWebPhoneVideoOverNATS: a call is answered with video, which is told of when it
// comes, and stopped and sent again by command.
func TestWebPhoneVideoOverNATS(t *testing.T) {
	data := t.TempDir()
	clip := filepath.Join(data, "clip.ivf")
	if err := os.WriteFile(clip, vertotest.Clip(), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startPhoneDaemon(t, data, clip)
	k := d.desk(t, phoneLogin)
	if o := k.must("getCapabilities", `{}`); o.Answer != strconv.Itoa(1983+int(cti.CanVideo)) {
		t.Errorf("capabilities %s", o.Answer)
	}

	leg, err := d.sw.call(phoneLogin, "", vertotest.Call{CallerNumber: "+380671112233", Video: true})
	if err != nil {
		t.Fatal(err)
	}
	k.await(cti.CallStarted)
	d.awaitSession(t, k, events.DialogRinging)
	k.must("answerCall", `{"active":true}`)
	if ev := k.await(cti.WebRTCVideoStarted); ev.SessionID != leg.ID() {
		t.Errorf("video of session %s, the leg is %s", ev.SessionID, leg.ID())
	}
	grows := func(what string, count func(vertotest.Counts) uint64) {
		t.Helper()
		limit, from := time.Now().Add(20*time.Second), count(leg.Counts())
		for count(leg.Counts()) < from+10 {
			if time.Now().After(limit) {
				t.Fatalf("no %s", what)
			}
			time.Sleep(time.Millisecond)
		}
	}
	received := func(c vertotest.Counts) uint64 { return c.Video.Received }
	sent := func(c vertotest.Counts) uint64 { return c.Video.Sent }
	grows("video of the phone", received)
	k.must("setVideoState", `{"active":false}`)
	grows("video of the switch", sent)
	muted := leg.Counts()
	grows("video of the switch", sent)
	if got := received(leg.Counts()) - received(muted); got != 0 {
		t.Errorf("%d packets came after the video was stopped", got)
	}
	k.must("setVideoState", `{"active":true}`)
	grows("video of the phone", received)
	if o := k.must("queryActiveCallSnapshot", `{}`); o.View.WebRTC == nil || !o.View.WebRTC.Video {
		t.Errorf("the call shows session %+v", o.View.WebRTC)
	}
	k.must("dropCall", `{}`)
	k.await(cti.CallFinished)
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, data, 0, "verdict   all is what the log says")
}

// TestWebPhoneCallsAndIsCalledByClick: makeCall is the phone's, and a click-to-call
// is answered at once though the invite does not tell; the far end hangs up.
func TestWebPhoneCallsAndIsCalledByClick(t *testing.T) {
	data := t.TempDir()
	d := startPhoneDaemon(t, data, "")
	k := d.desk(t, phoneLogin)

	o := k.must("makeCall", `{"target":"(050) 123-45-67"}`)
	placed := d.saw(t, vertotest.Invited)
	if placed.Leg.Destination() != "0501234567" || o.Answer != placed.Leg.ID() {
		t.Errorf("dialled %s, leg %s, the outcome is %+v", placed.Leg.Destination(), placed.Leg.ID(), o)
	}
	k.await(cti.CommutationStarted)
	placed.Leg.Hangup("NORMAL_CLEARING")
	k.await(cti.CallFinished)

	clicked, err := d.sw.ring(phoneLogin, "1002", "1002")
	if err != nil {
		t.Fatal(err)
	}
	k.await(cti.CallStarted)
	if ev := k.await(cti.AgentAnswered); !ev.Call.Callback {
		t.Errorf("call %+v", ev.Call)
	}
	d.sw.bridge(clicked)
	k.await(cti.CommutationStarted)
	// A socket that is gone ends nothing, and the phone takes the call up again.
	if d.sw.verto.Drop(phoneLogin) != 1 {
		t.Fatal("no socket to drop")
	}
	d.saw(t, vertotest.Reattached)
	d.awaitSession(t, k, events.DialogActive)
	if o := k.must("queryActiveCallSnapshot", `{}`); o.View.WebRTC.Attempt != 1 || o.View.StateName != "CONNECTED" {
		t.Errorf("after the reattachment: %s, session %+v", o.View.StateName, o.View.WebRTC)
	}
	clicked.Hangup("USER_BUSY")
	if ev, _ := k.awaitBoth(cti.CallFinished, cti.WebRTCDestroyed); ev.Call.Cause != "USER_BUSY" {
		t.Errorf("ended with %s", ev.Call.Cause)
	}
	k.refused("answerCall", `{}`, engine.VerdictNoCall)

	// Rejected: by the session, with the cause that Webitel's phone sends.
	ringing, err := d.sw.ring(phoneLogin, "380", "")
	if err != nil {
		t.Fatal(err)
	}
	k.await(cti.CallStarted)
	d.awaitSession(t, k, events.DialogRinging)
	k.must("dropCall", `{}`)
	if <-ringing.Ended(); ringing.Cause() != "CALL_REJECTED" {
		t.Errorf("rejected with %s", ringing.Cause())
	}
	k.await(cti.CallFinished)
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, data, 0, "verdict   all is what the log says")
}

func TestPhoneConfiguration(t *testing.T) {
	good := func() *config {
		c := defaultConfig()
		c.Webitel = []webitel.Config{{
			ConnectionString: "ws://pbx:871/", WebRTCConnectionString: "ws://pbx:8081/",
			Users: []webitel.User{{Login: "w@a", Password: "p"}, {Login: "1@a", Password: "p", UseWebPhone: true}},
		}}
		return &c
	}
	if err := good().validate(); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*webitel.Config){
		"useWebPhone without webitelWebrtcConnectionString": func(w *webitel.Config) { w.WebRTCConnectionString = "" },
		`protocol "sip" is not verto`:                       func(w *webitel.Config) { w.Protocol = "sip" },
		`answer "sometimes"`:                                func(w *webitel.Config) { w.Users[1].Answer = "sometimes" },
		"has a web phone already":                           func(w *webitel.Config) { w.Users = append(w.Users, w.Users[1]) },
		"no technical account":                              func(w *webitel.Config) { w.Users = w.Users[1:] },
		"is not a folder":                                   func(w *webitel.Config) { w.Users[1].Record = "/nowhere/at/all" },
	} {
		c := good()
		spoil(&c.Webitel[0])
		if err := c.validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
