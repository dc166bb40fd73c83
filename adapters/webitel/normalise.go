package webitel

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// Observe decodes and normalises one frame. It never fails: bytes that are no
// frame give an input that quarantines a copy of them.
//
// src is the frame's source as the connection knows it, its Sequence the
// connection's frame counter. Frames that the switch itself numbered get the
// switch's core and number instead. Observe keeps neither raw nor parts of it.
func Observe(raw []byte, src events.Source, receivedAt events.Time) engine.Input {
	var f Frame
	if err := f.decode(raw); err != nil {
		in := engine.Input{ReceivedAt: receivedAt, Source: src}
		if bad, ok := errors.AsType[*DecodeError](err); ok {
			in.Quarantine = quarantine(raw, bad.Reason(), bad.Error())
		}
		return in
	}
	return Normalise(&f, src, receivedAt)
}

// Normalise says what a decoded frame means for the engine. It is pure. A reply,
// and an event that is known to mean nothing, give an input with nothing set.
func Normalise(f *Frame, src events.Source, receivedAt events.Time) engine.Input {
	in := engine.Input{ReceivedAt: receivedAt, Source: f.source(src)}
	var reason, detail string
	switch f.Kind {
	case KindLeg:
		in.Leg, reason = f.leg()
		detail = f.Event
	case KindAccount:
		in.Agents, reason = f.account()
		detail = f.Event
	case KindUnknown:
		reason, detail = ReasonUnknownEvent, f.Event
	case KindReply, KindOther:
	}
	if reason == "" && longID(&in) {
		reason = ReasonLongID
		in.Source = src
	}
	if reason != "" {
		in.Leg, in.Agents = nil, nil
		in.Quarantine = quarantine(f.raw, reason, detail)
	}
	return in
}

// longID reports whether an id is longer than any that a switch gives.
func longID(in *engine.Input) bool {
	long := func(ids ...string) bool {
		return slices.ContainsFunc(ids, func(id string) bool { return len(id) > events.MaxID })
	}
	if l := in.Leg; l != nil && long(l.Leg, l.OldLeg, l.Presence, l.CallGroup, l.ChannelCall, l.OtherLeg,
		l.OriginatingLeg, l.BridgeA, l.BridgeB, l.BridgedTo, l.Parent, l.QueueMember) {
		return true
	}
	for i := range in.Agents {
		if long(in.Agents[i].Account) {
			return true
		}
	}
	return long(in.Source.Core, in.Source.Switch)
}

// source completes what the connection knows of the frame's source. Core and
// sequence are taken together or not at all: a sequence counts within its core.
func (f *Frame) source(src events.Source) events.Source {
	if f.Path == "" {
		return src
	}
	src.Path = f.Path
	if f.Path == events.PathAccount {
		return src
	}
	src.Switch = f.first(hSwitchname, hHostname)
	core := f.text(hCore)
	if n, ok := f.number(hSequence); ok && n > 0 && core != "" {
		src.Core, src.Sequence = core, uint64(n)
	}
	return src
}

// leg returns what the frame says of its channel, or why it cannot be said.
func (f *Frame) leg() (*engine.LegObservation, string) {
	id := f.text(hUniqueID)
	if id == "" {
		return nil, ReasonMissingID
	}
	l := engine.NewLegObservation()
	l.Kind = f.info.leg
	l.Leg = id
	l.Presence = f.text(hPresence)

	l.Vars = f.carriesVariables()
	l.CallGroup = f.first(hCallGroup, hCallGroupAccount)
	l.ChannelCall = f.text(hChannelCall)
	l.Channel = f.channel()

	l.Inbound = f.is(hCallDirection, "inbound")
	l.LogicalInbound = f.is(hLogicalDirection, "inbound")
	l.HitDialplan = f.is(hHitDialplan, "true")
	l.Profiled = (f.has(hCallerNumber) || f.has(hDestination)) && !f.is(hChannelState, "CS_NEW")

	l.CallerNumber = f.text(hCallerNumber)
	l.CalleeNumber = f.text(hCalleeNumber)
	l.Destination = f.text(hDestination)

	// The server fills Other-Leg-Unique-ID from the variable on the account
	// path; on the others that is left to us.
	l.OtherLeg = f.first(hOtherLeg, hOriginatingLeg)
	l.OriginatingLeg = f.text(hOriginatingLeg)
	l.BridgeA = f.text(hBridgeA)
	l.BridgeB = f.text(hBridgeB)
	l.BridgedTo = f.text(hBridgeUUID)

	l.OriginateNumber = f.text(hOriginateNumber)
	l.Parent = f.first(hTransferParent, hTransferParentSIP)
	l.TransferResult = f.text(hTransferResult)
	l.Queue = f.text(hQueue)
	l.QueueMember = f.text(hQueueMember)
	l.Data = f.data()

	l.CreatedAt = f.time(hCreated)
	l.AnsweredAt = f.time(hAnswered)
	l.HungupAt = f.time(hHungup)

	l.Cause = f.first(hHangupCauseVar, hHangupCause)
	l.Disposition = f.text(hDisposition)
	l.WebRTC = f.webRTC()
	l.CallerName, _, _ = strings.Cut(f.name(hCallerName), "@")
	l.CalleeName = f.name(hCalleeName)
	l.TransferTarget, l.TransferStamp = f.transfer()
	// FreeSWITCH's own causes (LOSE_RACE 502, ...) have no number in Q.850.
	if n, ok := f.number(hHangupQ850); ok && n <= 127 {
		l.CauseCode = int(n)
	}
	f.ending(l)
	f.clock(l)
	switch l.Kind {
	case engine.LegDTMF:
		if l.Digit = f.text(hDigit); l.Digit == "" {
			return nil, ReasonMissingDigit
		}
		l.DigitVia = f.text(hDigitSource)
		n, _ := f.number(hDigitDuration)
		l.DigitMs = n / 8 // counted in samples at 8 kHz: the default of 2,000 is 250 ms
	case engine.LegRenamed:
		// The account path does not forward the old id; without it the event
		// renames nothing.
		if l.OldLeg = f.text(hOldUniqueID); l.OldLeg == "" {
			l.Kind = engine.LegSeen
		}
	case engine.LegStated:
		l.OnHold = f.is(hCallState, "HELD")
		l.Vars = true // it is all that the switch has
	case engine.LegConferenceJoined, engine.LegConferenceLeft:
		l.Conference = f.text(hConference)
	case engine.LegRecordingStarted, engine.LegRecordingStopped:
		path := f.text(hRecordPath)
		l.Recording = path[strings.LastIndexAny(path, `/\`)+1:]
		if l.Kind == engine.LegRecordingStopped {
			l.RecordMs, _ = f.number(hRecordMs)
		}
	}
	return l, ""
}

// carriesVariables reports whether a variable that is not in the frame is known
// to be unset. A frame as the switch writes it carries all or none, and an event
// type that has none by itself has them under verbose-events. On the account
// path only some are let through, so the type decides.
func (f *Frame) carriesVariables() bool {
	if f.Path == events.PathAccount {
		return f.info.vars
	}
	return f.vars
}

// ending fills what is known at a channel's end.
func (f *Frame) ending(l *engine.LegObservation) {
	switch string(f.bytes(hChannelState)) {
	case "CS_HANGUP", "CS_REPORTING", "CS_DESTROY":
		l.Ending = true
	}
	final := l.Kind == engine.LegDetails || l.Kind == engine.LegDestroyed
	l.Ending = l.Ending || final || l.Kind == engine.LegHungup || f.is(hAnswerState, "hangup")

	wait, hasWait := f.number(hWaitMs)
	bill, hasBill := f.number(hBillMs)
	if hasWait && hasBill {
		l.HasTimes = true
		l.WaitMs, l.BillMs = wait, bill
		l.HoldMs, _ = f.number(hHoldMs)
	}
	// The account path says 0 in every frame, and means it only in these.
	if final {
		l.BillSec, l.HasBillSec = f.number(hBillSec)
	}
}

// clock fills when it happened, by the best clock that the frame has.
func (f *Frame) clock(l *engine.LegObservation) {
	if l.At = f.time(hDate); l.At != 0 {
		l.Clock = events.TimeOfEvent
		return
	}
	switch {
	case l.Ending:
		l.At = l.HungupAt
	case l.Kind == engine.LegAnswered:
		l.At = l.AnsweredAt
	case l.Kind == engine.LegCreated:
		l.At = l.CreatedAt
	}
	if l.At != 0 {
		l.Clock = events.TimeOfChannel
	}
}

// has reports whether the frame has the header, even an empty one.
func (f *Frame) has(h header) bool { return f.at[h].form != absent }

// is reports whether the header's value is word.
func (f *Frame) is(h header, word string) bool { return string(f.bytes(h)) == word }

// name returns a name. FreeSWITCH gives originated legs one that is nobody's.
func (f *Frame) name(h header) string {
	if s := f.text(h); s != "Outbound Call" {
		return s
	}
	return ""
}

// data returns webitel_data. The server wraps it in one pair of quotes on the
// account path; quotes inside are the JSON text's own. Servers up to 3.3 send
// 'undefined' for none. It is JSON, so it is not percent-decoded.
func (f *Frame) data() string {
	b := f.bytes(hData)
	if n := len(b); f.Path == events.PathAccount && n >= 2 && b[0] == '\'' && b[n-1] == '\'' {
		b = b[1 : n-1]
	}
	if undefined(b) {
		return ""
	}
	return string(b)
}

// transfer returns the target of the channel's last transfer, if that was blind,
// and what tells it from an earlier one. An entry is "epoch:uuid:kind:what", as
// in "1795384057:31cf584a-...:bl_xfer:1002/default/XML". The legs of a
// click-to-call have one too: FreeSWITCH's originate transfers the answered leg
// into the dialplan.
func (f *Frame) transfer() (target, stamp string) {
	b := f.bytes(hTransferHistory)
	if rest, ok := bytes.CutPrefix(b, []byte("ARRAY::")); ok { // as it is written outside JSON
		b = rest[bytes.LastIndex(rest, []byte("|:"))+1:]
		b = bytes.TrimPrefix(b, []byte(":"))
	}
	at, what, ok := bytes.Cut(b, []byte(":bl_xfer:"))
	if !ok {
		return "", ""
	}
	number, _, _ := bytes.Cut(what, []byte("/"))
	if len(number) == 0 {
		return "", ""
	}
	return intern(clean(number)), intern(at)
}

// channel returns the channel's name. That of a called Verto leg ends in the
// phone's session id, which is a secret: whoever knows it can take the phone's
// place (reference/verto-protocol.md, 16.5-8).
func (f *Frame) channel() string {
	name := f.text(hChannelName)
	if dialled, ok := strings.CutPrefix(name, vertoChannel); ok && uuid.Validate(dialled) == nil {
		return vertoChannel
	}
	return name
}

const vertoChannel = "verto.rtc/"

// webRTC infers the session's transport from the channel; the account path shows
// none of these headers.
func (f *Frame) webRTC() string {
	channel := f.bytes(hChannelName)
	switch string(f.bytes(hViaProtocol)) {
	case "ws", "wss":
		return "sip-ws"
	}
	switch {
	case bytes.HasPrefix(channel, []byte(vertoChannel)):
		return "verto"
	case bytes.HasPrefix(channel, []byte("sofia/")):
		// A variable of the caller's Verto leg that was exported to a SIP leg
		// makes no Verto session.
		if f.is(hMediaWebRTC, "true") {
			return "sip-ws"
		}
		return ""
	case f.is(hMediaWebRTC, "true") || f.text(hVertoUser) != "":
		return "verto"
	}
	return ""
}

// account returns what the frame says of its account.
func (f *Frame) account() ([]engine.AgentObservation, string) {
	a := engine.AgentObservation{At: f.time(hDate)}
	if a.At != 0 {
		a.Clock = events.TimeOfEvent
	}
	var number, domain string
	switch f.Event {
	case "ACCOUNT_STATUS":
		a.Kind = engine.AgentStatus
		number, domain = f.text(hAccountUser), f.first(hAccountDomain, hEventDomain)
		a.State = f.text(hAccountUserState)
		a.Status = f.text(hAccountStatus)
		a.Note = f.text(hAccountNote)
		a.Queue = f.text(hAccountQueue)
	default:
		a.Kind = engine.AgentOnline
		if f.Event == "ACCOUNT_OFFLINE" {
			a.Kind, a.Reason = engine.AgentOffline, reasonOffline
		}
		number, domain = f.text(hUserID), f.first(hUserDomain, hEventDomain)
	}
	if a.Account = accountID(number, domain); a.Account == "" {
		return nil, ReasonMissingID
	}
	return []engine.AgentObservation{a}, ""
}

// reasonOffline is the CTI model's word for an agent whose client left.
const reasonOffline = "Offline"

// accountID returns number@domain, or "" where either is missing. Some servers
// write the number with its domain.
func accountID(number, domain string) string {
	switch {
	case number == "":
		return ""
	case strings.Contains(number, "@"):
		return number
	case domain == "":
		return ""
	}
	return number + "@" + domain
}

// clean decodes a text as far as it can be: percent codes once, if all of it
// parses; a '+' is no blank. "undefined", with or without quotes, is what the
// server's language writes for nothing.
func clean(b []byte) []byte {
	if bytes.IndexByte(b, '%') >= 0 {
		b = percentDecode(b)
	}
	if undefined(b) {
		return nil
	}
	return b
}

func undefined(b []byte) bool {
	switch string(b) {
	case "undefined", "'undefined'":
		return true
	}
	return false
}

// percentDecode is decodeURIComponent, but returns b itself where that throws:
// "100%" is a text like any other.
func percentDecode(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] != '%' {
			out = append(out, b[i])
			continue
		}
		if i+2 >= len(b) {
			return b
		}
		hi, lo := hexDigit(b[i+1]), hexDigit(b[i+2])
		if hi < 0 || lo < 0 {
			return b
		}
		out = append(out, byte(hi<<4|lo))
		i += 2
	}
	if !utf8.Valid(out) {
		return b
	}
	return out
}

// AccountList reads the reply of "api account list": an object keyed by account
// number, or that object as JSON text under "response". domain completes rows
// that do not name theirs. The result is ordered by account.
//
// An account that the list calls online is observed online, with its state. Of
// the others only the state is told: the list's word says that the client gave
// the command "login", not that there is no client.
//
// The error names the rows that say nothing of an account; the others are in the
// result all the same.
func AccountList(response json.RawMessage, domain string) ([]engine.AgentObservation, error) {
	rows, err := accountRows(response)
	if err != nil {
		return nil, err
	}
	out := make([]engine.AgentObservation, 0, len(rows))
	var odd []error
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		a, err := accountOf(key, rows[key], domain)
		if err != nil {
			odd = append(odd, fmt.Errorf("webitel: account list: row %.40q: %w", key, err))
			continue
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b engine.AgentObservation) int { return strings.Compare(a.Account, b.Account) })
	if n := len(odd); n > maxOddRows {
		odd = append(odd[:maxOddRows], fmt.Errorf("webitel: account list: %d more such rows", n-maxOddRows))
	}
	return out, errors.Join(odd...)
}

// maxOddRows is how many rows of an account list an error names.
const maxOddRows = 5

// accountOf reads a row.
func accountOf(key string, row json.RawMessage, domain string) (a engine.AgentObservation, err error) {
	var r accountRow
	if err := json.Unmarshal(row, &r); err != nil {
		return a, err
	}
	a = engine.AgentObservation{
		Kind:    engine.AgentStatus,
		Account: accountID(cmp.Or(string(r.ID), key), cmp.Or(string(r.Domain), domain)),
		State:   string(r.State),
		Status:  string(r.Status),
		Note:    string(r.Note),
		Queue:   string(r.Queue),
	}
	switch {
	case a.Account == "":
		return a, errors.New("no account")
	case len(a.Account) > events.MaxID:
		return a, fmt.Errorf("an id of %d bytes", len(a.Account))
	}
	if r.Online == "true" {
		a.Kind = engine.AgentOnline
	}
	return a, nil
}

// accountRow is one account of the list.
type accountRow struct {
	ID     looseText `json:"id"`
	Domain looseText `json:"domain"`
	Online looseText `json:"online"`
	State  looseText `json:"state"`
	Status looseText `json:"status"`
	Note   looseText `json:"descript"`
	Queue  looseText `json:"agent.status"`
}

// accountRows are the rows of a list by account number.
func accountRows(response json.RawMessage) (map[string]json.RawMessage, error) {
	for range 3 { // text inside "response" inside the reply, at most
		var text string
		if json.Unmarshal(response, &text) == nil {
			response = json.RawMessage(text)
			continue
		}
		var wrapped struct {
			Response json.RawMessage `json:"response"`
		}
		if json.Unmarshal(response, &wrapped) != nil || wrapped.Response == nil {
			break
		}
		response = wrapped.Response
	}
	var rows map[string]json.RawMessage
	if err := json.Unmarshal(response, &rows); err != nil {
		return nil, fmt.Errorf("webitel: account list %.40q: %w", response, err)
	}
	return rows, nil
}

// looseText is a text that some servers write as a number or a boolean.
type looseText string

// UnmarshalJSON reads any scalar; objects and arrays count as empty.
func (t *looseText) UnmarshalJSON(b []byte) error {
	var s string
	switch {
	case json.Unmarshal(b, &s) == nil:
		*t = looseText(clean([]byte(s)))
	case b[0] != '{' && b[0] != '[':
		*t = looseText(b)
	}
	return nil
}
