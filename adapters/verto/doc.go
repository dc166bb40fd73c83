// Package verto is a web phone without a browser: it signs in to FreeSWITCH's
// mod_verto over a WebSocket (gorilla/websocket) and carries the media of its
// calls itself (pion/webrtc). It is for accounts whose phone is the web phone.
// Verto is described in the protocol reference; section numbers here are its.
//
// # What is observed
//
// [Dialogs] follows the conversation with the server from its frames alone, those
// of both directions, and knows the state of every call. It is pure: a recording
// ([Replay]) gives the same observations as a live phone, but for what only media
// can tell (ICE, DTLS, figures). Each frame of the server gives one
// [engine.Input], which may say nothing; what a request of ours, a callback of the
// media or a lost socket did is unframed. A frame that cannot be understood is
// quarantined, and the connection goes on. Against what the server says out of
// order the state is kept: the next attach or bye puts it right.
//
// # What a phone does
//
// [Phone] keeps one account signed in. Its session id outlives connections, and
// with [LoadSessID] the process, so that the server gives its answered calls back
// after a loss. Each call is a session on a goroutine of its own: what arrives
// back to back is done one after the other. The end of a socket, of ICE or of DTLS
// is told and ends no call; that is the server's to do. Nor does the end of Run
// hang up. Where ICE fails a restart of it is offered (verto.modify, updateMedia).
//
// Nobody who commands a phone waits for the engine: observations go through a
// queue to the sink, and when that is full the socket waits.
//
// # Figures
//
// rtpstats.go counts the audio that comes in as RFC 3550 says, and says where and
// why its jitter leaves the formula; rtcp.go tells the far end of it, and takes
// the round trip and the far end's own figures from what that tells. quality.go
// makes an estimate of how it sounds of both.
//
// # Media
//
// [Media] is shared by all phones of a process. A call sends 50 packets a second
// from its first moment, also while held: silence, an echo, or a file. All calls
// are paced by one ticker. sdp.go has all that is changed in descriptions.
//
// A user with video (User.Video) sends a clip of VP8, over and over, and takes what
// comes: calls are placed with video, and answered with it where it is offered and
// asked for. FreeSWITCH has a transport for each medium, pion one for all, so that
// the video has a PeerConnection of its own; sdpvideo.go cuts and joins the
// descriptions. The call is the audio's: states and figures are its, and without
// video, or when that fails, it goes on. Other users refuse video.
package verto
