package verto_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/callstate/callstate/adapters/verto"
	"github.com/callstate/callstate/adapters/verto/vertotest"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// videoUser is a user with video.
func videoUser(t *testing.T) verto.User {
	t.Helper()
	name := filepath.Join(t.TempDir(), "clip.ivf")
	if err := os.WriteFile(name, vertotest.Clip(), 0o600); err != nil {
		t.Fatal(err)
	}
	return verto.User{Login: account, Password: password, Video: name}
}

// videoCall is a call between a phone with video and a server with VP8.
type videoCall struct {
	s   *vertotest.Server
	p   *verto.Phone
	o   *observed
	leg *vertotest.Leg
}

// seen waits until both ends have got as many packets more of both media.
func (c videoCall) seen(t *testing.T, more uint64) {
	t.Helper()
	before := c.leg.Counts()
	c.o.until(t, "both media both ways", func() bool {
		n := c.leg.Counts()
		return n.Received >= before.Received+more && n.Sent >= before.Sent+more &&
			n.Video.Received >= before.Video.Received+more && n.Video.Sent >= before.Video.Sent+more
	})
}

// standsStill checks that the server gets no video while it sends ten frames.
func (c videoCall) standsStill(t *testing.T) {
	t.Helper()
	wait := func(n uint64) vertotest.Counts {
		before := c.leg.Counts()
		c.o.until(t, "video from the server", func() bool { return c.leg.Counts().Video.Sent >= before.Video.Sent+n })
		return c.leg.Counts()
	}
	settled := wait(3)
	if after := wait(10); after.Video.Received != settled.Video.Received || after.Received == settled.Received {
		t.Errorf("%d packets of video and %d of audio came", after.Video.Received-settled.Video.Received, after.Received-settled.Received)
	}
}

// goesOn waits for video again, and checks that it begins with a key frame.
func (c videoCall) goesOn(t *testing.T, since vertotest.Counts) {
	t.Helper()
	c.o.until(t, "video from the phone", func() bool { return c.leg.Counts().Video.Received >= since.Video.Received+2 })
	if n := c.leg.Counts().Video; n.KeyFrames == since.Video.KeyFrames {
		t.Errorf("%d packets came, and none begins a key frame", n.Received-since.Video.Received)
	}
}

// starts returns how often it was told that video comes, and of which codec.
func (c videoCall) starts() (n int, codec string) {
	for _, s := range c.o.of(c.leg.ID()) {
		if s.Kind == engine.SessionVideo {
			n++
			codec = s.Codec
		}
	}
	return n, codec
}

func (c videoCall) setVideo(t *testing.T, on bool, want engine.Verdict) {
	t.Helper()
	if err := c.p.SetVideo(t.Context(), c.leg.ID(), on); result(err) != want {
		t.Errorf("video %v: %s (%v), want %s", on, result(err), err, want)
	}
}

func placeVideo(t *testing.T, m *verto.Media, user verto.User, o vertotest.Options) videoCall {
	t.Helper()
	c := videoCall{s: newServer(t, o)}
	c.p, c.o, _ = startOn(t, m, quick(c.s.URL()), user)
	c.o.registered(t)
	c.leg = c.s.Leg(place(t, c.p, c.o))
	return c
}

func ringVideo(t *testing.T, user verto.User, call vertotest.Call) videoCall {
	t.Helper()
	c := videoCall{s: newServer(t, vertotest.Options{Video: true})}
	c.p, c.o, _ = start(t, quick(c.s.URL()), user)
	c.o.registered(t)
	call.CallerNumber = "1003"
	c.leg = originate(t, c.s, call)
	return c
}

// The video of a call that is placed goes both ways, stops and goes on as it is told,
// is told of once, and a key frame is asked for on both sides.
func TestVideoOfAPlacedCall(t *testing.T) {
	t.Parallel()
	c := placeVideo(t, newMedia(t), videoUser(t), vertotest.Options{Video: true})
	c.seen(t, 10)
	if n := c.leg.Counts().Video; n.KeyFrames == 0 || n.Requests == 0 || n.Lost > 0 {
		t.Errorf("the server counts %+v; want a key frame, and a request for one", n)
	}

	c.setVideo(t, false, engine.VerdictOK)
	c.standsStill(t)
	muted := c.leg.Counts()
	c.setVideo(t, true, engine.VerdictOK)
	c.goesOn(t, muted)

	before := c.leg.Counts().Video.KeyFrames
	if !c.leg.RefreshVideo() {
		t.Fatal("the server has no video")
	}
	c.o.until(t, "a key frame", func() bool { return c.leg.Counts().Video.KeyFrames > before })

	if err := c.p.Hangup(t.Context(), c.leg.ID(), ""); err != nil {
		t.Error(err)
	}
	c.o.reaches(t, c.leg.ID(), "ended: "+events.SessionBye)
	if n, codec := c.starts(); n != 1 || codec != "VP8" {
		t.Errorf("video is told of %d times, of codec %q", n, codec)
	}
	want := []string{"requesting", "trying", "active", "hangup", "ended: bye"}
	if got := c.o.states(c.leg.ID(), events.LayerDialog); !slices.Equal(got, want) {
		t.Errorf("dialog went %v, want %v", got, want)
	}
	if got := c.o.states(c.leg.ID(), events.LayerDTLS); !slices.Equal(got, []string{"connecting", "connected"}) {
		t.Errorf("DTLS went %v: only the audio's is the session's", got)
	}
	for _, o := range c.o.of(c.leg.ID()) {
		if o.Kind == engine.SessionStats && (o.Stats.Codec != "PCMU" || o.Stats.BytesSent != 160*o.Stats.PacketsSent) {
			t.Errorf("figures %+v: want those of the audio", o.Stats)
		}
	}
}

// A call that comes with video is answered with it if that is asked for.
func TestVideoOfAReceivedCall(t *testing.T) {
	t.Parallel()
	always := videoUser(t)
	always.Answer = verto.AnswerAlways
	onCommand := videoUser(t)
	for what, tt := range map[string]struct {
		user   verto.User
		answer func(c videoCall) error
		video  bool
	}{
		"with video":    {onCommand, func(c videoCall) error { return c.p.Answer(t.Context(), c.leg.ID(), true) }, true},
		"without video": {onCommand, func(c videoCall) error { return c.p.Answer(t.Context(), c.leg.ID(), false) }, false},
		"always":        {always, func(videoCall) error { return nil }, true},
		"click-to-call": {onCommand, func(c videoCall) error { c.p.AutoAnswer(c.leg.ID()); return nil }, true},
		"no video here": {verto.User{Login: account, Password: password}, func(c videoCall) error { return c.p.Answer(t.Context(), c.leg.ID(), true) }, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c := ringVideo(t, tt.user, vertotest.Call{Video: true, Far: vertotest.Echo})
			if tt.user.Answer != verto.AnswerAlways {
				c.o.reaches(t, c.leg.ID(), events.DialogRinging)
			}
			if err := tt.answer(c); err != nil {
				t.Fatal(err)
			}
			c.o.reaches(t, c.leg.ID(), events.DialogActive)
			if tt.video {
				c.seen(t, 5)
				c.setVideo(t, false, engine.VerdictOK)
				return
			}
			c.o.until(t, "audio", func() bool { return c.leg.Counts().Received > 20 })
			c.setVideo(t, true, engine.VerdictNotSupported)
			if n := c.leg.Counts().Video; n != (vertotest.VideoCounts{}) {
				t.Errorf("video was refused, and the server counts %+v", n)
			}
			if n, _ := c.starts(); n != 0 {
				t.Error("video is told of")
			}
		})
	}
}

// A session has video where both ends have it, and says so where not.
func TestVideoThatIsNotAgreed(t *testing.T) {
	t.Parallel()
	refused := placeVideo(t, newMedia(t), videoUser(t), vertotest.Options{})
	refused.setVideo(t, true, engine.VerdictNotSupported)
	refused.setVideo(t, false, engine.VerdictNotSupported)
	refused.o.until(t, "audio", func() bool { n := refused.leg.Counts(); return n.Received > 5 && n.Sent > 5 })
	if err := refused.p.Hold(t.Context(), refused.leg.ID()); err != nil {
		t.Error(err)
	}

	none := placeVideo(t, newMedia(t), verto.User{Login: account, Password: password}, vertotest.Options{Video: true})
	none.setVideo(t, false, engine.VerdictOK)
	none.setVideo(t, true, engine.VerdictNotSupported)
	if err := none.p.SetVideo(t.Context(), none.leg.ID(), true); err == nil || !strings.Contains(err.Error(), `"video" setting`) {
		t.Errorf("%v: want the setting named", err)
	}

	plain := ringVideo(t, videoUser(t), vertotest.Call{}) // video is not offered
	plain.o.reaches(t, plain.leg.ID(), events.DialogRinging)
	plain.setVideo(t, true, engine.VerdictNoSession)
	if err := plain.p.Answer(t.Context(), plain.leg.ID(), true); err != nil {
		t.Fatal(err)
	}
	plain.o.until(t, "audio", func() bool { n := plain.leg.Counts(); return n.Received > 5 && n.Sent > 5 })
	plain.setVideo(t, true, engine.VerdictNotSupported)
}

func (c videoCall) reattached(t *testing.T, attempt int) {
	t.Helper()
	c.s.Drop(account)
	c.o.until(t, "taken up again", func() bool {
		return slices.ContainsFunc(c.o.of(c.leg.ID()), func(s engine.SessionObservation) bool {
			return (s.State == events.DialogActive || s.State == events.DialogHeld) && s.Attempt == attempt
		})
	})
}

// The video is taken up again with the call, muted if it was, and told of no second
// time.
func TestVideoIsTakenUpAgain(t *testing.T) {
	t.Parallel()
	placed := placeVideo(t, newMedia(t), videoUser(t), vertotest.Options{Video: true})
	received := ringVideo(t, videoUser(t), vertotest.Call{Video: true})
	received.o.reaches(t, received.leg.ID(), events.DialogRinging)
	if err := received.p.Answer(t.Context(), received.leg.ID(), true); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]videoCall{"placed": placed, "received": received} {
		t.Run(what, func(t *testing.T) {
			c.seen(t, 5)
			c.reattached(t, 1)
			c.seen(t, 5)
			c.setVideo(t, false, engine.VerdictOK)
			c.reattached(t, 2)
			c.standsStill(t)
			muted := c.leg.Counts()
			c.setVideo(t, true, engine.VerdictOK)
			c.goesOn(t, muted)
			if n, _ := c.starts(); n != 1 {
				t.Errorf("video is told of %d times", n)
			}
		})
	}
}

// A held call gets no video and sends it; afterwards, also when it was taken up
// again meanwhile, it goes both ways.
func TestVideoOfAHeldCall(t *testing.T) {
	t.Parallel()
	c := placeVideo(t, newMedia(t), videoUser(t), vertotest.Options{Video: true})
	c.seen(t, 5)
	for attempt := range 2 {
		if err := c.p.Hold(t.Context(), c.leg.ID()); err != nil {
			t.Fatal(err)
		}
		if attempt > 0 {
			c.reattached(t, attempt)
		}
		held := c.leg.Counts()
		c.o.until(t, "video of the one who holds", func() bool { return c.leg.Counts().Video.Received > held.Video.Received+10 })
		if n := c.leg.Counts(); n.Video.Sent != held.Video.Sent || n.Sent != held.Sent {
			t.Errorf("held, the phone gets %d packets", n.Video.Sent-held.Video.Sent)
		}
		if err := c.p.Unhold(t.Context(), c.leg.ID()); err != nil {
			t.Fatal(err)
		}
		c.seen(t, 5)
	}
}

// The video's transport is not the call's: when it fails, the audio goes on, nothing
// is told of the session, and video is not there any more.
func TestVideoThatFailsLeavesTheCallAlone(t *testing.T) {
	t.Parallel()
	c := placeVideo(t, impatientMedia(t), videoUser(t), vertotest.Options{Video: true})
	c.seen(t, 5)
	told := len(c.o.states(c.leg.ID(), events.LayerICE)) + len(c.o.states(c.leg.ID(), events.LayerDTLS))
	c.leg.CutVideo(true)
	c.o.until(t, "no video any more", func() bool {
		return result(c.p.SetVideo(t.Context(), c.leg.ID(), true)) == engine.VerdictNotSupported
	})
	before := c.leg.Counts()
	c.o.until(t, "audio", func() bool {
		n := c.leg.Counts()
		return n.Received > before.Received+10 && n.Sent > before.Sent+10
	})
	if n := len(c.o.states(c.leg.ID(), events.LayerICE)) + len(c.o.states(c.leg.ID(), events.LayerDTLS)); n != told {
		t.Errorf("ICE went %v, DTLS %v", c.o.states(c.leg.ID(), events.LayerICE), c.o.states(c.leg.ID(), events.LayerDTLS))
	}
	if got, want := c.o.states(c.leg.ID(), events.LayerDialog), []string{"requesting", "trying", "active"}; !slices.Equal(got, want) {
		t.Errorf("dialog went %v, want %v", got, want)
	}
	c.leg.CutVideo(false)
	c.reattached(t, 1)
	c.seen(t, 5)
}

// Where ICE fails, another way is found for both media.
func TestVideoFindsAnotherWay(t *testing.T) {
	t.Parallel()
	c := placeVideo(t, impatientMedia(t), videoUser(t), vertotest.Options{Video: true})
	c.seen(t, 5)
	c.leg.Cut(true)
	c.o.until(t, "ICE failed", func() bool { return slices.Contains(c.o.states(c.leg.ID(), events.LayerICE), "failed") })
	c.leg.Cut(false)
	c.seen(t, 5)
	c.setVideo(t, true, engine.VerdictOK)
}

func TestVideoThatCannotBeReadIsAnError(t *testing.T) {
	user := videoUser(t)
	user.Video += ".mp4"
	if _, err := verto.NewPhone(quick("ws://127.0.0.1:1/"), user, newMedia(t), newObserved(), nil); err == nil || !strings.Contains(err.Error(), "video: ") {
		t.Errorf("%v; want one about the video", err)
	}
}
