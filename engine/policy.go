package engine

import (
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// Policies are what the engine may command the PBX on its own. Each is off
// unless configured (design, section 4). What a web phone of ours is told is not
// among them: it does what the reference's does (reference/cti-model.md, 8.6).
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
		return answerClicked(ev, r)
	case *events.CallLegAdded:
		return answerClicked(ev, r)
	case *events.WebRTCStateChanged:
		return sessionCommands(ev, pl, r)
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

// answerClicked tells a web phone that the leg is a click-to-call's: its agent
// has said already that he wants the call. The invite does not tell.
func answerClicked(ev *events.Event, r *Result) []Command {
	if r.Line == nil || !r.Line.WebPhone || r.Call == nil || !r.Call.Callback || r.Call.AgentAnsweredAt != 0 {
		return nil
	}
	return []Command{{
		Account: ev.Account, Call: ev.Call, Leg: ev.Leg, Action: ActionAutoAnswer, Phone: true, By: "answer-click-to-call",
	}}
}

// sessionCommands: a leg that is gone takes its session along, and one that has
// video needs a key frame when it is heard again.
func sessionCommands(ev *events.Event, p *events.WebRTCStateChanged, r *Result) []Command {
	if p.Layer != events.LayerDialog || ev.Call == "" {
		return nil
	}
	switch {
	case p.State == events.DialogHangup && p.Inferred && p.From != events.DialogDetached: // that phone has no socket
		return []Command{{
			Account: ev.Account, Call: ev.Call, Leg: p.Session, Action: ActionHangup, Phone: true, Cause: p.Cause, By: "leg-is-gone",
		}}
	case p.State == events.DialogActive && p.From == events.DialogHeld && r.Call != nil && r.Call.WebRTC != nil && r.Call.WebRTC.Video:
		return []Command{{Account: ev.Account, Call: ev.Call, Leg: ev.Leg, Action: ActionVideoRefresh, By: "video-refresh"}}
	}
	return nil
}
