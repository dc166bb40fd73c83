package engine

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

const (
	requestTimeout     = 20 * time.Second
	longRequestTimeout = 60 * time.Second
	// keepRequests is how many requests of an account are remembered, so that one
	// that is sent again is not done again.
	keepRequests = 64
)

// requested is what a line remembers of a request.
type requested struct {
	id     string `wire:"1"`
	call   string `wire:"2"`
	result string `wire:"3"` // empty while it is under way
	answer string `wire:"4"`
	target string `wire:"5"` // of a blind transfer
}

// foldRequest folds command.requested and command.completed. No CTI event follows,
// but for a blind transfer.
func (f *folding) foldRequest() bool {
	a := f.a
	switch p := f.ev.Payload.(type) {
	case *events.CommandRequested:
		if len(a.requests) == keepRequests {
			a.requests = append(a.requests[:0:0], a.requests[1:]...)
		}
		q := requested{id: p.Request, call: f.ev.Call}
		if p.Method == methodBlind {
			q.target = dialled(argument(p.Args, "target"))
		}
		a.requests = append(a.requests, q)
	case *events.CommandCompleted:
		for i := range a.requests {
			if q := &a.requests[i]; q.id == p.Request {
				q.result, q.answer, q.call = p.Result, p.Answer, cmp.Or(q.call, f.ev.Call)
				f.redirected(q)
			}
		}
	default:
		return false
	}
	return true
}

// redirected notes a blind transfer that the PBX carried out at our request: on
// an account's own path nothing else tells of it. The switch's word, where it
// comes, replaces it.
func (f *folding) redirected(q *requested) {
	c := f.a.calls[q.call]
	if c == nil || q.target == "" || q.result != string(VerdictOK) || c.more().transfer != nil {
		return
	}
	f.transferred(c, cti.Transfer{Kind: events.BlindTransfer, Result: transferConfirmed, Target: q.target})
}

// dialled drops what people put between digits (client quirk 33).
func dialled(number string) string {
	return strings.NewReplacer(" ", "", "\u00a0", "", "-", "", "(", "", ")", "").Replace(number)
}

func argument(args []string, name string) string {
	for _, a := range args {
		if v, ok := strings.CutPrefix(a, name+"="); ok {
			return v
		}
	}
	return ""
}

// control carries out requests.
type control struct {
	mu       sync.Mutex // guards what follows
	underway map[[2]string]*underway
	watches  map[*watch]struct{}
}

// underway is a request that others with the same id wait for.
type underway struct {
	done    chan struct{}
	outcome Outcome
}

// watch waits for an event that was stored and folded.
type watch struct {
	match func(*events.Event) bool
	hit   chan events.Event // holds one
}

func (c *control) watch(match func(*events.Event) bool) *watch {
	w := &watch{match, make(chan events.Event, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watches[w] = struct{}{}
	return w
}

func (c *control) unwatch(w *watch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.watches, w)
}

// folded shows events to those who wait for one.
func (c *control) folded(evs []events.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.watches {
		for i := range evs {
			if w.match(&evs[i]) {
				w.hit <- evs[i]
				delete(c.watches, w)
				break
			}
		}
	}
}

var requestIDPattern = regexp.MustCompile(`^[0-9A-Za-z._-]{1,128}$`)

// Do carries out a request: it is validated against the call's and the line's
// flags and against the field itself, recorded, sent to the PBX, and its outcome
// recorded. Do returns when the outcome is known, at the latest when the
// request's time or ctx is over; the outcome of an earlier request with the same
// id is returned again. A refusal is an outcome, and an event like any other.
func (e *Engine) Do(ctx context.Context, r Request) Outcome {
	if r.ID == "" {
		r.ID = rand.Text()
	}
	if r.By == "" {
		r.By = "unknown"
	}
	if err := checkRequest(&r); err != nil {
		return outcomeOf(&r, err)
	}
	key := [2]string{r.Account, r.ID}
	e.control.mu.Lock()
	if u := e.control.underway[key]; u != nil {
		e.control.mu.Unlock()
		select {
		case <-u.done:
			o := u.outcome
			o.Repeat = true
			return o
		case <-ctx.Done():
			return outcomeOf(&r, refuse(VerdictUnavailable, "the first request with this id is under way"))
		}
	}
	u := &underway{done: make(chan struct{})}
	e.control.underway[key] = u
	e.control.mu.Unlock()

	u.outcome = e.do(ctx, &r)
	e.control.mu.Lock()
	delete(e.control.underway, key)
	e.control.mu.Unlock()
	close(u.done)
	return u.outcome
}

func checkRequest(r *Request) error {
	number, domain := splitAccount(r.Account)
	switch {
	case number == "" || domain == "" || len(r.Account) > 256 || strings.ContainsAny(r.Account, " \t\r\n\"'`\\;&|<>(){}[]$^,"):
		return refuse(VerdictBadArgument, "account: want number@domain")
	case !requestIDPattern.MatchString(r.ID):
		return refuse(VerdictBadArgument, "id: want letters, digits, '.', '_' and '-', at most 128")
	case len(r.By) > 256 || strings.ContainsFunc(r.By, func(c rune) bool { return c < ' ' }):
		return refuse(VerdictBadArgument, "by: want one line of at most 256 bytes")
	}
	return nil
}

func outcomeOf(r *Request, err error) Outcome {
	o := Outcome{Request: r.ID, Call: r.Call, Result: VerdictOK}
	if err == nil {
		return o
	}
	o.Result, o.Answer = VerdictUnavailable, err.Error()
	if re, ok := errors.AsType[*RequestError](err); ok {
		o.Result, o.Answer = re.Result, re.Text
	}
	return o
}

// do is Do for the first request with an id.
func (e *Engine) do(ctx context.Context, r *Request) Outcome {
	limit := r.Timeout
	if limit <= 0 {
		limit = requestTimeout
		if methods[r.Method].long {
			limit = longRequestTimeout
		}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()

	if err := e.read(ctx); err != nil {
		return outcomeOf(r, refuse(VerdictUnavailable, "%v", err))
	}
	if r.Method == MethodRecords {
		if err := e.findRecord(ctx, r); err != nil {
			return outcomeOf(r, refuse(VerdictUnavailable, "%v", err))
		}
	}
	var p plan
	var refusal error
	var earlier *Outcome
	known := false
	err := e.shards[e.shardOf(r.Account)].do(ctx, func(pr *Projection) {
		known = pr.accounts[r.Account] != nil
		if earlier = pr.earlier(r); earlier == nil {
			p, refusal = pr.plan(r, asked(e.cfg.WebPhone, r.Account), asked(e.cfg.PhoneVideo, r.Account))
		}
	})
	switch {
	case err != nil:
		return outcomeOf(r, refuse(VerdictUnavailable, "%v", err))
	case earlier != nil:
		return *earlier
	}
	for i := range p.commands {
		if refusal == nil {
			refusal = e.check(p.commands[i])
		}
	}
	if !known && (refusal != nil || len(p.commands) == 0) { // of an account that nobody ever heard of nothing is kept
		o := outcomeOf(r, refusal)
		if refusal == nil {
			o.Answer, o.Line, o.View = p.answer, p.line, p.view
		}
		return o
	}
	if err := e.record(ctx, r, &p, &events.CommandRequested{Request: r.ID, Method: r.Method, Args: r.args(), By: r.By}); err != nil {
		return outcomeOf(r, err)
	}
	answer, err := p.answer, refusal
	if err == nil {
		if answer, err = e.carry(ctx, &p); err == nil && len(p.commands) > 0 && p.commands[0].Action == ActionCall {
			e.placed(ctx, &p, answer)
		}
	}
	o := outcomeOf(r, err)
	o.Call, o.Line, o.View = p.call, p.line, p.view
	if err == nil {
		if o.Answer = answer; p.secret {
			o.Answer, o.Secret = "", answer
		}
	}
	// The outcome is recorded also where the time is over.
	done, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stop()
	if err := e.record(done, r, &p, &events.CommandCompleted{Request: r.ID, Result: string(o.Result), Answer: o.Answer, Fact: p.fact}); err != nil {
		e.logger.Warn("outcome of a request not recorded", "request", r.ID, "result", o.Result, "err", err)
	}
	return o
}

// findRecord looks in the log for the record's id of a call that ended long ago. A
// call has begun: events of requests alone make none.
func (e *Engine) findRecord(ctx context.Context, r *Request) error {
	key := events.CallKey{Account: r.Account, Call: r.Call}
	known, err := e.log.HasCall(key)
	if err != nil || !known {
		return err
	}
	return e.log.ReadCall(ctx, key, func(ev *events.Event) error {
		switch p := ev.Payload.(type) {
		case *events.CallNew:
			r.record = r.Call
		case *events.CallUUIDChanged:
			if p.Reason == aliasRecord {
				r.record = p.Alias
			}
		}
		return nil
	})
}

// earlier returns the outcome of a request with the same id that the log knows.
func (p *Projection) earlier(r *Request) *Outcome {
	a := p.accounts[r.Account]
	if a == nil {
		return nil
	}
	for _, q := range a.requests {
		if q.id != r.ID {
			continue
		}
		o := &Outcome{Request: r.ID, Call: q.call, Result: Verdict(q.result), Answer: q.answer, Repeat: true}
		if q.result == "" {
			o.Result, o.Answer = VerdictOutcomeUnknown, "the process ended before the PBX's answer was recorded"
		}
		return o
	}
	return nil
}

// args are the arguments as they are recorded.
func (r *Request) args() []string {
	var out []string
	for _, kv := range [][2]string{{"callId", r.Call}, {"target", r.Target}, {"digits", r.Digits}, {"state", r.State}, {"note", r.Note}} {
		if kv[1] != "" {
			out = append(out, kv[0]+"="+strings.ToValidUTF8(kv[1][:min(len(kv[1]), 256)], "?"))
		}
	}
	if r.Active {
		out = append(out, "active=true")
	}
	return out
}

// check refuses a command before anything is recorded as sent.
func (e *Engine) check(c Command) error {
	if e.command == nil {
		return refuse(VerdictNotConnected, "there is no connection to a PBX")
	}
	return e.command.Check(c)
}

// carry sends the commands of a plan one after the other and waits for the proof.
func (e *Engine) carry(ctx context.Context, p *plan) (answer string, err error) {
	answer = p.answer
	var proof *watch
	for i, c := range p.commands {
		if c.after != nil {
			if _, err := e.await(ctx, proof); err != nil {
				return "", err
			}
			proof = nil
		}
		match := p.proof
		if i+1 < len(p.commands) {
			match = p.commands[i+1].after
		}
		if match != nil && proof == nil { // before the command: the event may be faster than the answer
			proof = e.control.watch(match)
			defer e.control.unwatch(proof)
		}
		if answer, err = e.command.Command(ctx, c); err != nil {
			return "", err
		}
	}
	if proof != nil {
		p.fact, err = e.await(ctx, proof)
	}
	return answer, err
}

// await returns the position of the event that is waited for.
func (e *Engine) await(ctx context.Context, w *watch) (fact uint64, err error) {
	select {
	case ev := <-w.hit:
		return ev.Position, nil
	case <-e.stopping:
		return 0, refuse(VerdictNotConfirmed, "stopping")
	case <-ctx.Done():
		return 0, refuse(VerdictNotConfirmed, "the PBX answered, but the event that proves it did not come in time")
	}
}

// placed finds the call that makeCall began: the PBX answers "+OK <leg>". Frames of
// the leg that came before the answer are correlated by then.
func (e *Engine) placed(ctx context.Context, p *plan, answer string) {
	_, id, _ := strings.Cut(answer, " ")
	type found struct {
		key          events.CallKey
		conversation string
	}
	f, err := ask(ctx, e, func(k *correlator) (f found) {
		if l := k.legs[id]; l != nil && l.call != nil {
			f.key, f.conversation = l.call.key(), l.conv.root().id
		}
		return f
	})
	if err == nil && f.key.Account == p.commands[0].Account {
		p.call, p.conversation = f.key.Call, f.conversation
	}
}

// record makes a fact of a request durable.
func (e *Engine) record(ctx context.Context, r *Request, p *plan, payload events.Payload) error {
	sequence := uint64(1) // a request's first fact
	if _, ok := payload.(*events.CommandCompleted); ok {
		sequence = 2
	}
	key := events.CallKey{Account: r.Account, Call: p.call}
	w := e.control.watch(func(ev *events.Event) bool { return ev.Payload == payload })
	defer e.control.unwatch(w)
	in := Input{
		ReceivedAt: events.At(e.cfg.Now()), Unframed: true,
		Source: events.Source{Adapter: "control", Connection: r.ID, Sequence: sequence},
		fact:   &fact{key: key, conversation: p.conversation, payload: payload},
	}
	if err := e.Submit(ctx, in); err != nil {
		return refuse(VerdictUnavailable, "%v", err)
	}
	select {
	case <-w.hit:
		return nil
	case <-ctx.Done():
		return refuse(VerdictUnavailable, "the log does not take the request: %v", context.Cause(ctx))
	}
}

// fact is what the engine itself has to record.
type fact struct {
	key          events.CallKey
	conversation string
	payload      events.Payload
}
