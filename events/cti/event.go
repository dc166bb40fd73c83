// Package cti is what callstate publishes: the CTI events of the Creatio
// telephony model, with the views of the call and the line that they were raised
// on. A Go subscriber imports this package alone.
//
// The names and values are those of the reference model; what we add to it says
// so. The JSON Schema of each event is in schema/.
package cti

import "github.com/callstate/callstate/events"

// Name is the name of a CTI event.
type Name string

// The reference's events (reference/cti-model.md, section 4) that a server-side
// engine raises.
const (
	Initialized        Name = "initialized"
	Disconnected       Name = "disconnected"
	CallStarted        Name = "callStarted"
	CallFinished       Name = "callFinished"
	CommutationStarted Name = "commutationStarted"
	CallBusy           Name = "callBusy"
	Hold               Name = "hold"
	Unhold             Name = "unhold"
	CurrentCallChanged Name = "currentCallChanged"
	CallInfoChanged    Name = "callInfoChanged"
	LineStateChanged   Name = "lineStateChanged"
	AgentStateChanged  Name = "agentStateChanged"
	DTMFEntered        Name = "dtmfEntered"
	WebRTCStarted      Name = "webRtcStarted"
	WebRTCVideoStarted Name = "webRtcVideoStarted"
	WebRTCDestroyed    Name = "webRtcDestroyed"
)

// Events of ours beside the reference's.
const (
	AgentAnswered   Name = "agentAnswered"   // a click-to-call: the agent's own device picked up
	CallAliased     Name = "callAliased"     // the call got another id; its call id stays
	CallTransferred Name = "callTransferred" // the outcome of a transfer
	CallParked      Name = "callParked"
	CallUnparked    Name = "callUnparked"
	CallReinstated  Name = "callReinstated" // an inferred end proved wrong
	CallDetails     Name = "callDetails"    // what the switch told after the end
	SessionQuality  Name = "sessionQuality"
)

// Names lists every CTI event that callstate publishes, the reference's first.
func Names() []Name {
	return []Name{
		Initialized, Disconnected, CallStarted, CallFinished, CommutationStarted, Hold, Unhold,
		CurrentCallChanged, CallInfoChanged, LineStateChanged, AgentStateChanged, DTMFEntered,
		WebRTCStarted, WebRTCVideoStarted, WebRTCDestroyed,
		AgentAnswered, CallAliased, CallTransferred, CallParked, CallUnparked, CallReinstated, CallDetails, SessionQuality,
	}
}

// Ours reports whether the event is not one of the reference's.
func (n Name) Ours() bool {
	switch n {
	case AgentAnswered, CallAliased, CallTransferred, CallParked, CallUnparked, CallReinstated, CallDetails, SessionQuality:
		return true
	default:
		return false
	}
}

// Event is the payload of one CTI event on NATS.
type Event struct {
	Event        Name        `json:"event"`
	Position     uint64      `json:"position"`       // of the stored event that it follows from
	Seq          uint64      `json:"seq,omitempty"`  // counts the CTI events of the call from 1, without gaps; 0 if it is about no call
	LineSeq      uint64      `json:"lineSeq"`        // counts those of the account from 1, without gaps
	Time         events.Time `json:"time,omitempty"` // when it happened, by the source's clock
	Domain       string      `json:"domain"`
	Account      string      `json:"account"` // number@domain
	CallID       string      `json:"callId,omitempty"`
	Conversation string      `json:"conversation,omitempty"`
	Call         *Call       `json:"call,omitempty"`
	Line         *Line       `json:"line,omitempty"`
	Arguments
}

// Arguments are what single events say beside the call and the line. Which
// event has which is in the comment of each.
type Arguments struct {
	Digits          string    `json:"digits,omitempty"`          // dtmfEntered
	UserState       string    `json:"userState,omitempty"`       // agentStateChanged
	UserNote        string    `json:"userStateNote,omitempty"`   // agentStateChanged
	Reason          string    `json:"reason,omitempty"`          // disconnected, callReinstated
	CallFeaturesSet *Features `json:"callFeaturesSet,omitempty"` // lineStateChanged: the line's flags
	FeaturesCallID  string    `json:"featuresCallId,omitempty"`  // lineStateChanged: the call that it names
	Alias           string    `json:"alias,omitempty"`           // callAliased
	AliasReason     string    `json:"aliasReason,omitempty"`     // callAliased
	Transfer        *Transfer `json:"transfer,omitempty"`        // callTransferred
	SessionID       string    `json:"sessionId,omitempty"`       // webRtcStarted, webRtcVideoStarted, webRtcDestroyed, sessionQuality
	Quality         *Quality  `json:"quality,omitempty"`         // sessionQuality
}

// Transfer is the outcome of a transfer (RFC 5589: the account is the transferor).
type Transfer struct {
	Kind   string `json:"kind" wire:"1"`   // "blind" or "attended"
	Result string `json:"result" wire:"2"` // "confirmed" or "error"
	Target string `json:"target,omitempty" wire:"3"`
}

// Call is the view of one call. Numbers and flags are those of the reference
// model; times are the source's clock, durations its milliseconds.
type Call struct {
	ID              string           `json:"id"`
	Aliases         []string         `json:"aliases"`
	State           State            `json:"state"`
	StateName       string           `json:"stateName"`
	OldState        State            `json:"oldState"` // the state before this one
	Direction       events.Direction `json:"direction"`
	Callback        bool             `json:"callback"` // click-to-call: the account's own device was rung first
	CallerID        string           `json:"callerId"`
	CallerName      string           `json:"callerName,omitempty"`
	CalledID        string           `json:"calledId"`
	CalledName      string           `json:"calledName,omitempty"`
	CallFeaturesSet Features         `json:"callFeaturesSet"`
	Features        []string         `json:"features"`
	RedirectingID   string           `json:"redirectingId"` // who transfers
	RedirectionID   string           `json:"redirectionId"` // where to
	DeviceID        string           `json:"deviceId"`      // the account's number
	OtherLegUUID    string           `json:"otherLegUUID"`
	ParentCallID    string           `json:"parentCallId,omitempty"` // the call that it consults for
	Queue           string           `json:"queue,omitempty"`
	Data            string           `json:"data,omitempty"` // variables given with a click-to-call, JSON text
	Cause           string           `json:"cause"`
	CauseCode       int              `json:"causeCode"` // Q.850
	HungupBy        string           `json:"hungupBy,omitempty"`
	Outcome         Outcome          `json:"outcome,omitempty"` // of an ended call
	StartedAt       events.Time      `json:"startedAt,omitempty"`
	AgentAnsweredAt events.Time      `json:"agentAnsweredAt,omitempty"` // callback: own device picked up
	AnsweredAt      events.Time      `json:"answeredAt,omitempty"`      // the call was connected
	BridgedAt       events.Time      `json:"bridgedAt,omitempty"`
	EndedAt         events.Time      `json:"endedAt,omitempty"`
	RingMs          int64            `json:"ringMs"` // started to answered, or to the end
	TalkMs          int64            `json:"talkMs"` // connected and not on hold
	HoldMs          int64            `json:"holdMs"`
	Transfer        *Transfer        `json:"transfer,omitempty"`
	Recording       string           `json:"recording,omitempty"` // id under which the recording is found
	Recorded        bool             `json:"recorded,omitempty"`
	Conference      string           `json:"conference,omitempty"`
	Parked          bool             `json:"parked,omitempty"`
	WebRTC          *WebRTC          `json:"webRtc,omitempty"`
	Digits          string           `json:"digits,omitempty"` // the last 20 entered
	Legs            []Leg            `json:"legs"`
	Origin          events.Origin    `json:"origin"`             // of the last fact: live, resync, import
	Inferred        string           `json:"inferred,omitempty"` // why an end is believed that nobody sent
	// Gaps are the times in which nothing was told of the call: what it did then is
	// known as far as the PBX, asked later, said.
	Gaps []Gap `json:"gaps,omitempty"`
}

// Gap is one of a call's gaps, by callstate's clock; found-late by the switch's.
type Gap struct {
	From   events.Time `json:"from" wire:"1"`
	To     events.Time `json:"to" wire:"2"`
	Reason string      `json:"reason" wire:"3"` // link-down, found-late, events-silent
}

// WebRTC is the media session of the call's leg.
type WebRTC struct {
	Session   string `json:"session" wire:"1"`   // the leg's id at its beginning
	Transport string `json:"transport" wire:"2"` // "verto", "sip-ws"
	Inferred  bool   `json:"inferred" wire:"3"`  // from the leg's headers: no web phone of ours tells of it
	Ended     bool   `json:"ended,omitempty" wire:"4"`
	State     string `json:"state,omitempty" wire:"5"`   // of the dialog: ringing, active, held, detached ...
	ICE       string `json:"ice,omitempty" wire:"6"`     // W3C RTCIceTransportState
	DTLS      string `json:"dtls,omitempty" wire:"7"`    // W3C RTCDtlsTransportState
	Attempt   int    `json:"attempt,omitempty" wire:"8"` // reattachments so far
	Video     bool   `json:"video,omitempty" wire:"9"`
	// Quality are the last figures.
	Quality *Quality `json:"quality,omitempty" wire:"10"`
	Cause   string   `json:"cause,omitempty" wire:"11"`  // of its end, as the switch names it
	Reason  string   `json:"reason,omitempty" wire:"12"` // of its end: bye, socket-lost, not-reattached ...
}

// Quality are the figures of a media session so far.
type Quality struct {
	Codec           string  `json:"codec,omitempty" wire:"1"`
	PacketsReceived int64   `json:"packetsReceived" wire:"2"`
	PacketsSent     int64   `json:"packetsSent" wire:"3"`
	PacketsLost     int64   `json:"packetsLost" wire:"4"` // of those sent to the phone (RFC 3550, 6.4.1)
	JitterMs        float64 `json:"jitterMs" wire:"5"`
	RoundTripMs     float64 `json:"roundTripMs" wire:"6"` // 0 where it is not known
	MOS             float64 `json:"mos" wire:"7"`         // estimated, 1 to 5; 0 where it cannot be
}

// Leg is one channel of the account in the call.
type Leg struct {
	ID       string `json:"id"`
	Partner  string `json:"partner,omitempty"`
	Primary  bool   `json:"primary,omitempty"` // the leg that answered; before the answer, the first
	Answered bool   `json:"answered,omitempty"`
	Held     bool   `json:"held,omitempty"`
	Ended    bool   `json:"ended,omitempty"`
	Cause    string `json:"cause,omitempty"`
}

// Outcome says how a call ended, for people and statistics.
type Outcome string

// The outcomes.
const (
	OutcomeAnswered          Outcome = "answered"
	OutcomeTransferred       Outcome = "transferred" // answered, then transferred by the account
	OutcomeMissed            Outcome = "missed"      // inbound, the caller gave up
	OutcomeNoAnswer          Outcome = "no-answer"   // nobody answered in time
	OutcomeBusy              Outcome = "busy"
	OutcomeRejected          Outcome = "rejected"
	OutcomeCancelled         Outcome = "cancelled"          // outbound, the account gave up
	OutcomeAnsweredElsewhere Outcome = "answered-elsewhere" // a colleague took it
	OutcomeFailed            Outcome = "failed"             // not reachable, no route, error
	OutcomeUnknown           Outcome = "unknown"            // its end was not seen
)

// Line is the view of one account: what it can do now.
type Line struct {
	Connected       bool     `json:"connected"` // to the PBX
	CallFeaturesSet Features `json:"callFeaturesSet"`
	Features        []string `json:"features"`
	ActiveCall      string   `json:"activeCall,omitempty"`
	SecondCall      string   `json:"secondCall,omitempty"`
	Consulting      bool     `json:"consulting,omitempty"` // the second call is a consultation
	Waiting         []string `json:"waiting,omitempty"`
	AgentState      string   `json:"agentState,omitempty"`
	AgentNote       string   `json:"agentStateNote,omitempty"`
	Online          bool     `json:"online"`             // has a client at the PBX
	WebPhone        bool     `json:"webPhone,omitempty"` // its web phone is signed in
}
