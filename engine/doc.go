// Package engine turns what adapters observe into stored events, and stored
// events into the CTI model.
//
// An adapter submits one [Input] a frame. Correlation, in one place, decides to
// which call and conversation it belongs and names the facts; they are appended
// to the log; only then are they folded, each account's by the shard that owns
// it, into calls and the account's line, and what follows is handed to the bus.
//
// The fold is pure: it reads events, never a clock, and the same log gives the
// same CTI events, byte for byte. Commands to a PBX come from policies and
// requests, never from folding.
//
// The package knows no JSON, NATS, WebSocket or vendor's name.
package engine
