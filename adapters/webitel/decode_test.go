package webitel

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/testdata/captures"
)

// captured is one frame of a recording.
type captured struct {
	file string
	raw  []byte
}

// recordings returns every frame of the recordings that match one of globs.
func recordings(tb testing.TB, globs ...string) []captured {
	tb.Helper()
	var out []captured
	for _, glob := range globs {
		names, err := captures.List(glob)
		if err != nil || len(names) == 0 {
			tb.Fatalf("no recording matches %s: %v", glob, err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "17-verto-frames.jsonl") {
				continue // JSON-RPC of mod_verto
			}
			read := captures.Lines
			if strings.HasPrefix(name, "webitel-v3/") {
				read = captures.ServerFrames
			}
			lines, err := read(name)
			if err != nil {
				tb.Fatal(err)
			}
			for _, l := range lines {
				out = append(out, captured{name, l})
			}
		}
	}
	return out
}

// everything is all frames that a server or switch sent in any recording.
var everything = sync.OnceValues(func() ([]captured, error) {
	var tb fatalError
	out := recordings(&tb, "freeswitch/*.jsonl", "freeswitch/webitel-view/*.jsonl", "webitel-v3/*.jsonl")
	return out, tb.err
})

// fatalError lets recordings run outside a test.
type fatalError struct {
	testing.TB
	err error
}

func (*fatalError) Helper() {}

func (f *fatalError) Fatal(args ...any) { f.err = args[0].(error) }

func (f *fatalError) Fatalf(format string, _ ...any) { f.err = errors.New(format) }

func allCaptured(t *testing.T) []captured {
	t.Helper()
	out, err := everything()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// theirs is what encoding/json makes of a header's value.
func theirs(h header, raw json.RawMessage) (text string, form form) {
	if raw == nil {
		return "", absent
	}
	if h == hExecResponse {
		return string(raw), plain
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return err.Error(), wrongType
	}
	if list, ok := v.([]any); ok {
		for _, e := range list {
			switch e.(type) {
			case []any, map[string]any:
				return "", wrongType
			}
		}
		switch {
		case len(list) == 0:
			return "", absent
		case h == hTransferHistory:
			v = list[len(list)-1]
		default:
			v = list[0]
		}
	}
	switch v := v.(type) {
	case string:
		return v, plain
	case json.Number:
		return v.String(), plain
	case bool:
		return map[bool]string{true: "true", false: "false"}[v], plain
	case nil:
		return "", absent
	}
	return "", wrongType
}

// compare checks one decode against encoding/json.
func compare(t *testing.T, b []byte) {
	t.Helper()
	f, err := Decode(b)
	if _, ok := errors.AsType[*DecodeError](err); err != nil && !ok {
		t.Fatalf("Decode: %v is no DecodeError", err)
	}
	if errors.Is(err, ErrTooDeep) || errors.Is(err, ErrTooLarge) {
		return // limits of ours
	}
	var theirMap map[string]json.RawMessage
	theirErr := json.Unmarshal(b, &theirMap)
	if theirErr != nil && !json.Valid(b) {
		if !errors.Is(err, ErrNotJSON) && !errors.Is(err, ErrTruncated) {
			t.Fatalf("encoding/json: %v; Decode: %v", theirErr, err)
		}
		return
	}
	if errors.Is(err, ErrNotJSON) || errors.Is(err, ErrTruncated) {
		t.Fatalf("Decode refuses what encoding/json reads: %v", err)
	}
	if theirErr != nil || theirMap == nil {
		if !errors.Is(err, ErrType) {
			t.Fatalf("no object, but Decode: %v", err)
		}
		return
	}
	wrong, encoding := false, false
	for h := hEventName; h < numHeaders; h++ {
		raw := theirMap[headerNames[h]]
		want, wantForm := theirs(h, raw)
		wrong = wrong || wantForm == wrongType
		if !utf8.Valid(raw) {
			encoding = true
			continue
		}
		if err != nil {
			continue
		}
		got, gotForm := string(f.bytes(h)), f.at[h].form
		if gotForm == escaped {
			gotForm = plain
		}
		if got != want || gotForm != wantForm {
			t.Fatalf("%s: got %q (%d), encoding/json has %q (%d)", headerNames[h], got, gotForm, want, wantForm)
		}
	}
	switch {
	case err == nil && wrong:
		t.Fatal("a value of a wrong type passed")
	case errors.Is(err, ErrType) && !wrong:
		t.Fatalf("no value of a wrong type, but %v", err)
	case errors.Is(err, ErrEncoding) && !encoding:
		t.Fatalf("all is UTF-8, but %v", err)
	case errors.Is(err, ErrNotFrame):
		for _, h := range []header{hEventName, hWebitelEventName} {
			if text, _ := theirs(h, theirMap[headerNames[h]]); text != "" && !encoding {
				t.Fatalf("has %s, but %v", headerNames[h], err)
			}
		}
	}
	if err == nil && f.Kind == KindReply && !bytes.Equal(f.Reply.Response, theirMap["exec-response"]) {
		t.Fatalf("exec-response: got %s, want %s", f.Reply.Response, theirMap["exec-response"])
	}
}

func TestEveryCapturedFrameDecodesAsEncodingJSONReadsIt(t *testing.T) {
	t.Parallel()
	kinds := make(map[Kind]int)
	paths := make(map[string]int)
	for _, c := range allCaptured(t) {
		f, err := Decode(c.raw)
		if err != nil {
			t.Fatalf("%s: %v\n%.200s", c.file, err, c.raw)
		}
		kinds[f.Kind]++
		paths[f.Path]++
		compare(t, c.raw)
	}
	if kinds[KindUnknown] != 0 {
		t.Errorf("%d frames are unknown", kinds[KindUnknown])
	}
	for _, k := range []Kind{KindReply, KindLeg, KindAccount, KindOther} {
		if kinds[k] == 0 {
			t.Errorf("no frame of kind %d", k)
		}
	}
	for _, p := range []string{events.PathServer, events.PathAccount, events.PathSwitch, ""} {
		if paths[p] == 0 {
			t.Errorf("no frame on path %q", p)
		}
	}
	t.Logf("kinds %v, paths %v", kinds, paths)
}

func TestDecodeMapMeansTheSame(t *testing.T) {
	t.Parallel()
	for i, c := range allCaptured(t) {
		if testing.Short() && i%10 != 0 {
			continue
		}
		ours, err := Decode(c.raw)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := DecodeMap(c.raw)
		if err != nil {
			t.Fatalf("%s: %v\n%.200s", c.file, err, c.raw)
		}
		want, got := Normalise(&ours, testSource, testArrival), Normalise(&theirs, testSource, testArrival)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%s: DecodeMap means %+v, Decode %+v", c.file, got, want)
		}
	}
	for _, bad := range []string{`{"Event-Name":`, `{}`, `{"Event-Name":{}}`, `{"Event-Name":["CHANNEL_CREATE",[]]}`, `[]`} {
		_, ours := Decode([]byte(bad))
		_, theirs := DecodeMap([]byte(bad))
		if ours == nil || theirs == nil {
			t.Errorf("%s: Decode says %v, DecodeMap %v", bad, ours, theirs)
		}
	}
}

// What clients sent that is no JSON in the recordings is what they sent on
// purpose (02-failures); the server never does.
func TestRawFramesComeFromClientsOnly(t *testing.T) {
	t.Parallel()
	names, err := captures.List("webitel-v3/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, name := range names {
		lines, err := captures.Transcript(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			if l.Raw == nil {
				continue
			}
			seen++
			if l.Dir != "out" || !strings.HasPrefix(name, "webitel-v3/02-") {
				t.Errorf("%s: %s: %q", name, l.Dir, *l.Raw)
			}
			if _, err := Decode([]byte(*l.Raw)); err == nil {
				t.Errorf("%s: %q decodes", name, *l.Raw)
			}
		}
	}
	if seen == 0 {
		t.Error("no raw frame in the recordings")
	}
}

func TestDecodeTellsFramesApart(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, frame string
		kind        Kind
		path, event string
	}{
		{"reply", `{"exec-uuid":"1","exec-complete":"+OK"}`, KindReply, "", ""},
		{"reply with a number for an id", `{"exec-uuid":1}`, KindReply, "", ""},
		{"account path", `{"webitel-event-name":"call","Event-Name":"CHANNEL_CREATE"}`, KindLeg, events.PathAccount, "CHANNEL_CREATE"},
		{"server path", `{"Event-Name":"SE:CHANNEL_CREATE","webitel-event-name":"server"}`, KindLeg, events.PathServer, "CHANNEL_CREATE"},
		{"switch", `{"Event-Name":"CHANNEL_CREATE","Core-UUID":"c"}`, KindLeg, events.PathSwitch, "CHANNEL_CREATE"},
		{"heartbeat", `{"Event-Name":"SE:HEARTBEAT","webitel-event-name":"server"}`, KindOther, events.PathServer, "HEARTBEAT"},
		{"log of the dialplan", `{"Event-Name":"SE::BROADCAST","webitel-event-name":"server"}`, KindOther, events.PathServer, "SE::BROADCAST"},
		{"call centre", `{"Event-Name":"CC::AGENT-OFFERING","webitel-event-name":"server"}`, KindOther, events.PathServer, "CC::AGENT-OFFERING"},
		{"account", `{"Event-Name":"ACCOUNT_ONLINE","webitel-event-name":"user"}`, KindAccount, "", "ACCOUNT_ONLINE"},
		{"account status", `{"Event-Name":"ACCOUNT_STATUS","webitel-event-name":"ACCOUNT_STATUS"}`, KindAccount, "", "ACCOUNT_STATUS"},
		{"user", `{"Event-Name":"USER_CREATE","webitel-event-name":"USER_CREATE"}`, KindOther, "", "USER_CREATE"},
		{"disconnect", `{"webitel-event-name":"account","Event-Name":"DISCONNECT"}`, KindOther, "", "DISCONNECT"},
		{"message", `{"webitel-event-name":"WEBITEL-CUSTOM","Event-Name":"ANYTHING"}`, KindOther, "", "ANYTHING"},
		{"conference", `{"Event-Name":"CUSTOM","Event-Subclass":"conference%3A%3Amaintenance","Action":"add-member"}`, KindLeg, events.PathSwitch, "CUSTOM"},
		{"other conference action", `{"Event-Name":"CUSTOM","Event-Subclass":"conference::maintenance","Action":"floor-change"}`, KindOther, events.PathSwitch, "CUSTOM"},
		{"other subclass", `{"Event-Name":"CUSTOM","Event-Subclass":"sofia::register","Action":"add-member"}`, KindOther, events.PathSwitch, "CUSTOM"},
		{"unknown to the switch", `{"Event-Name":"CHANNEL_EXPLODED"}`, KindUnknown, events.PathSwitch, "CHANNEL_EXPLODED"},
		{"unknown source", `{"webitel-event-name":"x","Event-Name":"CHANNEL_CREATE"}`, KindUnknown, "", "CHANNEL_CREATE"},
		{"null source", `{"webitel-event-name":null,"Event-Name":"DTMF"}`, KindLeg, events.PathSwitch, "DTMF"},
		{"escaped name", `{"Event\u002dName":"CHANNEL_\u0048OLD"}`, KindLeg, events.PathSwitch, "CHANNEL_HOLD"},
		{"repeated name", `{"Event-Name":"COMMAND","Event-Name":"PRIVATE_COMMAND"}`, KindOther, events.PathSwitch, "PRIVATE_COMMAND"},
		{"no-op first, call event last", `{"Event-Name":"API","Event-Name":"CHANNEL_HOLD"}`, KindLeg, events.PathSwitch, "CHANNEL_HOLD"},
		{"blanks", " {\n\t\"Event-Name\" :\r \"DTMF\" } ", KindLeg, events.PathSwitch, "DTMF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, err := Decode([]byte(tt.frame))
			if err != nil {
				t.Fatal(err)
			}
			if f.Kind != tt.kind || f.Path != tt.path || f.Event != tt.event {
				t.Errorf("got kind %d, path %q, event %q; want %d, %q, %q", f.Kind, f.Path, f.Event, tt.kind, tt.path, tt.event)
			}
			compare(t, []byte(tt.frame))
		})
	}
}

// badFrames are bytes that are no frame, one row for each way.
var badFrames = []struct {
	name, frame string
	want        error
	reason      string
}{
	{"empty", "", ErrNotJSON, "not-json"},
	{"blank", " \n", ErrNotJSON, "not-json"},
	{"text", "hello", ErrNotJSON, "not-json"},
	{"bytes", "\x00\xff\x01", ErrNotJSON, "not-json"},
	{"array", `[{"Event-Name":"DTMF"}]`, ErrType, "wrong-type"},
	{"string", `"Event-Name"`, ErrType, "wrong-type"},
	{"number", `12`, ErrType, "wrong-type"},
	{"null", `null`, ErrType, "wrong-type"},
	{"array, garbage after", `[1] x`, ErrNotJSON, "not-json"},
	{"empty object", `{}`, ErrNotFrame, "not-a-frame"},
	{"no header of ours", `{"jsonrpc":"2.0","id":1}`, ErrNotFrame, "not-a-frame"},
	{"reply without id", `{"exec-complete":"+OK"}`, ErrNotFrame, "not-a-frame"},
	{"garbage after", `{"Event-Name":"DTMF"}}`, ErrNotJSON, "not-json"},
	{"two frames", `{"Event-Name":"DTMF"}{"Event-Name":"DTMF"}`, ErrNotJSON, "not-json"},
	{"comma at the end", `{"Event-Name":"DTMF",}`, ErrNotJSON, "not-json"},
	{"no comma", `{"Event-Name":"DTMF" "a":1}`, ErrNotJSON, "not-json"},
	{"no colon", `{"Event-Name" "DTMF"}`, ErrNotJSON, "not-json"},
	{"bare name", `{Event-Name:"DTMF"}`, ErrNotJSON, "not-json"},
	{"single quotes", `{'Event-Name':'DTMF'}`, ErrNotJSON, "not-json"},
	{"line break in a string", "{\"a\":\"b\nc\",\"Event-Name\":\"DTMF\"}", ErrNotJSON, "not-json"},
	{"bad escape", `{"a":"\x41","Event-Name":"DTMF"}`, ErrNotJSON, "not-json"},
	{"bad unicode escape", `{"a":"\u00g0","Event-Name":"DTMF"}`, ErrNotJSON, "not-json"},
	{"leading zero", `{"a":01,"Event-Name":"DTMF"}`, ErrNotJSON, "not-json"},
	{"bare minus", `{"a":-,"Event-Name":"DTMF"}`, ErrNotJSON, "not-json"},
	{"bare point", `{"a":1.,"Event-Name":"DTMF"}`, ErrNotJSON, "not-json"},
	{"bare exponent", `{"a":1e+,"Event-Name":"DTMF"}`, ErrNotJSON, "not-json"},
	{"not a number", `{"a":NaN,"Event-Name":"DTMF"}`, ErrNotJSON, "not-json"},
	{"half a word", `{"a":nul,"Event-Name":"DTMF"}`, ErrNotJSON, "not-json"},
	{"garbage where nothing is read", `{"Event-Name":"API","body":{"x":[1,2,}]}}`, ErrNotJSON, "not-json"},
	{"brackets crossed", `{"a":[1},"Event-Name":"DTMF"]`, ErrNotJSON, "not-json"},
	{"cut in a name", `{"Event-Na`, ErrTruncated, "truncated"},
	{"cut in a value", `{"Event-Name":"DT`, ErrTruncated, "truncated"},
	{"cut in an escape", `{"Event-Name":"DT\u00`, ErrTruncated, "truncated"},
	{"cut after a backslash", `{"Event-Name":"DT\`, ErrTruncated, "truncated"},
	{"cut after a value", `{"Event-Name":"DTMF"`, ErrTruncated, "truncated"},
	{"cut after a colon", `{"Event-Name":`, ErrTruncated, "truncated"},
	{"cut after a comma", `{"Event-Name":"DTMF",`, ErrTruncated, "truncated"},
	{"cut in a word", `{"Event-Name":"DTMF","a":tru`, ErrTruncated, "truncated"},
	{"cut in a number", `{"Event-Name":"DTMF","a":-`, ErrTruncated, "truncated"},
	{"cut in a list", `{"Event-Name":"DTMF","variable_transfer_history":["a",`, ErrTruncated, "truncated"},
	{"an object for a text", `{"Event-Name":"DTMF","Unique-ID":{"a":"b"}}`, ErrType, "wrong-type"},
	{"an object in a list", `{"Event-Name":"DTMF","Unique-ID":["a",{}]}`, ErrType, "wrong-type"},
	{"a list in a list", `{"Event-Name":"DTMF","Unique-ID":[[]]}`, ErrType, "wrong-type"},
	{"an object for the event's name", `{"Event-Name":{}}`, ErrType, "wrong-type"},
	{"not UTF-8", "{\"Event-Name\":\"DTMF\",\"Unique-ID\":\"a\xffb\"}", ErrEncoding, "bad-encoding"},
	{"half a rune", "{\"Event-Name\":\"DTMF\",\"Caller-Caller-ID-Name\":\"\xd0\"}", ErrEncoding, "bad-encoding"},
	{"a response that is not UTF-8", "{\"exec-uuid\":\"1\",\"exec-response\":{\"a\":\"\xff\"}}", ErrEncoding, "bad-encoding"},
	{"too deep", `{"Event-Name":"DTMF","a":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, ErrTooDeep, "too-deep"},
	{"endless nesting", `{"Event-Name":"DTMF","a":` + strings.Repeat(`{"a":`, 100_000), ErrTooDeep, "too-deep"},
	{"10 MB", `{"Event-Name":"DTMF","a":"` + strings.Repeat("x", 10<<20) + `"}`, ErrTooLarge, "too-large"},
}

func TestBadBytesGiveTheirSentinel(t *testing.T) {
	t.Parallel()
	for _, tt := range badFrames {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Decode([]byte(tt.frame))
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if bad, ok := errors.AsType[*DecodeError](err); !ok || bad.Reason() != tt.reason {
				t.Errorf("got %#v, want reason %s", err, tt.reason)
			}
			if len(err.Error()) > 200 {
				t.Errorf("the error is as long as the frame: %.200s...", err)
			}
			if len(tt.frame) < MaxFrame {
				compare(t, []byte(tt.frame))
			}
		})
	}
}

// A frame cut anywhere is truncated, and never taken for a whole one.
func TestEveryPrefixIsTruncated(t *testing.T) {
	t.Parallel()
	frame := []byte(`{"Event-Name":"SE:DTMF","webitel-event-name":"server","a":[1.5e-3,{"b":[]},"\u00e9\n"],` +
		`"variable_transfer_history":["x","\ud83d\ude00"],"Unique-ID":"u","n":null,"t":true}`)
	for n := 1; n < len(frame); n++ {
		if _, err := Decode(frame[:n]); !errors.Is(err, ErrTruncated) {
			t.Fatalf("%s: got %v", frame[:n], err)
		}
	}
	if _, err := Decode(frame); err != nil {
		t.Fatal(err)
	}
}

func TestLeniencyOfValues(t *testing.T) {
	t.Parallel()
	const h = hPresence
	for _, tt := range []struct{ name, value, want string }{
		{"text", `"1001@demo.local"`, "1001@demo.local"},
		{"number", `1001`, "1001"},
		{"boolean", `true`, "true"},
		{"null", `null`, ""},
		{"list", `["a","b"]`, "a"},
		{"list of numbers", ` [ 1 , 2 ] `, "1"},
		{"empty list", `[]`, ""},
		{"null in a list", `[null,"b"]`, ""},
		{"escapes", `"\u0031\/\"\\\b\f\n\r\t"`, "1/\"\\\b\f\n\r\t"},
		{"surrogates", `"\ud83d\ude00"`, "😀"},
		{"lone surrogate", `"\ud83dx"`, "\ufffdx"},
		{"two high surrogates", `"\ud83d\ud83d\ude00"`, "\ufffd😀"},
		{"reversed surrogates", `"\ude00\ud83d"`, "\ufffd\ufffd"},
		{"surrogate at the end", `"\ud83d"`, "\ufffd"},
		{"NUL", `"a\u0000b"`, "a\x00b"},
		{"repeated, last wins", `"a","Channel-Presence-ID":"b"`, "b"},
		{"repeated, null last", `"a","Channel-Presence-ID":null`, ""},
		{"repeated, wrong type first", `{"x":1},"Channel-Presence-ID":"b"`, "b"},
		{"repeated, not UTF-8 first", "\"\xff\",\"Channel-Presence-ID\":\"b\"", "b"},
		{"repeated, list first", `["a","b"],"Channel-Presence-ID":["c"]`, "c"},
		{"other case is another member", `"a","channel-presence-id":"b"`, "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := []byte(`{"Event-Name":"DTMF","Channel-Presence-ID":` + tt.value + `}`)
			f, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(f.bytes(h)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			compare(t, b)
		})
	}
}

// FuzzObserve holds the decoder against encoding/json: what that refuses is
// refused, what it reads is read the same. Whatever comes, an input has at most
// one meaning and does not refer to the bytes.
func FuzzObserve(f *testing.F) {
	seen := make(map[string]bool)
	for _, c := range recordings(f, "freeswitch/0*.jsonl", "freeswitch/1[0-5]*.jsonl", "freeswitch/17-verto.jsonl",
		"freeswitch/webitel-view/07*.jsonl", "webitel-v3/01*.jsonl", "webitel-v3/10*.jsonl", "webitel-v3/30*.jsonl") {
		frame, err := Decode(c.raw)
		if err != nil {
			f.Fatal(err)
		}
		if key := frame.Path + " " + frame.Event + frame.Reply.Complete; !seen[key] {
			seen[key] = true
			f.Add(c.raw)
		}
	}
	for _, tt := range badFrames {
		if len(tt.frame) < 1000 {
			f.Add([]byte(tt.frame))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		compare(t, b)
		checkInput(t, b)
	})
}
