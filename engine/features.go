package engine

import "github.com/callstate/callstate/events/cti"

// facts are what a call's flags depend on, and all they depend on (quirks Q7,
// Q11, Q12: flags are a pure function of the facts).
type facts struct {
	state      string // of the machine
	inbound    bool
	answerable bool // the account can be offered CAN_ANSWER
	bridged    bool // was bridged at some time
	role       role
	// consultBridged: for the active call during a consultation, whether that one
	// was bridged.
	consultBridged bool
}

// role is the call's place on the line.
type role uint8

const (
	roleOther      role = iota // alone, second or waiting: its own flags
	roleConsult                // the consultation
	roleConsulting             // the active call while there is a consultation
)

// features returns the flags of a call (design, section 4).
func features(f facts) cti.Features {
	if f.state == stateEnded {
		return cti.Idle
	}
	if f.role == roleConsulting {
		if f.consultBridged {
			return cti.CompleteTransfer
		}
		return cti.CanNothing
	}
	switch f.state {
	case stateAlerting:
		switch {
		case f.role == roleConsult:
			return cti.CanNothing
		case f.inbound && f.answerable:
			return cti.RingIn
		case f.inbound:
			return cti.RingInNoAnswer
		default:
			return cti.RingOut
		}
	case stateHeld:
		return cti.Held
	case stateConferenced:
		return cti.Talk
	case stateConnected:
		if f.bridged && f.role != roleConsult {
			return cti.TalkBridged
		}
		return cti.Talk
	default:
		return cti.CanNothing
	}
}
