package webitel

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
)

// TestMembersAreGuessedOnly has what was learnt from other frames be wrong in
// every way: other names at the same place, names that begin alike, escaped and
// far too long ones, spaces before and behind the colon, more names than are kept,
// and readers at the same time.
func TestMembersAreGuessedOnly(t *testing.T) {
	const id = "4b3a8b1e-5d0e-4d52-9f2a-0c6f3a1d7e11"
	frames := []string{
		`{"webitel-event-name":"server","Event-Name":"SE:CHANNEL_HOLD","Unique-ID":"` + id + `","variable_a":"1"}`,
		`{"webitel-event-name":"server","Event-Name":"SE:CHANNEL_HOLD","Unique-ID2":"no","Unique-ID":"` + id + `"}`,
		`{"webitel-event-name":"server","Event-Name" : "SE:CHANNEL_HOLD","Unique-ID": "` + id + `","variable_b":"1"}`,
		`{"webitel-event-name":"server","\u0045vent-Name":"SE:CHANNEL_HOLD","Unique-\u0049D":"` + id + `","variable\u005fc":"1"}`,
		`{"webitel-event-name":"server","Event-Name":"SE:CHANNEL_HOLD","` + strings.Repeat("x", 300) + `":1,"Unique-ID":"` + id + `"}`,
		`{"Unique-ID":"` + id + `","webitel-event-name":"server","":"","Event-Name":"SE:CHANNEL_HOLD"}`,
	}
	var many strings.Builder
	many.WriteString(`{"webitel-event-name":"server"`)
	for i := range 2 * memberSlots {
		fmt.Fprintf(&many, `,"variable_%d":%d`, i, i)
	}
	many.WriteString(`,"Event-Name":"SE:CHANNEL_HOLD","Unique-ID":"` + id + `"}`)
	frames = append(frames, many.String())

	var readers sync.WaitGroup
	for r := range 4 {
		readers.Go(func() {
			for round := range 20 {
				text := frames[(r+round)%len(frames)]
				f, err := Decode([]byte(text))
				if err != nil {
					t.Errorf("%.100s: %v", text, err)
					continue
				}
				vars := strings.Contains(text, `"variable_`) || strings.Contains(text, `variable\u005f`)
				if f.Event != "CHANNEL_HOLD" || f.text(hUniqueID) != id || f.vars != vars {
					t.Errorf("%.100s: event %q, leg %q, variables %v", text, f.Event, f.text(hUniqueID), f.vars)
				}
			}
		})
	}
	readers.Wait()
}

// TestTruncatedMembers cuts a frame whose members are all known at each byte.
func TestTruncatedMembers(t *testing.T) {
	const frame = `{"Event-Name":"CHANNEL_HOLD" , "Unique-ID" :"a","Call-Direction":"inbound","variable_x":"y"}`
	for range 2 {
		if _, err := Decode([]byte(frame)); err != nil {
			t.Fatal(err)
		}
		for n := range len(frame) {
			want := &DecodeError{Offset: n, Size: n, fault: faultTruncated}
			if _, err := Decode([]byte(frame[:n])); n > 0 && !reflect.DeepEqual(err, error(want)) {
				t.Errorf("%s: %v, want %v", frame[:n], err, want)
			}
		}
	}
}
