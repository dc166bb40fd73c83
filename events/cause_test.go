package events

import (
	"encoding/json"
	"strconv"
	"testing"

	"github.com/callstate/callstate/testdata/captures"
)

func TestCauseCode(t *testing.T) {
	tests := []struct {
		text       string
		code, q850 int
	}{
		{"NORMAL_CLEARING", 16, 16},
		{"USER_BUSY", 17, 17},
		{"NO_USER_RESPONSE", 18, 18},
		{"NO_ANSWER", 19, 19},
		{"SUBSCRIBER_ABSENT", 20, 20},
		{"CALL_REJECTED", 21, 21},
		{"UNALLOCATED_NUMBER", 1, 1},
		{"NO_ROUTE_DESTINATION", 3, 3},
		{"DESTINATION_OUT_OF_ORDER", 27, 27},
		{"NORMAL_TEMPORARY_FAILURE", 41, 41},
		{"INTERWORKING", 127, 127},
		{"ORIGINATOR_CANCEL", 487, 16},
		{"LOSE_RACE", 702, 16},
		{"BLIND_TRANSFER", 800, 16},
		{"ATTENDED_TRANSFER", 801, 16},
		{"PICKED_OFF", 805, 16},
		{"USER_NOT_REGISTERED", 806, 16},
		{"NONE", 0, 0},
		{"", 0, 0},
		{"normal_clearing", 0, 0},
		{"Device or Permission Error", 0, 0},
	}
	for _, tt := range tests {
		if got := CauseCode(tt.text); got != tt.code {
			t.Errorf("CauseCode(%q) = %d, want %d", tt.text, got, tt.code)
		}
		if got := CauseQ850(tt.text); got != tt.q850 {
			t.Errorf("CauseQ850(%q) = %d, want %d", tt.text, got, tt.q850)
		}
	}
}

// TestCauseQ850AgreesWithCaptures compares with the switch's own pairs.
func TestEveryCauseHasItsOwnNumber(t *testing.T) {
	for text, code := range causeCodes {
		if got := CauseText(code); got != text {
			t.Errorf("CauseText(%d) = %q, want %q", code, got, text)
		}
	}
	if got := CauseText(9999); got != "" {
		t.Errorf("CauseText(9999) = %q, want none", got)
	}
}

func TestCauseQ850AgreesWithCaptures(t *testing.T) {
	names, err := captures.List("freeswitch/*.jsonl")
	if err != nil || len(names) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	checked := 0
	for _, name := range names {
		lines, err := captures.Lines(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			var ev struct {
				Cause string `json:"variable_hangup_cause"`
				Q850  string `json:"variable_hangup_cause_q850"`
			}
			if json.Unmarshal(line, &ev) != nil || ev.Q850 == "" {
				continue // a Verto frame, or no end of a leg
			}
			checked++
			if got := strconv.Itoa(CauseQ850(ev.Cause)); got != ev.Q850 {
				t.Errorf("%s: CauseQ850(%q) = %s, the switch says %s", name, ev.Cause, got, ev.Q850)
			}
		}
	}
	if checked == 0 {
		t.Error("the captures hold no cause")
	}
}
