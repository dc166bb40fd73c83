package verto

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/callstate/callstate/testdata/captures"
)

// transcripts returns every recorded Verto conversation.
func transcripts(t testing.TB) map[string][]captures.Line {
	t.Helper()
	names, err := captures.List("verto/*.jsonl")
	if err != nil || len(names) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	all := make(map[string][]captures.Line)
	for _, name := range append(names, "freeswitch/17-verto-frames.jsonl") {
		if all[name], err = captures.Transcript(name); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// isFrame tells recorded frames from notes and from texts that are no JSON.
func isFrame(l captures.Line) bool { return len(l.Frame) > 0 && l.Frame[0] == '{' }

// value reads JSON without the members that say nothing, which an encoder leaves
// out: empty texts and zeros. A number that was sent as a text is a number.
func value(t *testing.T, raw []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return significant(v)
}

func significant(v any) any {
	m, ok := v.(map[string]any)
	if !ok {
		return v
	}
	for name, member := range m {
		if member == "" || member == 0.0 {
			delete(m, name)
			continue
		}
		if text, is := member.(string); is && name == "causeCode" {
			if n, err := strconv.Atoi(text); err == nil {
				member = float64(n)
			}
		}
		m[name] = significant(member)
	}
	return m
}

// A recorded frame is the same after it was decoded and encoded, and so are its
// params and its result after they went through their type.
func TestDecodeRecordings(t *testing.T) {
	methods := make(map[string]int)
	frames := 0
	for name, lines := range transcripts(t) {
		asked := make(map[string]string) // our request's id to its method
		for i, l := range lines {
			if !isFrame(l) {
				continue
			}
			frames++
			f, err := Decode(l.Frame)
			if err != nil {
				t.Fatalf("%s line %d: %v", name, i+1, err)
			}
			again, err := f.Encode()
			if err != nil {
				t.Fatalf("%s line %d: %v", name, i+1, err)
			}
			if diff := cmp.Diff(value(t, l.Frame), value(t, again)); diff != "" {
				t.Errorf("%s line %d: frame (-recorded +ours):\n%s", name, i+1, diff)
			}
			fromServer := l.Dir == "in"
			var body json.RawMessage
			var typed Object
			switch f.Kind {
			case KindRequest:
				methods[l.Dir+" "+f.Method]++
				if !fromServer {
					asked[string(f.ID)] = f.Method
				}
				body, typed = f.Params, ParamsOf(f.Method, fromServer)
			case KindResult:
				body, typed = f.Result, ResultOf(asked[string(f.ID)])
				if !fromServer {
					typed = new(Ack)
				}
			}
			if typed != nil && body != nil {
				sameBody(t, name, i+1, body, typed)
			}
		}
	}
	if frames < 800 {
		t.Errorf("%d frames were read", frames)
	}
	for _, m := range []string{
		"in " + MethodInvite, "in " + MethodMedia, "in " + MethodAnswer, "in " + MethodBye, "in " + MethodDisplay,
		"in " + MethodAttach, "in " + MethodClientReady, "in " + MethodPunt, "in " + MethodPing, "in " + MethodEvent,
		"out " + MethodLogin, "out " + MethodInvite, "out " + MethodAnswer, "out " + MethodBye, "out " + MethodModify,
		"out " + MethodInfo, "out " + MethodAttach, "out " + MethodPing, "out " + MethodSubscribe,
	} {
		if methods[m] == 0 {
			t.Errorf("no recorded frame %q", m)
		}
	}
}

func sameBody(t *testing.T, name string, line int, body json.RawMessage, typed Object) {
	t.Helper()
	if err := Read(body, typed); err != nil {
		t.Fatalf("%s line %d: %v", name, line, err)
	}
	again, err := EncodeResult(nil, typed)
	if err != nil {
		t.Fatalf("%s line %d: %v", name, line, err)
	}
	f, err := Decode(again)
	if err != nil {
		t.Fatalf("%s line %d: %v", name, line, err)
	}
	if diff := cmp.Diff(value(t, body), value(t, f.Result)); diff != "" {
		t.Errorf("%s line %d: %T (-recorded +ours):\n%s", name, line, typed, diff)
	}
}

func TestDecodeLeniently(t *testing.T) {
	for _, tt := range []struct {
		name, params string
		want         Call
	}{
		{"numbers as texts", `{"callID":"a","causeCode":"487"}`, Call{CallID: "a", CauseCode: 487}},
		{"texts as numbers", `{"callID":7,"caller_id_number":1001}`, Call{CallID: "7", CallerIDNumber: "1001"}},
		{"a fraction", `{"causeCode":16.0}`, Call{CauseCode: 16}},
		{"null", `{"callID":null}`, Call{Extra: map[string]json.RawMessage{"callID": json.RawMessage("null")}}},
		{"the last of two", `{"cause":"A","cause":"B"}`, Call{Cause: "B"}},
		{"a header", `{"verto_h_Alert":"x"}`, Call{Extra: map[string]json.RawMessage{"verto_h_Alert": json.RawMessage(`"x"`)}}},
		{"a variable that is no text", `{"variables":{"a":{},"b":true}}`, Call{Variables: map[string]string{"b": "true"}}},
		{"absent", `null`, Call{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got Call
			if err := Read(json.RawMessage(tt.params), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, frame string
		want        error
	}{
		{"no JSON", "{not json", ErrNotJSON},
		{"nothing", "", ErrNotJSON},
		{"cut", `{"jsonrpc":"2.0"`, ErrNotJSON},
		{"a batch", `[{"jsonrpc":"2.0","method":"verto.ping"}]`, ErrType},
		{"neither", `{"jsonrpc":"2.0","id":1}`, ErrNotFrame},
		{"a method of no text", `{"method":{}}`, ErrType},
		{"not UTF-8", "{\"method\":\"\xff\"}", ErrEncoding},
		{"too large", `{"method":"` + strings.Repeat("x", MaxFrame) + `"}`, ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Decode([]byte(tt.frame))
			if !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if _, ok := errors.AsType[*DecodeError](err); !ok {
				t.Errorf("%T is not a DecodeError", err)
			}
		})
	}
}

func TestDecodeKinds(t *testing.T) {
	for frame, want := range map[string]Kind{
		`{"id":1,"method":""}`:                KindRequest,
		`{"id":1,"method":"x","result":{}}`:   KindRequest,
		`{"id":1,"result":{"method":"x"}}`:    KindResult,
		`{"id":1,"result":null}`:              KindResult,
		`{"id":null,"error":{"code":-32600}}`: KindError,
		`#SPU 100`:                            KindSpeedTest,
	} {
		f, err := Decode([]byte(frame))
		if err != nil || f.Kind != want {
			t.Errorf("%s: kind %d, %v, want %d", frame, f.Kind, err, want)
		}
	}
}

func TestErrorKinds(t *testing.T) {
	for raw, want := range map[string]error{
		`{"code":-32001,"message":"Authentication Failure"}`:  ErrCredentials,
		`{"code":-32001,"message":"Session in use"}`:          ErrSessionInUse,
		`{"code":-32000,"message":"Authentication Required"}`: ErrNotLoggedIn,
		`{"code":-32601,"message":"Invalid Method"}`:          ErrUnknown,
		`{"code":-32602,"message":"Permission Denied"}`:       ErrNotPermitted,
		`{"code":"-32002","message":"CALL DOES NOT EXIST"}`:   ErrNoCall,
		`{"code":-32002,"message":"CODEC ERROR"}`:             ErrCodec,
		`{"code":-32002,"message":"CALL ERROR"}`:              ErrRefused,
		`{"unauthorizedChannels":["x"]}`:                      ErrRefused,
	} {
		f, err := Decode([]byte(`{"id":1,"error":` + raw + `}`))
		if err != nil {
			t.Fatal(err)
		}
		if !errors.Is(f.Error, want) {
			t.Errorf("%s is %v, want %v", raw, f.Error, want)
		}
	}
}

func TestSharedVariables(t *testing.T) {
	var p Call
	raw := `{"variables":{"FreeSWITCH-Hostname":"pbx1","verto_svar_note":"hello"}}`
	if err := Read(json.RawMessage(raw), &p); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"note": "hello"}, p.Shared()); diff != "" {
		t.Error(diff)
	}
}

// Whatever bytes come: no panic, and what was decoded is the same after it was
// encoded and decoded again.
func FuzzDecode(f *testing.F) {
	seen := make(map[string]bool)
	for _, lines := range transcripts(f) {
		for _, l := range lines {
			fr, err := Decode(l.Frame)
			if key := l.Dir + fr.Method; err == nil && (fr.Kind != KindRequest || !seen[key]) {
				seen[key] = true
				f.Add([]byte(l.Frame))
			}
		}
	}
	f.Add([]byte("#SPU 5"))
	f.Add([]byte(`{"id":"x","method":1e300,"params":{"callID":[]},"error":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := Decode(b)
		if err != nil || fr.Kind == KindSpeedTest {
			return
		}
		enc, err := fr.Encode()
		if errors.Is(err, ErrTooLarge) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(enc)
		if err != nil {
			t.Fatalf("%v in %s", err, enc)
		}
		twice, err := again.Encode()
		if err != nil || string(twice) != string(enc) {
			t.Fatalf("%s became %s, %v", enc, twice, err)
		}
		for _, fromServer := range []bool{true, false} {
			if typed := ParamsOf(fr.Method, fromServer); typed != nil {
				if Read(fr.Params, typed) == nil {
					_, _ = EncodeRequest(1, fr.Method, typed)
				}
			}
		}
	})
}
