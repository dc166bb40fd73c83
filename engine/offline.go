package engine

import "github.com/callstate/callstate/events"

// Offline runs correlation and fold without a log and without a bus: frames in,
// CTI events out. Its clock is that of the inputs. It is what conformance,
// project and tests use, and runs the code that the engine runs.
type Offline struct {
	// WebPhone and PhoneVideo are those of [Config].
	WebPhone, PhoneVideo func(account string) bool

	correlator *correlator
	projection *Projection
	policies   Policies
	known      map[events.CallKey]bool
	position   uint64
}

// NewOffline returns an empty run. logID begins the ids of its messages.
func NewOffline(rules Rules, policies Policies, logID string) *Offline {
	o := &Offline{policies: policies, projection: NewProjection(logID), known: map[events.CallKey]bool{}}
	rules.RejectSecond = policies.RejectSecondCall
	o.correlator = newCorrelator(rules, func(k events.CallKey) (bool, error) { return o.known[k], nil })
	return o
}

// Step is what one event gave.
type Step struct {
	Event    events.Event
	Result   Result
	Commands []Command
}

// Observe takes one input and returns what followed, in order.
func (o *Offline) Observe(in Input) ([]Step, error) {
	steps, err := o.tick(in.ReceivedAt)
	if err != nil {
		return steps, err
	}
	evs, err := o.correlator.observe(&in)
	return append(steps, o.fold(evs)...), err
}

func (o *Offline) tick(now events.Time) ([]Step, error) {
	evs, err := o.correlator.tick(now)
	return o.fold(evs), err
}

// Finish decides what still waited for a frame that did not come.
func (o *Offline) Finish() ([]Step, error) {
	evs, err := o.correlator.finish()
	return o.fold(evs), err
}

// Frames says what became of the frames so far.
func (o *Offline) Frames() events.FrameCounts { return o.correlator.frames }

func (o *Offline) fold(evs []events.Event) []Step {
	steps := make([]Step, 0, len(evs))
	for i := range evs {
		o.position++
		ev := evs[i]
		ev.Position = o.position
		if !ev.Key().IsZero() {
			o.known[ev.Key()] = true
		}
		r := o.projection.Apply(&ev)
		steps = append(steps, Step{Event: ev, Result: r, Commands: o.policies.Commands(&ev, &r)})
	}
	return steps
}

// Do is [Engine.Do] without a PBX: the commands that the request takes, in order,
// each but the first upon the answer to the one before; and what its record gave.
// Finish the request with Completed.
func (o *Offline) Do(r Request, now events.Time) (Plan, []Step, error) {
	p, refusal := o.projection.plan(&r, asked(o.WebPhone, r.Account), asked(o.PhoneVideo, r.Account))
	steps, err := o.record(r.Account, p.call, p.conversation, now, &events.CommandRequested{Request: r.ID, Method: r.Method, Args: r.args(), By: r.By})
	if err != nil {
		return Plan{}, steps, err
	}
	return Plan{request: r, plan: p}, steps, refusal
}

// Plan is a request that is under way.
type Plan struct {
	request Request
	plan    plan
	next    int
}

// Next returns the command that is to be sent now, and false after the last. One
// that follows an event, not an answer, is left out.
func (p *Plan) Next() (Command, bool) {
	if p.next >= len(p.plan.commands) || p.plan.commands[p.next].after != nil {
		return Command{}, false
	}
	p.next++
	return p.plan.commands[p.next-1], true
}

// Completed records a request's outcome.
func (o *Offline) Completed(p *Plan, result Verdict, answer string, now events.Time) ([]Step, error) {
	return o.record(p.request.Account, p.plan.call, p.plan.conversation, now,
		&events.CommandCompleted{Request: p.request.ID, Result: string(result), Answer: answer})
}

func (o *Offline) record(account, call, conversation string, now events.Time, p events.Payload) ([]Step, error) {
	evs, err := o.correlator.observe(&Input{
		ReceivedAt: now, Unframed: true, Source: events.Source{Adapter: "control"},
		fact: &fact{key: events.CallKey{Account: account, Call: call}, conversation: conversation, payload: p},
	})
	return o.fold(evs), err
}

// Compare is [Engine.Compare].
func (o *Offline) Compare(s Snapshot) []string { return o.correlator.compare(&s) }
