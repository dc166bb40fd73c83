// Package webitel is the adapter for Webitel v3: a WebSocket to the engine
// (engine-nodejs, branches master and v3.6) in front of FreeSWITCH 1.10.
//
// # Reading
//
// Bytes become an [engine.Input] in two pure steps: [Decode] finds out what a
// frame is and takes the headers out that we read, [Normalise] says what they
// mean. [Observe] is both and never fails: what cannot be understood becomes a
// quarantined input. Nothing here keeps state between frames, so a frame means
// the same whenever it is read, live or from a recording.
//
// The same channel event reaches us in three shapes:
//
//   - on the server path as FreeSWITCH wrote it, all headers and variables,
//     renamed "SE:...";
//   - on the account path cut down to some 45 headers, of which a few are renamed
//     or quoted and none is the event's own time or number;
//   - on the switch path, in recordings, bare.
//
// All three give the same [engine.LegObservation] as far as they say the same.
//
// # Leniency
//
// A member of a frame may be a string, a number, a boolean, null or an array;
// a member that occurs twice counts with its last value; texts may be
// percent-encoded; "undefined" is nothing. Members that we do not read may hold
// anything that is JSON. An event name that is known to mean nothing for a call
// gives an input with nothing set; an unknown one is quarantined.
package webitel
