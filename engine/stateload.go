package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/callstate/callstate/events"
)

// LoadState takes up a stored state of the log with that id. Every error matches
// [ErrState].
func LoadState(logID string, b []byte) (*State, error) {
	if len(b) == 0 || b[0] != stateForm {
		return nil, fmt.Errorf("%w: it is empty, or of a newer release", ErrState)
	}
	ld := loading{s: NewState(logID), calls: map[events.CallKey]*callRef{}}
	for b = b[1:]; len(b) > 0; {
		n, w := binary.Uvarint(b[1:])
		if w <= 0 || n > uint64(len(b)-1-w) {
			return nil, fmt.Errorf("%w: cut off", ErrState)
		}
		if err := ld.record(b[0], b[1+w:1+w+int(n)]); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrState, err)
		}
		b = b[1+w+int(n):]
	}
	if !ld.begun {
		return nil, fmt.Errorf("%w: empty", ErrState)
	}
	ld.finish()
	return ld.s, nil
}

// headerOf returns the first record of a stored state.
func headerOf(b []byte) (h savedHeader, err error) {
	if len(b) > 1 && b[0] == stateForm && b[1] == recordHeader {
		if n, w := binary.Uvarint(b[2:]); w > 0 && n <= uint64(len(b)-2-w) {
			return h, headerForm.Decode(b[2+w:2+w+int(n)], &h)
		}
	}
	return h, ErrState
}

// loading is a state that is being taken up.
type loading struct {
	s       *State
	begun   bool
	header  savedHeader
	agents  []agentCalls
	calls   map[events.CallKey]*callRef
	account *account

	// Records that are many are decoded into one place each.
	conv  savedConversation
	agent savedAgent
	ref   savedRef
	trunk savedLeg
	call  wholeCall
}

// agentCalls are the live calls of an agent, in their order.
type agentCalls struct {
	agent *agent
	calls []string
}

func (ld *loading) record(kind byte, b []byte) error {
	k, p := ld.s.correlator, ld.s.projection
	switch kind {
	case recordHeader:
		ld.begun = true
		return headerForm.Decode(b, &ld.header)
	case recordCore:
		var c savedCore
		err := coreForm.Decode(b, &c)
		k.cores[c.sw] = &c.core
		return err
	case recordConversation:
		ld.conv = savedConversation{}
		err := conversationForm.Decode(b, &ld.conv)
		c := ld.conv.conversation
		for _, id := range ld.conv.ids {
			k.convs[id] = &c
		}
		if len(ld.conv.ids) > 1 { // the first is its own
			c.merge = &merge{ids: slices.Clone(ld.conv.ids[1:])}
		}
		return err
	case recordAgent:
		ld.agent = savedAgent{}
		err := agentForm.Decode(b, &ld.agent)
		a := k.agent(ld.agent.account)
		*a = ld.agent.agent
		a.name = ld.agent.account
		if len(ld.agent.calls) > 0 {
			ld.agents = append(ld.agents, agentCalls{a, ld.agent.calls})
		}
		return err
	case recordRef:
		ld.ref = savedRef{}
		err := refForm.Decode(b, &ld.ref)
		ld.addRef(&ld.ref)
		return err
	case recordTrunk:
		ld.trunk = savedLeg{}
		err := trunkForm.Decode(b, &ld.trunk)
		ld.leg(&ld.trunk, nil)
		return err
	case recordAccount:
		a := &account{calls: map[string]*call{}}
		err := accountForm.Decode(b, a)
		p.accounts[a.name] = a
		ld.account = a
		return err
	case recordCall:
		ld.call = wholeCall{}
		err := callForm.Decode(b, &ld.call)
		if ld.account == nil {
			return errors.New("a call before its account")
		}
		c := ld.call.parts()
		ld.account.calls[c.id] = c
		p.started = max(p.started, c.startedAt)
		if c.live() {
			p.live++
		}
		return err
	case recordSession:
		s := &session{}
		err := sessionForm.Decode(b, s)
		k.sessions[s.id] = s
		return err
	default:
		return fmt.Errorf("record of kind %d", kind)
	}
}

func (ld *loading) addRef(r *savedRef) {
	c := r.ref.callRef
	c.agent, c.id, c.inbound = ld.s.correlator.agent(r.account), r.call, r.ref.direction == events.In
	if more := r.ref.callRefMore; !reflect.ValueOf(more).IsZero() {
		c.rare = &more
	}
	if ld.calls[c.key()] = &c; c.ended {
		c.agent.over = append(c.agent.over, &c)
	}
	for i := range r.legs {
		c.legs = append(c.legs, ld.leg(&r.legs[i], &c))
	}
}

func (ld *loading) leg(saved *savedLeg, c *callRef) *leg {
	k := ld.s.correlator
	l := saved.leg.leg
	l.call, l.conv, l.home = c, k.convs[saved.conv], k.home(saved.leg.home)
	more := saved.leg.legMore
	if l.partner != "" && l.partner == more.awaits {
		l.unseen, more.awaits = true, ""
	}
	if l.id != "" && l.id == more.session {
		l.webPhone, more.session = true, ""
	}
	if more != noMore {
		*l.remember() = more
	}
	if l.conv == nil { // never written so; a state that says so must not be deadly
		l.conv = &conversation{id: saved.conv, legs: 1}
		k.convs[saved.conv] = l.conv
	}
	if !saved.gone {
		k.legs[l.id] = &l
	}
	return &l
}

// finish ties together what names one another.
func (ld *loading) finish() {
	k, h := ld.s.correlator, &ld.header
	ld.s.projection.position, ld.s.fold, k.now = h.position, h.fold, h.now
	ld.s.projection.started = max(ld.s.projection.started, h.started)
	for _, d := range h.domains {
		k.domains[d] = true
	}
	for i := 0; i+1 < len(h.awaited); i += 2 {
		k.awaited[h.awaited[i]] = h.awaited[i+1]
	}
	for _, saved := range ld.agents {
		for _, id := range saved.calls {
			if c := ld.calls[events.CallKey{Account: saved.agent.name, Call: id}]; c != nil {
				saved.agent.calls = append(saved.agent.calls, c)
			}
		}
	}
	k.gone, k.doubtful = ld.legs(h.gone), ld.legs(h.doubtful)
	for _, id := range h.over {
		if s := k.sessions[id]; s != nil {
			k.over = append(k.over, s)
		}
	}
}

func (ld *loading) legs(ids []string) []*leg {
	var ls []*leg
	for _, id := range ids {
		if l := ld.s.correlator.legs[id]; l != nil {
			ls = append(ls, l)
		}
	}
	return ls
}

// parts returns the call as it is kept.
func (w *wholeCall) parts() *call {
	c := w.call
	c.now, c.before, c.inbound = numberOf(w.callWords.state), numberOf(w.callWords.oldState), w.callWords.direction == events.In
	if more := w.callMore; !reflect.ValueOf(more).IsZero() {
		c.rare = &more
	}
	if end := w.callEnd; end != noCallEnd {
		c.end = &end
	}
	return &c
}
