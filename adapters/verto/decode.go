package verto

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxFrame is the size of the largest frame that is read or written. FreeSWITCH
// itself closes the socket at a million bytes.
const MaxFrame = 1 << 20

// Decode reads one message. It is pure, the frame does not refer to b, and an
// error is a [*DecodeError]. Of a member that occurs twice the last one holds, as
// in the errors of FreeSWITCH.
func Decode(b []byte) (Frame, error) {
	switch {
	case len(b) > MaxFrame:
		return Frame{}, &DecodeError{Size: len(b), Err: ErrTooLarge}
	case len(b) > 0 && b[0] == '#':
		return Frame{Kind: KindSpeedTest}, nil
	case !utf8.Valid(b):
		return Frame{}, &DecodeError{Size: len(b), Err: ErrEncoding}
	}
	m, err := readMap(b)
	if err != nil {
		return Frame{}, err
	}
	var f Frame
	_, isRequest := m["method"]
	table, _ := f.members()
	f.Extra, err = readMembers(m, table)
	if err != nil {
		return Frame{}, sized(err, len(b))
	}
	switch {
	case isRequest && f.Extra["method"] == nil:
		f.Kind = KindRequest
	case f.Result != nil:
		f.Kind = KindResult
	case f.Error != nil:
		f.Kind = KindError
	default:
		return Frame{}, &DecodeError{Size: len(b), Err: ErrNotFrame}
	}
	return f, nil
}

// Read reads the params or the result of a frame into one of our types. Absent
// and null are read as an empty object. Every text may be sent as a number or a
// boolean, and every number as a text. An error is a [*DecodeError].
func Read(raw json.RawMessage, into Object) error {
	if isNull(raw) {
		return nil
	}
	m, err := readMap(raw)
	if err != nil {
		return err
	}
	table, extra := into.members()
	if *extra, err = readMembers(m, table); err != nil {
		return sized(err, len(raw))
	}
	return nil
}

func isNull(raw json.RawMessage) bool {
	return len(raw) == 0 || string(raw) == "null"
}

// readMap reads a JSON object.
func readMap(b []byte) (map[string]json.RawMessage, error) {
	if !json.Valid(b) {
		return nil, &DecodeError{Size: len(b), Err: ErrNotJSON}
	}
	if t := bytes.TrimLeft(b, " \t\r\n"); t[0] != '{' {
		return nil, &DecodeError{Size: len(b), Err: ErrType}
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, &DecodeError{Size: len(b), Err: ErrNotJSON}
	}
	return m, nil
}

// readMembers takes the table's members out of m and returns what is left, nil
// where nothing is.
func readMembers(m map[string]json.RawMessage, table []member) (map[string]json.RawMessage, error) {
	for _, f := range table {
		raw, ok := m[f.name]
		if keep, is := f.to.(*json.RawMessage); ok && is {
			*keep = raw
			delete(m, f.name)
			continue
		}
		if !ok || isNull(raw) {
			continue
		}
		if err := readValue(raw, f.to); err != nil {
			return nil, &DecodeError{Member: f.name, Err: err}
		}
		delete(m, f.name)
	}
	if len(m) == 0 {
		return nil, nil //nolint:nilnil // no rest is no error
	}
	return m, nil
}

func readValue(raw json.RawMessage, to any) (err error) {
	switch to := to.(type) {
	case *string:
		*to, err = readText(raw)
	case *Secret:
		var s string
		s, err = readText(raw)
		*to = Secret(s)
	case *Number:
		*to, err = readNumber(raw)
	case **bool:
		var b bool
		if json.Unmarshal(raw, &b) != nil {
			return ErrType
		}
		*to = &b
	case *map[string]string:
		*to, err = readTexts(raw)
	case *[]string:
		*to, err = readList(raw)
	case **Message:
		*to = new(Message)
		err = Read(raw, *to)
	case **Error:
		*to = new(Error)
		err = Read(raw, *to)
	case *Dialog:
		err = Read(raw, to)
	}
	return err
}

// readText reads a scalar as text.
func readText(raw json.RawMessage) (string, error) {
	switch raw[0] {
	case '"':
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return "", ErrType
		}
		return s, nil
	case '{', '[', 'n':
		return "", ErrType
	}
	return string(raw), nil
}

// readNumber reads a whole number; a fraction is cut off.
func readNumber(raw json.RawMessage) (Number, error) {
	s, err := readText(raw)
	if err != nil {
		return 0, err
	}
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return Number(n), nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != f || f < -1e15 || f > 1e15 {
		return 0, ErrType
	}
	return Number(f), nil
}

// readTexts reads an object of scalars. A value that is none is dropped: what
// FreeSWITCH writes there are channel variables, which are texts.
func readTexts(raw json.RawMessage) (map[string]string, error) {
	m, err := readMap(raw)
	if err != nil {
		return nil, ErrType
	}
	texts := make(map[string]string, len(m))
	for name, v := range m {
		if s, err := readText(v); err == nil {
			texts[name] = s
		}
	}
	return texts, nil
}

// readList reads a list of scalars; what is none is dropped.
func readList(raw json.RawMessage) ([]string, error) {
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil {
		return nil, ErrType
	}
	list := make([]string, 0, len(items))
	for _, v := range items {
		if s, err := readText(v); err == nil {
			list = append(list, s)
		}
	}
	return list, nil
}

// sharedPrefix is how the variables that were meant for us begin.
const sharedPrefix = "verto_svar_"

// Shared returns the variables that were set for us, without their prefix. All
// others are left out: they show the server's host name and addresses.
func (p *Call) Shared() map[string]string {
	shared := make(map[string]string)
	for name, v := range p.Variables {
		if rest, ok := strings.CutPrefix(name, sharedPrefix); ok {
			shared[rest] = v
		}
	}
	return shared
}

// Remote returns the name and the number of the far party.
func (p *Call) Remote() (name, number string) {
	switch {
	case p.DisplayNumber != "":
		return p.DisplayName, p.DisplayNumber
	case p.DisplayDirection == DisplayOutbound:
		return p.CallerIDName, p.CallerIDNumber
	default:
		return p.CalleeIDName, p.CalleeIDNumber
	}
}
