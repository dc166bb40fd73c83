package webitel

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/callstate/callstate/adapters/internal/dial"
)

// Why a command did not succeed. A [*ReplyError] matches one of them with
// [errors.Is]; the first three come without a reply.
var (
	// ErrDisconnected is returned when there is no signed-in connection, and for
	// every command that was waiting when one was lost. The outcome is unknown.
	ErrDisconnected = errors.New("webitel: not connected")
	// ErrNoReply is returned when the server did not answer in time, as it does
	// where a handler failed (protocol 2.3, form 10). The outcome is unknown.
	ErrNoReply = errors.New("webitel: no reply")
	// ErrArgument is returned for an argument that must not reach the switch.
	ErrArgument = errors.New("webitel: invalid argument")
	// ErrCertificate is matched when the certificate of either side was refused.
	ErrCertificate = dial.ErrCertificate

	ErrSecret      = errors.New("webitel: secret incorrect")     // the only final refusal of a sign-in
	ErrAuth        = errors.New("webitel: sign-in refused")      // for now: directory down, unknown account, token, second factor
	ErrTooMany     = errors.New("webitel: too many connections") // sockets of the account, or licences
	ErrUnknown     = errors.New("webitel: unknown command")      // "<func> - not found."
	ErrNoChannel   = errors.New("webitel: no such channel")      // the leg does not exist (any more)
	ErrSwitchDown  = errors.New("webitel: switch not connected") // the engine has lost its FreeSWITCH
	ErrBadResponse = errors.New("webitel: arguments rejected")   // "-ERR: bad response", the reason is lost
	ErrPermission  = errors.New("webitel: permission denied")    // role or ACL
	ErrSubscribed  = errors.New("webitel: already subscribed")   // this socket has the name
	ErrUndefined   = errors.New("webitel: variable not set")     // "_undef_"
	ErrNoRecording = errors.New("webitel: no recording")         // "+OK: Not found."
	ErrRefused     = errors.New("webitel: refused")              // everything else
)

// ReplyError is a reply that means failure. It matches the sentinel of its kind.
type ReplyError struct {
	Func   string // the command
	Form   string // the row of protocol 2.3: "1" to "8", "8b", "9"
	Status int    // form 1: the status of the refused sign-in
	Text   string // the server's words, trimmed

	kind error
}

func (e *ReplyError) Error() string {
	s := e.kind.Error() + ": " + e.Func
	if e.Status != 0 {
		s += fmt.Sprintf(": status %d", e.Status)
	}
	if e.Text != "" {
		s += ": " + e.Text
	}
	return s
}

// Unwrap returns the sentinel.
func (e *ReplyError) Unwrap() error { return e.kind }

// Classify turns a reply to the command fn into nil or a [*ReplyError]. It knows
// every failure form of protocol 2.3 but the last, the reply that never comes.
//
// A reply "+OK Success" to hold, unhold or toggle_hold is no failure here and
// proves nothing (form 8a): a channel that does not exist is answered so too.
func Classify(fn string, r Reply) error {
	text, isText := r.Text()
	trimmed := strings.TrimSpace(text)
	fail := func(form string, kind error) error {
		return &ReplyError{Func: fn, Form: form, Text: trimmed, kind: kind}
	}
	switch {
	case r.Complete == "+OK":
		switch {
		case isText && startsAny(text, "-ERR", "-USAGE"):
			return fail("8", textKind(text))
		case isText && text == "_undef_":
			return fail("8b", ErrUndefined)
		case isText && text == "+OK: Not found.":
			return fail("9", ErrNoRecording)
		}
		return nil
	case strings.HasPrefix(r.Complete, "-ERR: bad response"):
		return fail("6", ErrBadResponse)
	case r.Complete == "+ERR" && isText && strings.HasSuffix(trimmed, "- not found."):
		return fail("4", ErrUnknown)
	case fn == "auth" && !isText:
		return loginError(r.Response)
	case startsAny(trimmed, "Maximum opened socket", "Maximum license"):
		return fail("3", ErrTooMany)
	case fn == "auth":
		return fail("2", ErrAuth)
	case startsAny(trimmed, "-ERR", "-USAGE"):
		return fail("5", textKind(text))
	default:
		return fail("7", textKind(text))
	}
}

// loginError reads form 1: {"login":{"status":401,"message":"secret incorrect"}}.
// Only this message is a verdict on the password; while the directory is down the
// status is 401 too (capture 41).
func loginError(response json.RawMessage) error {
	var body struct {
		Login struct {
			Status  json.Number `json:"status"`
			Message string      `json:"message"`
		} `json:"login"`
	}
	_ = json.Unmarshal(response, &body) // an empty or odd object is a refusal without a reason
	status, _ := body.Login.Status.Int64()
	e := &ReplyError{
		Func: "auth", Form: "1", Status: int(status),
		Text: strings.TrimSpace(body.Login.Message), kind: ErrAuth,
	}
	if status == 401 && e.Text == "secret incorrect" {
		e.kind = ErrSecret
	}
	return e
}

// textKind finds the sentinel for the server's or the switch's words.
func textKind(text string) error {
	lower := strings.ToLower(text)
	for _, k := range []struct {
		part string
		kind error
	}{
		{"no such channel", ErrNoChannel},
		{"cannot locate session", ErrNoChannel},
		{"invalid uuid", ErrNoChannel},
		{"freeswitch server connect close", ErrSwitchDown},
		{"permission denied", ErrPermission},
		{"forbidden", ErrPermission},
		{"event subscribed", ErrSubscribed},
		{"authentication required", ErrAuth},
		{"user not auth", ErrAuth},
	} {
		if strings.Contains(lower, k.part) {
			return k.kind
		}
	}
	return ErrRefused
}

func startsAny(s string, prefixes ...string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
