package engine

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// Rules are what correlation is told by the configuration. They shape events,
// never the fold: what they decided is in the log.
type Rules struct {
	// Domains are those whose accounts are agents. A link adds its own when it is
	// connected. AllDomains makes every presence id with an @ an account's.
	Domains    []string
	AllDomains bool
	// Answerable says whether an account can be offered CAN_ANSWER: it has a web
	// phone, or its phone answers on the auto-answer header. Nil means every one.
	Answerable func(account string) bool
	// RejectSecond marks an inbound call that begins while another is up as
	// refused (policy reject-second-call, quirk Q8).
	RejectSecond bool
}

// How long correlation waits and remembers, by the clock of arrival.
const (
	// waitForLeg is how long a frame without variables waits for one that has them.
	waitForLeg = 2 * time.Second
	// keepLeg is how long an ended leg is remembered, so that its late frames are
	// known for what they are (client quirk 35: a missing DESTROY must not keep it
	// for ever).
	keepLeg = time.Minute
	// keepDoubtful is the same for a leg whose end was inferred: it may turn out
	// to be alive.
	keepDoubtful = time.Hour
	// clockSlack is how far the clock may go back before it counts as set back.
	clockSlack = time.Second
	// maxWaiting bounds the frames that wait for one leg; the oldest are given up.
	maxWaiting = 64
)

// disposition is what became of a frame (I2).
type disposition uint8

const (
	dispNone disposition = iota // no frame
	dispRecorded
	dispNoOp
	dispDuplicate
	dispQuarantined
	dispWaiting // counted when its leg is known
)

// correlator decides what observations mean: to which call, leg and conversation
// they belong, and which facts they are. It is the one place where legs of
// different accounts meet, and runs before the append, on one goroutine.
//
// It decides on its state and changes its state only by the events that it
// emits (evolve), so that the log alone rebuilds it.
type correlator struct {
	rules   Rules
	hasCall func(events.CallKey) (bool, error)

	domains  map[string]bool
	legs     map[string]*leg
	accounts map[string]*agent
	convs    map[string]*conversation
	homes    map[home]*home
	cores    map[string]*core // by switch
	waiting  map[string]*waitingLeg
	awaited  map[string]string // legs not seen yet that were bridged, and with whom
	links    map[string]*link  // by connection
	sessions map[string]*session
	early    map[string]*waitingSession // told of before their legs were seen
	over     []*session                 // ended, oldest first
	gone     []*leg                     // ended, oldest first
	doubtful []*leg                     // ended by inference, oldest first
	now      events.Time
	began    events.Time // when this process took the log up
	resumed  events.Time // when the log ended that it took up
	frames   events.FrameCounts
	// unstored says that the log has not taken what was emitted a while ago: nothing
	// is forgotten then, since who ended would not be found there.
	unstored bool

	// The frame under way.
	in    *Input
	waits bool // it is kept until its leg is known
	at    events.Time
	// unjoined is the session whose leg is not waited for any more.
	unjoined string
	src      events.TimeSource
	n        int // events of the frame so far
	out      []events.Event
	err      error // a failed look-up of the log
}

// leg is one channel of the switch. The wire numbers are those of its stored form
// in a state, see [savedLeg]; what has none is not known from the log. Calls that
// are up have two of these each: what few legs have is in more.
type leg struct {
	id       string        `wire:"1"`
	call     *callRef      `wire:"-"` // nil for a trunk
	conv     *conversation `wire:"-"`
	home     *home         `wire:"-"`
	otherLeg string        `wire:"6"`  // who placed it
	partner  string        `wire:"7"`  // bridged with
	since    events.Time   `wire:"18"` // first event, by ours
	heard    events.Time   `wire:"-"`  // last frame, by our clock
	listed   events.Time   `wire:"-"`  // by the last comparison that showed it
	rare     *legMore      `wire:"-"`

	answered  bool `wire:"19"`
	held      bool `wire:"20"`
	ended     bool `wire:"21"`
	recording bool `wire:"25"`
	onServer  bool `wire:"27"`
	unlisted  bool `wire:"-"` // the last comparison did not show it
	// webPhone says that it has a web phone's session, or had, by the leg's id.
	webPhone bool `wire:"-"`
	// unseen says that the partner was not seen yet when they were bridged.
	unseen bool `wire:"-"`
}

// home is where a channel lives. Its legs share it.
type home struct {
	core   string `wire:"4"` // run of the switch
	sw     string `wire:"5"`
	domain string `wire:"29"` // of a trunk's leg: whose link showed it
}

// legMore is what few legs have, or have at their end only.
type legMore struct {
	last string `wire:"8"` // bridged with before
	// awaits is a partner before that was not seen when they were bridged.
	awaits string `wire:"9"`
	// awaitedBy is the other end of that: who was bridged with this leg before it
	// was seen.
	awaitedBy  string        `wire:"10"`
	session    string        `wire:"12"` // of the web phone, also after its end, where the leg has another id by now
	stamp      string        `wire:"-"`  // of the last transfer seen
	hangup     events.Hangup `wire:"14"`
	endedAt    events.Time   `wire:"16"` // by the switch's clock
	goneAt     events.Time   `wire:"17"` // by ours
	inferred   bool          `wire:"22"` // its end
	parked     bool          `wire:"23"`
	conference bool          `wire:"24"`
	detailed   bool          `wire:"26"`
	// sessionOver says that the session has ended, which the leg survives.
	sessionOver bool `wire:"28"`
}

// noMore is what the legs have that have nothing more. It is never written.
var noMore legMore

// more returns what few legs have, to be read.
func (l *leg) more() *legMore { return cmp.Or(l.rare, &noMore) }

// awaiting is the partner, of now or before, that was not seen when they were
// bridged.
func (l *leg) awaiting() string {
	if l.unseen {
		return l.partner
	}
	return l.more().awaits
}

// sessionID is that of the web phone's session, also after its end; "" if there is
// none.
func (l *leg) sessionID() string {
	if l.webPhone {
		return l.id
	}
	return l.more().session
}

// holds sets the leg's session, which has not ended.
func (l *leg) holds(session string) {
	l.webPhone = session != "" && session == l.id
	if l.rare != nil || session != "" && !l.webPhone {
		m := l.remember()
		if m.session, m.sessionOver = session, false; l.webPhone {
			m.session = ""
		}
	}
}

// remember returns the same as more, to be written.
func (l *leg) remember() *legMore { return made(&l.rare) }

// callRef is what correlation knows of a call. What few calls have is in more.
type callRef struct {
	agent    *agent         `wire:"-"`
	id       string         `wire:"-"`
	parties  events.Parties `wire:"5"`
	legs     []*leg         `wire:"-"`
	rare     *callRefMore   `wire:"-"`
	inbound  bool           `wire:"-"`
	callback bool           `wire:"3"`
	ended    bool           `wire:"4"`
}

// callRefMore is what correlation knows of few calls.
type callRefMore struct {
	parent      string   `wire:"6"` // call id of the call that this one consults for
	aliases     []string `wire:"7"`
	transferred string   `wire:"9"` // result of the last transfer seen
}

// noCallRefMore is that of the calls that have nothing more. It is never written.
var noCallRefMore callRefMore

// more returns what few calls have, to be read.
func (c *callRef) more() *callRefMore { return cmp.Or(c.rare, &noCallRefMore) }

// remember returns the same as more, to be written.
func (c *callRef) remember() *callRefMore { return made(&c.rare) }

func (c *callRef) key() events.CallKey { return events.CallKey{Account: c.agent.name, Call: c.id} }

// agent is what correlation knows of an account.
type agent struct {
	name       string     `wire:"-"`
	presence   presence   `wire:"1"`
	connection string     `wire:"2"` // that said it is online
	state      string     `wire:"3"`
	status     string     `wire:"4"`
	note       string     `wire:"5"`
	queue      string     `wire:"6"`
	calls      []*callRef `wire:"-"` // live ones
	over       []*callRef `wire:"-"` // ended ones, until their last leg is forgotten

	registered  bool   `wire:"8"`  // its web phone is signed in
	phone       string `wire:"9"`  // by this connection
	phoneReason string `wire:"10"` // why it is not
}

// conversation is the calls and legs that belong together.
type conversation struct {
	id    string      `wire:"1"`
	since events.Time `wire:"4"`
	legs  int         `wire:"5"` // of it and those merged into it
	merge *merge      `wire:"-"` // nil for one that is alone
}

// merge says which conversations are one.
type merge struct {
	into *conversation // that it was merged into
	ids  []string      // of those merged into it
}

// ids are those of a conversation, its own and of those merged into it.
func (c *conversation) ids() []string {
	ids := []string{c.id}
	if c.merge != nil {
		ids = append(ids, c.merge.ids...)
	}
	return ids
}

// core is one run of a switch.
type core struct {
	id       string      `wire:"1"`
	former   []string    `wire:"2"` // its predecessors; their stragglers close nothing
	lastSeen events.Time `wire:"3"`
	// takenUp is what lastSeen was when this process took the log up.
	takenUp events.Time `wire:"-"`
	seen    seqWindow   `wire:"-"` // frames that were noted of its legs
}

type waitingLeg struct {
	since  events.Time
	asked  bool // a comparison found it, and the PBX is asked for it
	inputs []Input
}

func newCorrelator(rules Rules, hasCall func(events.CallKey) (bool, error)) *correlator {
	k := &correlator{
		rules: rules, hasCall: hasCall,
		domains:  map[string]bool{},
		legs:     map[string]*leg{},
		accounts: map[string]*agent{},
		convs:    map[string]*conversation{},
		homes:    map[home]*home{},
		cores:    map[string]*core{},
		waiting:  map[string]*waitingLeg{},
		awaited:  map[string]string{},
		sessions: map[string]*session{},
		early:    map[string]*waitingSession{},
		links:    map[string]*link{},
	}
	for _, d := range rules.Domains {
		k.domains[d] = true
	}
	return k
}

// takenUp is called when the log has been read that this process goes on with.
func (k *correlator) takenUp() {
	clear(k.links) // the process that had them is gone
	k.resumed = k.now
	for _, c := range k.cores {
		c.takenUp = c.lastSeen
	}
}

// observe decides what a frame means. The events are valid until the next call.
// An error is a failure of the log, after which the correlator must not be used.
func (k *correlator) observe(in *Input) ([]events.Event, error) {
	k.out, k.err = k.out[:0], nil
	if in.ReceivedAt > k.now {
		k.now = in.ReceivedAt
	}
	if !in.Unframed {
		k.frames.Received++
	}
	d := k.decide(in)
	k.waits = d == dispWaiting
	k.count(in, d)
	return k.out, k.err
}

// tick lets time pass: legs that waited long enough are decided by what is
// known, and ended ones are forgotten.
func (k *correlator) tick(now events.Time) ([]events.Event, error) {
	k.out, k.err = k.out[:0], nil
	switch {
	case now > k.now:
		k.now = now
	case now < k.now.Add(-clockSlack):
		k.setBack(now)
	}
	k.expire(k.now.Add(-waitForLeg), false)
	k.expireSessions(k.now.Add(-waitForChannel))
	k.forget()
	return k.out, k.err
}

// setBack is for a clock that was ahead and was put right: what was noted by it
// counts from now on, else nothing would be decided or forgotten until the clock
// comes there again.
func (k *correlator) setBack(now events.Time) {
	k.now, k.resumed = now, min(k.resumed, now)
	for _, w := range k.waiting {
		w.since = min(w.since, now)
	}
	for _, w := range k.early {
		w.since = min(w.since, now)
	}
	for _, s := range k.sessions {
		s.heard = min(s.heard, now)
	}
	for _, s := range k.over { // another may have its id by now
		s.heard = min(s.heard, now)
	}
	for _, l := range slices.Concat(k.gone, k.doubtful) {
		if l.rare != nil {
			l.rare.goneAt = min(l.rare.goneAt, now)
		}
	}
	for _, l := range k.legs {
		l.since, l.heard, l.listed = min(l.since, now), min(l.heard, now), min(l.listed, now)
	}
	for _, l := range k.links {
		l.down, l.compared, l.unanswered = min(l.down, now), min(l.compared, now), min(l.unanswered, now)
	}
}

// finish decides all that still waits, at the end of the input.
func (k *correlator) finish() ([]events.Event, error) {
	k.out, k.err = k.out[:0], nil
	k.expire(k.now+1, true)
	k.expireSessions(k.now + 1)
	return k.out, k.err
}

func (k *correlator) count(in *Input, d disposition) {
	if in.Unframed {
		return
	}
	if d == dispNoOp && in.recorded {
		d = dispRecorded // what it said of its leg came to nothing, the rest did not
	}
	switch d {
	case dispRecorded:
		k.frames.Recorded++
	case dispDuplicate:
		k.frames.Duplicates++
	case dispQuarantined:
		k.frames.Quarantined++
	case dispNoOp, dispNone:
		k.frames.NoOps++
	case dispWaiting:
	}
}

// decide handles one input, now or when its leg became known.
func (k *correlator) decide(in *Input) disposition {
	k.in, k.n = in, in.n
	k.at, k.src = in.ReceivedAt, events.TimeOfArrival
	before := len(k.out)
	d := dispNoOp
	k.observeCore()
	switch {
	case in.Quarantine != nil:
		d = dispQuarantined
	case in.Leg != nil:
		if in.Leg.At != 0 {
			k.at, k.src = in.Leg.At, in.Leg.Clock
		}
		d = k.observeLeg(in.Leg)
	case in.Link != nil:
		k.observeLink(in.Link)
	case in.Session != nil:
		d = k.observeSession(in.Session)
	case in.fact != nil:
		k.emit(in.fact.key, "", in.fact.conversation, in.fact.payload)
	case in.ask != nil:
		in.ask(k)
	}
	for i := range in.Agents {
		k.observeAgent(&in.Agents[i])
	}
	in.recorded = in.recorded || len(k.out) > before
	if d == dispWaiting && in.Leg != nil { // it ended what an old core carried, or told of an agent, and is not done
		w := k.waiting[in.Leg.Leg].inputs
		w[len(w)-1].recorded, w[len(w)-1].n = in.recorded, k.n
	}
	if in.recorded && d != dispWaiting && d != dispQuarantined {
		return dispRecorded
	}
	return d
}

// emit appends an event of the frame under way and lets it change the state.
// The id is the frame's with the event's number in it, so that the same frame
// gives the same ids.
func (k *correlator) emit(key events.CallKey, legID, conv string, p events.Payload) *events.Event {
	domain := ""
	if key.Account != "" {
		_, domain = splitAccount(key.Account)
	} else if k.in.Link != nil {
		domain = k.in.Link.Domain
	} else if l := k.links[k.in.Source.Connection]; l != nil {
		domain = l.domain
	}
	k.out = append(k.out, events.Event{
		ID: k.frameID(cmp.Or(legID, key.Account)), Version: 1,
		Domain: domain, Account: key.Account, Call: key.Call, Leg: legID, Conversation: conv,
		OccurredAt: k.at, TimeSource: k.src, RecordedAt: k.in.ReceivedAt,
		Origin: k.in.Origin, Source: k.in.Source, Payload: p,
	})
	k.n++
	ev := &k.out[len(k.out)-1]
	k.evolve(ev)
	return ev
}

// frameID is the id of the next event of the frame. What no numbered frame
// caused is told apart by what it is about and when.
func (k *correlator) frameID(about string) string {
	s := &k.in.Source
	if s.Sequence == 0 {
		return fmt.Sprintf("%s:%s@%d:%d", s.Stream(), about, int64(k.in.ReceivedAt), k.n)
	}
	return events.FrameID(s, k.n)
}

// emitCall emits a fact about a leg of a call.
func (k *correlator) emitCall(l *leg, p events.Payload) *events.Event {
	return k.emit(l.call.key(), l.id, l.conv.root().id, p)
}

// emitLeg emits a fact about a trunk.
func (k *correlator) emitLeg(l *leg, p events.Payload) *events.Event {
	return k.emit(events.CallKey{}, l.id, l.conv.root().id, p)
}

// accountOf returns the account that a presence id names, "" if it is a trunk's:
// a caller at a carrier is no agent.
func (k *correlator) accountOf(presence string) string {
	number, domain := splitAccount(presence)
	if number == "" || domain == "" || !k.rules.AllDomains && !k.domains[domain] {
		return ""
	}
	return presence
}

// expire decides the legs that have waited since before deadline; with all also
// those of which the PBX will tell.
func (k *correlator) expire(deadline events.Time, all bool) {
	var due []string
	for id, w := range k.waiting {
		if w.since < deadline && (all || !k.cutOff(w, k.presenceOfWaiting(id))) {
			due = append(due, id)
		}
	}
	slices.SortFunc(due, func(a, b string) int {
		return cmp.Or(cmp.Compare(k.waiting[a].since, k.waiting[b].since), cmp.Compare(a, b))
	})
	for _, id := range due {
		k.settle(id, k.accountOfWaiting(id))
	}
}

// accountOfWaiting returns the index of the first waiting frame that names an
// account, -1 if none does.
func (k *correlator) accountOfWaiting(id string) int {
	return slices.IndexFunc(k.waiting[id].inputs, func(in Input) bool { return k.accountOf(in.Leg.Presence) != "" })
}

// settle hands the frames that waited for a leg on. Where none of them can tell
// the call id for certain, the latest Channel-Call-UUID decides; begin is the
// frame that the leg begins with, -1 if it is known by now or never was an
// account's.
func (k *correlator) settle(id string, begin int) {
	w := k.waiting[id]
	delete(k.waiting, id)
	for i := range w.inputs {
		in := &w.inputs[i]
		k.in, k.n = in, in.n
		if i == begin && k.legs[id] == nil {
			last := w.inputs[len(w.inputs)-1].Leg
			in.Leg.ChannelCall, in.Leg.Vars = last.ChannelCall, true
			for j := range w.inputs {
				in.Leg.Profiled = in.Leg.Profiled || w.inputs[j].Leg.Profiled
			}
		}
		if k.legs[id] == nil && !in.Leg.Vars {
			k.count(in, dispNoOp)
			continue
		}
		k.count(in, k.decide(in))
	}
}

// forget drops legs that ended long ago, with their calls and conversations.
func (k *correlator) forget() {
	if k.unstored {
		return
	}
	k.gone = k.forgetBefore(k.gone, k.now.Add(-keepLeg))
	k.doubtful = k.forgetBefore(k.doubtful, k.now.Add(-keepDoubtful))
	k.forgetSessions(k.now.Add(-keepLeg))
}

func (k *correlator) forgetBefore(gone []*leg, deadline events.Time) []*leg {
	for len(gone) > 0 && gone[0].more().goneAt < deadline {
		l := gone[0]
		gone = gone[1:]
		if !l.ended || k.legs[l.id] != l {
			continue // reinstated
		}
		k.discard(l)
	}
	return gone
}

// splitAccount splits number@domain.
func splitAccount(s string) (number, domain string) { return cti.SplitAccount(s) }
