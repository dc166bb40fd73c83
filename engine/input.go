package engine

import (
	"sync"

	"github.com/callstate/callstate/events"
)

// Input is one frame as an adapter understood it. Exactly one of the pointers is
// set, or Quarantine, or none for a frame that is known to mean nothing.
type Input struct {
	ReceivedAt events.Time
	Source     events.Source
	Origin     events.Origin
	Size       int // bytes of the frame: no more is kept of it

	Leg        *LegObservation
	Agents     []AgentObservation // one frame may list many accounts
	Link       *LinkObservation
	Session    *SessionObservation
	Quarantine *Quarantine
	ask        func(*correlator) // a question, answered between two frames
	fact       *fact

	// Unframed marks an input that no frame of the PBX caused, such as the
	// connection's loss or a change of ICE. It is not counted as a frame received.
	Unframed bool

	recorded bool // gave an event, though what it says of its leg still waits
	n        int  // events it gave so far: the number of the next one's id
}

// Bytes is what an input holds at the most.
func (in *Input) Bytes() int {
	if q := in.Quarantine; q != nil {
		return max(in.Size, len(q.Frame))
	}
	return in.Size
}

// Quarantine says why a frame could not be understood. Reason is a short
// constant word, counted by its value; Frame is kept verbatim.
type Quarantine struct {
	Reason string
	Detail string
	Frame  []byte
}

// LegKind is what happened to a leg, in the switch's terms.
type LegKind uint8

// The kinds. A kind says what the switch raised, not what it means for a call:
// the engine decides that.
const (
	LegSeen             LegKind = iota + 1 // nothing by itself: a state, progress or update that may carry new numbers
	LegCreated                             // the channel exists
	LegAnswered                            // the channel was answered
	LegBridged                             // BridgeA and BridgeB hear each other
	LegUnbridged                           // and no longer do
	LegHeld                                // the channel put its partner on hold
	LegUnheld                              // and took it back
	LegDTMF                                // one digit from the channel
	LegHungup                              // the channel's end
	LegDetails                             // what is known after the end: durations, final cause
	LegDestroyed                           // the channel is gone
	LegRenamed                             // OldLeg became Leg
	LegParked                              // the channel is parked
	LegUnparked                            // and taken back
	LegConferenceJoined                    // the channel is in Conference
	LegConferenceLeft                      // and no longer
	LegRecordingStarted                    // Recording runs
	LegRecordingStopped                    // and no longer
	LegStated                              // how the channel is now: asked for, not raised
	LegAbsent                              // the switch, asked for the channel, does not know it
)

// LegObservation is what one frame says of one leg. Empty fields were not said.
// Numbers are those of the switch's channel profile; which of them is the caller
// depends on the call and is decided by the engine.
type LegObservation struct {
	Kind  LegKind
	At    events.Time // switch clock; 0 if the frame has none
	Clock events.TimeSource

	Leg      string // Unique-ID
	OldLeg   string // LegRenamed: the former id
	Presence string // Channel-Presence-ID, decoded: number@domain, an account's or not

	// Vars says that the frame carries the channel's variables, so that absent
	// ones are known to be absent.
	Vars        bool
	CallGroup   string // webitel_call_uuid in either path's spelling
	ChannelCall string // Channel-Call-UUID; stable only at creation
	Channel     string // Channel-Name

	Inbound        bool // Call-Direction is inbound: the channel called the switch
	LogicalInbound bool // Caller-Logical-Direction is inbound
	HitDialplan    bool // Channel-HIT-Dialplan is true
	Profiled       bool // the frame carries a caller profile, so the numbers below count

	CallerNumber string // Caller-Caller-ID-Number
	CallerName   string
	CalleeNumber string // Caller-Callee-ID-Number
	CalleeName   string
	Destination  string // Caller-Destination-Number

	OtherLeg       string // Other-Leg-Unique-ID
	OriginatingLeg string // variable_originating_leg_uuid
	BridgeA        string // Bridge-A-Unique-ID
	BridgeB        string // Bridge-B-Unique-ID

	OriginateNumber string // w_jsclient_originate_number: a click-to-call leg and its target
	Parent          string // w_jsclient_xtransfer: the call this one consults for
	TransferResult  string // w_transfer_result: "confirmed" or "error"
	TransferTarget  string // destination of the channel's last blind transfer
	TransferStamp   string // what tells that transfer from an earlier one
	Queue           string // cc_queue
	QueueMember     string // cc_member_session_uuid
	Data            string // webitel_data, without the server's quotes

	CreatedAt  events.Time // Caller-Channel-Created-Time
	AnsweredAt events.Time // Caller-Channel-Answered-Time
	HungupAt   events.Time // Caller-Channel-Hangup-Time

	// Ending says that the channel is past its end (CS_HANGUP, CS_REPORTING,
	// CS_DESTROY), whatever the kind.
	Ending      bool
	Cause       string
	CauseCode   int
	Disposition string // sip_hangup_disposition: recv_bye, send_bye, ...
	WaitMs      int64
	BillMs      int64
	HoldMs      int64
	BillSec     int64
	HasBillSec  bool
	HasTimes    bool // WaitMs, BillMs and HoldMs were said

	OnHold    bool        // LegStated: the channel holds its partner
	Asked     events.Time // LegStated: our clock before the switch was asked
	BridgedTo string      // variable_bridge_uuid: whom the channel was bridged with last

	Digit      string
	DigitVia   string
	DigitMs    int64
	Conference string
	Recording  string
	RecordMs   int64
	// WebRTC names the session's transport where the channel shows one: "verto", "sip-ws".
	WebRTC string
}

// observations are used again: one is taken for every frame, and most say nothing
// new.
var observations = sync.Pool{New: func() any { return &LegObservation{} }}

// NewLegObservation returns an empty observation. [Engine.Submit] takes
// observations over and uses them again once they are decided.
func NewLegObservation() *LegObservation { return observations.Get().(*LegObservation) }

// recycle lets an observation be used again.
func (o *LegObservation) recycle() {
	if o != nil {
		*o = LegObservation{}
		observations.Put(o)
	}
}

// AgentKind is what was said of an account.
type AgentKind uint8

// The kinds.
const (
	AgentStatus  AgentKind = iota + 1 // State, Status and Note hold
	AgentOnline                       // has a client at the PBX; State and Status may be said too
	AgentOffline                      // has none
)

// AgentObservation is what one frame says of one account.
type AgentObservation struct {
	Kind    AgentKind
	At      events.Time
	Clock   events.TimeSource
	Account string // number@domain
	State   string // Account-User-State: ONHOOK, ISBUSY, NONREG
	Status  string // Account-Status: NONE, ONBREAK, DND, CALLFORWARD, VOICEMAIL
	Note    string
	Queue   string // Account-Agent-Status
	Reason  string // AgentOffline: why
}

// LinkKind is what happened to an adapter's connection.
type LinkKind uint8

// The kinds.
const (
	LinkUp LinkKind = iota + 1
	LinkDown
	LinkResynced   // the PBX was compared with what we knew
	LinkUnanswered // it could not be: Reason says why
	LinkSilent     // its events had fallen silent, at the earliest since Since
)

// LinkObservation is a change of an adapter's connection.
type LinkObservation struct {
	Kind     LinkKind
	At       events.Time
	Domain   string
	Login    string
	Mode     string // "domain" or "account"
	Accounts int
	Reason   string
	Since    events.Time

	Live, Opened, Closed int // LinkResynced: legs the PBX has, found, and gone
}
