package verto

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
)

// EncodeRequest writes a request. params may be nil.
func EncodeRequest(id uint64, method string, params Object) ([]byte, error) {
	return encode(Frame{Kind: KindRequest, Version: Version, ID: number(id), Method: method}, "params", params)
}

// EncodeResult writes the answer to the request with that id.
func EncodeResult(id json.RawMessage, result Object) ([]byte, error) {
	return encode(Frame{Kind: KindResult, Version: Version, ID: id}, "result", result)
}

// EncodeError writes the refusal of the request with that id. Only a server may
// send it: to mod_verto it would be a call without a method.
func EncodeError(id json.RawMessage, e *Error) ([]byte, error) {
	return encode(Frame{Kind: KindError, Version: Version, ID: id}, "error", e)
}

// Encode writes a frame as it was decoded.
func (f Frame) Encode() ([]byte, error) { return encode(f, "", nil) }

func number(id uint64) json.RawMessage { return strconv.AppendUint(nil, id, 10) }

// encode writes f with body as its member of that name.
func encode(f Frame, name string, body Object) ([]byte, error) {
	if f.Kind == KindSpeedTest {
		return nil, ErrNotFrame
	}
	var b bytes.Buffer
	table, extra := f.members()
	if f.Kind == KindRequest && f.Method == "" {
		table = append(table, member{"method", json.RawMessage(`""`)})
	}
	if body != nil {
		table = append(table, member{name, body})
	}
	if err := writeObject(&b, table, *extra); err != nil {
		return nil, err
	}
	if b.Len() > MaxFrame {
		return nil, ErrTooLarge
	}
	return b.Bytes(), nil
}

func (f *Frame) members() ([]member, *map[string]json.RawMessage) {
	return []member{
		{"jsonrpc", &f.Version},
		{"id", &f.ID},
		{"method", &f.Method},
		{"params", &f.Params},
		{"result", &f.Result},
		{"error", &f.Error},
	}, &f.Extra
}

// writeObject writes the members that hold something, in the order of the table,
// then the rest in the order of the names.
func writeObject(b *bytes.Buffer, table []member, extra map[string]json.RawMessage) error {
	sep := byte('{')
	begin := func(name string) {
		b.WriteByte(sep)
		sep = ','
		quoted, _ := json.Marshal(name) // a string always marshals
		b.Write(quoted)
		b.WriteByte(':')
	}
	for _, m := range table {
		if holdsNothing(m.to) {
			continue
		}
		begin(m.name)
		if err := writeValue(b, m.to); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		begin(name)
		b.Write(extra[name])
	}
	if sep == '{' {
		b.WriteByte('{')
	}
	b.WriteByte('}')
	return nil
}

func holdsNothing(v any) bool {
	switch v := v.(type) {
	case *string:
		return *v == ""
	case *Secret:
		return *v == ""
	case *Number:
		return *v == 0
	case **bool:
		return *v == nil
	case *map[string]string:
		return *v == nil
	case *[]string:
		return *v == nil
	case *json.RawMessage:
		return *v == nil
	case **Message:
		return *v == nil
	case **Error:
		return *v == nil
	}
	return false
}

func writeValue(b *bytes.Buffer, v any) error {
	switch o := v.(type) {
	case **Message:
		v = *o
	case **Error:
		v = *o
	case *Secret:
		v = string(*o)
	}
	if o, ok := v.(Object); ok {
		table, extra := o.members()
		return writeObject(b, table, *extra)
	}
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // the encoder's line end
	return nil
}
