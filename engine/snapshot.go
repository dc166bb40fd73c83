package engine

import (
	"cmp"
	"context"
	"slices"

	"github.com/callstate/callstate/events"
)

// Snapshot is what a PBX says of its legs at one moment, to be compared with what
// we know.
type Snapshot struct {
	Connection string // that it came by
	Domain     string // whose legs were asked for
	Account    string // if not empty, only this account's legs are judged
	// RequestedAt is our clock before the snapshot was asked for: what began
	// after it cannot be missed in it.
	RequestedAt events.Time
	Legs        []SnapshotLeg
}

// SnapshotLeg is one leg of a snapshot, as much as a list says.
type SnapshotLeg struct {
	ID       string
	Answered bool
	Held     bool
	Ending   bool // past its hangup
}

// Compare returns the ids of the legs about which a snapshot and we differ: legs
// that we do not know, legs that are missing, and legs in another state. The
// caller asks the PBX for each of them and submits what it says: LegStated, or
// LegAbsent. A list alone ends no call, since the PBX may leave legs out of it
// (reference/webitel-v3-protocol.md, section 9).
func (e *Engine) Compare(ctx context.Context, s Snapshot) ([]string, error) {
	return ask(ctx, e, func(k *correlator) []string { return k.compare(&s) })
}

// ask has the correlator answer a question between two frames.
func ask[T any](ctx context.Context, e *Engine, question func(*correlator) T) (answer T, err error) {
	ch := make(chan T, 1) // the correlator never waits for who asks
	in := Input{ReceivedAt: events.At(e.cfg.Now()), Unframed: true, ask: func(k *correlator) { ch <- question(k) }}
	if err := e.Submit(ctx, in); err != nil {
		return answer, err
	}
	select {
	case answer = <-ch:
		return answer, nil
	case <-e.stopping:
		return answer, ErrStopped
	case <-ctx.Done():
		return answer, context.Cause(ctx)
	}
}

func (k *correlator) compare(s *Snapshot) []string {
	if l := k.links[s.Connection]; l != nil {
		l.compared, l.unanswered = k.now, 0
	}
	var want []string
	listed := make(map[string]bool, len(s.Legs))
	for _, row := range s.Legs {
		listed[row.ID] = true
		l := k.legs[row.ID]
		if w := k.waiting[row.ID]; w != nil {
			w.asked = true
		}
		switch {
		case l == nil, l.ended && l.more().inferred && !row.Ending:
			want = append(want, row.ID)
		case l.ended:
		case row.Held != l.held, row.Answered && !l.answered, row.Ending:
			want = append(want, row.ID)
		}
	}
	for id, w := range k.waiting {
		if !listed[id] && w.since < s.RequestedAt && s.covers(k.presenceOfWaiting(id)) {
			k.drop(id) // it is gone, and with it all that could be known
		}
	}
	for id, l := range k.legs {
		switch {
		case l.ended:
		case listed[id]:
			l.listed, l.unlisted = k.now, false
		case l.since < s.RequestedAt && k.judged(l, s):
			l.unlisted = true
			want = append(want, id)
		}
	}
	slices.Sort(want)
	return slices.Compact(want)
}

// drop gives up the frames that wait for a leg.
func (k *correlator) drop(id string) {
	for i := range k.waiting[id].inputs {
		k.count(&k.waiting[id].inputs[i], dispNoOp)
	}
	delete(k.waiting, id)
}

// judged reports whether the snapshot should have listed the leg. A trunk's leg
// is its domain's where a connection of that showed it.
func (k *correlator) judged(l *leg, s *Snapshot) bool {
	if l.call == nil {
		return s.Account == "" && (l.home.domain == s.Domain || l.home.domain == "" && len(k.domains) == 1)
	}
	return s.covers(l.call.agent.name)
}

// covers reports whether the snapshot lists the account's legs.
func (s *Snapshot) covers(account string) bool {
	_, domain := splitAccount(account)
	return domain == s.Domain && cmp.Or(s.Account, account) == account
}

// presenceOfWaiting returns the account that a leg's frames name so far.
func (k *correlator) presenceOfWaiting(id string) string {
	if i := k.accountOfWaiting(id); i >= 0 {
		return k.waiting[id].inputs[i].Leg.Presence
	}
	return ""
}

// absent ends a leg that the switch, asked for it, does not know. When it ended
// is not known either: between its last frame and now.
func (k *correlator) absent(l *leg) {
	if l == nil || l.ended {
		return
	}
	k.end(l, events.Hangup{}, k.at, inferredAbsent, nil)
}

// stated brings what we know of a leg in line with what the switch says of it.
// The rest that it says was caught up with already.
func (k *correlator) stated(l *leg, o *LegObservation) {
	if l.held != o.OnHold {
		k.hold(l, o.OnHold)
	}
	// The variable outlives the bridge: a partner that is gone is none.
	if p := k.legs[o.BridgedTo]; l.answered && o.BridgedTo != "" && (p == nil || !p.ended) {
		k.bridge(l.id, o.BridgedTo)
	}
}

// revive withdraws an inferred end that a frame of the living leg disproves. A
// straggler from before its switch was started again proves nothing.
func (k *correlator) revive(l *leg, o *LegObservation) bool {
	if !l.more().inferred || o.Ending || l.call == nil {
		return false
	}
	switch o.Kind {
	case LegHungup, LegDetails, LegDestroyed, LegAbsent:
		return false
	}
	s := &k.in.Source
	if c := k.cores[switchOf(s)]; s.Core != "" && c != nil && c.id != s.Core {
		return false
	}
	if l.call.ended {
		k.emitCall(l, &events.CallReinstated{Reason: aliveReason})
	} else {
		k.emitCall(l, &events.CallLegAdded{OtherLeg: l.otherLeg})
	}
	return true
}
