package verto_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/callstate/callstate/adapters/verto"
	"github.com/callstate/callstate/adapters/verto/vertotest"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

var (
	troubleCalls = flag.Int("trouble.calls", 12, "calls of the test of trouble")
	troubleSeed  = flag.Uint64("trouble.seed", 0, "seed of the test of trouble; 0 takes one from the clock")
)

// Calls both ways, and meanwhile sockets break, either side hangs up, transports
// close, answers are refused: whatever comes when, each session is told of once,
// from its beginning to its end, and the phone is as good as new afterwards.
func TestTrouble(t *testing.T) {
	seed := *troubleSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-trouble.seed=%d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	s := newServer(t, vertotest.Options{
		Tick: 5 * time.Millisecond, HoldDelay: 5 * time.Millisecond, DetachTimeout: 300 * time.Millisecond,
		Dialplan: func(*vertotest.Leg) vertotest.Route {
			return vertotest.Route{Ring: 20 * time.Millisecond, Early: true, Bridged: true}
		},
	})
	cfg := quick(s.URL())
	cfg.SettleTime, cfg.RecoveryTime = verto.Duration(500*time.Millisecond), verto.Duration(2*time.Second)
	p, o, _ := start(t, cfg, verto.User{})
	o.registered(t)

	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range *troubleCalls {
		one := rand.New(rand.NewPCG(seed, uint64(i)+2))
		wg.Go(func() { troubledCall(ctx, p, s, o, one) })
	}
	dropped := make(chan struct{})
	wg.Go(func() {
		defer close(dropped)
		for range 4 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Duration(30+random.IntN(150)) * time.Millisecond):
				s.Drop(account)
			}
		}
	})
	wg.Wait()

	for _, l := range s.Legs(account) {
		l.Hangup("NORMAL_CLEARING")
	}
	o.until(t, "the end of every session", func() bool { return living(o) == 0 })
	var id string
	o.until(t, "a call as if nothing had been", func() (ok bool) {
		var err error
		id, err = p.Call(t.Context(), "1002")
		return err == nil
	})
	o.reaches(t, id, events.DialogActive)
	if err := p.Hangup(t.Context(), id, ""); err != nil {
		t.Error(err)
	}
	o.reaches(t, id, "ended: "+events.SessionBye)
	checkSessions(t, o)
}

// troubledCall makes one call of either direction and does with it what the dice
// say. Errors are what it is about.
func troubledCall(ctx context.Context, p *verto.Phone, s *vertotest.Server, o *observed, dice *rand.Rand) {
	var id string
	if dice.IntN(2) == 0 {
		var err error
		if id, err = p.Call(ctx, "1002"); err != nil {
			return
		}
	} else {
		legs, err := s.Originate(account, vertotest.Call{CallerNumber: "1002", RefuseAnswers: dice.IntN(5) / 4})
		if err != nil {
			return
		}
		id = legs[0].ID()
		if dice.IntN(3) > 0 {
			p.AutoAnswer(id)
		}
	}
	for range 4 {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(dice.IntN(60)) * time.Millisecond):
		}
		leg := s.Leg(id)
		switch what := dice.IntN(8); {
		case what == 0:
			_ = p.Hold(ctx, id)
		case what == 1:
			_ = p.Unhold(ctx, id)
		case what == 2:
			_ = p.SendDTMF(ctx, id, "1")
		case what == 3 && leg != nil:
			leg.CloseDTLS()
		case what == 4 && leg != nil:
			leg.Hangup("USER_BUSY")
		case what == 5:
			_ = p.Answer(ctx, id, false)
		case what == 6:
			_ = p.Hangup(ctx, id, "")
		}
	}
	_ = p.Hangup(ctx, id, "")
}

// living counts the sessions that have not ended.
func living(o *observed) int {
	n := 0
	for _, s := range o.sessions() {
		switch s.Kind {
		case engine.SessionNew:
			n++
		case engine.SessionEnded:
			n--
		}
	}
	return n
}

// checkSessions holds what was observed to what is promised of every session.
func checkSessions(t *testing.T, o *observed) {
	t.Helper()
	byID := make(map[string][]engine.SessionObservation)
	lives := make(map[string]int)
	for _, s := range o.sessions() {
		if s.Session == "" {
			continue
		}
		id := fmt.Sprintf("%s-%d", s.Session, lives[s.Session])
		byID[id] = append(byID[id], s)
		// A call that was answered in the moment of the loss, unheard by us, comes back.
		if s.Kind == engine.SessionEnded && s.Reason == events.SessionSocketLost {
			lives[s.Session]++
		}
	}
	for id, told := range byID {
		var faults []string
		fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
		if told[0].Kind != engine.SessionNew {
			fault("begins with kind %d", told[0].Kind)
		}
		if last := told[len(told)-1]; last.Kind != engine.SessionEnded || last.Reason == "" {
			fault("ends with kind %d, reason %q", last.Kind, last.Reason)
		}
		attempt, finals, state := 0, 0, ""
		for i, s := range told {
			switch {
			case s.Kind == engine.SessionNew && i > 0, s.Kind == engine.SessionEnded && i < len(told)-1:
				fault("kind %d again at %d", s.Kind, i)
			case s.Kind == engine.SessionStats && s.Stats.Final:
				finals++
			case s.Kind == engine.SessionState && s.Layer == events.LayerDialog:
				if s.State == state && s.State != events.DialogRecovering {
					fault("%s twice", s.State)
				}
				state = s.State
			case s.Kind == engine.SessionState && finals > 0:
				fault("%s %s after the last figures", s.Layer, s.State)
			}
			if s.Attempt < attempt {
				fault("attempt %d after %d", s.Attempt, attempt)
			}
			attempt = s.Attempt
		}
		if finals > 1 {
			fault("last figures %d times", finals)
		}
		if len(faults) > 0 {
			for _, s := range told {
				t.Logf("%+v", s)
			}
			t.Errorf("%s: %v", id, slices.Compact(faults))
		}
	}
}
