package engine

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// HistoryEntry is one stored event and the CTI events that follow from it.
type HistoryEntry struct {
	Event events.Event `json:"event"`
	CTI   []cti.Event  `json:"cti"`
	// Aside says that the event is of a call that is not told of, and CTI what
	// followed from it for one that is.
	Aside bool `json:"aside,omitempty"`
}

// History returns a call's stored events, each with the CTI events that follow
// from it. It folds the events of the call's account around it anew, from the
// log, so that what it says is what was published.
func (e *Engine) History(ctx context.Context, key events.CallKey) ([]HistoryEntry, error) {
	return History(ctx, e.log, key)
}

// History folds a log and returns the events of the calls with what follows from
// each, in order of position. The CTI events depend on the account's other calls,
// so that the whole of the account is folded; an event of another call is there
// with the CTI events about these, such as the currentCallChanged that its end
// gave, so that the sequence of a call has no gap.
func History(ctx context.Context, log Reader, keys ...events.CallKey) ([]HistoryEntry, error) {
	accounts := map[string]bool{}
	for _, k := range keys {
		accounts[k.Account] = true
	}
	if len(keys) == 0 {
		return nil, nil
	}
	st, last, err := around(ctx, log, keys)
	if err != nil {
		return nil, err
	}
	return histories(ctx, log, st,
		func(ev *events.Event) bool { return accounts[ev.Account] },
		func(ev *events.Event) bool { return slices.Contains(keys, ev.Key()) },
		func(ev *events.Event, p *Projection) bool { return ev.Position > last && !p.liveAny(keys) })
}

// indexed is a log that knows where the events of a call are, and keeps states.
type indexed interface {
	stated
	ReadCall(ctx context.Context, key events.CallKey, fn func(*events.Event) error) error
}

// around returns a state of before the calls and the position of their last event.
// What can be told of them lies in between, or where a call has not ended after it.
// Where retention has cut through one the state is that which it has left. A log that
// does not know that is read from its first event to its last one.
func around(ctx context.Context, log Reader, keys []events.CallKey) (st *State, last uint64, err error) {
	l, ok := log.(indexed)
	if !ok {
		st, err := openState(log)
		return st, ^uint64(0), err
	}
	first := ^uint64(0)
	for _, key := range keys {
		begins := false
		err := l.ReadCall(ctx, key, func(ev *events.Event) error {
			if _, ok := ev.Payload.(*events.CallNew); !ok && !begins {
				first = 0
			}
			begins = true
			first, last = min(first, ev.Position), max(last, ev.Position)
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
	}
	if last == 0 || first == 0 {
		st, err = openState(log)
	} else {
		st, err = lastState(l, first-1, slog.New(slog.DiscardHandler))
	}
	return st, last, err
}

// liveAny reports whether one of the calls has begun and not ended.
func (p *Projection) liveAny(keys []events.CallKey) bool {
	return slices.ContainsFunc(keys, func(k events.CallKey) bool {
		a := p.accounts[k.Account]
		return a != nil && a.calls[k.Call] != nil && a.calls[k.Call].live()
	})
}

// about returns the CTI events among messages that are about one of the calls.
func about(messages []Message, calls map[events.CallKey]bool) []cti.Event {
	var out []cti.Event
	for i := range messages {
		if e := &messages[i].Event; e.CallID != "" && calls[events.CallKey{Account: e.Account, Call: e.CallID}] {
			out = append(out, *e)
		}
	}
	return out
}

// remembers reports whether the fold holds one of the calls, so that an event may
// be about it.
func (p *Projection) remembers(calls map[events.CallKey]bool) bool {
	for k := range calls {
		if a := p.accounts[k.Account]; a != nil && a.calls[k.Call] != nil {
			return true
		}
	}
	return false
}

func histories(
	ctx context.Context, log Reader, st *State, fold, want func(*events.Event) bool, enough func(*events.Event, *Projection) bool,
) ([]HistoryEntry, error) {
	p := st.projection
	var out []HistoryEntry
	calls := map[events.CallKey]bool{} // those that are told of
	for _, a := range p.accounts {     // some began before what retention has left
		for _, c := range a.calls {
			if want(&events.Event{Account: a.name, Call: c.id, Conversation: c.conversation}) {
				calls[events.CallKey{Account: a.name, Call: c.id}] = true
			}
		}
	}
	err := readOn(ctx, log, st.Position()+1, func(ev *events.Event) error {
		if enough(ev, p) {
			return errEnough
		}
		wanted := want(ev)
		if !wanted && !fold(ev) {
			return nil
		}
		p.mute = 0
		if !wanted && !p.remembers(calls) { // what nobody asked for is counted and not made
			p.mute = ev.Position
		}
		r := p.Apply(ev)
		if !wanted {
			if others := about(r.Messages, calls); others != nil {
				out = append(out, HistoryEntry{Event: *ev, CTI: others, Aside: true})
			}
			return nil
		}
		if key := ev.Key(); !key.IsZero() {
			calls[key] = true
		}
		h := HistoryEntry{Event: *ev, CTI: make([]cti.Event, len(r.Messages))}
		for i := range r.Messages {
			h.CTI[i] = r.Messages[i].Event
		}
		out = append(out, h)
		return nil
	})
	return out, err
}

// ConversationHistory returns the events of the conversations that the calls
// belong to, as one: of all accounts' calls and of the legs that are no
// account's, with the events that merged them.
func ConversationHistory(ctx context.Context, log Reader, keys []events.CallKey) ([]HistoryEntry, error) {
	ids, accounts, err := conversationOf(ctx, log, keys)
	if err != nil {
		return nil, err
	}
	st, err := openState(log)
	if err != nil {
		return nil, err
	}
	return histories(ctx, log, st,
		func(ev *events.Event) bool { return accounts[ev.Account] },
		func(ev *events.Event) bool { return ev.Conversation != "" && ids[ev.Conversation] },
		func(*events.Event, *Projection) bool { return false })
}

// conversationOf returns the ids that one conversation has had, and the accounts
// that have calls in it. A merge may come before or after what it touches, so
// that the log is read until nothing is found any more: twice as a rule.
func conversationOf(ctx context.Context, log Reader, keys []events.CallKey) (ids, accounts map[string]bool, err error) {
	ids, accounts = map[string]bool{}, map[string]bool{}
	for before := -1; before != len(ids); {
		before = len(ids)
		err := log.Read(ctx, 1, func(ev *events.Event) error {
			if m, ok := ev.Payload.(*events.ConversationMerged); ok && (ids[m.From] || ids[m.Into]) {
				ids[m.From], ids[m.Into] = true, true
			}
			if ev.Conversation != "" && slices.Contains(keys, ev.Key()) {
				ids[ev.Conversation] = true
			}
			if ev.Account != "" && ids[ev.Conversation] {
				accounts[ev.Account] = true
			}
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return ids, accounts, nil
}

// Evidence names the event that gave a field of a call's view the value it has.
type Evidence struct {
	Account string `json:"account"`
	CallID  string `json:"callId"`
	Field   string `json:"field"` // as in the JSON of the view; legs.<leg id>.<field> of a leg
	Value   string `json:"value"`
	// Position is 0 and Type empty where retention has dropped the event.
	Position   uint64      `json:"position"`
	Type       events.Type `json:"type"`
	OccurredAt events.Time `json:"occurredAt,omitempty"`
	// Of is the call that the event is about, where it is not this one: what the
	// agent may do with a call depends on the others.
	Of string `json:"of,omitempty"`
}

// Explain returns for every field of a call's view, as the log leaves it, the
// event that set it last, in order of field. A field that no event has touched
// since was set by the event that the call began with.
func Explain(ctx context.Context, log Reader, key events.CallKey) ([]Evidence, error) {
	keys := []events.CallKey{key}
	st, last, err := around(ctx, log, keys)
	if err != nil {
		return nil, err
	}
	p := st.projection
	p.mute = ^uint64(0)
	fields := map[string]*Evidence{}
	view := func() map[string]string {
		if a := p.accounts[key.Account]; a != nil && a.calls[key.Call] != nil {
			c := a.calls[key.Call]
			return viewFields(c.view(a.name, a.features(c)))
		}
		return nil
	}
	for name, value := range view() { // set by what retention has dropped
		fields[name] = &Evidence{Account: key.Account, CallID: key.Call, Field: name, Value: value}
	}
	err = readOn(ctx, log, st.Position()+1, func(ev *events.Event) error {
		if ev.Position > last && !p.liveAny(keys) {
			return errEnough
		}
		if ev.Account != key.Account {
			return nil
		}
		p.Apply(ev)
		now := view()
		if now == nil {
			return nil
		}
		for name, value := range now {
			if f := fields[name]; f != nil && f.Value == value {
				continue
			}
			e := &Evidence{
				Account: key.Account, CallID: key.Call, Field: name, Value: value,
				Position: ev.Position, Type: ev.Type(), OccurredAt: ev.OccurredAt,
			}
			if ev.Call != key.Call {
				e.Of = ev.Call
			}
			fields[name] = e
		}
		for name := range fields { // a leg's or a transfer's field that is no more
			if _, ok := now[name]; !ok {
				delete(fields, name)
			}
		}
		return nil
	})
	out := make([]Evidence, 0, len(fields))
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		out = append(out, *fields[name])
	}
	return out, err
}

// viewFields are the fields of a call's view by the names that they have in its
// JSON. TestViewFieldsAreComplete holds them to it.
func viewFields(c *cti.Call) map[string]string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	m := map[string]string{
		"id": c.ID, "aliases": strings.Join(c.Aliases, " "),
		"state": number(int64(c.State)), "stateName": c.StateName, "oldState": number(int64(c.OldState)),
		"direction": string(c.Direction), "callback": strconv.FormatBool(c.Callback),
		"callerId": c.CallerID, "callerName": c.CallerName, "calledId": c.CalledID, "calledName": c.CalledName,
		"callFeaturesSet": number(int64(c.CallFeaturesSet)), "features": strings.Join(c.Features, " "),
		"redirectingId": c.RedirectingID, "redirectionId": c.RedirectionID, "deviceId": c.DeviceID,
		"otherLegUUID": c.OtherLegUUID, "parentCallId": c.ParentCallID, "queue": c.Queue, "data": c.Data,
		"cause": c.Cause, "causeCode": number(int64(c.CauseCode)), "hungupBy": c.HungupBy, "outcome": string(c.Outcome),
		"startedAt": c.StartedAt.String(), "agentAnsweredAt": c.AgentAnsweredAt.String(), "answeredAt": c.AnsweredAt.String(),
		"bridgedAt": c.BridgedAt.String(), "endedAt": c.EndedAt.String(),
		"ringMs": number(c.RingMs), "talkMs": number(c.TalkMs), "holdMs": number(c.HoldMs),
		"recording": c.Recording, "recorded": strconv.FormatBool(c.Recorded), "conference": c.Conference,
		"parked": strconv.FormatBool(c.Parked), "digits": c.Digits,
		"origin": c.Origin.String(), "inferred": c.Inferred,
	}
	var gaps []string
	for _, g := range c.Gaps {
		gaps = append(gaps, g.From.String()+"/"+g.To.String()) // an interval (ISO 8601)
	}
	m["gaps"] = strings.Join(gaps, " ")
	if t := c.Transfer; t != nil {
		m["transfer.kind"], m["transfer.result"], m["transfer.target"] = t.Kind, t.Result, t.Target
	}
	if w := c.WebRTC; w != nil {
		sessionFields(m, w)
	}
	for i := range c.Legs {
		l := &c.Legs[i]
		prefix := fmt.Sprintf("legs.%s.", l.ID)
		m[prefix+"partner"], m[prefix+"cause"] = l.Partner, l.Cause
		m[prefix+"primary"], m[prefix+"answered"] = strconv.FormatBool(l.Primary), strconv.FormatBool(l.Answered)
		m[prefix+"held"], m[prefix+"ended"] = strconv.FormatBool(l.Held), strconv.FormatBool(l.Ended)
	}
	return m
}

func sessionFields(m map[string]string, w *cti.WebRTC) {
	m["webRtc.session"], m["webRtc.transport"] = w.Session, w.Transport
	m["webRtc.inferred"], m["webRtc.ended"] = strconv.FormatBool(w.Inferred), strconv.FormatBool(w.Ended)
	m["webRtc.state"], m["webRtc.ice"], m["webRtc.dtls"] = w.State, w.ICE, w.DTLS
	m["webRtc.attempt"], m["webRtc.video"] = strconv.Itoa(w.Attempt), strconv.FormatBool(w.Video)
	m["webRtc.cause"], m["webRtc.reason"] = w.Cause, w.Reason
	q := w.Quality
	if q == nil {
		return
	}
	real := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	m["webRtc.quality.codec"] = q.Codec
	m["webRtc.quality.packetsReceived"] = strconv.FormatInt(q.PacketsReceived, 10)
	m["webRtc.quality.packetsSent"] = strconv.FormatInt(q.PacketsSent, 10)
	m["webRtc.quality.packetsLost"] = strconv.FormatInt(q.PacketsLost, 10)
	m["webRtc.quality.jitterMs"], m["webRtc.quality.roundTripMs"] = real(q.JitterMs), real(q.RoundTripMs)
	m["webRtc.quality.mos"] = real(q.MOS)
}
