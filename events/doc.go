// Package events is the vocabulary of callstate: the facts that adapters
// observe and correlation names, in the past tense, immutable once stored.
//
// An [Event] is an envelope with a typed [Payload]. The set of types is closed
// and registered in types.go; a payload's Go struct is also the source of its
// JSON Schema (schema/) and, through the wire tags, of the binary form that the
// stores keep ([AppendBinary], [DecodeBinary]).
//
// # Compatibility
//
// Every event that a released version stored stays readable for ever, in each form
// that ever was; what is stored now is in the newest. A payload field keeps its
// wire number and meaning; a new meaning is a new field or a new version with an
// upcaster. Unknown fields are skipped, unknown types are kept as [Unknown].
//
// The package is pure data: no I/O, no clock, no goroutine.
package events
