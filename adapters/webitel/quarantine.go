package webitel

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/callstate/callstate/engine"
)

// Why bytes are no frame. [Decode] returns errors that match one of these.
var (
	// ErrNotJSON is returned when the bytes break the grammar of RFC 8259.
	ErrNotJSON = errors.New("webitel: frame is not JSON")
	// ErrTruncated is returned when the bytes end inside a value.
	ErrTruncated = errors.New("webitel: frame is truncated")
	// ErrTooLarge is returned when there are more than [MaxFrame] bytes.
	ErrTooLarge = errors.New("webitel: frame is too large")
	// ErrTooDeep is returned when values nest deeper than [MaxDepth].
	ErrTooDeep = errors.New("webitel: frame nests too deeply")
	// ErrType is returned when the frame is JSON but no object, or when a header
	// that we read holds something else than text, a number, a boolean, null or
	// an array of those.
	ErrType = errors.New("webitel: value of a wrong type")
	// ErrEncoding is returned when a header that we read is not UTF-8.
	ErrEncoding = errors.New("webitel: value is not UTF-8")
	// ErrNotFrame is returned when the object is neither a reply nor an event.
	ErrNotFrame = errors.New("webitel: neither a reply nor an event")
)

// The reasons for quarantine. They are counted by their value, so they never
// change and hold nothing of the frame.
const (
	ReasonNotJSON      = "not-json"
	ReasonTruncated    = "truncated"
	ReasonTooLarge     = "too-large"
	ReasonTooDeep      = "too-deep"
	ReasonType         = "wrong-type"
	ReasonEncoding     = "bad-encoding"
	ReasonNotFrame     = "not-a-frame"
	ReasonUnknownEvent = "unknown-event" // an Event-Name that neither FreeSWITCH nor the engine is known to use
	ReasonMissingID    = "missing-id"    // a channel event without Unique-ID, an account event without an account
	ReasonLongID       = "long-id"       // an id of more than events.MaxID bytes
	ReasonMissingDigit = "missing-digit" // a DTMF event without its digit
)

// fault is what the scanner found wrong; the zero fault is none.
type fault uint8

const (
	faultSyntax fault = iota + 1
	faultTruncated
	faultDeep
	faultTop // well-formed, but no object
	faultLarge
	faultType
	faultEncoding
	faultKind
)

var faults = [...]struct {
	err    error
	reason string
}{
	faultSyntax:    {ErrNotJSON, ReasonNotJSON},
	faultTruncated: {ErrTruncated, ReasonTruncated},
	faultDeep:      {ErrTooDeep, ReasonTooDeep},
	faultTop:       {ErrType, ReasonType},
	faultLarge:     {ErrTooLarge, ReasonTooLarge},
	faultType:      {ErrType, ReasonType},
	faultEncoding:  {ErrEncoding, ReasonEncoding},
	faultKind:      {ErrNotFrame, ReasonNotFrame},
}

// DecodeError says what is wrong with a frame and where. It matches one of the
// sentinels above.
type DecodeError struct {
	Offset int    // of the byte that could not be read
	Header string // the header whose value is wrong; empty where none is
	Size   int    // of the frame

	fault fault
}

func (e *DecodeError) Error() string {
	if e.Header != "" {
		return fmt.Sprintf("%v: %s at byte %d of %d", e.Unwrap(), e.Header, e.Offset, e.Size)
	}
	return fmt.Sprintf("%v: at byte %d of %d", e.Unwrap(), e.Offset, e.Size)
}

// Unwrap returns the sentinel.
func (e *DecodeError) Unwrap() error { return faults[e.fault].err }

// Reason returns the constant word under which the frame is quarantined.
func (e *DecodeError) Reason() string { return faults[e.fault].reason }

// maxDetail keeps what a hostile frame can put into a detail short.
const maxDetail = 100

// quarantine keeps its own copy of raw, which the caller may use again.
func quarantine(raw []byte, reason, detail string) *engine.Quarantine {
	if len(detail) > maxDetail {
		detail = string(bytes.ToValidUTF8([]byte(detail[:maxDetail]), nil))
	}
	return &engine.Quarantine{Reason: reason, Detail: detail, Frame: bytes.Clone(raw)}
}
