package webitel

import (
	"github.com/callstate/callstate/engine"
)

// Kind is what a frame is.
type Kind uint8

// The kinds.
const (
	KindReply   Kind = iota + 1 // the answer to a command
	KindLeg                     // an event of one channel
	KindAccount                 // an event of one account
	KindOther                   // an event that is known to say nothing of a call or an account
	KindUnknown                 // an event whose name is unknown
)

// Frame is one frame as sent. Reply holds for [KindReply], the rest for events.
//
// A frame refers to the bytes it was decoded from: they must not change before
// the last call of [Normalise]. What Normalise returns, and the fields below, do
// not refer to them.
type Frame struct {
	Kind  Kind
	Path  string // [events.PathServer], [events.PathAccount], [events.PathSwitch], or empty
	Event string // Event-Name without the server's "SE:"
	Reply Reply

	raw  []byte
	at   [numHeaders]span
	info eventInfo
	vars bool // the frame carries a channel variable
}

// header is a member of a frame that we read.
type header uint8

const (
	hNone header = iota
	hEventName
	hWebitelEventName
	hExecUUID
	hExecComplete
	hExecResponse
	hCore
	hSwitchname
	hHostname
	hSequence
	hDate
	hSubclass
	hAction
	hUniqueID
	hOldUniqueID
	hPresence
	hCallGroup
	hCallGroupAccount
	hChannelCall
	hChannelName
	hChannelState
	hAnswerState
	hCallDirection
	hLogicalDirection
	hHitDialplan
	hCallerNumber
	hCallerName
	hCalleeNumber
	hCalleeName
	hDestination
	hCallState
	hBridgeUUID
	hOtherLeg
	hOriginatingLeg
	hBridgeA
	hBridgeB
	hOriginateNumber
	hTransferParent
	hTransferParentSIP
	hTransferResult
	hTransferHistory
	hQueue
	hQueueMember
	hData
	hCreated
	hAnswered
	hHungup
	hHangupCauseVar
	hHangupCause
	hHangupQ850
	hDisposition
	hWaitMs
	hBillMs
	hHoldMs
	hBillSec
	hDigit
	hDigitSource
	hDigitDuration
	hConference
	hRecordPath
	hRecordMs
	hMediaWebRTC
	hVertoUser
	hViaProtocol
	hAccountUser
	hAccountDomain
	hAccountUserState
	hAccountStatus
	hAccountNote
	hAccountQueue
	hUserID
	hUserDomain
	hEventDomain
	numHeaders
)

// headerNames are the names on the wire. variable_webitel_call_uuid is renamed
// to variable_w_account_origination_uuid on the account path.
var headerNames = [numHeaders]string{
	hEventName:         "Event-Name",
	hWebitelEventName:  "webitel-event-name",
	hExecUUID:          "exec-uuid",
	hExecComplete:      "exec-complete",
	hExecResponse:      "exec-response",
	hCore:              "Core-UUID",
	hSwitchname:        "FreeSWITCH-Switchname",
	hHostname:          "FreeSWITCH-Hostname",
	hSequence:          "Event-Sequence",
	hDate:              "Event-Date-Timestamp",
	hSubclass:          "Event-Subclass",
	hAction:            "Action",
	hUniqueID:          "Unique-ID",
	hOldUniqueID:       "Old-Unique-ID",
	hPresence:          "Channel-Presence-ID",
	hCallGroup:         "variable_webitel_call_uuid",
	hCallGroupAccount:  "variable_w_account_origination_uuid",
	hChannelCall:       "Channel-Call-UUID",
	hChannelName:       "Channel-Name",
	hChannelState:      "Channel-State",
	hAnswerState:       "Answer-State",
	hCallDirection:     "Call-Direction",
	hLogicalDirection:  "Caller-Logical-Direction",
	hHitDialplan:       "Channel-HIT-Dialplan",
	hCallerNumber:      "Caller-Caller-ID-Number",
	hCallerName:        "Caller-Caller-ID-Name",
	hCalleeNumber:      "Caller-Callee-ID-Number",
	hCalleeName:        "Caller-Callee-ID-Name",
	hDestination:       "Caller-Destination-Number",
	hCallState:         "Channel-Call-State",
	hBridgeUUID:        "variable_bridge_uuid",
	hOtherLeg:          "Other-Leg-Unique-ID",
	hOriginatingLeg:    "variable_originating_leg_uuid",
	hBridgeA:           "Bridge-A-Unique-ID",
	hBridgeB:           "Bridge-B-Unique-ID",
	hOriginateNumber:   "variable_w_jsclient_originate_number",
	hTransferParent:    "variable_w_jsclient_xtransfer",
	hTransferParentSIP: "variable_sip_h_X-WebitelXTransfer",
	hTransferResult:    "variable_w_transfer_result",
	hTransferHistory:   "variable_transfer_history",
	hQueue:             "variable_cc_queue",
	hQueueMember:       "variable_cc_member_session_uuid",
	hData:              "variable_webitel_data",
	hCreated:           "Caller-Channel-Created-Time",
	hAnswered:          "Caller-Channel-Answered-Time",
	hHungup:            "Caller-Channel-Hangup-Time",
	hHangupCauseVar:    "variable_hangup_cause",
	hHangupCause:       "Hangup-Cause",
	hHangupQ850:        "variable_hangup_cause_q850",
	hDisposition:       "variable_sip_hangup_disposition",
	hWaitMs:            "variable_waitmsec",
	hBillMs:            "variable_billmsec",
	hHoldMs:            "variable_hold_accum_ms",
	hBillSec:           "variable_billsec",
	hDigit:             "DTMF-Digit",
	hDigitSource:       "DTMF-Source",
	hDigitDuration:     "DTMF-Duration",
	hConference:        "Conference-Name",
	hRecordPath:        "Record-File-Path",
	hRecordMs:          "variable_record_ms",
	hMediaWebRTC:       "variable_media_webrtc",
	hVertoUser:         "variable_verto_user",
	hViaProtocol:       "variable_sip_via_protocol",
	hAccountUser:       "Account-User",
	hAccountDomain:     "Account-Domain",
	hAccountUserState:  "Account-User-State",
	hAccountStatus:     "Account-Status",
	hAccountNote:       "Account-Status-Descript",
	hAccountQueue:      "Account-Agent-Status",
	hUserID:            "User-ID",
	hUserDomain:        "User-Domain",
	hEventDomain:       "Event-Domain",
}

// headers are the members that we read, by name.
var headers = func() map[string]header {
	m := make(map[string]header, numHeaders)
	for h := hEventName; h < numHeaders; h++ {
		m[headerNames[h]] = h
	}
	return m
}()

// eventInfo is what we know of an Event-Name.
type eventInfo struct {
	name string
	kind Kind
	leg  engine.LegKind
	// vars says that FreeSWITCH attaches the channel's variables to the event,
	// verbose-events or not.
	vars bool
}

// switchEvents are the event names of FreeSWITCH 1.10 (EVENT_NAMES in
// switch_event.c). A name outside the list is quarantined, so that a new one is
// noticed. Which events carry variables was counted over captures/freeswitch.
var switchEvents = func() map[string]eventInfo {
	m := make(map[string]eventInfo)
	leg := func(k engine.LegKind, vars bool, names ...string) {
		for _, n := range names {
			m[n] = eventInfo{n, KindLeg, k, vars}
		}
	}
	leg(engine.LegCreated, true, "CHANNEL_CREATE")
	leg(engine.LegAnswered, true, "CHANNEL_ANSWER")
	leg(engine.LegBridged, true, "CHANNEL_BRIDGE")
	leg(engine.LegUnbridged, true, "CHANNEL_UNBRIDGE")
	leg(engine.LegHeld, true, "CHANNEL_HOLD")
	leg(engine.LegUnheld, true, "CHANNEL_UNHOLD")
	leg(engine.LegDTMF, false, "DTMF")
	leg(engine.LegHungup, true, "CHANNEL_HANGUP")
	leg(engine.LegDetails, true, "CHANNEL_HANGUP_COMPLETE")
	leg(engine.LegDestroyed, true, "CHANNEL_DESTROY")
	leg(engine.LegRenamed, true, "CHANNEL_UUID")
	leg(engine.LegParked, true, "CHANNEL_PARK")
	leg(engine.LegUnparked, true, "CHANNEL_UNPARK")
	leg(engine.LegRecordingStarted, true, "RECORD_START")
	leg(engine.LegRecordingStopped, true, "RECORD_STOP")
	leg(engine.LegStated, true, "CHANNEL_DATA") // also the form of channel_dump's reply
	leg(engine.LegSeen, true, "CHANNEL_PROGRESS", "CHANNEL_PROGRESS_MEDIA", "CHANNEL_ORIGINATE", "CALL_UPDATE")
	leg(engine.LegSeen, false, "CHANNEL_STATE", "CHANNEL_CALLSTATE", "CHANNEL_OUTGOING")
	for _, n := range []string{
		// CUSTOM is a leg's where its subclass is a conference's, see Decode.
		"CUSTOM", "CLONE", "CHANNEL_EXECUTE", "CHANNEL_EXECUTE_COMPLETE", "CHANNEL_APPLICATION",
		"API", "LOG", "INBOUND_CHAN", "OUTBOUND_CHAN", "STARTUP", "SHUTDOWN", "SHUTDOWN_REQUESTED", "PUBLISH", "UNPUBLISH",
		"TALK", "NOTALK", "SESSION_CRASH", "MODULE_LOAD", "MODULE_UNLOAD", "MESSAGE", "PRESENCE_IN", "NOTIFY_IN",
		"PRESENCE_OUT", "PRESENCE_PROBE", "MESSAGE_WAITING", "MESSAGE_QUERY", "ROSTER", "CODEC", "BACKGROUND_JOB",
		"DETECTED_SPEECH", "DETECTED_TONE", "PRIVATE_COMMAND", "HEARTBEAT", "TRAP", "ADD_SCHEDULE", "DEL_SCHEDULE",
		"EXE_SCHEDULE", "RE_SCHEDULE", "RELOADXML", "NOTIFY", "PHONE_FEATURE", "PHONE_FEATURE_SUBSCRIBE", "SEND_MESSAGE",
		"RECV_MESSAGE", "REQUEST_PARAMS", "GENERAL", "COMMAND", "SESSION_HEARTBEAT", "CLIENT_DISCONNECTED",
		"SERVER_DISCONNECTED", "SEND_INFO", "RECV_INFO", "RECV_RTCP_MESSAGE", "SEND_RTCP_MESSAGE", "CALL_SECURE", "NAT",
		"PLAYBACK_START", "PLAYBACK_STOP", "FAILURE", "SOCKET_DATA", "MEDIA_BUG_START", "MEDIA_BUG_STOP",
		"CONFERENCE_DATA_QUERY", "CONFERENCE_DATA", "CALL_SETUP_REQ", "CALL_SETUP_RESULT", "CALL_DETAIL", "DEVICE_STATE",
		"TEXT", "START_RECORDING", "ALL",
	} {
		m[n] = eventInfo{name: n, kind: KindOther}
	}
	return m
}()

// engineEvents are the names that the Webitel engine itself gives.
var engineEvents = func() map[string]eventInfo {
	m := make(map[string]eventInfo)
	for n, k := range map[string]Kind{
		"ACCOUNT_STATUS": KindAccount, "ACCOUNT_ONLINE": KindAccount, "ACCOUNT_OFFLINE": KindAccount,
		"USER_CREATE": KindOther, "USER_DESTROY": KindOther, "USER_STATE": KindOther, "USER_CHANGE": KindOther,
		"USER_MANAGED": KindOther, "DOMAIN_CREATE": KindOther, "DOMAIN_DESTROY": KindOther,
		"DISCONNECT": KindOther, "WEBITEL-CUSTOM-MESSAGE": KindOther, "SE::BROADCAST": KindOther,
	} {
		m[n] = eventInfo{name: n, kind: k}
	}
	return m
}()
