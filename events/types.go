package events

// Type names a kind of fact. It is the "type" of the JSON form.
type Type string

// Payload is what an event of one type says. Each type has one Go struct; the
// struct's wire tags are the field numbers of the stored form and never change.
type Payload interface{ EventType() Type }

// Direction of a call as its account sees it.
type Direction string

// The directions. A click-to-call is out, with Callback set.
const (
	In  Direction = "in"
	Out Direction = "out"
)

// Parties are the numbers and names of a call as the account sees it: the
// caller is the one who called, whichever leg the switch placed first.
type Parties struct {
	CallerNumber string `json:"callerNumber,omitempty" wire:"1"`
	CallerName   string `json:"callerName,omitempty" wire:"2"`
	CalledNumber string `json:"calledNumber,omitempty" wire:"3"`
	CalledName   string `json:"calledName,omitempty" wire:"4"`
}

// Hangup is how a leg or call ended.
type Hangup struct {
	Cause       string `json:"cause,omitempty" wire:"1"`     // the switch's own text, such as NORMAL_CLEARING
	CauseCode   int    `json:"causeCode,omitempty" wire:"2"` // Q.850 number, 0 if none is known
	By          string `json:"by,omitempty" wire:"3"`        // "account", "other" or "switch"; empty if not known
	Disposition string `json:"disposition,omitempty" wire:"4"`
}

// Calls.
type (
	// CallNew is the first sight of a call id on an account.
	CallNew struct {
		Direction  Direction `json:"direction" wire:"1"`
		Callback   bool      `json:"callback,omitempty" wire:"2"` // click-to-call: the account's own device rings first
		Parties    Parties   `json:"parties" wire:"3"`
		OtherLeg   string    `json:"otherLeg,omitempty" wire:"4"`   // the leg that placed this one
		ParentCall string    `json:"parentCall,omitempty" wire:"5"` // call id of the call that this one consults for
		Parent     string    `json:"parent,omitempty" wire:"6"`     // the same as the source named it: call id, alias or leg
		Queue      string    `json:"queue,omitempty" wire:"7"`
		Data       string    `json:"data,omitempty" wire:"8"`        // variables of a click-to-call, JSON text
		Answerable bool      `json:"answerable,omitempty" wire:"9"`  // the account can be offered CAN_ANSWER
		Discovered bool      `json:"discovered,omitempty" wire:"10"` // its creation was not seen
		StartedAt  Time      `json:"startedAt,omitempty" wire:"11"`
		Refused    bool      `json:"refused,omitempty" wire:"12"` // the policy reject-second-call applies to it
		Channel    string    `json:"channel,omitempty" wire:"13"` // the switch's channel name of the leg
	}
	// CallAccepted is the answer of a leg of the call. For a callback it is the
	// account's own device that answered.
	CallAccepted struct {
		AnsweredAt Time `json:"answeredAt,omitempty" wire:"1"`
	}
	// CallHeld is a leg put on hold.
	CallHeld struct{}
	// CallUnheld is a leg taken off hold.
	CallUnheld struct{}
	// CallDTMF is one digit.
	CallDTMF struct {
		Digit      string `json:"digit" wire:"1"`
		DurationMs int64  `json:"durationMs,omitempty" wire:"2"`
		Via        string `json:"via,omitempty" wire:"3"` // how it travelled: RTP, ENDPOINT, APP
	}
	// CallBridged is a partner found: once per pair of legs until unbridged.
	CallBridged struct {
		Partner        string `json:"partner" wire:"1"`                  // leg id
		PartnerAccount string `json:"partnerAccount,omitempty" wire:"2"` // where that leg is an account's
		Implied        bool   `json:"implied,omitempty" wire:"3"`        // a called leg that was answered with a known partner
	}
	// CallUnbridged is a partner lost.
	CallUnbridged struct {
		Partner string `json:"partner" wire:"1"`
	}
	// CallUUIDChanged adds an alias; the call id never changes.
	CallUUIDChanged struct {
		Alias  string `json:"alias" wire:"1"`
		Reason string `json:"reason" wire:"2"` // "leg-renamed", "record", "call-id"
	}
	// CallHungup is the end of the call's last leg.
	CallHungup struct {
		Hangup
		Inferred   string `json:"inferred,omitempty" wire:"10"` // why we believe so, where nobody sent it
		EndedAt    Time   `json:"endedAt,omitempty" wire:"11"`
		BillSec    int64  `json:"billSec,omitempty" wire:"12"` // seconds, as the switch bills
		HasBillSec bool   `json:"hasBillSec,omitempty" wire:"13"`
	}
	// CallDetails is what later frames knew of an ended call.
	CallDetails struct {
		Hangup
		WaitMs int64 `json:"waitMs,omitempty" wire:"10"` // creation to answer
		BillMs int64 `json:"billMs,omitempty" wire:"11"` // answer to end, hold included
		HoldMs int64 `json:"holdMs,omitempty" wire:"12"`
		// EndedAt is the end by the switch's clock, where the hangup itself was
		// timed by ours.
		EndedAt Time `json:"endedAt,omitempty" wire:"13"`
	}
	// CallPartiesChanged is a change of numbers, names or partner leg.
	CallPartiesChanged struct {
		Parties  Parties `json:"parties" wire:"1"`
		OtherLeg string  `json:"otherLeg,omitempty" wire:"2"`
	}
	// CallLegAdded is a further leg of the account in a live call.
	CallLegAdded struct {
		OtherLeg string `json:"otherLeg,omitempty" wire:"1"`
		Channel  string `json:"channel,omitempty" wire:"2"`
	}
	// CallLegRemoved is the end of a leg that was not the last.
	CallLegRemoved struct {
		Hangup
		Inferred string `json:"inferred,omitempty" wire:"10"` // as in CallHungup
	}
	// CallParked and CallUnparked are the call's own leg parked and taken back.
	CallParked   struct{}
	CallUnparked struct{}
	// CallConferenceJoined and CallConferenceLeft are the call's leg in a conference.
	CallConferenceJoined struct {
		Conference string `json:"conference,omitempty" wire:"1"`
	}
	CallConferenceLeft struct {
		Conference string `json:"conference,omitempty" wire:"1"`
	}
	// CallReinstated withdraws an inferred end that proved wrong.
	CallReinstated struct {
		Reason string `json:"reason" wire:"1"`
	}
	// CallGap is a time in which nothing was told of the call: what it did then is
	// known as far as the PBX, asked later, said. Digits, a hold that was taken
	// back, the moment of a bridge are not among that.
	CallGap struct {
		From   Time   `json:"from" wire:"1"`
		To     Time   `json:"to" wire:"2"`
		Reason string `json:"reason" wire:"3"` // link-down, found-late, events-silent
	}
	// CallRecordingStarted and CallRecordingStopped name the recording, never a link to it.
	CallRecordingStarted struct {
		Recording string `json:"recording,omitempty" wire:"1"`
	}
	CallRecordingStopped struct {
		Recording  string `json:"recording,omitempty" wire:"1"`
		DurationMs int64  `json:"durationMs,omitempty" wire:"2"`
	}
	// CallTransferred is the outcome of a transfer that the account made.
	CallTransferred struct {
		Kind      string `json:"kind" wire:"1"`             // [BlindTransfer] or [AttendedTransfer]
		Result    string `json:"result" wire:"2"`           // "confirmed", "error"
		Target    string `json:"target,omitempty" wire:"3"` // number the call went to
		TargetLeg string `json:"targetLeg,omitempty" wire:"4"`
		Consult   string `json:"consult,omitempty" wire:"5"` // call id of the consultation
	}
)

// Kinds of transfer, as RFC 5589 names them.
const (
	BlindTransfer    = "blind"
	AttendedTransfer = "attended"
)

// Conversations, and legs that belong to no account.
type (
	// ConversationMerged joins two conversations that turned out to be one.
	ConversationMerged struct {
		From string `json:"from" wire:"1"`
		Into string `json:"into" wire:"2"`
	}
	// LegNew is the first sight of a leg that is no account's: a trunk.
	LegNew struct {
		Presence    string  `json:"presence,omitempty" wire:"1"`
		Parties     Parties `json:"parties" wire:"2"`
		Destination string  `json:"destination,omitempty" wire:"3"`
		OtherLeg    string  `json:"otherLeg,omitempty" wire:"4"`
		Discovered  bool    `json:"discovered,omitempty" wire:"5"`
		Channel     string  `json:"channel,omitempty" wire:"6"`
		StartedAt   Time    `json:"startedAt,omitempty" wire:"7"`
	}
	// LegAnswered is the answer of such a leg.
	LegAnswered struct {
		AnsweredAt Time `json:"answeredAt,omitempty" wire:"1"`
	}
	// LegBridged and LegUnbridged are such a leg's partner found and lost.
	LegBridged struct {
		Partner string `json:"partner" wire:"1"`
	}
	LegUnbridged struct {
		Partner string `json:"partner" wire:"1"`
	}
	// LegHeld and LegUnheld are such a leg on and off hold.
	LegHeld   struct{}
	LegUnheld struct{}
	// LegDTMF is a digit from such a leg.
	LegDTMF struct {
		Digit string `json:"digit" wire:"1"`
		Via   string `json:"via,omitempty" wire:"2"`
	}
	// LegParked and LegUnparked are such a leg parked and taken back.
	LegParked   struct{}
	LegUnparked struct{}
	// LegUUIDChanged is a leg's new id.
	LegUUIDChanged struct {
		Old string `json:"old" wire:"1"`
	}
	// LegTransferred is such a leg sent to another destination.
	LegTransferred struct {
		Target string `json:"target" wire:"1"`
	}
	// LegHungup is its end.
	LegHungup struct {
		Hangup
		Inferred string `json:"inferred,omitempty" wire:"10"`
		EndedAt  Time   `json:"endedAt,omitempty" wire:"11"`
	}
)

// WebRTC sessions. Session is the id that the phone knows the session by: the
// Verto callID, which is the leg's id at its beginning. An event without a call
// tells of a session whose leg was not seen yet.
type (
	// WebRTCSessionNew is a media session of a leg.
	WebRTCSessionNew struct {
		Session   string `json:"session" wire:"1"`
		Transport string `json:"transport" wire:"2"`          // "verto", "sip-ws"
		Inferred  bool   `json:"inferred,omitempty" wire:"3"` // from the leg's headers, not from a session of ours
		// Direction is the phone's: in when the switch called it.
		Direction Direction `json:"direction,omitempty" wire:"4"`
		State     string    `json:"state,omitempty" wire:"5"`   // of the dialog, one of the Dialog constants
		Attempt   int       `json:"attempt,omitempty" wire:"6"` // PeerConnections that were given up
		Video     bool      `json:"video,omitempty" wire:"7"`
		// Joined says that the session was told of before its leg was seen: earlier
		// events of it name no call.
		Joined bool `json:"joined,omitempty" wire:"8"`
	}
	// WebRTCStateChanged is a change of the dialog, ICE or DTLS state.
	WebRTCStateChanged struct {
		Session string `json:"session" wire:"1"`
		Layer   string `json:"layer" wire:"2"` // one of the Layer constants
		State   string `json:"state" wire:"3"`
		Attempt int    `json:"attempt,omitempty" wire:"4"`
		Cause   string `json:"cause,omitempty" wire:"5"`
		// Inferred says that the phone has not told: the leg is gone.
		Inferred bool   `json:"inferred,omitempty" wire:"6"`
		From     string `json:"from,omitempty" wire:"7"` // the state before
	}
	// WebRTCVideoStarted is video seen in the session.
	WebRTCVideoStarted struct {
		Session string `json:"session" wire:"1"`
		Codec   string `json:"codec,omitempty" wire:"2"` // "VP8"; empty where the phone did not tell
	}
	// WebRTCStats are the session's figures so far, all attempts together: what was
	// received and sent since its beginning, jitter and round trip as they are now.
	WebRTCStats struct {
		Session         string  `json:"session" wire:"1"`
		PacketsReceived int64   `json:"packetsReceived" wire:"2"`
		PacketsLost     int64   `json:"packetsLost" wire:"3"` // that were sent to us (RFC 3550, 6.4.1)
		JitterMs        float64 `json:"jitterMs" wire:"4"`    // interarrival jitter (RFC 3550, 6.4.1)
		RoundTripMs     float64 `json:"roundTripMs" wire:"5"` // 0 where it is not known
		MOS             float64 `json:"mos,omitempty" wire:"6"`
		PacketsSent     int64   `json:"packetsSent,omitempty" wire:"7"`
		BytesReceived   int64   `json:"bytesReceived,omitempty" wire:"8"`
		BytesSent       int64   `json:"bytesSent,omitempty" wire:"9"`
		Codec           string  `json:"codec,omitempty" wire:"10"`           // "opus", "PCMU", "PCMA"
		Final           bool    `json:"final,omitempty" wire:"11"`           // the last ones
		PacketsSentLost int64   `json:"packetsSentLost,omitempty" wire:"12"` // of packetsSent, by the far end's reports (RFC 3550, 6.4.1)
		SentLoss        float64 `json:"sentLoss,omitempty" wire:"13"`        // 0 to 1, of what was sent between its last two reports
		SentJitterMs    float64 `json:"sentJitterMs,omitempty" wire:"14"`    // of what was sent, as it arrives there
	}
	// WebRTCSessionEnded is the session's end; it does not end the call.
	WebRTCSessionEnded struct {
		Session   string `json:"session" wire:"1"`
		Cause     string `json:"cause,omitempty" wire:"2"` // the switch's own text
		Inferred  bool   `json:"inferred,omitempty" wire:"3"`
		CauseCode int    `json:"causeCode,omitempty" wire:"4"`
		By        string `json:"by,omitempty" wire:"5"`     // "account" or "other"; empty if not known
		Reason    string `json:"reason,omitempty" wire:"6"` // one of the Session constants
	}
	// WebRTCRegistered and WebRTCUnregistered are an account's web phone.
	WebRTCRegistered struct {
		Server string `json:"server,omitempty" wire:"1"` // host:port
	}
	WebRTCUnregistered struct {
		Reason string `json:"reason,omitempty" wire:"1"` // one of the Session constants
	}
)

// The layers of a session that have a state.
const (
	LayerDialog = "dialog" // the Verto dialog
	LayerICE    = "ice"
	LayerDTLS   = "dtls"
)

// The states of a dialog (reference/verto-protocol.md, section 7). Its end is an
// event of its own.
const (
	DialogRequesting = "requesting" // our invite is sent
	DialogTrying     = "trying"     // and accepted
	DialogEarly      = "early"      // early media
	DialogRinging    = "ringing"    // the switch calls us
	DialogAnswering  = "answering"  // our answer is sent
	DialogActive     = "active"
	DialogHeld       = "held"
	DialogDetached   = "detached"   // the socket is gone, the switch keeps the leg for a while
	DialogRecovering = "recovering" // the switch offers it on a new socket
	DialogHangup     = "hangup"
)

// Why a session ended or a phone is not registered.
const (
	SessionBye           = "bye"             // either side hung up
	SessionFailed        = "failed"          // the invite or the answer was refused
	SessionSocketLost    = "socket-lost"     // and not back in time, or the leg was not answered yet
	SessionNotReattached = "not-reattached"  // the switch did not offer it again
	SessionLegGone       = "leg-gone"        // nothing was heard of it after its leg's end
	SessionSilent        = "silent"          // nothing was heard of it, nor of its leg, for an hour
	SessionClosed        = "closed"          // the phone or its server closed the socket
	SessionLogout        = "logout"          // the phone signed out
	SessionDisplaced     = "displaced"       // another phone took its place (verto.punt)
	SessionAuthFailed    = "auth-failed"     // the server refuses the credentials
	SessionTimeout       = "timeout"         // the server went silent
	SessionNoVerto       = "no-verto-server" // what answers is no Verto server
)

// Agents.
type (
	// AgentStateChanged is what the directory says of an account.
	AgentStateChanged struct {
		State  string `json:"state,omitempty" wire:"1"`  // Account-User-State: ONHOOK, ISBUSY, NONREG
		Status string `json:"status,omitempty" wire:"2"` // Account-Status: NONE, ONBREAK, DND, CALLFORWARD, VOICEMAIL
		Note   string `json:"note,omitempty" wire:"3"`
		Queue  string `json:"queue,omitempty" wire:"4"` // Account-Agent-Status: the call centre's own word
	}
	// AgentOnline is an account with a client at the PBX. State and Status are
	// empty where the source does not say them; the last known ones count.
	AgentOnline struct {
		State  string `json:"state,omitempty" wire:"1"`
		Status string `json:"status,omitempty" wire:"2"`
		Note   string `json:"note,omitempty" wire:"3"`
	}
	// AgentOffline is an account without one.
	AgentOffline struct {
		Reason string `json:"reason" wire:"1"` // "Offline", or "Disconnected" when our own link went
	}
)

// Our own connection to the PBX.
type (
	// LinkConnected is a completed sign-in.
	LinkConnected struct {
		Login    string `json:"login,omitempty" wire:"1"`
		Mode     string `json:"mode,omitempty" wire:"2"` // "domain" or "account"
		Accounts int    `json:"accounts,omitempty" wire:"3"`
	}
	// LinkDisconnected is a lost or closed connection.
	LinkDisconnected struct {
		Reason string `json:"reason,omitempty" wire:"1"`
	}
	// LinkResynced is a finished comparison with the PBX.
	LinkResynced struct {
		Live   int `json:"live" wire:"1"`
		Opened int `json:"opened" wire:"2"`
		Closed int `json:"closed" wire:"3"`
	}
)

// The log itself.
type (
	// LogLost stands where an event was that damage to the disk has made unreadable.
	// Its account and call are those of the event, where the index told.
	LogLost struct {
		Log string `json:"log,omitempty" wire:"1"` // id of the log that had it
	}
)

// Commands.
type (
	// CommandRequested is a wish of a person, a program or a policy.
	CommandRequested struct {
		Request string   `json:"request" wire:"1"` // request id, idempotency key
		Method  string   `json:"method" wire:"2"`
		Args    []string `json:"args,omitempty" wire:"3"` // "name=value", validated
		By      string   `json:"by" wire:"4"`
	}
	// CommandCompleted is its outcome.
	CommandCompleted struct {
		Request string `json:"request" wire:"1"`
		Result  string `json:"result" wire:"2"` // "ok" or a word of the error vocabulary
		Answer  string `json:"answer,omitempty" wire:"3"`
		// Fact is the position of the event that proves the outcome, where one does:
		// the hold, the retrieval, the call that was placed.
		Fact uint64 `json:"fact,omitempty" wire:"4"`
	}
)

// Unknown is an event of a type that this version does not know. Its bytes are kept.
type Unknown struct {
	Name Type   `json:"-"`
	Raw  []byte `json:"raw"`
}

// EventType returns the name that the event was stored under.
func (u *Unknown) EventType() Type { return u.Name }
