package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/callstate/callstate/adapters/verto/vertotest"
	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/engine"
)

// demoPhones are the demo's agents with a web phone, and what they do: they are
// called, call, and ask to be called, and command their calls as agents do.
type demoPhones struct {
	sw     *demoSwitch
	logins []string
	speed  float64
}

// firstPhone is the number of the first agent with a web phone: 1101, or behind the
// other agents where these are more than a hundred.
func (o *demoOptions) firstPhone() int { return 1001 + max(100, o.agents) }

// startDemoPhones starts the Verto server of the demo's switch and puts its users
// into the configuration.
func startDemoPhones(o *demoOptions, pbx *webiteltest.Server, w *webitel.Config) (*demoPhones, error) {
	p := &demoPhones{speed: o.speed}
	var users []vertotest.User
	for _, number := range webiteltest.Numbers(o.firstPhone(), o.phones) {
		login := number + "@" + demoDomain
		p.logins = append(p.logins, login)
		users = append(users, vertotest.User{Login: login, Password: demoSecret})
		w.Users = append(w.Users, webitel.User{Login: login, Password: demoSecret, UseWebPhone: true})
	}
	if len(users) == 0 {
		return p, nil
	}
	var err error
	p.sw, err = startDemoSwitch(vertotest.Options{Users: users, Dialplan: func(*vertotest.Leg) vertotest.Route {
		return vertotest.Route{Ring: p.paced(time.Second), Bridged: true, Far: vertotest.Echo}
	}})
	if err != nil {
		return nil, fmt.Errorf("start the Verto server: %w", err)
	}
	p.sw.pbx, w.WebRTCConnectionString = pbx, p.sw.verto.URL()
	return p, nil
}

func (p *demoPhones) close() {
	if p.sw != nil {
		p.sw.Close()
	}
}

func (p *demoPhones) paced(d time.Duration) time.Duration {
	return time.Duration(float64(d) / p.speed)
}

// run lets the agents work until ctx ends.
func (p *demoPhones) run(ctx context.Context, e *engine.Engine) {
	var all sync.WaitGroup
	for i, login := range p.logins {
		all.Go(func() {
			a := demoAgent{demoPhones: p, engine: e, login: login}
			for n := i; a.pause(ctx, 2*time.Second); n++ {
				a.work(ctx, n)
			}
		})
	}
	all.Wait()
}

// demoAgent is one of them.
type demoAgent struct {
	*demoPhones
	engine *engine.Engine
	login  string
}

// pause lets time pass at the demo's pace, and returns false when it is over.
func (a *demoAgent) pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(a.paced(d)):
		return true
	case <-ctx.Done():
		return false
	}
}

func (a *demoAgent) ask(ctx context.Context, method, target string) (string, bool) {
	o := a.engine.Do(ctx, engine.Request{Account: a.login, Method: method, Target: target, By: "demo"})
	return o.Answer, o.Result == engine.VerdictOK
}

// work makes one call. One that cannot be made, since the phone has not signed in
// yet or the demo is over, is none.
func (a *demoAgent) work(ctx context.Context, n int) {
	if v, ok, err := a.engine.Line(ctx, a.login); err != nil || !ok || !v.Line.WebPhone {
		return
	}
	var leg *vertotest.Leg
	var err error
	switch n % 3 {
	case 0:
		leg, err = a.sw.ring(a.login, "+380671112233", "")
	case 1:
		leg, err = a.sw.ring(a.login, "1002", "1002")
	default:
		if id, ok := a.ask(ctx, "makeCall", "0501234567"); ok {
			leg = a.sw.verto.Leg(id)
		}
	}
	if err != nil || leg == nil {
		return
	}
	defer leg.Hangup("NORMAL_CLEARING")
	a.talk(ctx, n%3, leg)
}

func (a *demoAgent) talk(ctx context.Context, kind int, leg *vertotest.Leg) {
	if kind == 0 {
		if a.pause(ctx, 2*time.Second) {
			a.ask(ctx, "answerCall", "")
		}
	}
	select {
	case <-leg.Answered():
	case <-leg.Ended():
		return
	case <-ctx.Done():
		return
	}
	if kind == 1 && a.pause(ctx, time.Second) {
		a.sw.bridge(leg)
	}
	for _, method := range []string{"holdCall", "unholdCall"} {
		if !a.pause(ctx, 3*time.Second) {
			return
		}
		a.ask(ctx, method, "")
	}
	if a.pause(ctx, 2*time.Second) && kind == 0 {
		a.ask(ctx, "dropCall", "")
	}
}
