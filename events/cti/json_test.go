package cti

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/callstate/callstate/events"
)

// reference is what AppendEvent promises to equal.
func reference(t testing.TB, v any) string {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

// awkward draws strings with everything that JSON treats apart.
func awkward() *rapid.Generator[string] {
	piece := rapid.OneOf(
		rapid.Just(""), rapid.Just("1004@acme.example"), rapid.Just(`<a&"b\c/'>`), rapid.Just("\b\f\n\r\t\x00\x1f\x7f"),
		rapid.Just("\u2028\u2029\u2027\ufffd"), rapid.Just("\xff\xc3("), rapid.Just("Ірина 😀"), rapid.Just("\xe2\x80"),
		rapid.String(), rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 8), func(b []byte) string { return string(b) }),
	)
	return rapid.Custom(func(t *rapid.T) string {
		return piece.Draw(t, "a") + piece.Draw(t, "b")
	})
}

// draw fills every field of v, so that a field added to the types is covered
// from then on.
func draw(t *rapid.T, v reflect.Value, name string) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			draw(t, v.Field(i), name+"."+v.Type().Field(i).Name)
		}
	case reflect.Pointer:
		if rapid.Bool().Draw(t, name+" set") {
			v.Set(reflect.New(v.Type().Elem()))
			draw(t, v.Elem(), name)
		}
	case reflect.Slice:
		if n := rapid.IntRange(-1, 3).Draw(t, name+" length"); n >= 0 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
			for i := range n {
				draw(t, v.Index(i), name)
			}
		}
	case reflect.String:
		v.SetString(awkward().Draw(t, name))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, name))
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.Int64().Draw(t, name))
	case reflect.Float64:
		v.SetFloat(rapid.OneOf(rapid.Float64Range(0, 1000), rapid.Float64()).Draw(t, name))
	case reflect.Uint8:
		v.SetUint(uint64(rapid.Uint8().Draw(t, name)))
	case reflect.Uint64:
		v.SetUint(rapid.Uint64().Draw(t, name))
	default:
		t.Fatalf("%s: no generator for kind %s", name, v.Kind())
	}
}

func TestAppendEventEqualsEncodingJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var e Event
		draw(t, reflect.ValueOf(&e).Elem(), "event")
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(e); err != nil {
			t.Fatal(err)
		}
		want := string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
		if got := string(AppendEvent(nil, &e)); got != want {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	})
}

func TestAppendEventReadsBack(t *testing.T) {
	e := sampleEvent()
	var got Event
	if err := json.Unmarshal(AppendEvent(nil, &e), &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(e, got); d != "" {
		t.Errorf("event changed on the way (-sent +read):\n%s", d)
	}
}

func TestAppendEventOfZeroAndSample(t *testing.T) {
	sample := sampleEvent()
	for _, e := range []*Event{{}, {Call: &Call{}, Line: &Line{}}, &sample} {
		if got, want := string(AppendEvent([]byte("x"), e)), "x"+reference(t, e); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestAppendEventDoesNotAllocate(t *testing.T) {
	e, b := sampleEvent(), make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { b = AppendEvent(b[:0], &e) }); n != 0 {
		t.Errorf("AppendEvent allocates %v times", n)
	}
}

// sampleEvent is a callFinished as the captures give it.
func sampleEvent() Event {
	const at = events.Time(1750000000000000)
	return Event{
		Event: CallFinished, Position: 4711, Seq: 9, LineSeq: 1204, Time: at, Domain: "acme.example",
		Account: "1004@acme.example", CallID: "a2e60000-0000-4000-8000-000000000001",
		Conversation: "a2e60000-0000-4000-8000-000000000000",
		Call: &Call{
			ID: "a2e60000-0000-4000-8000-000000000001", Aliases: []string{"b7"}, State: StateNone, StateName: "NONE",
			OldState: StateConnected, Direction: events.In, CallerID: "+380671112233", CallerName: "Ірина", CalledID: "1004",
			CallFeaturesSet: Idle, Features: Idle.Names(), DeviceID: "1004", OtherLegUUID: "c1", Cause: "NORMAL_CLEARING",
			CauseCode: 16, HungupBy: "other", Outcome: OutcomeAnswered, StartedAt: at - 90e6, AnsweredAt: at - 80e6,
			BridgedAt: at - 80e6, EndedAt: at, RingMs: 10000, TalkMs: 80000,
			Legs: []Leg{{ID: "a2e60000-0000-4000-8000-000000000001", Partner: "c1", Primary: true, Answered: true, Ended: true}},
		},
	}
}

func BenchmarkAppendEvent(b *testing.B) {
	e, buf := sampleEvent(), make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendEvent(buf[:0], &e)
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkEncodingJSON(b *testing.B) {
	e := sampleEvent()
	var n int
	b.ReportAllocs()
	for b.Loop() {
		p, err := json.Marshal(&e)
		if err != nil {
			b.Fatal(err)
		}
		n = len(p)
	}
	b.SetBytes(int64(n))
}
