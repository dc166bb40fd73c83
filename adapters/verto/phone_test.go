package verto_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4/pkg/media/oggwriter"

	"github.com/callstate/callstate/adapters/verto"
	"github.com/callstate/callstate/adapters/verto/vertotest"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

const (
	account  = "1001@demo.local"
	password = "1001"
)

// observed is a sink that keeps everything.
type observed struct {
	mu      sync.Mutex
	inputs  []engine.Input
	changed chan struct{}
}

func newObserved() *observed { return &observed{changed: make(chan struct{}, 1)} }

func (o *observed) Submit(_ context.Context, in engine.Input) error {
	o.mu.Lock()
	o.inputs = append(o.inputs, in)
	o.mu.Unlock()
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return nil
}

// sessions returns what was said, without frames that say nothing.
func (o *observed) sessions() []engine.SessionObservation {
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []engine.SessionObservation
	for _, in := range o.inputs {
		if in.Session != nil {
			list = append(list, *in.Session)
		}
	}
	return list
}

// of returns what was said of one session.
func (o *observed) of(id string) []engine.SessionObservation {
	return slices.DeleteFunc(o.sessions(), func(s engine.SessionObservation) bool { return s.Session != id })
}

// states returns the states of a layer of a session, in order.
func (o *observed) states(id, layer string) []string {
	var states []string
	for _, s := range o.of(id) {
		switch {
		case s.Kind == engine.SessionNew && layer == events.LayerDialog, s.Kind == engine.SessionState && s.Layer == layer:
			states = append(states, s.State)
		case s.Kind == engine.SessionEnded && layer == events.LayerDialog:
			states = append(states, "ended: "+s.Reason)
		}
	}
	return states
}

// until waits until cond holds; it is asked anew after each observation, and
// every now and then.
func (o *observed) until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	o.untilIn(t, 30*time.Second, what, cond)
}

func (o *observed) untilIn(t *testing.T, patience time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !cond() {
		select {
		case <-o.changed:
		case <-again.C:
		case <-deadline.C:
			for _, s := range o.sessions() {
				t.Logf("%d %s attempt %d %s %s %s %s by %s", s.Kind, s.Session, s.Attempt, s.Layer, s.State, s.Reason, s.Cause, s.By)
			}
			t.Fatalf("not seen: %s", what)
		}
	}
}

// reaches waits until the dialog's last state is that one.
func (o *observed) reaches(t *testing.T, id, state string) {
	t.Helper()
	o.until(t, id+" "+state, func() bool {
		states := o.states(id, events.LayerDialog)
		return len(states) > 0 && states[len(states)-1] == state
	})
}

func (o *observed) registered(t *testing.T) {
	t.Helper()
	o.until(t, "registered", func() bool {
		return slices.ContainsFunc(o.sessions(), func(s engine.SessionObservation) bool { return s.Kind == engine.SessionRegistered })
	})
}

func newServer(t *testing.T, o vertotest.Options) *vertotest.Server {
	t.Helper()
	s, err := vertotest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func newMedia(t testing.TB) *verto.Media {
	t.Helper()
	stop, m := runMedia(t)
	t.Cleanup(stop)
	return m
}

// runMedia runs the media of a process until stop.
func runMedia(t testing.TB) (stop func(), m *verto.Media) {
	t.Helper()
	m, err := verto.NewMedia(netip.MustParseAddr("127.0.0.1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return pace(m), m
}

func pace(m *verto.Media) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	return func() { cancel(); wg.Wait() }
}

// quick connects again at once. A server that is slow to offer its calls again has
// all the time that it wants.
func quick(url string) verto.Config {
	return verto.Config{
		ConnectionString: url, BackoffMin: verto.Duration(time.Millisecond), BackoffMax: verto.Duration(20 * time.Millisecond),
		SettleTime: verto.Duration(time.Minute),
	}
}

// start runs a phone until the test ends and returns what it says and its stop,
// which gives the error of Run. before is done before it runs.
func start(t *testing.T, cfg verto.Config, user verto.User, before ...func(*verto.Phone)) (*verto.Phone, *observed, func() error) {
	t.Helper()
	return startOn(t, newMedia(t), cfg, user, before...)
}

// impatientMedia are paced media whose ICE fails soon.
func impatientMedia(t *testing.T) *verto.Media {
	t.Helper()
	m, err := verto.NewImpatientMedia()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pace(m))
	return m
}

// startImpatient runs a phone on them.
func startImpatient(t *testing.T, cfg verto.Config) (*verto.Phone, *observed) {
	t.Helper()
	p, o, _ := startOn(t, impatientMedia(t), cfg, verto.User{})
	return p, o
}

func startOn(t *testing.T, m *verto.Media, cfg verto.Config, user verto.User, before ...func(*verto.Phone)) (*verto.Phone, *observed, func() error) {
	t.Helper()
	if user.Login == "" {
		user.Login, user.Password = account, password
	}
	o := newObserved()
	p, err := verto.NewPhone(cfg, user, m, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, fn := range before {
		fn(p)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	stop := sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := stop(); err != nil && !t.Failed() {
			t.Log(err)
		}
	})
	return p, o, stop
}

func TestPlacedCall(t *testing.T) {
	t.Parallel()
	s := newServer(t, vertotest.Options{})
	p, o, stop := start(t, quick(s.URL()), verto.User{})
	o.registered(t)
	id := place(t, p, o)
	leg := s.Leg(id)
	flows(t, o, leg)
	if err := p.Hold(t.Context(), id); err != nil {
		t.Error(err)
	}
	if err := p.Unhold(t.Context(), id); err != nil {
		t.Error(err)
	}
	if err := p.SendDTMF(t.Context(), id, "12#"); err != nil {
		t.Error(err)
	}
	if err := p.Hangup(t.Context(), id, "USER_BUSY"); err != nil {
		t.Error(err)
	}
	o.reaches(t, id, "ended: "+events.SessionBye)
	want := []string{"requesting", "trying", "active", "held", "active", "hangup", "ended: bye"}
	if got := o.states(id, events.LayerDialog); !slices.Equal(got, want) {
		t.Errorf("dialog went %v, want %v", got, want)
	}
	t.Log(o.states(id, events.LayerICE), o.states(id, events.LayerDTLS))
	all := o.of(id)
	last, stats := all[len(all)-1], all[len(all)-2]
	if last.Cause != "USER_BUSY" || last.CauseCode != 17 || last.By != "account" {
		t.Errorf("ended %+v", last)
	}
	if st := stats.Stats; !st.Final || st.PacketsReceived < 10 || st.PacketsSent < 10 || st.Codec != "PCMU" || st.MOS < 4 {
		t.Errorf("last figures %+v", st)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestReceivedCallReattached(t *testing.T) {
	t.Parallel()
	s := newServer(t, vertotest.Options{})
	p, o, _ := start(t, quick(s.URL()), verto.User{Audio: verto.AudioEcho})
	o.registered(t)
	legs, err := s.Originate(account, vertotest.Call{CallerNumber: "1002"})
	if err != nil {
		t.Fatal(err)
	}
	leg := legs[0]
	o.reaches(t, leg.ID(), events.DialogRinging)
	if err := p.Answer(t.Context(), leg.ID(), false); err != nil {
		t.Fatal(err)
	}
	o.reaches(t, leg.ID(), events.DialogActive)
	flows(t, o, leg)
	s.Drop(account)
	o.until(t, "taken up again", func() bool {
		states := o.states(leg.ID(), events.LayerDialog)
		return len(states) > 3 && states[len(states)-1] == events.DialogActive
	})
	before := leg.Counts()
	o.until(t, "media again", func() bool { c := leg.Counts(); return c.Received > before.Received+10 })
	leg.Hangup("NORMAL_CLEARING")
	o.reaches(t, leg.ID(), "ended: "+events.SessionBye)
	want := []string{"ringing", "answering", "active", "detached", "recovering", "answering", "active", "hangup", "ended: bye"}
	if got := o.states(leg.ID(), events.LayerDialog); !slices.Equal(got, want) {
		t.Errorf("dialog went %v, want %v", got, want)
	}
}

func TestCredentialsEndTheRun(t *testing.T) {
	s := newServer(t, vertotest.Options{})
	_, o, stop := start(t, quick(s.URL()), verto.User{Login: account, Password: "wrong"})
	o.until(t, "refused", func() bool { return len(o.sessions()) > 0 })
	if err := stop(); err != nil && !errors.Is(err, verto.ErrCredentials) {
		t.Error(err)
	}
	if got := o.sessions()[0]; got.Kind != engine.SessionUnregistered || got.Reason != events.SessionAuthFailed {
		t.Errorf("said %+v", got)
	}
}

// result is the engine's word for an error.
func result(err error) engine.Verdict {
	if re, ok := errors.AsType[*engine.RequestError](err); ok {
		return re.Result
	}
	if err != nil {
		return engine.Verdict("untyped: " + err.Error())
	}
	return engine.VerdictOK
}

func TestWhatIsAskedInVain(t *testing.T) {
	cfg := quick("ws://127.0.0.1:1/")
	cfg.BackoffMin, cfg.BackoffMax = verto.Duration(time.Hour), verto.Duration(time.Hour)
	p, _, _ := start(t, cfg, verto.User{})
	ctx := t.Context()
	for what, tt := range map[string]struct {
		err  error
		want engine.Verdict
	}{
		"no connection":        {second(p.Call(ctx, "1002")), engine.VerdictNotConnected},
		"no number":            {second(p.Call(ctx, "")), engine.VerdictBadArgument},
		"two lines":            {second(p.Call(ctx, "10\n02")), engine.VerdictBadArgument},
		"answer, no session":   {p.Answer(ctx, "x", false), engine.VerdictNoSession},
		"hold, no session":     {p.Hold(ctx, "x"), engine.VerdictNoSession},
		"unhold, no session":   {p.Unhold(ctx, "x"), engine.VerdictNoSession},
		"hangup, no session":   {p.Hangup(ctx, "x", ""), engine.VerdictOK},
		"hangup, odd cause":    {p.Hangup(ctx, "x", "BORED"), engine.VerdictBadArgument},
		"digits, no session":   {p.SendDTMF(ctx, "x", "1"), engine.VerdictNoSession},
		"digits that are none": {p.SendDTMF(ctx, "x", "hello"), engine.VerdictBadArgument},
		"video, no session":    {p.SetVideo(ctx, "x", true), engine.VerdictNoSession},
	} {
		if got := result(tt.err); got != tt.want {
			t.Errorf("%s: %s (%v), want %s", what, got, tt.err, tt.want)
		}
	}
	if p.Registered() {
		t.Error("registered with nobody")
	}
}

func second[T any](_ T, err error) error { return err }

func TestWhatASessionsStateForbids(t *testing.T) {
	s := newServer(t, vertotest.Options{})
	p, o, _ := start(t, quick(s.URL()), verto.User{})
	o.registered(t)
	leg := originate(t, s, vertotest.Call{CallerNumber: "1002"})
	o.reaches(t, leg.ID(), events.DialogRinging)
	ctx := t.Context()
	for what, err := range map[string]error{
		"hold while it rings":   p.Hold(ctx, leg.ID()),
		"digits while it rings": p.SendDTMF(ctx, leg.ID(), "1"),
	} {
		if result(err) != engine.VerdictNoSession {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := p.Answer(ctx, leg.ID(), true); err != nil {
		t.Fatal(err)
	}
	if err := p.Answer(ctx, leg.ID(), false); result(err) != engine.VerdictNoSession {
		t.Errorf("answered twice: %v", err)
	}
	if err := p.SetVideo(ctx, leg.ID(), true); result(err) != engine.VerdictNotSupported {
		t.Errorf("video: %v", err)
	}
	if err := p.SetVideo(ctx, leg.ID(), false); err != nil {
		t.Errorf("no video: %v", err)
	}
	if err := p.Unhold(ctx, leg.ID()); err != nil {
		t.Errorf("unhold of a call that is not held is no error: %v", err)
	}
	leg.Hangup("USER_BUSY")
	o.reaches(t, leg.ID(), "ended: "+events.SessionBye)
	if err := p.Hold(ctx, leg.ID()); result(err) != engine.VerdictNoSession {
		t.Errorf("hold of a call that is over: %v", err)
	}
}

func originate(t *testing.T, s *vertotest.Server, c vertotest.Call) *vertotest.Leg {
	t.Helper()
	legs, err := s.Originate(account, c)
	if err != nil {
		t.Fatal(err)
	}
	return legs[0]
}

// A click-to-call is known by its leg's channel event, which may come before the
// invite or after it. It is answered at once, whatever the policy.
func TestClickToCallIsAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	for _, policy := range []verto.AnswerPolicy{verto.AnswerOnCommand, verto.AnswerNever} {
		s := newServer(t, vertotest.Options{})
		p, o, _ := start(t, quick(s.URL()), verto.User{Login: account, Password: password, Answer: policy})
		o.registered(t)

		const early = "5e000000-0000-4000-8000-000000000001"
		p.AutoAnswer(early)
		leg := originate(t, s, vertotest.Call{CallID: early, CallerNumber: "1002"})
		o.reaches(t, leg.ID(), events.DialogActive)

		late := originate(t, s, vertotest.Call{CallerNumber: "1002"})
		o.reaches(t, late.ID(), events.DialogRinging)
		p.AutoAnswer(late.ID())
		o.reaches(t, late.ID(), events.DialogActive)

		other := originate(t, s, vertotest.Call{CallerNumber: "1003"})
		o.reaches(t, other.ID(), events.DialogRinging)
		want := engine.VerdictOK
		if policy == verto.AnswerNever {
			want = engine.VerdictNotAllowed
		}
		if got := result(p.Answer(t.Context(), other.ID(), false)); got != want {
			t.Errorf("%s: to answer it is %s, want %s", policy, got, want)
		}
	}
}

func TestAnswerAlways(t *testing.T) {
	s := newServer(t, vertotest.Options{})
	_, o, _ := start(t, quick(s.URL()), verto.User{Login: account, Password: password, Answer: verto.AnswerAlways})
	o.registered(t)
	leg := originate(t, s, vertotest.Call{CallerNumber: "1002"})
	o.reaches(t, leg.ID(), events.DialogActive)
	want := []string{"ringing", "answering", "active"}
	if got := o.states(leg.ID(), events.LayerDialog); !slices.Equal(got, want) {
		t.Errorf("dialog went %v, want %v", got, want)
	}
}

// A recording of what comes in, and digits from the far end.
func TestRecordingAndDigits(t *testing.T) {
	t.Parallel()
	s := newServer(t, vertotest.Options{})
	dir := t.TempDir()
	o := newObserved()
	user := verto.User{Login: account, Password: password, Record: dir}
	p, err := verto.NewPhone(quick(s.URL()), user, newMedia(t), o, nil)
	if err != nil {
		t.Fatal(err)
	}
	digits := make(chan byte, 10)
	p.OnDigit(func(_ string, digit byte, _ time.Duration) { digits <- digit })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	o.registered(t)
	id, err := p.Call(ctx, "1002")
	if err != nil {
		t.Fatal(err)
	}
	o.reaches(t, id, events.DialogActive)
	leg := s.Leg(id)
	o.until(t, "media", func() bool { return leg.Counts().Sent > 10 && leg.Counts().Received > 10 })
	if !leg.SendDigits("7#") {
		t.Fatal("telephone-event was not agreed")
	}
	for _, want := range []byte("7#") {
		select {
		case got := <-digits:
			if got != want {
				t.Errorf("digit %q, want %q", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("no digit")
		}
	}
	if err := p.Hangup(ctx, id, ""); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*-"+id+".wav"))
	if err != nil || len(files) != 1 {
		t.Fatalf("recordings %v, %v", files, err)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Size() < 2*160 {
		t.Errorf("the recording has %d bytes, %v", info.Size(), err)
	}
}

// A session that dies never ends the call: neither our side's silence nor the
// far side's closed transport is a hangup.
func TestDeadMediaIsNoHangup(t *testing.T) {
	t.Parallel()
	s := newServer(t, vertotest.Options{})
	p, o, _ := start(t, quick(s.URL()), verto.User{})
	o.registered(t)
	id := place(t, p, o)
	leg := s.Leg(id)
	flows(t, o, leg)
	leg.CloseDTLS()
	o.until(t, "DTLS closed", func() bool { return slices.Contains(o.states(id, events.LayerDTLS), "closed") })
	if err := p.SendDTMF(t.Context(), id, "1"); err != nil {
		t.Errorf("the call is not up any more: %v", err)
	}
	if states := o.states(id, events.LayerDialog); states[len(states)-1] != events.DialogActive || s.Leg(id) == nil {
		t.Errorf("dialog went %v", states)
	}
}

// Hung up before the server has made the channel: the bye waits for that.
func TestHangupInTheMiddleOfCalling(t *testing.T) {
	s := newServer(t, vertotest.Options{Dialplan: func(*vertotest.Leg) vertotest.Route { return vertotest.Route{Ring: -1} }})
	p, o, _ := start(t, quick(s.URL()), verto.User{})
	o.registered(t)
	called := make(chan error, 1)
	go func() { called <- second(p.Call(t.Context(), "1002")) }()
	var id string
	o.until(t, "a session", func() bool {
		for _, s := range o.sessions() {
			if s.Kind == engine.SessionNew {
				id = s.Session
			}
		}
		return id != ""
	})
	if err := p.Hangup(t.Context(), id, "ORIGINATOR_CANCEL"); err != nil {
		t.Error(err)
	}
	if err := <-called; err != nil {
		t.Error(err)
	}
	o.reaches(t, id, "ended: "+events.SessionBye)
	o.until(t, "no leg", func() bool { return s.Leg(id) == nil })
	last := o.of(id)[len(o.of(id))-1]
	if last.Cause != "ORIGINATOR_CANCEL" || last.By != "account" {
		t.Errorf("ended %+v", last)
	}
}

func TestRefusedCallsTellTheirCause(t *testing.T) {
	s := newServer(t, vertotest.Options{Dialplan: func(*vertotest.Leg) vertotest.Route { return vertotest.Route{Cause: "USER_BUSY"} }})
	p, o, _ := start(t, quick(s.URL()), verto.User{})
	o.registered(t)
	id, err := p.Call(t.Context(), "1002")
	if err != nil {
		t.Fatal(err)
	}
	o.reaches(t, id, "ended: "+events.SessionBye)
	last := o.of(id)[len(o.of(id))-1]
	if last.Cause != "USER_BUSY" || last.CauseCode != 17 || last.By != "other" {
		t.Errorf("ended %+v", last)
	}
}

// An answer that the server cannot use ends our leg, and says so.
func TestRefusedAnswer(t *testing.T) {
	s := newServer(t, vertotest.Options{})
	p, o, _ := start(t, quick(s.URL()), verto.User{})
	o.registered(t)
	leg := originate(t, s, vertotest.Call{CallerNumber: "1002", RefuseAnswers: 1})
	o.reaches(t, leg.ID(), events.DialogRinging)
	if err := p.Answer(t.Context(), leg.ID(), false); result(err) != engine.VerdictRefused {
		t.Errorf("%v", err)
	}
	o.reaches(t, leg.ID(), "ended: "+events.SessionFailed)
	<-leg.Ended()
	if leg.Cause() != "INCOMPATIBLE_DESTINATION" {
		t.Errorf("the server heard %s", leg.Cause())
	}
}

// Another phone with our session id: the calls are its, and there is no fight.
func TestDisplacedPhoneStops(t *testing.T) {
	t.Parallel()
	s := newServer(t, vertotest.Options{})
	user := verto.User{Login: account, Password: password, SessID: "5e000000-0000-4000-8000-00000000000a"}
	p, first, stop := start(t, quick(s.URL()), user)
	first.registered(t)
	id := place(t, p, first)
	_, second, _ := start(t, quick(s.URL()), user)
	first.reaches(t, id, "ended: "+events.SessionDisplaced)
	second.reaches(t, id, events.DialogActive)
	if err := stop(); err != nil && !errors.Is(err, verto.ErrDisplaced) {
		t.Error(err)
	}
	if got := second.states(id, events.LayerDialog); got[0] != events.DialogRecovering {
		t.Errorf("the second phone saw %v", got)
	}
}

func TestFiguresAreToldAgainAndAgain(t *testing.T) {
	t.Parallel()
	s := newServer(t, vertotest.Options{})
	cfg := quick(s.URL())
	cfg.StatsInterval = verto.Duration(40 * time.Millisecond)
	p, o, _ := start(t, cfg, verto.User{})
	o.registered(t)
	id := place(t, p, o)
	leg := s.Leg(id)
	o.until(t, "media", func() bool { return leg.Counts().Received > 5 })
	s.Drop(account)
	o.until(t, "taken up again", func() bool {
		states := o.states(id, events.LayerDialog)
		return slices.Contains(states, events.DialogRecovering) && states[len(states)-1] == events.DialogActive
	})
	before := leg.Counts().Received
	o.until(t, "media again", func() bool { return leg.Counts().Received > before+5 })
	if err := p.Hangup(t.Context(), id, ""); err != nil {
		t.Error(err)
	}
	o.reaches(t, id, "ended: "+events.SessionBye)
	var last events.WebRTCStats
	n := 0
	for _, s := range o.of(id) {
		if s.Kind != engine.SessionStats {
			continue
		}
		n++
		if s.Stats.PacketsSent < last.PacketsSent || s.Stats.PacketsReceived < last.PacketsReceived || last.Final {
			t.Errorf("%+v after %+v", s.Stats, last)
		}
		last = s.Stats
	}
	if n < 3 || !last.Final || last.PacketsSent < int64(before) {
		t.Errorf("told %d times, last %+v; the server had %d packets before the loss", n, last, before)
	}
}

// stuck is a sink that takes nothing until it is let go.
type stuck struct {
	*observed
	free chan struct{}
}

func (s stuck) Submit(ctx context.Context, in engine.Input) error {
	select {
	case <-s.free:
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.observed.Submit(ctx, in)
}

// While the engine takes nothing, the phone is commanded and its media flows; then
// it is told everything, in order.
func TestSlowSinkDelaysOnlyWhatIsTold(t *testing.T) {
	t.Parallel()
	s := newServer(t, vertotest.Options{})
	sink := stuck{newObserved(), make(chan struct{})}
	p, err := verto.NewPhone(quick(s.URL()), verto.User{Login: account, Password: password}, newMedia(t), sink, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	sink.until(t, "signed in", p.Registered)
	id, err := p.Call(ctx, "1002")
	if err != nil {
		t.Fatal(err)
	}
	leg := s.Leg(id)
	sink.until(t, "media", func() bool { return leg.Counts().Received > 5 })
	if err := p.Hangup(ctx, id, ""); err != nil {
		t.Error(err)
	}
	if n := len(sink.sessions()); n > 0 {
		t.Errorf("%d observations went through", n)
	}
	close(sink.free)
	sink.reaches(t, id, "ended: "+events.SessionBye)
	want := []string{"requesting", "trying", "active", "hangup", "ended: bye"}
	if got := sink.states(id, events.LayerDialog); !slices.Equal(got, want) {
		t.Errorf("dialog went %v, want %v", got, want)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	sink.mu.Lock()
	defer sink.mu.Unlock()
	for i, in := range sink.inputs {
		if in.Source.Sequence != uint64(i+1) {
			t.Fatalf("input %d has number %d", i, in.Source.Sequence)
		}
	}
}

// A file is heard over the codec that it is in, which is offered first.
func TestFileIsPlayed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "a.ogg")
	w, err := oggwriter.New(file, 48000, 2)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := w.WriteRTP(&rtp.Packet{Header: rtp.Header{Version: 2, Timestamp: uint32(960 * i)}, Payload: []byte{0xFC, 1, 2, byte(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, vertotest.Options{Codecs: []vertotest.Codec{vertotest.PCMU, vertotest.Opus}, Dialplan: func(*vertotest.Leg) vertotest.Route {
		return vertotest.Route{Far: vertotest.Echo}
	}})
	p, o, _ := start(t, quick(s.URL()), verto.User{Login: account, Password: password, Audio: file, Record: t.TempDir()})
	o.registered(t)
	id, err := p.Call(t.Context(), "8001")
	if err != nil {
		t.Fatal(err)
	}
	o.reaches(t, id, events.DialogActive)
	leg := s.Leg(id)
	flows(t, o, leg)
	if err := p.Hangup(t.Context(), id, ""); err != nil {
		t.Error(err)
	}
	o.reaches(t, id, "ended: "+events.SessionBye)
	all := o.of(id)
	if st := all[len(all)-2].Stats; st.Codec != "opus" || st.BytesSent != 4*st.PacketsSent {
		t.Errorf("figures %+v: want packets of four bytes, as in the file", st)
	}
}

// Where the way of the media is lost and ICE fails, another is found; the call is
// up all the while.
func TestMediaFindsAnotherWay(t *testing.T) {
	t.Parallel()
	s := newServer(t, vertotest.Options{})
	p, o := startImpatient(t, quick(s.URL()))
	o.registered(t)
	id := place(t, p, o)
	leg := s.Leg(id)
	flows(t, o, leg)
	leg.Cut(true)
	o.until(t, "ICE failed", func() bool { return slices.Contains(o.states(id, events.LayerICE), "failed") })
	leg.Cut(false)
	o.until(t, "ICE connected again", func() bool {
		states := o.states(id, events.LayerICE)
		return states[len(states)-1] == "connected"
	})
	before := leg.Counts()
	o.until(t, "media again", func() bool { c := leg.Counts(); return c.Received > before.Received+5 && c.Sent > before.Sent+5 })
	if got, want := o.states(id, events.LayerDialog), []string{"requesting", "trying", "active"}; !slices.Equal(got, want) {
		t.Errorf("dialog went %v, want %v", got, want)
	}
}
