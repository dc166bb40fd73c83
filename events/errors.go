package events

import "errors"

// Errors of encoding and decoding.
var (
	// ErrCorrupt is returned when bytes are no event: cut short, a wrong wire
	// type, a number that does not fit its field.
	ErrCorrupt = errors.New("events: corrupt")
	// ErrVersion is returned when bytes are of a stored form that this version
	// does not know.
	ErrVersion = errors.New("events: unknown version of the stored form")
	// ErrUnregistered is returned when an event without a payload, or with one
	// that is not in the registry, is encoded.
	ErrUnregistered = errors.New("events: payload is not registered")
)
