package engine

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/callstate/callstate/events"
)

// State is what a log adds up to, up to a position: what correlation knows of
// legs and conversations, and every account's line and calls. It is a pure fold,
// and can be written down and taken up again: a state at p and the events after
// p give what all events give (I4).
//
// A State is not safe for concurrent use.
type State struct {
	correlator *correlator
	projection *Projection
	fold       uint64 // the version of the fold that made it
}

// NewState returns the state before the first event of the log with that id.
func NewState(logID string) *State {
	p := NewProjection(logID)
	p.mute = ^uint64(0)
	return &State{correlator: newCorrelator(Rules{}, nil), projection: p, fold: foldVersion}
}

// Position is that of the last event that was applied.
func (s *State) Position() uint64 { return s.projection.position }

// Live is the number of calls that have begun and not ended.
func (s *State) Live() int { return s.projection.live }

// Apply adds one event. No CTI events are made.
func (s *State) Apply(ev *events.Event) {
	s.correlator.learn(ev)
	s.projection.Apply(ev)
}

// learn is evolve for an event of the log: what is forgotten by then depends on
// nothing but the log.
func (k *correlator) learn(ev *events.Event) {
	k.evolve(ev)
	k.forget()
}

// ErrState is matched by the error of a state that cannot be taken up.
var ErrState = errors.New("engine: state cannot be read")

// foldVersion changes when the fold makes something else of the events, or a state
// holds something else of it; TestFoldVersion tells. A snapshot that another fold
// made is not used: the log is read instead, and says the same anew. What retention
// has left of dropped events is used, since nothing else says it.
const foldVersion = 2

// stateForm is how a state is written down. Every later release reads it, since a
// log that retention has shortened begins with one: a field that is added has a
// new number, and one whose meaning changes is an old one and a new one.
const stateForm = 1

// The records of a stored state: a kind, a length, and a form. The header is the
// first. A call follows its account.
const (
	recordHeader = iota + 1
	recordCore
	recordConversation
	recordAgent
	recordRef
	recordTrunk
	recordAccount
	recordCall
	recordSession
)

type (
	savedHeader struct {
		position uint64      `wire:"1"`
		now      events.Time `wire:"2"`
		domains  []string    `wire:"3"`
		awaited  []string    `wire:"4"` // leg and who waits for it, by turns
		gone     []string    `wire:"5"`
		doubtful []string    `wire:"6"`
		over     []string    `wire:"7"`
		fold     uint64      `wire:"8"`
		started  events.Time `wire:"9"`
	}
	savedCore struct {
		sw   string `wire:"1"`
		core core   `wire:"2"`
	}
	savedConversation struct {
		conversation
		ids []string `wire:"2"`
	}
	savedAgent struct {
		account string   `wire:"1"`
		agent   agent    `wire:"2"`
		calls   []string `wire:"3"`
	}
	savedLeg struct {
		leg  wholeLeg `wire:"1"`
		conv string   `wire:"2"`
		gone bool     `wire:"3"` // another leg has its id by now
	}
	wholeLeg struct {
		leg
		home
		legMore
	}
	wholeCall struct {
		call
		callMore
		callEnd
		callWords
	}
	// callWords is what a call keeps as numbers.
	callWords struct {
		state     string           `wire:"3"`
		oldState  string           `wire:"4"`
		direction events.Direction `wire:"5"`
	}
	savedRef struct {
		account string     `wire:"1"`
		call    string     `wire:"2"`
		ref     wholeRef   `wire:"3"`
		legs    []savedLeg `wire:"4"`
	}
	wholeRef struct {
		callRef
		callRefMore
		direction events.Direction `wire:"2"`
	}
)

var (
	headerForm       = events.FormOf[savedHeader]()
	coreForm         = events.FormOf[savedCore]()
	conversationForm = events.FormOf[savedConversation]()
	agentForm        = events.FormOf[savedAgent]()
	refForm          = events.FormOf[savedRef]()
	trunkForm        = events.FormOf[savedLeg]()
	accountForm      = events.FormOf[account]()
	callForm         = events.FormOf[wholeCall]()
	sessionForm      = events.FormOf[session]()
)

// Append appends the stored form of the state to b: the same for every fold of
// the same log.
func (s *State) Append(b []byte) []byte {
	k := s.correlator
	w := stateWriter{b: append(b, stateForm)}
	h := savedHeader{
		position: s.projection.position, now: k.now, domains: sortedKeys(k.domains),
		gone: k.idsOf(k.gone), doubtful: k.idsOf(k.doubtful), over: k.overIDs(), fold: s.fold,
		started: s.projection.started,
	}
	for _, id := range sortedKeys(k.awaited) {
		h.awaited = append(h.awaited, id, k.awaited[id])
	}
	addRecord(&w, recordHeader, headerForm, &h)
	var core savedCore
	for _, sw := range sortedKeys(k.cores) {
		core = savedCore{sw, *k.cores[sw]}
		addRecord(&w, recordCore, coreForm, &core)
	}
	var conv savedConversation
	for _, id := range sortedKeys(k.convs) {
		if c := k.convs[id]; c.id == id {
			conv = savedConversation{*c, c.ids()}
			addRecord(&w, recordConversation, conversationForm, &conv)
		}
	}
	w.refs(k)
	var trunk savedLeg
	for _, id := range sortedKeys(k.legs) {
		if l := k.legs[id]; l.call == nil {
			trunk = k.saved(l)
			addRecord(&w, recordTrunk, trunkForm, &trunk)
		}
	}
	for _, id := range sortedKeys(k.sessions) {
		addRecord(&w, recordSession, sessionForm, k.sessions[id])
	}
	var c wholeCall
	for _, name := range sortedKeys(s.projection.accounts) {
		a := s.projection.accounts[name]
		addRecord(&w, recordAccount, accountForm, a)
		for _, id := range sortedKeys(a.calls) {
			a.calls[id].whole(&c)
			addRecord(&w, recordCall, callForm, &c)
		}
	}
	return w.b
}

// stateWriter appends records to b. What it writes is filled in again and again: a
// state may hold 100,000 calls.
type stateWriter struct{ b, body []byte }

func addRecord[T any](w *stateWriter, kind byte, f events.Form[T], v *T) {
	w.body = f.Append(w.body[:0], v)
	w.b = append(w.b, kind)
	w.b = binary.AppendUvarint(w.b, uint64(len(w.body)))
	w.b = append(w.b, w.body...)
}

// refs writes what correlation knows of accounts, then of their calls.
func (w *stateWriter) refs(k *correlator) {
	names := sortedKeys(k.accounts)
	var a savedAgent
	for _, name := range names {
		a = savedAgent{account: name, agent: *k.accounts[name], calls: a.calls[:0]}
		for _, c := range a.agent.calls {
			a.calls = append(a.calls, c.id)
		}
		addRecord(w, recordAgent, agentForm, &a)
	}
	var r savedRef
	var calls []*callRef
	for _, name := range names {
		calls = append(append(calls[:0], k.accounts[name].calls...), k.accounts[name].over...)
		slices.SortFunc(calls, func(a, b *callRef) int { return cmp.Compare(a.id, b.id) })
		for _, c := range calls {
			r = savedRef{account: name, call: c.id, ref: wholeRef{*c, *c.more(), wayOf(c.inbound)}, legs: r.legs[:0]}
			for _, l := range c.legs {
				r.legs = append(r.legs, k.saved(l))
			}
			addRecord(w, recordRef, refForm, &r)
		}
	}
}

// sortedKeys are the keys of m in order.
func sortedKeys[V any](m map[string]V) []string {
	keys := slices.AppendSeq(make([]string, 0, len(m)), maps.Keys(m))
	slices.Sort(keys)
	return keys
}

func (k *correlator) saved(l *leg) savedLeg {
	whole := wholeLeg{*l, *l.home, *l.more()}
	whole.awaits, whole.session = l.awaiting(), l.sessionID()
	return savedLeg{leg: whole, conv: l.conv.root().id, gone: k.legs[l.id] != l}
}

// whole fills in the call as it is stored.
func (c *call) whole(w *wholeCall) {
	*w = wholeCall{*c, *c.more(), *c.ended(), callWords{c.state(), c.oldState(), c.direction()}}
}

func compareKeys(a, b events.CallKey) int {
	return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Call, b.Call))
}

// idsOf returns the ids of ended legs that are still remembered.
func (k *correlator) idsOf(legs []*leg) []string {
	var ids []string
	for _, l := range legs {
		if l.ended && k.legs[l.id] == l {
			ids = append(ids, l.id)
		}
	}
	return ids
}

// advance applies the events of a log from the state's end to a position, the
// log's own end for 0.
func (s *State) advance(ctx context.Context, log Reader, to uint64) error {
	if to != 0 && s.Position() >= to {
		return nil
	}
	err := readOn(ctx, log, s.Position()+1, func(ev *events.Event) error {
		s.Apply(ev)
		if ev.Position == to {
			return errEnough
		}
		return nil
	})
	if err == nil && s.Position() < to {
		return fmt.Errorf("event %d: %w", to, ErrDropped)
	}
	return err
}
