package main

import (
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"unicode"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// What --mask hides: of a number all digits but the last two, of a name all but
// the initials, of digits that were keyed all, and free text whole. The same
// input gives the same output, so that masked rows still group; two numbers may
// look alike. Ids of calls, legs and conversations are random and stay; one that
// is not is treated as text.

const maskUsage = "hide numbers but for the last two digits, names but for the initials"

// maskKind is how a field is masked.
type maskKind uint8

const (
	maskAsText maskKind = iota // digit runs of three and more; the kind of every field that is not listed
	maskAsNumber
	maskAsName
	maskAsDigits
	maskAsPrivate
	maskAsChannel
)

// maskKinds are the fields of events, payloads and views by their JSON names. A
// field that is not here is masked as text, so that a new one does not leak a
// number; a new field that holds a name must be listed.
var maskKinds = map[string]maskKind{
	"callerId": maskAsNumber, "calledId": maskAsNumber, "callerNumber": maskAsNumber, "calledNumber": maskAsNumber,
	"caller": maskAsNumber, "called": maskAsNumber, "number": maskAsNumber, "deviceId": maskAsNumber,
	"redirectingId": maskAsNumber, "redirectionId": maskAsNumber, "target": maskAsNumber, "destination": maskAsNumber,
	"account": maskAsNumber, "partnerAccount": maskAsNumber, "login": maskAsNumber, "presence": maskAsNumber,
	"callerName": maskAsName, "calledName": maskAsName, "channel": maskAsChannel,
	"digit": maskAsDigits, "digits": maskAsDigits,
	"data": maskAsPrivate, "note": maskAsPrivate, "agentStateNote": maskAsPrivate, "userStateNote": maskAsPrivate,
	"args": maskAsPrivate, "answer": maskAsPrivate,
}

// hidden stands for a text of which nothing is shown.
const hidden = "***"

// masked returns a deep copy of v, a view, an event, or slices and structs of
// them, in which numbers and names are masked.
func masked[T any](v T) T {
	out := reflect.New(reflect.TypeFor[T]()).Elem()
	out.Set(maskValue(reflect.ValueOf(&v).Elem(), ""))
	return out.Interface().(T)
}

// maskWith is masked where the flag is set.
func maskWith[T any](mask bool, v T) T {
	if mask {
		return masked(v)
	}
	return v
}

func maskValue(v reflect.Value, key string) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.String:
		out.SetString(maskString(key, v.String()))
	case reflect.Struct:
		maskStruct(v, out)
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return v
		}
		inner := maskValue(v.Elem(), key)
		if v.Kind() == reflect.Interface {
			out.Set(inner)
			break
		}
		p := reflect.New(v.Type().Elem())
		p.Elem().Set(inner)
		out.Set(p)
	case reflect.Slice:
		if v.IsNil() || v.Type().Elem().Kind() == reflect.Uint8 {
			return out // bytes are of an event that this version does not know
		}
		out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
		for i := range v.Len() {
			out.Index(i).Set(maskValue(v.Index(i), key))
		}
	case reflect.Map:
		if v.IsNil() {
			return v
		}
		out.Set(reflect.MakeMapWithSize(v.Type(), v.Len()))
		for it := v.MapRange(); it.Next(); {
			out.SetMapIndex(it.Key(), maskValue(it.Value(), it.Key().String()))
		}
	default:
		return v
	}
	return out
}

func maskStruct(v, out reflect.Value) {
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		if !sf.IsExported() {
			continue // ours have none
		}
		name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			name = sf.Name
		}
		out.Field(i).Set(maskValue(v.Field(i), name))
	}
	switch e := out.Addr().Interface().(type) {
	case *events.Event:
		e.ID = maskEventID(v.Interface().(events.Event).ID)
	case *events.CommandRequested:
		e.By = maskNumber(v.Interface().(events.CommandRequested).By) // a user as a rule; of a hangup it is a side
	case *engine.Evidence:
		in := v.Interface().(engine.Evidence)
		e.Value = in.Value
		if field := in.Field[strings.LastIndexByte(in.Field, '.')+1:]; !figures.MatchString(field) {
			e.Value = maskString(field, in.Value)
		}
	}
}

func maskString(key, s string) string {
	if s == "" {
		return ""
	}
	switch maskKinds[key] {
	case maskAsNumber:
		return maskNumber(s)
	case maskAsName:
		return maskName(s)
	case maskAsDigits:
		return strings.Repeat("x", len([]rune(s)))
	case maskAsPrivate:
		return hidden
	case maskAsChannel:
		return maskChannel(s)
	default:
		return maskText(s)
	}
}

// maskNumber masks a number, an account or another address.
func maskNumber(s string) string {
	if user, domain, ok := strings.Cut(s, "@"); ok {
		return maskNumber(user) + "@" + maskText(domain)
	}
	switch {
	case opaque.FindString(s) == s:
		return s
	case strings.ContainsFunc(s, unicode.IsLetter):
		if t := maskText(s); t != s || strings.Contains(s, "*") { // or was masked before
			return t
		}
		for _, first := range s {
			return string(first) + hidden
		}
	}
	return maskDigits(s)
}

// maskChannel masks the name of a channel: <module>/<profile>/<address>.
func maskChannel(s string) string {
	at := strings.LastIndexByte(s, '/') + 1
	if opaque.MatchString(s[at:]) {
		return maskText(s)
	}
	return maskText(s[:at]) + maskNumber(s[at:])
}

// maskDigits replaces every digit but the last two.
func maskDigits(s string) string {
	left := 0
	for _, r := range s {
		if unicode.IsDigit(r) {
			left++
		}
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsDigit(r) {
			return r
		}
		if left--; left < 2 {
			return r
		}
		return '*'
	}, s)
}

// maskName keeps the initials of up to three words.
func maskName(s string) string {
	var b strings.Builder
	n := 0
	for word := range strings.FieldsSeq(s) {
		if r := []rune(word)[0]; unicode.IsLetter(r) && n < 3 {
			b.WriteRune(r)
			b.WriteByte('.')
			n++
		}
	}
	if n == 0 {
		return hidden
	}
	return b.String()
}

// figures are the fields of evidence whose values are times, durations and codes.
var figures = regexp.MustCompile(`(At|Ms)$|^(packets\w+|mos|attempt|state|oldState|callFeaturesSet|causeCode)$`)

const opaqueForm = `[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}|\b[0-9a-fA-F]{32}\b`

var (
	opaque  = regexp.MustCompile(opaqueForm)
	numbers = regexp.MustCompile(opaqueForm + `|\p{Nd}[\p{Nd} ()./-]*\p{Nd}`)
)

// maskText masks the numbers in a text: every run of three digits or more,
// whatever signs stand between them. UUIDs stay.
func maskText(s string) string {
	return numbers.ReplaceAllStringFunc(s, func(m string) string {
		if opaque.FindString(m) == m {
			return m
		}
		return maskDigits(m)
	})
}

// maskEventID masks the account in the id of an event that no numbered frame
// caused: <connection>:<account or leg>@<time>:<n>. Counters and times stay.
func maskEventID(id string) string {
	parts := strings.Split(id, ":")
	for i, p := range parts {
		if at := strings.LastIndexByte(p, '@'); at > 0 {
			parts[i] = maskNumber(p[:at]) + p[at:]
		}
	}
	return strings.Join(parts, ":")
}

// maskEntry masks one entry of a golden's form, which is JSON of no Go type.
func maskEntry(x entry) (entry, error) {
	b, err := json.Marshal(x)
	if err != nil {
		return nil, err
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	return masked(doc), nil
}
