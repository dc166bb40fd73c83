package verto

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/callstate/callstate/engine"
)

// Why bytes are no frame. A [*DecodeError] matches one of them.
var (
	// ErrNotJSON is returned when the bytes are not JSON.
	ErrNotJSON = errors.New("verto: frame is not JSON")
	// ErrTooLarge is returned when there are more than [MaxFrame] bytes.
	ErrTooLarge = errors.New("verto: frame is too large")
	// ErrEncoding is returned when the bytes are not UTF-8.
	ErrEncoding = errors.New("verto: frame is not UTF-8")
	// ErrType is returned when a value is of another type than it must be.
	ErrType = errors.New("verto: value of a wrong type")
	// ErrNotFrame is returned when an object is neither a request nor an answer.
	ErrNotFrame = errors.New("verto: neither a request nor an answer")
)

// DecodeError says what is wrong with a frame. It matches one of the above.
type DecodeError struct {
	Member string // the member whose value is wrong; empty where none is
	Size   int    // of the frame
	Err    error
}

func (e *DecodeError) Error() string {
	if e.Member != "" {
		return fmt.Sprintf("%v: %s in %d bytes", e.Err, e.Member, e.Size)
	}
	return fmt.Sprintf("%v: %d bytes", e.Err, e.Size)
}

// Unwrap returns the sentinel.
func (e *DecodeError) Unwrap() error { return e.Err }

// The reasons for quarantine. They are counted by their value, so they never
// change and hold nothing of the frame.
const (
	ReasonNotJSON       = "not-json"
	ReasonTooLarge      = "too-large"
	ReasonEncoding      = "bad-encoding"
	ReasonType          = "wrong-type"
	ReasonNotFrame      = "not-a-frame"
	ReasonUnknownMethod = "unknown-method" // a request of the server that we do not know
)

// quarantine keeps its own copy of a frame that could not be used.
func quarantine(raw []byte, err error) *engine.Quarantine {
	q := &engine.Quarantine{Reason: ReasonType, Detail: err.Error(), Frame: bytes.Clone(raw)}
	for _, r := range []struct {
		err    error
		reason string
	}{
		{ErrNotJSON, ReasonNotJSON},
		{ErrTooLarge, ReasonTooLarge},
		{ErrEncoding, ReasonEncoding},
		{ErrNotFrame, ReasonNotFrame},
		{ErrUnknown, ReasonUnknownMethod},
	} {
		if errors.Is(err, r.err) {
			q.Reason = r.reason
		}
	}
	return q
}

func sized(err error, size int) error {
	if e, ok := errors.AsType[*DecodeError](err); ok {
		e.Size = size
	}
	return err
}

// What a refusal of the server means. An [*Error] matches one of them.
var (
	ErrCredentials  = errors.New("verto: login refused")                // wrong, and wrong the next time
	ErrSessionInUse = errors.New("verto: session in use")               // the sessid is another user's
	ErrNotLoggedIn  = errors.New("verto: not logged in")                // -32000
	ErrUnknown      = errors.New("verto: unknown or forbidden method")  // -32601
	ErrNotPermitted = errors.New("verto: not permitted")                // -32602
	ErrNoCall       = errors.New("verto: no such call")                 // it ended, or never was
	ErrCodec        = errors.New("verto: no usable codec or candidate") // the call can be answered again
	ErrRefused      = errors.New("verto: refused")                      // everything else
)

// Error makes the server's refusal an error.
func (e *Error) Error() string {
	s := fmt.Sprintf("%v: %d", e.Unwrap(), e.Code)
	if e.Message != "" {
		s += " " + e.Message
	}
	if e.Cause != "" {
		s += fmt.Sprintf(" (%s, %d)", e.Cause, e.CauseCode)
	}
	return s
}

// Unwrap returns the sentinel.
func (e *Error) Unwrap() error {
	switch e.Code {
	case CodeAuthFailed:
		if strings.EqualFold(e.Message, "Session in use") {
			return ErrSessionInUse
		}
		return ErrCredentials
	case CodeAuthRequired:
		return ErrNotLoggedIn
	case CodeUnknownMethod:
		return ErrUnknown
	case CodeNotPermitted:
		return ErrNotPermitted
	case CodeSession:
		switch strings.ToUpper(e.Message) {
		case "CALL DOES NOT EXIST":
			return ErrNoCall
		case "CODEC ERROR":
			return ErrCodec
		}
	}
	return ErrRefused
}

// Why something was not done.
var (
	// ErrArgument is returned for an argument that must not reach the server.
	ErrArgument = errors.New("verto: invalid argument")
	// ErrDisconnected is returned when there is no signed-in connection, and for
	// every request that was waiting when one was lost. The outcome is unknown.
	ErrDisconnected = errors.New("verto: not connected")
	// ErrNoReply is returned when the server did not answer in time. The outcome is
	// unknown.
	ErrNoReply = errors.New("verto: no reply")
	// ErrNoSession is returned for a session that the phone does not have, or that
	// is not in a state for what was asked.
	ErrNoSession = errors.New("verto: no such session")
	// ErrMedia is returned when a call's media could not be made.
	ErrMedia = errors.New("verto: no media")
	// ErrNoVideo is returned when video is asked of a phone or a session that has
	// none.
	ErrNoVideo = errors.New("verto: no video")
	// ErrNotVerto is returned when what answers at the address is no Verto server.
	ErrNotVerto = errors.New("verto: not a Verto server")
	// ErrDisplaced is returned when another phone signed in with our session id.
	ErrDisplaced = errors.New("verto: displaced by another phone with the same session id")
)
