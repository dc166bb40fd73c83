// Package webiteltest is a Webitel v3 server for tests, for the demo and for
// load: the WebSocket protocol of engine-nodejs v3.6 on a port of the loopback
// interface, with FreeSWITCH replaced by recorded calls.
//
// [New] starts a server; [Server.Play] plays a [Scenario], the events of a
// FreeSWITCH recording, onto both paths of the protocol with ids, times and
// numbers of its own, so that any number of playings run at once; and
// [Server.Generate] makes calls out of scenarios at a rate. Commands are answered
// in the words of the real server and act on the legs that are being played, as
// far as that is cheap: see [Server.Play] for what is not.
//
// # Faults
//
// Like the real one, the server loses the binding of an SE: name for a whole
// domain when any socket gives the name up, and of every second name when a
// socket that held names dies. On request it also drops sockets, leaves them half
// open, delays, doubles and reorders frames, sends garbage, refuses to sign in and
// loses its switch; see the methods of faults.go.
//
// # Concurrency
//
// All methods are safe for concurrent use. Frames of one playing reach a socket in
// the order of the recording; playings, replies and account events interleave
// freely. A socket that does not read holds back whoever sends to it, until it is
// closed.
package webiteltest
