package main

import (
	"encoding/json"
	"fmt"

	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// entry is one output in the form of a golden's "expected": at, and one of
// event+args, command+id+args, alias, exception. A key that is not set is left out.
type entry map[string]any

// goldenRun plays a golden through the code that the engine runs and writes what
// comes out in the golden's own form.
type goldenRun struct {
	golden  *webitel.Golden
	signIn  *webitel.SignIn
	offline *engine.Offline
	number  int                     // of commands
	pending map[string]*engine.Plan // by the number of the command that its answer is awaited for
	phone   goldenPhone
	out     []entry
}

// runGolden returns the outputs of a golden with both policies on.
func runGolden(rec *webitel.Recording) ([]entry, error) {
	g := rec.Golden
	r := &goldenRun{
		golden: g,
		signIn: webitel.NewSignIn(webitel.User{Login: g.Account, Password: "***"}, webitel.ModeAccount),
		offline: engine.NewOffline(
			engine.Rules{Domains: rec.Domains, Answerable: func(string) bool { return g.Config.Answerable() }},
			engine.Policies{RejectSecondCall: true, UnholdAfterConsult: true}, "golden",
		),
		pending: map[string]*engine.Plan{},
		phone:   goldenPhone{useVideo: g.Config.UseVideo},
	}
	r.offline.WebPhone = func(string) bool { return g.Config.UseWebPhone }
	r.offline.PhoneVideo = func(string) bool { return g.Config.UseVideo }
	if g.Config.UseWebPhone {
		r.out = append(r.out, entry{"at": -1, "verto": "login"})
	}
	ins := rec.Inputs()
	var now events.Time
	signedIn := false
	for at, in := range ins {
		if in == nil {
			c := &rec.Captured[at]
			switch {
			case !signedIn && c.Stimulus == "$socket":
				r.commands(at, r.signIn.Start())
			case c.Stimulus == "$action":
				if err := r.action(at, g.Frames[at]); err != nil {
					return nil, fmt.Errorf("frame %d: %w", at, err)
				}
			case c.Stimulus == "$verto":
				if err := r.session(at, g.Frames[at], now); err != nil {
					return nil, fmt.Errorf("frame %d: %w", at, err)
				}
			}
			continue
		}
		now = in.ReceivedAt
		if !signedIn {
			f, err := webitel.Decode(rec.Captured[at].Raw)
			if err != nil || f.Kind != webitel.KindReply {
				return nil, fmt.Errorf("frame %d: no reply to the sign-in", at)
			}
			next, done, err := r.signIn.Handle(f.Reply)
			if err != nil {
				return nil, fmt.Errorf("frame %d: sign in: %w", at, err)
			}
			r.commands(at, next)
			if signedIn = done; done {
				if in.Agents, err = r.signIn.Agents(); err != nil {
					return nil, fmt.Errorf("frame %d: account list: %w", at, err)
				}
			}
		}
		if signedIn {
			if err := r.answer(at, rec.Captured[at].Raw); err != nil {
				return nil, fmt.Errorf("frame %d: %w", at, err)
			}
		}
		if err := r.observe(at, in); err != nil {
			return nil, fmt.Errorf("frame %d: %w", at, err)
		}
	}
	return r.out, nil
}

// actions are the goldens' names of the connector's methods.
var actions = map[string]string{"holdOrUnholdCall": "holdCall", "setAgentState": "setUserState"}

// action is a method that the agent calls: the request that comes over NATS in
// the product.
func (r *goldenRun) action(at int, raw []byte) error {
	var f struct {
		Action string   `json:"$action"`
		Args   []string `json:"args"`
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return err
	}
	arg := func(i int) string {
		if i < len(f.Args) {
			return f.Args[i]
		}
		return ""
	}
	q := engine.Request{ID: fmt.Sprintf("action-%d", at), Account: r.golden.Account, Method: f.Action, By: "agent"}
	if name := actions[f.Action]; name != "" {
		q.Method = name
	}
	switch f.Action {
	case "setAgentState":
		q.State, q.Note = arg(0), arg(1)
	case "sendDtmf":
		q.Digits = arg(0)
	default:
		q.Target = arg(0)
	}
	p, steps, refusal := r.offline.Do(q, 0)
	for i := range steps {
		r.step(at, &steps[i])
	}
	if refusal != nil {
		r.out = append(r.out, entry{"at": at, "exception": refusal.Error()})
		_, err := r.offline.Completed(&p, engine.VerdictBadArgument, refusal.Error(), 0)
		return err
	}
	return r.next(at, &p)
}

// next sends a plan's next command, or records that it is done.
func (r *goldenRun) next(at int, p *engine.Plan) error {
	c, more := p.Next()
	if !more {
		_, err := r.offline.Completed(p, engine.VerdictOK, "", 0)
		return err
	}
	if c.Phone { // it answers in the media session's states
		r.phoneCall(at, c)
		return r.next(at, p)
	}
	cmd, err := webitel.EncodeCommand(c)
	if err != nil {
		r.out = append(r.out, entry{"at": at, "exception": err.Error()})
		return nil //nolint:nilerr // the refusal is what comes out
	}
	r.commands(at, []webitel.Command{cmd})
	r.pending[fmt.Sprintf("%012x", r.number+1)] = p // the reference's ids begin at 2
	return nil
}

// answer goes on with the request whose command a frame answers.
func (r *goldenRun) answer(at int, raw []byte) error {
	f, err := webitel.Decode(raw)
	if err != nil || f.Kind != webitel.KindReply || len(f.Reply.ID) < 12 {
		return nil //nolint:nilerr // it is observed like any other frame
	}
	key := f.Reply.ID[len(f.Reply.ID)-12:]
	p := r.pending[key]
	if p == nil {
		return nil
	}
	delete(r.pending, key)
	if err := webitel.Classify("", f.Reply); err != nil {
		r.out = append(r.out, entry{"at": at, "event": "error"})
		_, err = r.offline.Completed(p, engine.VerdictRefused, err.Error(), 0)
		return err
	}
	return r.next(at, p)
}

func (r *goldenRun) observe(at int, in *engine.Input) error {
	steps, err := r.offline.Observe(*in)
	for i := range steps {
		r.step(at, &steps[i])
	}
	return err
}

func (r *goldenRun) step(at int, s *engine.Step) {
	for i := range s.Result.Messages {
		e := &s.Result.Messages[i].Event
		if e.Account != r.golden.Account {
			continue // the reference sees one agent
		}
		if e.Event == cti.CallAliased {
			r.out = append(r.out, entry{"at": at, "alias": map[string]any{"from": e.CallID, "to": e.Alias}})
		}
		r.out = append(r.out, entry{"at": at, "event": string(e.Event), "args": goldenArgs(e)})
	}
	for _, c := range s.Commands {
		if c.Phone {
			r.phoneCall(at, c)
			continue
		}
		if cmd, err := webitel.EncodeCommand(c); err == nil && c.Account == r.golden.Account {
			r.commands(at, []webitel.Command{cmd})
		}
	}
}

func (r *goldenRun) commands(at int, cmds []webitel.Command) {
	for _, c := range cmds {
		r.number++
		e := entry{"at": at, "command": c.Func, "id": fmt.Sprintf("command-%d", r.number)}
		if len(c.Args) > 0 {
			e["args"] = c.Args
		}
		r.out = append(r.out, e)
	}
}

// goldenArgs returns the arguments as the reference's connector raises them.
func goldenArgs(e *cti.Event) []any {
	switch e.Event {
	case cti.Initialized:
		return []any{}
	case cti.Disconnected:
		return []any{e.Reason}
	case cti.LineStateChanged:
		a := map[string]any{"callFeaturesSet": *e.CallFeaturesSet}
		if e.FeaturesCallID != "" {
			a["callId"] = e.FeaturesCallID
		}
		return []any{a}
	case cti.AgentStateChanged:
		return []any{map[string]any{"userState": e.UserState}}
	case cti.DTMFEntered:
		return []any{e.Digits}
	case cti.WebRTCStarted, cti.WebRTCVideoStarted, cti.WebRTCDestroyed:
		return []any{e.SessionID}
	default:
		if e.Call == nil {
			return []any{}
		}
		return []any{goldenCall(e.Call)}
	}
}

// goldenCall shows a call as the goldens do: its non-empty fields.
func goldenCall(c *cti.Call) map[string]any {
	m := map[string]any{
		"id": c.ID, "state": c.State, "oldState": c.OldState, "callFeaturesSet": c.CallFeaturesSet,
		"direction": cti.DirectionInID,
	}
	if c.Direction == events.Out {
		m["direction"] = cti.DirectionOutID
	}
	for name, v := range map[string]string{
		"callerId": c.CallerID, "calledId": c.CalledID, "deviceId": c.DeviceID,
		"redirectingId": c.RedirectingID, "redirectionId": c.RedirectionID, "otherLegUUID": c.OtherLegUUID,
	} {
		if v != "" {
			m[name] = v
		}
	}
	return m
}

// plain turns a value into what encoding/json would read back, so that outputs
// of ours and the golden's compare as equals.
func plain(v any) (any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var p any
	err = json.Unmarshal(b, &p)
	return p, err
}
