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
	Domain  string // whose legs were asked for
	Account string // if not empty, only this account's legs are judged
	// RequestedAt is our clock before the snapshot was asked for: what began
	// after it cannot be missed in it.
	RequestedAt events.Time
	Legs        []SnapshotLeg
	// Young are legs that are there and not to be judged yet: their frames may be
	// on their way.
	Young []string
}

// SnapshotLeg is one leg of a snapshot, as much as a list says.
type SnapshotLeg struct {
	ID       string
	Answered bool
	Held     bool
	Ending   bool // past its hangup
}

// snapshotRequest is a snapshot on its way to the correlator.
type snapshotRequest struct {
	Snapshot
	answer chan []string // buffered: the correlator never waits for it
}

// Compare returns the ids of the legs about which a snapshot and we differ: legs
// that we do not know, legs that are missing, and legs in another state. The
// caller asks the PBX for each of them and submits what it says: LegStated, or
// LegAbsent. A list alone ends no call, since the PBX may leave legs out of it
// (reference/webitel-v3-protocol.md, section 9).
func (e *Engine) Compare(ctx context.Context, s Snapshot) ([]string, error) {
	req := &snapshotRequest{Snapshot: s, answer: make(chan []string, 1)}
	if err := e.Submit(ctx, Input{ReceivedAt: events.At(e.cfg.Now()), Unframed: true, snapshot: req}); err != nil {
		return nil, err
	}
	select {
	case ids := <-req.answer:
		return ids, nil
	case <-e.stopping:
		return nil, ErrStopped
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (k *correlator) compare(s *Snapshot) []string {
	var ask []string
	listed := make(map[string]bool, len(s.Legs))
	for _, row := range s.Legs {
		listed[row.ID] = true
		l := k.legs[row.ID]
		switch {
		case l == nil, l.ended && l.inferred && !row.Ending:
			ask = append(ask, row.ID)
		case l.ended:
		case row.Held != l.held, row.Answered && !l.answered, row.Ending:
			ask = append(ask, row.ID)
		}
	}
	for _, id := range s.Young {
		listed[id] = true
	}
	for id, w := range k.waiting {
		if !listed[id] && w.since < s.RequestedAt {
			k.drop(id) // it is gone, and with it all that could be known
		}
	}
	for id, l := range k.legs {
		if !l.ended && !listed[id] && l.since < s.RequestedAt && k.judged(l, s) {
			ask = append(ask, id)
		}
	}
	slices.Sort(ask)
	return slices.Compact(ask)
}

// drop gives up the frames that wait for a leg.
func (k *correlator) drop(id string) {
	for i := range k.waiting[id].inputs {
		k.count(&k.waiting[id].inputs[i], dispNoOp)
	}
	delete(k.waiting, id)
}

// judged reports whether the snapshot should have listed the leg. A trunk's leg
// says of itself only where all that we watch is one domain.
func (k *correlator) judged(l *leg, s *Snapshot) bool {
	if l.call == nil {
		return s.Account == "" && len(k.domains) == 1
	}
	_, domain := splitAccount(l.call.key.Account)
	return domain == s.Domain && cmp.Or(s.Account, l.call.key.Account) == l.call.key.Account
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
	if !l.inferred || o.Ending || l.call == nil {
		return false
	}
	switch o.Kind {
	case LegHungup, LegDetails, LegDestroyed, LegAbsent:
		return false
	}
	s := &k.in.Source
	if c := k.cores[s.Switch]; s.Core != "" && c != nil && c.id != s.Core {
		return false
	}
	if l.call.ended {
		k.emitCall(l, &events.CallReinstated{Reason: aliveReason})
	} else {
		k.emitCall(l, &events.CallLegAdded{OtherLeg: l.otherLeg, Channel: l.channel})
	}
	return true
}
