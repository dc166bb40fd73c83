package webitel

import (
	"bytes"
	"encoding/json"
	"hash/maphash"
	"sync/atomic"
	"unicode/utf8"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// MaxFrame is the size of the largest frame that is read. The largest captured
// one, a snapshot aside, has 16 KB.
const MaxFrame = 4 << 20

// span is where a header's value stands in the frame.
type span struct {
	from, to uint32
	form     form
}

// form is how a value is written. The last two are judged only when the frame
// has been read: a later member of the same name takes an earlier one's place.
type form uint8

const (
	absent     form = iota // no such member, or null
	plain                  // the bytes are the text
	escaped                // the text is in JSON escapes
	wrongType              // an object, or an array of other things than texts
	wrongBytes             // not UTF-8
)

// Decode reads one frame. It is pure, does not keep b, and returns a
// [DecodeError] for bytes that are no frame.
//
// Only the headers that we read are taken out, but all of b must be JSON.
// Repeated members count as in encoding/json: the last one holds.
func Decode(b []byte) (Frame, error) {
	var f Frame
	if err := f.decode(b); err != nil {
		return Frame{}, err
	}
	return f, nil
}

func (f *Frame) decode(b []byte) error {
	f.raw = b
	if len(b) > MaxFrame {
		return &DecodeError{Offset: MaxFrame, Size: len(b), fault: faultLarge}
	}
	if at, bad := f.scan(); bad != 0 {
		return &DecodeError{Offset: at, Size: len(b), fault: bad}
	}
	for h := hEventName; h < numHeaders; h++ {
		switch s := f.at[h]; s.form {
		case wrongType:
			return &DecodeError{Offset: int(s.from), Header: headerNames[h], Size: len(b), fault: faultType}
		case wrongBytes:
			return &DecodeError{Offset: int(s.from), Header: headerNames[h], Size: len(b), fault: faultEncoding}
		}
	}
	if !f.classify() {
		return &DecodeError{Size: len(b), fault: faultKind}
	}
	return nil
}

// scan walks over the top-level object once and notes where its headers are. It
// returns where it stopped and why.
func (f *Frame) scan() (int, fault) {
	b := f.raw
	i := skipSpace(b, 0)
	if i == len(b) {
		return i, faultSyntax
	}
	if b[i] != '{' {
		end, bad := skipValue(b, i, 0)
		if bad == 0 {
			bad = faultTop
			if end = skipSpace(b, end); end < len(b) {
				bad = faultSyntax
			}
		}
		return end, bad
	}
	i, bad := f.members(skipSpace(b, i+1))
	if bad == 0 {
		if i = skipSpace(b, i); i < len(b) {
			bad = faultSyntax
		}
	}
	return i, bad
}

// members walks over the members of the object, the first of which is at i, and
// its closing brace.
func (f *Frame) members(i int) (int, fault) {
	b := f.raw
	if i < len(b) && b[i] == '}' {
		return i + 1, 0
	}
	before := uint16(firstMember)
	for more := true; more; {
		var h header
		var bad fault
		if m, slot := guess(b, i, before); m != nil {
			h, i, before = m.header, skipSpace(b, i+int(m.size)), slot
			f.vars = f.vars || m.variable
		} else if h, before, i, bad = f.member(i, before); bad != 0 {
			return i, bad
		}
		switch {
		case h != hNone:
			i, bad = f.take(h, i)
		case i < len(b) && b[i] == '"':
			if i, _, bad = skipString(b, i+1); bad == 0 {
				i++
			}
		default:
			i, bad = skipValue(b, i, 1)
		}
		if bad != 0 {
			return i, bad
		}
		if i+1 < len(b) && b[i] == ',' && b[i+1] == '"' { // nearly always
			i++
			continue
		}
		if i, more, bad = skipComma(b, i, '}'); bad != 0 {
			return i, bad
		}
	}
	return i, 0
}

// member reads the name of the member at i, up to its value. It returns which
// header it is, and the slot of its name; see [guess].
func (f *Frame) member(i int, before uint16) (_ header, slot uint16, next int, _ fault) {
	b := f.raw
	end, escaped, next, bad := skipName(b, i)
	if bad != 0 {
		return hNone, firstMember, next, bad
	}
	name, text := b[i+1:end], b[i:min(end+2, next)] // with the colon, if it is at once behind the name
	if escaped {
		name = unescape(name)
	}
	h, variable := headers[string(name)], bytes.HasPrefix(name, variablePrefix)
	f.vars = f.vars || variable
	if text[len(text)-1] == ':' {
		slot = learn(text, h, variable, before)
	}
	return h, slot, next, 0
}

var variablePrefix = []byte("variable_")

// take notes where the value at i stands and steps over it.
func (f *Frame) take(h header, i int) (int, fault) {
	b := f.raw
	if h == hExecResponse {
		end, bad := skipValue(b, i, 1)
		if bad == 0 {
			f.at[h] = response(b, i, end)
		}
		return end, bad
	}
	if i < len(b) && b[i] == '[' {
		return f.takeList(h, i)
	}
	s, end, bad := text(b, i, 1)
	f.at[h] = s
	return end, bad
}

// takeList reads an array header. FreeSWITCH writes a header that was set more
// than once as an array, a single value as a string: variable_transfer_history
// grows at its end, for the others the first value is taken.
func (f *Frame) takeList(h header, i int) (int, fault) {
	b := f.raw
	f.at[h] = span{}
	if i = skipSpace(b, i+1); i < len(b) && b[i] == ']' {
		return i + 1, 0
	}
	for n := 0; ; n++ {
		s, end, bad := text(b, i, 2)
		if bad != 0 {
			return end, bad
		}
		if n == 0 || h == hTransferHistory || s.form == wrongType {
			if f.at[h].form != wrongType {
				f.at[h] = s
			}
		}
		var more bool
		if i, more, bad = skipComma(b, end, ']'); !more {
			return i, bad
		}
	}
}

// text returns where the text of a scalar value stands.
func text(b []byte, i, depth int) (span, int, fault) {
	if i < len(b) && b[i] == '"' {
		end, esc, bad := skipString(b, i+1)
		if bad != 0 {
			return span{}, end, bad
		}
		s := span{uint32(i + 1), uint32(end), plain}
		switch {
		case !utf8.Valid(b[i+1 : end]):
			s.form = wrongBytes
		case esc:
			s.form = escaped
		}
		return s, end + 1, 0
	}
	end, bad := skipValue(b, i, depth)
	if bad != 0 {
		return span{}, end, bad
	}
	switch b[i] {
	case 'n':
		return span{}, end, 0
	case '{', '[':
		return span{uint32(i), uint32(end), wrongType}, end, 0
	}
	return span{uint32(i), uint32(end), plain}, end, 0
}

// response is the value of exec-response, of any type, kept as JSON.
func response(b []byte, from, to int) span {
	s := span{uint32(from), uint32(to), plain}
	if !utf8.Valid(b[from:to]) {
		s.form = wrongBytes
	}
	return s
}

// classify settles what the frame is; it reports false where it is neither a
// reply nor an event.
func (f *Frame) classify() bool {
	source, name := f.bytes(hWebitelEventName), f.bytes(hEventName)
	switch {
	case len(source) == 0 && f.at[hExecUUID].form != absent:
		f.Kind = KindReply
		f.Reply = Reply{ID: string(f.bytes(hExecUUID)), Complete: intern(f.bytes(hExecComplete))}
		if s := f.at[hExecResponse]; s.form != absent {
			f.Reply.Response = json.RawMessage(bytes.Clone(f.raw[s.from:s.to]))
		}
		return true
	case len(source) == 0 && len(name) == 0:
		return false
	case len(source) == 0:
		f.Path = events.PathSwitch
	case string(source) == "server":
		f.Path = events.PathServer
		// "SE::BROADCAST" is a name of its own.
		if rest, ok := bytes.CutPrefix(name, []byte("SE:")); ok && !bytes.HasPrefix(rest, []byte(":")) {
			name = rest
		}
	case string(source) == "call":
		f.Path = events.PathAccount
	}
	f.info = f.lookup(source, name)
	if f.info.name == "CUSTOM" {
		f.info = f.custom()
	}
	f.Kind, f.Event = f.info.kind, f.info.name
	return true
}

// lookup finds what is known of the event's name.
func (f *Frame) lookup(source, name []byte) eventInfo {
	if f.Path != "" {
		if info, ok := switchEvents[string(name)]; ok {
			return info
		}
	}
	if info, ok := engineEvents[string(name)]; ok {
		return info
	}
	kind := KindUnknown
	if string(source) == "WEBITEL-CUSTOM" || f.Path == events.PathServer && bytes.HasPrefix(name, []byte("CC::")) {
		kind = KindOther
	}
	return eventInfo{name: intern(name), kind: kind}
}

// custom tells the conference events that are about a leg from all the other
// CUSTOM ones.
func (f *Frame) custom() eventInfo {
	info := eventInfo{name: "CUSTOM", kind: KindOther}
	if f.text(hSubclass) != "conference::maintenance" {
		return info
	}
	switch f.text(hAction) {
	case "add-member":
		info.kind, info.leg = KindLeg, engine.LegConferenceJoined
	case "del-member":
		info.kind, info.leg = KindLeg, engine.LegConferenceLeft
	}
	return info
}

// bytes returns the value of a header as sent. It refers to the frame's bytes.
func (f *Frame) bytes(h header) []byte {
	s := f.at[h]
	switch s.form {
	case plain:
		return f.raw[s.from:s.to]
	case escaped:
		return unescape(f.raw[s.from:s.to])
	}
	return nil
}

// text returns the value of a header, decoded and freed of the words that stand
// for nothing; see [clean].
func (f *Frame) text(h header) string {
	b := f.bytes(h)
	if len(b) == 0 {
		return ""
	}
	return intern(clean(b))
}

// first returns the first of the headers that says something.
func (f *Frame) first(hs ...header) string {
	for _, h := range hs {
		if s := f.text(h); s != "" {
			return s
		}
	}
	return ""
}

// number returns the value of a header that counts something; ok is false where
// it is absent or no number from 0 to 10^18.
func (f *Frame) number(h header) (n int64, ok bool) {
	b := f.bytes(h)
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if !isDigit(c) {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// time returns the value of a header in microseconds; FreeSWITCH's "0" means not
// yet, and a time that cannot be written down is none.
func (f *Frame) time(h header) events.Time {
	n, _ := f.number(h)
	if t := events.Time(n); t <= events.MaxTime {
		return t
	}
	return 0
}

// A leg's id, its account and its numbers come again in some 20 frames of a
// call. interned keeps the last value per slot, so that most are not allocated
// and the copies that the engine keeps are one. It is a cache of a fixed size:
// what a sender writes decides what is in it, never what is returned.
const internSlots, internMax = 4096, 64

var (
	interned   [internSlots]atomic.Pointer[string]
	internSeed = maphash.MakeSeed()
)

// intern returns b as a string of its own.
func intern(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if len(b) > internMax {
		return string(b)
	}
	slot := &interned[maphash.Bytes(internSeed, b)%internSlots]
	if s := slot.Load(); s != nil && *s == string(b) {
		return *s
	}
	s := string(b)
	slot.Store(&s)
	return s
}
