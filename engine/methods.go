package engine

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// Request is one method of the connector, asked for by a person or a program
// (reference/cti-model.md, section 5).
type Request struct {
	// ID is chosen by who asks: asking again with the same one is not doing again,
	// but gives the outcome of the first. Empty means that the engine chooses.
	ID      string `json:"id,omitempty"`
	Account string `json:"account"` // number@domain: whose line it is
	Method  string `json:"method"`
	Call    string `json:"callId,omitempty"` // empty means the line's own: the active call
	Target  string `json:"target,omitempty"` // makeCall, makeConsultCall, blindTransferCall: a number
	Digits  string `json:"digits,omitempty"` // sendDtmf
	State   string `json:"state,omitempty"`  // setUserState: ONHOOK, ONBREAK, DND, CALLFORWARD, VOICEMAIL, NONREG; holdCall: HELD for hold alone
	Note    string `json:"note,omitempty"`   // setUserState: why; blindTransferCall: a comment
	Active  bool   `json:"active,omitempty"` // setVideoState, setWrapUpUserState, changeCallCentreState; answerCall: with video
	By      string `json:"by,omitempty"`     // who asks, for the record
	// Timeout bounds the whole request; 0 means 20 s, and 60 s where the answer
	// waits until a phone is picked up.
	Timeout time.Duration `json:"-"`

	record string // queryCallRecords: the id of the call's record, of a call that only the log knows
}

// Verdict is the word that says what became of a request.
type Verdict string

// The results. What is not ok is a refusal, but for the last three, where the
// PBX may have done it all the same.
const (
	VerdictOK             Verdict = "ok"
	VerdictBadArgument    Verdict = "bad-argument"    // an argument must not reach the PBX
	VerdictUnknownMethod  Verdict = "unknown-method"  // no such method
	VerdictNoCall         Verdict = "no-call"         // the line has no such call
	VerdictNotAllowed     Verdict = "not-allowed"     // the flags of the call or the line do not allow it now
	VerdictNoSession      Verdict = "no-session"      // it takes a web phone's session, and there is none
	VerdictNotSupported   Verdict = "not-supported"   // not over this connection
	VerdictNotConnected   Verdict = "not-connected"   // there is no connection to the PBX
	VerdictNoChannel      Verdict = "no-channel"      // the PBX does not know the leg any more
	VerdictNoRecording    Verdict = "no-recording"    // the PBX has no recording of the call, or not yet
	VerdictNotPermitted   Verdict = "not-permitted"   // the PBX refuses our account that
	VerdictSwitchDown     Verdict = "switch-down"     // the PBX has lost its switch
	VerdictRefused        Verdict = "refused"         // the PBX says no; the answer says why
	VerdictUnavailable    Verdict = "unavailable"     // the engine is starting or stopping
	VerdictNoReply        Verdict = "no-reply"        // the PBX did not answer in time
	VerdictNotConfirmed   Verdict = "not-confirmed"   // it answered, and the event that proves it did not come in time
	VerdictOutcomeUnknown Verdict = "outcome-unknown" // asked for in an earlier life that ended before the answer
)

// Outcome is what became of a request.
type Outcome struct {
	Request string  `json:"request"` // its id
	Result  Verdict `json:"result"`
	Call    string  `json:"callId,omitempty"` // that it was about
	Answer  string  `json:"answer,omitempty"` // the PBX's words, or why it was refused
	// Line and View are what queryLineState and queryActiveCallSnapshot ask for.
	Line *cti.Line `json:"line,omitempty"`
	View *cti.Call `json:"call,omitempty"`
	// Repeat says that this is the outcome of an earlier request with the same id.
	Repeat bool `json:"repeat,omitempty"`
	// Secret is part of the answer that no event and no log may hold: the link to a
	// recording carries a token.
	Secret string `json:"link,omitempty"`
}

// RequestError is why a request came to nothing.
type RequestError struct {
	Result Verdict
	Text   string
}

func (e *RequestError) Error() string { return string(e.Result) + ": " + e.Text }

func refuse(r Verdict, format string, args ...any) error {
	return &RequestError{Result: r, Text: fmt.Sprintf(format, args...)}
}

// plan is what a request takes.
type plan struct {
	call         string
	conversation string
	commands     []Command // one after the other, each upon the answer to the one before
	// proof tells from the account's line whether the last command had its effect;
	// nil where the PBX's answer proves it.
	proof  func(*events.Event) bool
	answer string
	line   *cti.Line
	view   *cti.Call
	secret bool   // the PBX's answer must not be written down
	fact   uint64 // position of the event that proved it
}

// method is one row of the connector's methods.
type method struct {
	needs func(*planning) error // what the flags must allow; nil for what concerns no call
	plan  func(*planning) error
	long  bool // the answer waits until a phone is picked up
}

// planning is one request against its account's line.
type planning struct {
	plan
	p     *Projection
	a     *account
	c     *call // that it is about
	main  *call // of a consultation, with second
	sec   *call
	r     *Request
	web   bool // the account has a web phone
	video bool // which has video
}

// Methods that others know by name: the fold looks at the one, permissions at the
// other.
const (
	methodBlind   = "blindTransferCall"
	MethodRecords = "queryCallRecords"
)

var methods map[string]method

func init() {
	methods = map[string]method{
		"makeCall":                {needs: lineCan(cti.CanDial), plan: planCall, long: true},
		"answerCall":              {needs: callCan(cti.CanAnswer), plan: planAnswer},
		"dropCall":                {needs: callCan(cti.CanDrop), plan: planDrop},
		"holdCall":                {needs: callCanAny(cti.CanHold, cti.CanUnhold), plan: planToggleHold},
		"unholdCall":              {needs: callCan(cti.CanUnhold), plan: planUnhold},
		"makeConsultCall":         {needs: callCan(cti.CanMakeConsultCall), plan: planConsult, long: true},
		"transferCall":            {needs: consulting(true), plan: planComplete},
		"cancelTransfer":          {needs: consulting(false), plan: planCancel},
		methodBlind:               {needs: callCanAny(cti.CanBlindTransfer, cti.CanMakeConsultCall), plan: planBlind},
		"sendDtmf":                {needs: callCan(cti.CanDTMF), plan: planDTMF},
		"setVideoState":           {needs: callCanAny(cti.CanNothing), plan: planVideo},
		"setUserState":            {plan: planState},
		"setWrapUpUserState":      {plan: planWrapUp},
		"changeCallCentreState":   {plan: planCallCentre},
		MethodRecords:             {plan: planRecords},
		"queryLineState":          {plan: planLineState},
		"queryActiveCallSnapshot": {plan: planSnapshot},
		"queryUserState":          {plan: planUserState},
		"getCapabilities":         {plan: planCapabilities},
		"closeConnection":         {plan: planLink(ActionDisconnect)},
		"reConnect":               {plan: planLink(ActionConnect)},
	}
}

// Methods lists the methods that can be asked for, in order.
func Methods() []string { return slices.Sorted(maps.Keys(methods)) }

// plan says what a request takes, or why it is refused. It reads the account's
// line and changes nothing.
func (p *Projection) plan(r *Request, webPhone, video bool) (plan, error) {
	m, ok := methods[r.Method]
	if !ok {
		return plan{}, refuse(VerdictUnknownMethod, "%q; there are %v", r.Method, Methods())
	}
	g := planning{p: p, a: p.accounts[r.Account], r: r, web: webPhone, video: webPhone && video}
	if g.a == nil {
		_, domain := cti.SplitAccount(r.Account)
		g.a = &account{name: r.Account, domain: domain} // of an agent who was never heard of
	}
	g.main, g.sec = g.a.calls[g.a.active], g.a.calls[g.a.second]
	if m.needs != nil {
		if err := m.needs(&g); err != nil {
			return g.plan, err
		}
	}
	err := m.plan(&g)
	return g.plan, err
}

// asked is what fn says of an account; of nothing where there is no fn.
func asked(fn func(account string) bool, account string) bool { return fn != nil && fn(account) }

// find looks up the call that the request is about.
func (g *planning) find() error {
	id := g.r.Call
	if id == "" {
		id = g.a.active
	}
	if g.c = g.a.find(id); g.c == nil || !g.c.live() {
		g.c = nil
		if id == "" {
			return refuse(VerdictNoCall, "the line has no call")
		}
		return refuse(VerdictNoCall, "no live call %s", id)
	}
	g.call, g.conversation = g.c.id, g.c.conversation
	return nil
}

func lineCan(f cti.Features) func(*planning) error {
	return func(g *planning) error {
		if have := g.a.lineFlags(); !have.Has(f) {
			return refuse(VerdictNotAllowed, "the line's flags are %d (%s), %s is not among them", have, have, f)
		}
		return nil
	}
}

func callCan(f cti.Features) func(*planning) error { return callCanAny(f) }

func callCanAny(any ...cti.Features) func(*planning) error {
	return func(g *planning) error {
		if err := g.find(); err != nil {
			return err
		}
		have := g.a.features(g.c)
		if slices.ContainsFunc(any, have.Has) {
			return nil
		}
		return refuse(VerdictNotAllowed, "the call's flags are %d (%s), %s is not among them", have, have, any[0])
	}
}

// consulting: the line has a consultation, which for completing was answered.
func consulting(answered bool) func(*planning) error {
	return func(g *planning) error {
		if !g.a.consulting || g.main == nil || g.sec == nil {
			return refuse(VerdictNoCall, "there is no consultation")
		}
		g.call, g.conversation = g.main.id, g.main.conversation
		if have := g.a.features(g.main); answered && !have.Has(cti.CanCompleteTransfer) {
			return refuse(VerdictNotAllowed, "the consultation was not answered yet: the call's flags are %d", have)
		}
		return nil
	}
}

// send adds a command.
func (g *planning) send(c Command) {
	c.Account, c.Call, c.By = g.r.Account, g.call, g.r.By
	g.commands = append(g.commands, c)
}

// leg is the one that commands go to (client quirks 1 and 10: never several,
// joined by commas).
func (g *planning) leg(c *call) (string, error) {
	if l := c.primary(); l != nil && !l.ended {
		return l.id, nil
	}
	return "", refuse(VerdictNoChannel, "call %s has no live leg", c.id)
}

// partner is whom the call's leg is bridged with now, else who placed it.
func (g *planning) partner(c *call) (string, error) {
	if l := c.primary(); l != nil && l.partner != "" {
		return l.partner, nil
	}
	if c.otherLeg != "" {
		return c.otherLeg, nil
	}
	return "", refuse(VerdictNoChannel, "nobody is bridged with call %s", c.id)
}

// planToggleHold does whichever of the two applies, or holds alone where the
// request says so (quirk Q25: who means hold must not unhold).
func planToggleHold(g *planning) error {
	if g.a.features(g.c).Has(cti.CanUnhold) {
		if strings.EqualFold(g.r.State, "HELD") {
			return refuse(VerdictNotAllowed, "the call is on hold")
		}
		return planUnhold(g)
	}
	if err := g.onLeg(g.c, Command{Action: ActionHold}); err != nil {
		return err
	}
	g.proof = g.happened(func(p events.Payload) bool { _, ok := p.(*events.CallHeld); return ok })
	return nil
}

func planUnhold(g *planning) error {
	if err := g.onLeg(g.c, Command{Action: ActionUnhold}); err != nil {
		return err
	}
	g.proof = g.happened(func(p events.Payload) bool { _, ok := p.(*events.CallUnheld); return ok })
	return nil
}

// happened proves by an event of the call: an answer "+OK Success" to hold and
// unhold proves nothing, a channel that does not exist is answered so too
// (reference/webitel-v3-protocol.md, 2.3, form 8a).
func (g *planning) happened(is func(events.Payload) bool) func(*events.Event) bool {
	key := events.CallKey{Account: g.a.name, Call: g.call}
	return func(ev *events.Event) bool { return ev.Key() == key && is(ev.Payload) }
}

// planConsult holds the call first, and begins the consultation upon the answer.
func planConsult(g *planning) error {
	leg, err := g.leg(g.c)
	if err != nil {
		return err
	}
	if g.c.state() != stateHeld {
		if err := g.onLeg(g.c, Command{Action: ActionHold}); err != nil {
			return err
		}
	}
	g.send(Command{Action: ActionConsult, Leg: leg, Target: g.r.Target, Parent: g.c.id, WebPhone: g.web})
	return nil
}

func planComplete(g *planning) error {
	own, err := g.leg(g.main)
	if err != nil {
		return err
	}
	other, err := g.partner(g.main)
	if err != nil {
		return err
	}
	target, err := g.partner(g.sec)
	if err != nil {
		return err
	}
	g.send(Command{Action: ActionComplete, Leg: own, OtherLeg: other, ThirdLeg: target})
	return nil
}

func planCancel(g *planning) error {
	own, err := g.leg(g.main)
	if err != nil {
		return err
	}
	consult, err := g.leg(g.sec)
	if err != nil {
		return err
	}
	other, _ := g.partner(g.main) // the PBX reads the consultation's leg alone
	g.send(Command{Action: ActionCancel, Leg: own, OtherLeg: other, ThirdLeg: consult})
	return nil
}

// planBlind moves whoever is bridged with the call now.
func planBlind(g *planning) error {
	other, err := g.partner(g.c)
	if err != nil {
		return err
	}
	g.send(Command{Action: ActionTransfer, Leg: other, Target: g.r.Target, Note: g.r.Note})
	return nil
}

func planDTMF(g *planning) error {
	return g.onLeg(g.c, Command{Action: ActionDTMF, Digits: g.r.Digits})
}

// planRecords asks for the recording of a call by the id of its record, which is
// an alias of the call or its own id. It must be a call of the account: the PBX
// gives the link of any to whoever asks.
func planRecords(g *planning) error {
	if g.r.Call == "" {
		return refuse(VerdictBadArgument, "callId is missing")
	}
	record := g.r.record
	if c := g.a.find(g.r.Call); c != nil {
		g.call, g.conversation, record = c.id, c.conversation, cmp.Or(c.more().recording, c.id)
	} else if record == "" {
		return refuse(VerdictNoCall, "the account has no call %s", g.r.Call)
	} else {
		g.call = g.r.Call
	}
	g.send(Command{Action: ActionRecord, Leg: record})
	g.secret = true
	return nil
}

func planLineState(g *planning) error {
	g.line = g.a.view()
	g.answer = strconv.Itoa(int(g.line.CallFeaturesSet))
	return nil
}

func planSnapshot(g *planning) error {
	if err := g.find(); err != nil {
		return err
	}
	g.view = g.c.view(g.a.name, g.a.features(g.c))
	return nil
}

func planUserState(g *planning) error {
	g.answer = g.a.effectiveState()
	return nil
}

// planCapabilities answers with the line's flags that can ever be set.
func planCapabilities(g *planning) error {
	all := cti.CanRecall | cti.CanDial | cti.CanDrop | cti.TalkBridged | cti.Held | cti.CompleteTransfer
	if g.web {
		all |= cti.CanAnswer
	}
	if g.video {
		all |= cti.CanVideo
	}
	g.answer = strconv.Itoa(int(all))
	return nil
}
