package engine

import (
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// Policies are what the engine may command the PBX on its own. Each is off
// unless configured (design, section 4).
type Policies struct {
	// RejectSecondCall hangs up, as busy, an inbound call that begins while
	// another is up (quirk Q8). The call is recorded all the same.
	RejectSecondCall bool
	// UnholdAfterConsult takes the main call off hold when its consultation ends
	// (reference/cti-model.md, 8.5), unless a transfer was confirmed (quirk Q3).
	UnholdAfterConsult bool
}

// Commands says what the policies want after an event. It is asked once, when
// the event is new: never for a replay (I9), and nothing that was inferred makes
// it command the PBX.
func (p Policies) Commands(ev *events.Event, r *Result) []Command {
	if ev.Origin == events.Resync {
		return nil
	}
	switch pl := ev.Payload.(type) {
	case *events.CallNew:
		if p.RejectSecondCall && pl.Refused {
			return []Command{{
				Account: ev.Account, Call: ev.Call, Leg: ev.Leg, Action: ActionHangup, Cause: "USER_BUSY",
				By: "reject-second-call",
			}}
		}
	case *events.CallHungup:
		if p.UnholdAfterConsult {
			return unholdMain(ev.Account, r)
		}
	}
	return nil
}

// unholdMain returns the command for the main call of the consultation that
// ended. A consultation's end says currentCallChanged before callFinished; the
// end of the main call says it after.
func unholdMain(account string, r *Result) []Command {
	for i := range r.Messages {
		e := &r.Messages[i].Event
		switch e.Event {
		case cti.CallFinished:
			return nil
		case cti.CurrentCallChanged:
			if e.Call.State != cti.StateHeld || e.Call.Transfer != nil && e.Call.Transfer.Result == transferConfirmed {
				return nil
			}
			for _, l := range e.Call.Legs {
				if l.Primary {
					return []Command{{
						Account: account, Call: e.CallID, Leg: l.ID, Action: ActionUnhold, By: "unhold-after-consult",
					}}
				}
			}
		}
	}
	return nil
}
