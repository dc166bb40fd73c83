package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/looplab/fsm"

	"github.com/callstate/callstate/events/cti"
)

// The states of a call. They are the reference's GeneralizedCallState, with its
// NONE split into a call that has not begun and one that has ended.
const (
	stateNone        = "none"
	stateAlerting    = "alerting"
	stateConnected   = "connected"
	stateHeld        = "held"
	stateConferenced = "conferenced"
	stateEnded       = "ended"
)

// states are all of them. A call keeps its state's number, not the word.
var states = [...]string{stateNone, stateAlerting, stateConnected, stateHeld, stateConferenced, stateEnded}

// stateNumber is a state's place in states.
type stateNumber uint8

// numberOf returns the number of a state, that of none for what is no state.
func numberOf(state string) stateNumber { return stateNumber(max(0, slices.Index(states[:], state))) }

// The triggers: what a fact means for the state. Which trigger a fact is depends
// on the call (see call.fold): the answer of a click-to-call's own device is
// agentAnswer, not answer (quirk Q4).
const (
	triggerNew         = "new"
	triggerAgentAnswer = "agent-answer"
	triggerAnswer      = "answer"
	triggerBridge      = "bridge"
	triggerHold        = "hold"
	triggerRetrieve    = "retrieve"
	triggerResumeRing  = "resume-ringing"
	triggerJoin        = "join"
	triggerLeave       = "leave"
	triggerHangup      = "hangup"
	triggerReinstate   = "reinstate"
)

// transitions is the call machine, and the only place that says which state
// follows which. A transition to the same state is legal and changes nothing.
//
// An unanswered call can be held (quirk Q31: FreeSWITCH raises HOLD for a
// channel in early media); it rings again when it is taken back. An end that was
// inferred and proves wrong is withdrawn by reinstate, after which the facts
// that still hold are applied again.
var transitions = fsm.Events{
	{Name: triggerNew, Src: []string{stateNone}, Dst: stateAlerting},
	{Name: triggerAgentAnswer, Src: []string{stateAlerting}, Dst: stateAlerting},
	{Name: triggerAnswer, Src: []string{stateAlerting, stateConnected}, Dst: stateConnected},
	{Name: triggerAnswer, Src: []string{stateHeld}, Dst: stateHeld},
	{Name: triggerAnswer, Src: []string{stateConferenced}, Dst: stateConferenced},
	{Name: triggerBridge, Src: []string{stateAlerting, stateConnected}, Dst: stateConnected},
	{Name: triggerBridge, Src: []string{stateHeld}, Dst: stateHeld},
	{Name: triggerBridge, Src: []string{stateConferenced}, Dst: stateConferenced},
	{Name: triggerHold, Src: []string{stateAlerting, stateConnected, stateConferenced, stateHeld}, Dst: stateHeld},
	{Name: triggerRetrieve, Src: []string{stateHeld, stateConnected}, Dst: stateConnected},
	{Name: triggerResumeRing, Src: []string{stateHeld, stateAlerting}, Dst: stateAlerting},
	{Name: triggerJoin, Src: []string{stateAlerting, stateConnected, stateHeld, stateConferenced}, Dst: stateConferenced},
	{Name: triggerLeave, Src: []string{stateConferenced, stateConnected}, Dst: stateConnected},
	{Name: triggerHangup, Src: []string{stateAlerting, stateConnected, stateHeld, stateConferenced}, Dst: stateEnded},
	{Name: triggerReinstate, Src: []string{stateEnded}, Dst: stateAlerting},
}

// machine judges transitions. One machine serves every call of a shard: its
// state is set before each trigger, so that a live call costs no memory here.
// It is not safe for concurrent use.
type machine struct {
	fsm     *fsm.FSM
	entered string // set by the library's callback
}

func newMachine() *machine {
	m := &machine{}
	m.fsm = fsm.NewFSM(stateNone, transitions, fsm.Callbacks{
		"enter_state": func(_ context.Context, e *fsm.Event) { m.entered = e.Dst },
	})
	return m
}

// ErrTransition is matched by the refusal of a trigger that the call's state
// does not allow.
var ErrTransition = errors.New("engine: transition not allowed")

// TransitionError is a refused trigger. It matches [ErrTransition].
type TransitionError struct {
	State, Trigger string
}

func (e *TransitionError) Error() string {
	return fmt.Sprintf("engine: a call that is %s does not allow %s", e.State, e.Trigger)
}

// Is reports whether target is ErrTransition.
func (e *TransitionError) Is(target error) bool { return target == ErrTransition }

// next returns the state that follows from on trigger, and whether it differs.
// A refusal is a *TransitionError and leaves the state as it was.
func (m *machine) next(from, trigger string) (to string, changed bool, err error) {
	m.fsm.SetState(from)
	if err = m.fsm.Event(context.Background(), trigger); err == nil {
		return m.entered, true, nil
	}
	if _, same := errors.AsType[fsm.NoTransitionError](err); same {
		return from, false, nil
	}
	return from, false, &TransitionError{State: from, Trigger: trigger}
}

// StateDiagram returns the call machine as a Mermaid state diagram. It is the
// one in ARCHITECTURE.md.
func StateDiagram() (string, error) {
	return fsm.VisualizeForMermaidWithGraphType(newMachine().fsm, fsm.StateDiagram)
}

// ctiState maps a state of the machine to the reference's number.
func ctiState(s string) cti.State {
	switch s {
	case stateAlerting:
		return cti.StateAlerting
	case stateConnected:
		return cti.StateConnected
	case stateHeld:
		return cti.StateHeld
	case stateConferenced:
		return cti.StateConferenced
	default:
		return cti.StateNone
	}
}

// Machine is the call machine by itself, for one that knows a call's state and
// asks what follows: state and trigger are the words of the state diagram. It is
// not safe for concurrent use.
type Machine struct{ m *machine }

// NewMachine returns a machine that serves any number of calls.
func NewMachine() *Machine { return &Machine{newMachine()} }

// Next returns the state that follows from one on a trigger, and whether it
// differs. A refusal is a *TransitionError.
func (m *Machine) Next(from, trigger string) (to string, changed bool, err error) {
	return m.m.next(from, trigger)
}

// Transitions is a copy of the machine's table.
func Transitions() fsm.Events { return slices.Clone(transitions) }
