package verto_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

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
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !cond() {
		select {
		case <-o.changed:
		case <-again.C:
		case <-deadline.C:
			for _, s := range o.sessions() {
				t.Logf("%+v", s)
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
	m, err := verto.NewMedia(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return m
}

func quick(url string) verto.Config {
	return verto.Config{ConnectionString: url, BackoffMin: verto.Duration(time.Millisecond), BackoffMax: verto.Duration(20 * time.Millisecond)}
}

// start runs a phone until the test ends and returns what it says and its stop,
// which gives the error of Run.
func start(t *testing.T, cfg verto.Config, user verto.User) (*verto.Phone, *observed, func() error) {
	t.Helper()
	if user.Login == "" {
		user.Login, user.Password = account, password
	}
	o := newObserved()
	p, err := verto.NewPhone(cfg, user, newMedia(t), o, nil)
	if err != nil {
		t.Fatal(err)
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
	s := newServer(t, vertotest.Options{})
	p, o, stop := start(t, quick(s.URL()), verto.User{})
	o.registered(t)
	id, err := p.Call(t.Context(), "1002")
	if err != nil {
		t.Fatal(err)
	}
	o.reaches(t, id, events.DialogActive)
	leg := s.Leg(id)
	o.until(t, "media both ways", func() bool { c := leg.Counts(); return c.Received > 10 && c.Sent > 10 })
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
	o.until(t, "media both ways", func() bool { c := leg.Counts(); return c.Received > 10 && c.Sent > 10 })
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
