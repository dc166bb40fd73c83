package events

// The event types.
const (
	TypeCallNew              Type = "call.new"
	TypeCallAccepted         Type = "call.accepted"
	TypeCallHeld             Type = "call.held"
	TypeCallUnheld           Type = "call.unheld"
	TypeCallDTMF             Type = "call.dtmf"
	TypeCallBridged          Type = "call.bridged"
	TypeCallUnbridged        Type = "call.unbridged"
	TypeCallUUIDChanged      Type = "call.uuid-changed"
	TypeCallHungup           Type = "call.hungup"
	TypeCallDetails          Type = "call.details"
	TypeCallPartiesChanged   Type = "call.parties-changed"
	TypeCallLegAdded         Type = "call.leg-added"
	TypeCallLegRemoved       Type = "call.leg-removed"
	TypeCallParked           Type = "call.parked"
	TypeCallUnparked         Type = "call.unparked"
	TypeCallConferenceJoined Type = "call.conference-joined"
	TypeCallConferenceLeft   Type = "call.conference-left"
	TypeCallReinstated       Type = "call.reinstated"
	TypeCallGap              Type = "call.gap"
	TypeCallRecordingStarted Type = "call.recording-started"
	TypeCallRecordingStopped Type = "call.recording-stopped"
	TypeCallTransferred      Type = "call.transferred"
	TypeConversationMerged   Type = "conversation.merged"
	TypeLegNew               Type = "leg.new"
	TypeLegAnswered          Type = "leg.answered"
	TypeLegBridged           Type = "leg.bridged"
	TypeLegUnbridged         Type = "leg.unbridged"
	TypeLegHeld              Type = "leg.held"
	TypeLegUnheld            Type = "leg.unheld"
	TypeLegDTMF              Type = "leg.dtmf"
	TypeLegParked            Type = "leg.parked"
	TypeLegUnparked          Type = "leg.unparked"
	TypeLegUUIDChanged       Type = "leg.uuid-changed"
	TypeLegTransferred       Type = "leg.transferred"
	TypeLegHungup            Type = "leg.hungup"
	TypeWebRTCSessionNew     Type = "webrtc.session-new"
	TypeWebRTCStateChanged   Type = "webrtc.state-changed"
	TypeWebRTCVideoStarted   Type = "webrtc.video-started"
	TypeWebRTCStats          Type = "webrtc.stats"
	TypeWebRTCSessionEnded   Type = "webrtc.session-ended"
	TypeWebRTCRegistered     Type = "webrtc.registered"
	TypeWebRTCUnregistered   Type = "webrtc.unregistered"
	TypeAgentStateChanged    Type = "agent.state-changed"
	TypeAgentOnline          Type = "agent.online"
	TypeAgentOffline         Type = "agent.offline"
	TypeLinkConnected        Type = "link.connected"
	TypeLinkDisconnected     Type = "link.disconnected"
	TypeLinkResynced         Type = "link.resynced"
	TypeLogLost              Type = "log.lost"
	TypeCommandRequested     Type = "command.requested"
	TypeCommandCompleted     Type = "command.completed"
)

// registered lists every type once: its version and an empty payload. A type
// that is not here cannot be stored.
var registered = []struct {
	version int
	new     func() Payload
}{
	{1, func() Payload { return new(CallNew) }},
	{1, func() Payload { return new(CallAccepted) }},
	{1, func() Payload { return new(CallHeld) }},
	{1, func() Payload { return new(CallUnheld) }},
	{1, func() Payload { return new(CallDTMF) }},
	{1, func() Payload { return new(CallBridged) }},
	{1, func() Payload { return new(CallUnbridged) }},
	{1, func() Payload { return new(CallUUIDChanged) }},
	{1, func() Payload { return new(CallHungup) }},
	{1, func() Payload { return new(CallDetails) }},
	{1, func() Payload { return new(CallPartiesChanged) }},
	{1, func() Payload { return new(CallLegAdded) }},
	{1, func() Payload { return new(CallLegRemoved) }},
	{1, func() Payload { return new(CallParked) }},
	{1, func() Payload { return new(CallUnparked) }},
	{1, func() Payload { return new(CallConferenceJoined) }},
	{1, func() Payload { return new(CallConferenceLeft) }},
	{1, func() Payload { return new(CallReinstated) }},
	{1, func() Payload { return new(CallGap) }},
	{1, func() Payload { return new(CallRecordingStarted) }},
	{1, func() Payload { return new(CallRecordingStopped) }},
	{1, func() Payload { return new(CallTransferred) }},
	{1, func() Payload { return new(ConversationMerged) }},
	{1, func() Payload { return new(LegNew) }},
	{1, func() Payload { return new(LegAnswered) }},
	{1, func() Payload { return new(LegBridged) }},
	{1, func() Payload { return new(LegUnbridged) }},
	{1, func() Payload { return new(LegHeld) }},
	{1, func() Payload { return new(LegUnheld) }},
	{1, func() Payload { return new(LegDTMF) }},
	{1, func() Payload { return new(LegParked) }},
	{1, func() Payload { return new(LegUnparked) }},
	{1, func() Payload { return new(LegUUIDChanged) }},
	{1, func() Payload { return new(LegTransferred) }},
	{1, func() Payload { return new(LegHungup) }},
	{1, func() Payload { return new(WebRTCSessionNew) }},
	{1, func() Payload { return new(WebRTCStateChanged) }},
	{1, func() Payload { return new(WebRTCVideoStarted) }},
	{1, func() Payload { return new(WebRTCStats) }},
	{1, func() Payload { return new(WebRTCSessionEnded) }},
	{1, func() Payload { return new(WebRTCRegistered) }},
	{1, func() Payload { return new(WebRTCUnregistered) }},
	{1, func() Payload { return new(AgentStateChanged) }},
	{1, func() Payload { return new(AgentOnline) }},
	{1, func() Payload { return new(AgentOffline) }},
	{1, func() Payload { return new(LinkConnected) }},
	{1, func() Payload { return new(LinkDisconnected) }},
	{1, func() Payload { return new(LinkResynced) }},
	{1, func() Payload { return new(LogLost) }},
	{1, func() Payload { return new(CommandRequested) }},
	{1, func() Payload { return new(CommandCompleted) }},
}

// EventType returns "call.new".
func (*CallNew) EventType() Type { return TypeCallNew }

// EventType returns "call.accepted".
func (*CallAccepted) EventType() Type { return TypeCallAccepted }

// EventType returns "call.held".
func (*CallHeld) EventType() Type { return TypeCallHeld }

// EventType returns "call.unheld".
func (*CallUnheld) EventType() Type { return TypeCallUnheld }

// EventType returns "call.dtmf".
func (*CallDTMF) EventType() Type { return TypeCallDTMF }

// EventType returns "call.bridged".
func (*CallBridged) EventType() Type { return TypeCallBridged }

// EventType returns "call.unbridged".
func (*CallUnbridged) EventType() Type { return TypeCallUnbridged }

// EventType returns "call.uuid-changed".
func (*CallUUIDChanged) EventType() Type { return TypeCallUUIDChanged }

// EventType returns "call.hungup".
func (*CallHungup) EventType() Type { return TypeCallHungup }

// EventType returns "call.details".
func (*CallDetails) EventType() Type { return TypeCallDetails }

// EventType returns "call.parties-changed".
func (*CallPartiesChanged) EventType() Type { return TypeCallPartiesChanged }

// EventType returns "call.leg-added".
func (*CallLegAdded) EventType() Type { return TypeCallLegAdded }

// EventType returns "call.leg-removed".
func (*CallLegRemoved) EventType() Type { return TypeCallLegRemoved }

// EventType returns "call.parked".
func (*CallParked) EventType() Type { return TypeCallParked }

// EventType returns "call.unparked".
func (*CallUnparked) EventType() Type { return TypeCallUnparked }

// EventType returns "call.conference-joined".
func (*CallConferenceJoined) EventType() Type { return TypeCallConferenceJoined }

// EventType returns "call.conference-left".
func (*CallConferenceLeft) EventType() Type { return TypeCallConferenceLeft }

// EventType returns "call.reinstated".
func (*CallReinstated) EventType() Type { return TypeCallReinstated }

// EventType returns "call.gap".
func (*CallGap) EventType() Type { return TypeCallGap }

// EventType returns "call.recording-started".
func (*CallRecordingStarted) EventType() Type { return TypeCallRecordingStarted }

// EventType returns "call.recording-stopped".
func (*CallRecordingStopped) EventType() Type { return TypeCallRecordingStopped }

// EventType returns "call.transferred".
func (*CallTransferred) EventType() Type { return TypeCallTransferred }

// EventType returns "conversation.merged".
func (*ConversationMerged) EventType() Type { return TypeConversationMerged }

// EventType returns "leg.new".
func (*LegNew) EventType() Type { return TypeLegNew }

// EventType returns "leg.answered".
func (*LegAnswered) EventType() Type { return TypeLegAnswered }

// EventType returns "leg.bridged".
func (*LegBridged) EventType() Type { return TypeLegBridged }

// EventType returns "leg.unbridged".
func (*LegUnbridged) EventType() Type { return TypeLegUnbridged }

// EventType returns "leg.held".
func (*LegHeld) EventType() Type { return TypeLegHeld }

// EventType returns "leg.unheld".
func (*LegUnheld) EventType() Type { return TypeLegUnheld }

// EventType returns "leg.dtmf".
func (*LegDTMF) EventType() Type { return TypeLegDTMF }

// EventType returns "leg.parked".
func (*LegParked) EventType() Type { return TypeLegParked }

// EventType returns "leg.unparked".
func (*LegUnparked) EventType() Type { return TypeLegUnparked }

// EventType returns "leg.uuid-changed".
func (*LegUUIDChanged) EventType() Type { return TypeLegUUIDChanged }

// EventType returns "leg.transferred".
func (*LegTransferred) EventType() Type { return TypeLegTransferred }

// EventType returns "leg.hungup".
func (*LegHungup) EventType() Type { return TypeLegHungup }

// EventType returns "webrtc.session-new".
func (*WebRTCSessionNew) EventType() Type { return TypeWebRTCSessionNew }

// EventType returns "webrtc.state-changed".
func (*WebRTCStateChanged) EventType() Type { return TypeWebRTCStateChanged }

// EventType returns "webrtc.video-started".
func (*WebRTCVideoStarted) EventType() Type { return TypeWebRTCVideoStarted }

// EventType returns "webrtc.stats".
func (*WebRTCStats) EventType() Type { return TypeWebRTCStats }

// EventType returns "webrtc.session-ended".
func (*WebRTCSessionEnded) EventType() Type { return TypeWebRTCSessionEnded }

// EventType returns "webrtc.registered".
func (*WebRTCRegistered) EventType() Type { return TypeWebRTCRegistered }

// EventType returns "webrtc.unregistered".
func (*WebRTCUnregistered) EventType() Type { return TypeWebRTCUnregistered }

// EventType returns "agent.state-changed".
func (*AgentStateChanged) EventType() Type { return TypeAgentStateChanged }

// EventType returns "agent.online".
func (*AgentOnline) EventType() Type { return TypeAgentOnline }

// EventType returns "agent.offline".
func (*AgentOffline) EventType() Type { return TypeAgentOffline }

// EventType returns "link.connected".
func (*LinkConnected) EventType() Type { return TypeLinkConnected }

// EventType returns "link.disconnected".
func (*LinkDisconnected) EventType() Type { return TypeLinkDisconnected }

// EventType returns "link.resynced".
func (*LinkResynced) EventType() Type { return TypeLinkResynced }

// EventType returns "command.requested".
func (*CommandRequested) EventType() Type { return TypeCommandRequested }

// EventType returns "command.completed".
func (*CommandCompleted) EventType() Type { return TypeCommandCompleted }

// EventType returns "log.lost".
func (*LogLost) EventType() Type { return TypeLogLost }
