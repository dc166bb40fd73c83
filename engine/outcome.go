package engine

import "github.com/callstate/callstate/events/cti"

// outcome says how a call ended. An answered call was answered whatever its
// cause; of the others the cause decides, read from the account's side.
func outcome(c *call) cti.Outcome {
	switch {
	case c.more().transfer != nil && c.more().transfer.Result == "confirmed":
		return cti.OutcomeTransferred
	case c.connected:
		return cti.OutcomeAnswered
	case c.ended().inferred != "":
		return cti.OutcomeUnknown
	}
	switch c.ended().hangup.Cause {
	case "LOSE_RACE", "PICKED_OFF", "ANSWERED_ELSEWHERE":
		return cti.OutcomeAnsweredElsewhere
	case "USER_BUSY":
		return cti.OutcomeBusy
	case "CALL_REJECTED":
		return cti.OutcomeRejected
	case "NO_ANSWER", "NO_USER_RESPONSE", "ALLOTTED_TIMEOUT", "PROGRESS_TIMEOUT", "RECOVERY_ON_TIMER_EXPIRE":
		return cti.OutcomeNoAnswer
	case "ORIGINATOR_CANCEL", "NORMAL_CLEARING", "MANAGER_REQUEST":
		if c.inbound {
			return cti.OutcomeMissed
		}
		return cti.OutcomeCancelled
	case "":
		return cti.OutcomeUnknown
	default:
		return cti.OutcomeFailed
	}
}
