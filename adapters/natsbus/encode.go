package natsbus

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events/cti"
)

// Headers of a CTI event: CloudEvents 1.0, binary mode, and JetStream's id.
const (
	HeaderSpecVersion = "ce-specversion"
	HeaderID          = "ce-id"
	HeaderSource      = "ce-source"
	HeaderType        = "ce-type"
	HeaderSubject     = "ce-subject"
	HeaderTime        = "ce-time"
	HeaderContentType = "content-type"
)

// Headers of a view.
const (
	HeaderLog      = "Callstate-Log"      // id of the log that the position counts in
	HeaderPosition = "Callstate-Position" // the position that the view reflects
)

// typePrefix begins ce-type; the event's name follows.
const typePrefix = "callstate.cti.v1."

// accountsKept bounds the encoder's memory of accounts. More accounts than that
// speaking in turn cost an encoding each, nothing else.
const accountsKept = 1 << 14

// encoder makes NATS messages of CTI events. It fills one message again and
// again, since the connection copies what it is given before it returns. Not safe
// for concurrent use.
type encoder struct {
	prefix   string
	types    map[cti.Name]string
	accounts map[string]string // account → "<prefix>.<domain>.<number>."
	buf      []byte
	msg      nats.Msg

	id, typ, subject, time, msgID []string // the header's values, length 1
}

func newEncoder(prefix, source string) *encoder {
	e := &encoder{
		prefix: prefix, types: map[cti.Name]string{}, accounts: map[string]string{},
		id: []string{""}, typ: []string{""}, subject: []string{""}, time: []string{""}, msgID: []string{""},
	}
	for _, n := range append(cti.Names(), cti.CallBusy) {
		e.types[n] = typePrefix + string(n)
	}
	e.msg.Header = nats.Header{
		HeaderSpecVersion: {"1.0"}, HeaderSource: {source}, HeaderContentType: {"application/json"},
		HeaderID: e.id, HeaderType: e.typ, HeaderSubject: e.subject, HeaderTime: e.time,
		jetstream.MsgIDHeader: e.msgID,
	}
	return e
}

// encode returns the message to send m as; it is valid until the next call.
func (e *encoder) encode(m *engine.Message, reply string) *nats.Msg {
	ev := &m.Event
	e.msg.Reply, e.msg.Data = reply, m.Payload

	base, ok := e.accounts[ev.Account]
	if !ok {
		if len(e.accounts) >= accountsKept {
			clear(e.accounts)
		}
		base = e.prefix + "." + cti.LineKey(ev.Account) + "."
		e.accounts[ev.Account] = base
	}
	e.buf = append(e.buf[:0], base...)
	e.buf = append(e.buf, ev.Event...)
	e.buf = append(e.buf, '.')
	e.buf = append(e.buf, cti.Token(ev.CallID)...)
	e.msg.Subject = string(e.buf)

	typ, ok := e.types[ev.Event]
	if !ok {
		typ = typePrefix + string(ev.Event)
	}
	id := headerValue(m.ID)
	e.id[0], e.msgID[0], e.typ[0] = id, id, typ

	subject := ev.Account
	if ev.CallID != "" {
		e.buf = append(e.buf[:0], ev.Account...)
		e.buf = append(e.buf, '/')
		e.buf = append(e.buf, ev.CallID...)
		subject = string(e.buf)
	}
	e.subject[0] = headerValue(subject)

	if ev.Time == 0 { // CloudEvents: the attribute is absent, never empty
		delete(e.msg.Header, HeaderTime)
	} else {
		e.buf, _ = ev.Time.AppendText(e.buf[:0])
		e.time[0] = string(e.buf)
		e.msg.Header[HeaderTime] = e.time
	}
	return &e.msg
}

// headerValue encodes s as the CloudEvents HTTP binding (section 3.1.3.2) says:
// blanks, quotes, '%' and everything outside printable ASCII as %XX. An id of the
// PBX cannot begin a header of its own with it.
func headerValue(s string) string {
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		plain = plainHeaderByte(s[i])
	}
	if plain {
		return s
	}
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; plainHeaderByte(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}

func plainHeaderByte(c byte) bool { return c > ' ' && c <= '~' && c != '"' && c != '%' }

// ack is JetStream's answer to a published message.
type ack struct {
	Stream    string              `json:"stream"`
	Seq       uint64              `json:"seq"`
	Duplicate bool                `json:"duplicate"`
	Error     *jetstream.APIError `json:"error"`
}

// codeTooLarge is JetStream's refusal of a message above the stream's limit
// (JSStreamMessageExceedsMaximumErr). It will be refused again.
const codeTooLarge jetstream.ErrorCode = 10054

// parseAck reads a confirmation. okPrefix is how a plain one begins; those are
// all that a healthy stream sends, so they are told without decoding.
func parseAck(m *nats.Msg, okPrefix []byte) (ack, error) {
	if rest, ok := bytes.CutPrefix(m.Data, okPrefix); ok {
		digits := 0
		for digits < len(rest) && '0' <= rest[digits] && rest[digits] <= '9' {
			digits++
		}
		if seq, err := strconv.ParseUint(string(rest[:digits]), 10, 64); err == nil && seq > 0 {
			return ack{Seq: seq, Duplicate: bytes.Contains(rest, []byte(`"duplicate"`))}, nil
		}
	}
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return ack{}, jetstream.ErrNoStreamResponse
	}
	var a ack
	if err := json.Unmarshal(m.Data, &a); err != nil || (a.Error == nil && a.Seq == 0) {
		return ack{}, jetstream.ErrInvalidJSAck
	}
	if a.Error != nil {
		return ack{}, a.Error
	}
	return a, nil
}

// storedID is a message id of our log: "<log>.<position>.<n>".
type storedID struct {
	position uint64
	n        uint32
}

// parseID reads a message id; ok is false where it is not one of the log's.
func parseID(id, log string) (s storedID, ok bool) {
	rest, ok := strings.CutPrefix(id, log)
	if !ok || log == "" || !strings.HasPrefix(rest, ".") {
		return s, false
	}
	p, n, ok := strings.Cut(rest[1:], ".")
	if !ok {
		return s, false
	}
	position, err1 := strconv.ParseUint(p, 10, 64)
	number, err2 := strconv.ParseUint(n, 10, 32)
	return storedID{position, uint32(number)}, err1 == nil && err2 == nil
}
