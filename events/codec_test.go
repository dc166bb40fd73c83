package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// drawEvent draws an event of type t with any fields.
func drawEvent(t *rapid.T, typ Type) Event {
	p, version := NewPayload(typ)
	drawFields(t, reflect.ValueOf(p).Elem())
	e := Event{Version: version}
	drawFields(t, reflect.ValueOf(&e.Source).Elem())
	for name, s := range map[string]*string{
		"id": &e.ID, "domain": &e.Domain, "account": &e.Account,
		"call": &e.Call, "leg": &e.Leg, "conversation": &e.Conversation,
	} {
		*s = drawString.Draw(t, name)
	}
	if rapid.Bool().Draw(t, "idOfFrame") {
		e.ID = FrameID(&e.Source, rapid.IntRange(0, 1000).Draw(t, "number"))
	}
	e.OccurredAt = Time(drawTime.Draw(t, "occurredAt"))
	e.RecordedAt = Time(drawTime.Draw(t, "recordedAt"))
	e.TimeSource = TimeSource(rapid.IntRange(0, len(timeSourceNames)-1).Draw(t, "timeSource"))
	e.Origin = Origin(rapid.IntRange(0, len(originNames)-1).Draw(t, "origin"))
	e.Payload = p
	return e
}

var (
	drawString = rapid.OneOf(
		rapid.Just(""), rapid.String(), rapid.StringN(100, 200, -1),
		// UUIDs that come again, and texts that look like one.
		rapid.Map(rapid.IntRange(0, 11), func(i int) string { return fmt.Sprintf("a2e60000-0000-4000-8000-%012x", i) }),
		rapid.SampledFrom([]string{"A2E60000-0000-4000-8000-000000000001", "a2e60000-0000-4000-8000-00000000000g", "a2e6000000000-4000-8000-000000000001"}),
	)
	// The years 1 to 9999, which RFC 3339 can write.
	drawTime = rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(-62_135_596_700_000_000, 253_402_300_700_000_000))
)

func drawFields(t *rapid.T, v reflect.Value) {
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Name
		switch {
		case f.Type() == reflect.TypeFor[Time]():
			f.SetInt(drawTime.Draw(t, name))
		case f.Type() == reflect.TypeFor[[]string]():
			if list := rapid.SliceOf(drawString).Draw(t, name); len(list) > 0 {
				f.Set(reflect.ValueOf(list))
			}
		case f.Kind() == reflect.String:
			f.SetString(drawString.Draw(t, name))
		case f.Kind() == reflect.Bool:
			f.SetBool(rapid.Bool().Draw(t, name))
		case f.CanInt():
			f.SetInt(rapid.Int64().Draw(t, name))
		case f.CanUint():
			f.SetUint(rapid.Uint64().Draw(t, name))
		case f.CanFloat():
			f.SetFloat(rapid.Float64().Draw(t, name))
		case f.Kind() == reflect.Struct:
			drawFields(t, f)
		default:
			t.Fatalf("field %s: draw %v", name, f.Type())
		}
	}
}

func TestBinaryRoundTrip(t *testing.T) {
	for _, typ := range Types() {
		t.Run(string(typ), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				e := drawEvent(t, typ)
				b, err := AppendBinary([]byte("before"), &e)
				if err != nil {
					t.Fatal(err)
				}
				got, err := DecodeBinary(b[len("before"):])
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(e, got); d != "" {
					t.Fatalf("decoded event differs (-want +got):\n%s", d)
				}
			})
		})
	}
}

func TestJSONRoundTrip(t *testing.T) {
	for _, typ := range Types() {
		t.Run(string(typ), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				e := drawEvent(t, typ)
				e.Position = rapid.Uint64().Draw(t, "position")
				b, err := json.Marshal(e)
				if err != nil {
					t.Fatal(err)
				}
				var got Event
				if err := json.Unmarshal(b, &got); err != nil {
					t.Fatalf("%v in %s", err, b)
				}
				if d := cmp.Diff(e, got); d != "" {
					t.Fatalf("decoded event differs (-want +got):\n%s", d)
				}
			})
		})
	}
}

func TestJSONForm(t *testing.T) {
	e := sampleEvent()
	e.Position = 7
	b, err := json.Marshal(&e)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got["type"] != "call.hungup" || got["position"] != 7.0 || got["data"].(map[string]any)["cause"] != "NORMAL_CLEARING" {
		t.Errorf("unexpected form: %s", b)
	}
}

func TestJSONErrorsMatchCorrupt(t *testing.T) {
	for _, in := range []string{
		`{}`,
		`{"type":"call.new","data":[]}`,
		`{"type":"call.new","timeSource":"sundial","data":{}}`,
		`{"type":"call.teleported","data":{"raw":7}}`,
	} {
		var e Event
		if err := json.Unmarshal([]byte(in), &e); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v, want ErrCorrupt", in, err)
		}
	}
	if _, err := json.Marshal(Event{ID: "x"}); !errors.Is(err, ErrUnregistered) {
		t.Errorf("no payload: got %v, want ErrUnregistered", err)
	}
}

// An event that a newer program stored: a type we do not know, and a known type
// in a later version.
func TestUnknownEventIsKeptUnchanged(t *testing.T) {
	for _, e := range []Event{
		{ID: "a", Version: 1, Call: "c", Payload: &Unknown{Name: "call.teleported", Raw: []byte{0x0a, 1, 'x'}}},
		{ID: "b", Version: 1, Payload: &Unknown{Name: "call.teleported"}},
		{ID: "c", Version: 9, Payload: &Unknown{Name: TypeCallNew, Raw: []byte{0xff}}},
	} {
		b, err := AppendBinary(nil, &e)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeBinary(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(e, got); d != "" {
			t.Errorf("binary form differs (-want +got):\n%s", d)
		}
		if again, err := AppendBinary(nil, &got); err != nil || string(again) != string(b) {
			t.Errorf("encoded again: %x, %v; want %x", again, err, b)
		}
		j, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var fromJSON Event
		if err := json.Unmarshal(j, &fromJSON); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(e, fromJSON); d != "" {
			t.Errorf("JSON form differs (-want +got):\n%s", d)
		}
	}
}

func TestUnknownFieldsAreSkipped(t *testing.T) {
	want := Event{ID: "a", Version: 1, Payload: &CallDTMF{Digit: "5"}}
	payload := new(uuids).appendString(nil, 1, "5")
	payload = new(uuids).appendString(payload, 99, "later")
	payload = appendFloat(payload, 98, 1.5)
	b := []byte{formVersion}
	b = new(uuids).appendString(b, envID, "a")
	b = new(uuids).appendString(b, 200, "later")
	b = appendUint(b, 201, 1<<40)
	b = appendBytes(b, envPayload, payload) // before its type: order is free
	b = new(uuids).appendString(b, envType, string(TypeCallDTMF))
	b = appendInt(b, envVersion, 1)
	got, err := DecodeBinary(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("decoded event differs (-want +got):\n%s", d)
	}
}

func TestEncodeRefusesWhatIsNotRegistered(t *testing.T) {
	for _, p := range []Payload{nil, (*CallNew)(nil), (*Unknown)(nil), &Unknown{}, strangePayload{}} {
		b, err := AppendBinary([]byte("kept"), &Event{Payload: p})
		if !errors.Is(err, ErrUnregistered) || string(b) != "kept" {
			t.Errorf("%T: got %q, %v; want ErrUnregistered", p, b, err)
		}
	}
}

type strangePayload struct{}

func (strangePayload) EventType() Type { return TypeCallNew }

func TestDecodeErrors(t *testing.T) {
	e := sampleEvent()
	whole, err := AppendBinary(nil, &e)
	if err != nil {
		t.Fatal(err)
	}
	typed := func(payload ...byte) []byte {
		b := new(uuids).appendString([]byte{formVersion}, envType, string(TypeCallDTMF))
		return appendBytes(b, envPayload, payload)
	}
	tests := []struct {
		name string
		in   []byte
		want error
	}{
		{"empty", nil, ErrCorrupt},
		{"later form", []byte{formVersion + 1, 1, 2}, ErrVersion},
		{"no type", []byte{formVersion}, ErrCorrupt},
		{"cut short", whole[:len(whole)-1], ErrCorrupt},
		{"field number 0", typed(0x02, 0x00), ErrCorrupt},
		{"length beyond the end", typed(0x0a, 0x7f), ErrCorrupt},
		{"endless number", typed(0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), ErrCorrupt},
		{"text where a number belongs", typed(0x12, 0x01, 'x'), ErrCorrupt},
		{"wire type of no field", typed(0x9b, 0x06), ErrCorrupt},
		{"time source that does not fit", append(slices.Clip(whole), envTimeSource<<3, 0x80, 0x02), ErrCorrupt},
	}
	for _, tt := range tests {
		if _, err := DecodeBinary(tt.in); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestBadStructsPanicAtRegistration(t *testing.T) {
	for _, tt := range []struct {
		in   any
		want string
	}{
		{struct{ A string }{}, "no wire number"},
		{struct {
			A string `wire:"1"`
			B string `wire:"1"`
		}{}, "twice"},
		{struct {
			Hangup
			B string `wire:"1"`
		}{}, "twice"},
		{struct {
			A map[string]string `wire:"1"`
		}{}, "no stored form"},
		{struct {
			A []int `wire:"1"`
		}{}, "no stored form"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			defer func() {
				if r, _ := recover().(string); !strings.Contains(r, tt.want) {
					t.Errorf("%T: panic %q, want one about %q", tt.in, r, tt.want)
				}
			}()
			newPlan(reflect.TypeOf(tt.in))
		})
	}
}

func TestQuarantinedRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q Quarantined
		drawFields(t, reflect.ValueOf(&q.Source).Elem())
		q.ReceivedAt = Time(drawTime.Draw(t, "receivedAt"))
		q.Reason, q.Detail = drawString.Draw(t, "reason"), drawString.Draw(t, "detail")
		if b := rapid.SliceOf(rapid.Byte()).Draw(t, "frame"); len(b) > 0 {
			q.Frame = b
		}
		got, err := DecodeQuarantined(AppendQuarantined(nil, &q))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(q, got); d != "" {
			t.Fatalf("decoded frame differs (-want +got):\n%s", d)
		}
	})
}

func FuzzDecodeBinary(f *testing.F) {
	for _, typ := range Types() {
		p, version := NewPayload(typ)
		b, err := AppendBinary(nil, &Event{ID: "id", Version: version, Payload: p})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	e := sampleEvent()
	b, err := AppendBinary(nil, &e)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := DecodeQuarantined(b); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Errorf("quarantined: error %v matches no sentinel", err)
		}
		e, err := DecodeBinary(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Errorf("error %v matches no sentinel", err)
			}
			return
		}
		first, err := AppendBinary(nil, &e)
		if err != nil {
			t.Fatalf("what was decoded does not encode: %v", err)
		}
		again, err := DecodeBinary(first)
		if err != nil {
			t.Fatalf("our own form does not decode: %v", err)
		}
		// Compared as bytes: a NaN does not equal itself.
		second, err := AppendBinary(nil, &again)
		if err != nil || string(first) != string(second) {
			t.Fatalf("unstable: %x, then %x (%v)", first, second, err)
		}
	})
}

func sampleEvent() Event {
	return Event{
		ID: "d34d51d2-4886-4554-ac0e-187f92a8ccb8:684:0", Version: 1,
		Domain: "acme.example", Account: "1004@acme.example",
		Call:         "a2e60000-0000-4000-8000-000000000001",
		Leg:          "a2e60000-0000-4000-8000-000000000002",
		Conversation: "a2e60000-0000-4000-8000-000000000001",
		OccurredAt:   1795383915610245, TimeSource: TimeOfEvent, RecordedAt: 1795383915611000,
		Source: Source{
			Adapter: "webitel", Connection: "c1", Path: PathServer, Switch: "fs-demo",
			Core: "d34d51d2-4886-4554-ac0e-187f92a8ccb8", Sequence: 684,
		},
		Payload: &CallHungup{
			Hangup:  Hangup{Cause: "NORMAL_CLEARING", CauseCode: 16, By: "account", Disposition: "recv_bye"},
			EndedAt: 1795383915610000, BillSec: 42, HasBillSec: true,
		},
	}
}

func BenchmarkAppendBinary(b *testing.B) {
	e := sampleEvent()
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		out, err := AppendBinary(buf, &e)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(out)), "bytes")
	}
}

func BenchmarkDecodeBinary(b *testing.B) {
	e := sampleEvent()
	in, err := AppendBinary(nil, &e)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeBinary(in); err != nil {
			b.Fatal(err)
		}
	}
}
