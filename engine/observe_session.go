package engine

import "github.com/callstate/callstate/events"

// SessionKind is what happened to a web phone or to one of its sessions.
type SessionKind uint8

// The kinds, with the fields that each needs beside Kind, At and Account. All but
// the first two are about the session named by Session.
const (
	SessionRegistered   SessionKind = iota + 1 // the phone is signed in: Server
	SessionUnregistered                        // and no longer: Reason
	SessionNew                                 // it is: Transport, Direction, State (of the dialog), Attempt, Video
	SessionState                               // Layer is in State now: Attempt, and Cause where one is told
	SessionVideo                               // video is seen: it comes, or the dialog is active, or active again, with video in use; Codec where it is known
	SessionStats                               // Stats hold
	SessionEnded                               // it is gone for good: Reason, Cause, CauseCode, By, where they are known
)

// SessionObservation is what a web phone tells of itself, or of one media session
// (reference/verto-protocol.md, section 12). The phone tells of each change once,
// of each session SessionNew first and SessionEnded last; the engine lets a
// session that it was told of twice be one.
//
// An input that a frame caused carries at most one; what a callback of the media
// stack, a timer or the socket's loss caused is [Input.Unframed]. Source is
// {Adapter: "verto", Connection: an id of the socket that is no secret, so not the
// sessid, Sequence: a counter of the connection's inputs, from 1}.
type SessionObservation struct {
	Kind    SessionKind
	At      events.Time // our clock
	Account string      // number@domain of the phone

	// Session is the Verto callID. It is the Unique-ID of the phone's own leg, and
	// stays the session's name when the switch gives the leg another id.
	Session   string
	Transport string           // "verto"
	Direction events.Direction // In: the switch calls the phone
	// Attempt counts the PeerConnections of the session that were given up: 0, and
	// one more with each reattach.
	Attempt int
	Video   bool   // SessionNew: video is offered and in use
	Codec   string // SessionVideo: "VP8"

	Layer string // SessionState: events.LayerDialog, LayerICE or LayerDTLS
	// State is, of the dialog, one of the events.Dialog constants; of ICE and DTLS
	// W3C's words (RTCIceTransportState, RTCDtlsTransportState). ICE is "new" as soon
	// as the session has a PeerConnection: this is when a browser asks for its media
	// element (webRtcStarted).
	State string

	Stats events.WebRTCStats // SessionStats; Session in it need not be set

	Server    string // SessionRegistered: host:port of the Verto server
	Reason    string // SessionUnregistered, SessionEnded: one of the events.Session constants
	Cause     string // the switch's name with underscores, such as NORMAL_CLEARING
	CauseCode int    // Q.850, or the switch's own above 127
	By        string // SessionEnded: "account" (the phone hung up), "other" (the switch or the far end)
}
