package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestExportTellsTheReviewedRecords: the rows of every recording say what its
// reviewed records say, column by column.
func TestExportTellsTheReviewedRecords(t *testing.T) {
	unsaid := regexp.MustCompile(` aliases=\S+`) // no column
	for _, name := range captureNames(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data := t.TempDir()
			writeCaptures(t, data, []string{name})
			out, _ := runVerb(t, "export", "--data", data, "--format", "jsonl")
			var got []string
			for line := range strings.Lines(out) {
				got = append(got, recordOfRow(t, line))
			}
			b, err := os.ReadFile(filepath.Join("../../testdata/records", strings.TrimSuffix(name, ".jsonl")+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for line := range strings.Lines(unsaid.ReplaceAllString(string(b), "")) {
				if at := strings.Index(line, " digits="); at >= 0 { // an export says how many
					digits, rest, _ := strings.Cut(line[at+len(" digits="):], " ")
					line = fmt.Sprintf("%s digits=%d %s", line[:at], len(digits), rest)
				}
				want = append(want, strings.TrimSpace(line))
			}
			slices.Sort(got)
			slices.Sort(want)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("rows differ (-record +row):\n%s", d)
			}
		})
	}
}

// recordOfRow writes a row as record writes a call.
func recordOfRow(t *testing.T, line string) string {
	t.Helper()
	var r struct {
		Conversation, Account, Direction, Caller, Called, Outcome, Cause, Inferred string
		CallID                                                                     string `json:"call_id"`
		Callback, Recorded                                                         bool
		Ring                                                                       int64  `json:"ring_ms"`
		Talk                                                                       int64  `json:"talk_ms"`
		Hold                                                                       int64  `json:"hold_ms"`
		Kind                                                                       string `json:"transfer_kind"`
		Target                                                                     string `json:"transfer_target"`
		Result                                                                     string `json:"transfer_result"`
		Parent                                                                     string `json:"parent_call"`
		Digits                                                                     int
		WebRTC                                                                     string `json:"webrtc_transport"`
	}
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	when := func(ok bool, format string, args ...any) {
		if ok {
			fmt.Fprintf(&b, " "+format, args...)
		}
	}
	fmt.Fprintf(&b, "%s/%s %s", r.Account, r.CallID, r.Direction)
	when(r.Callback, "callback")
	when(true, "%s>%s ring=%d talk=%d hold=%d %s %s", r.Caller, r.Called, r.Ring, r.Talk, r.Hold, r.Outcome, r.Cause)
	when(r.Kind != "", "%s-transfer-to=%s(%s)", r.Kind, r.Target, r.Result)
	when(r.Parent != "", "consults-for=%s", r.Parent)
	when(r.Digits > 0, "digits=%d", r.Digits)
	when(r.Recorded, "recorded")
	when(r.WebRTC != "", "webrtc=%s", r.WebRTC)
	when(r.Inferred != "", "inferred=%s", r.Inferred)
	return b.String() + "  conversation " + r.Conversation
}
