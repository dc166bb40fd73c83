package webitel

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/callstate/callstate/testdata/captures"
)

// silentAsCaptured are the names that fell silent in a recording: those that another
// socket gave up, and every second one when another socket died.
var silentAsCaptured = map[string][]string{
	"19-root-masks-the-unbind-fault.domain.jsonl": {"SE:CHANNEL_ANSWER", "SE:CHANNEL_HANGUP"},
	"24-own-old-socket-dies-late.new.jsonl":       {"SE:CHANNEL_ANSWER", "SE:CHANNEL_CALLSTATE", "SE:CHANNEL_CREATE", "SE:CHANNEL_HANGUP", "SE:CHANNEL_UNBRIDGE"},
}

// TestNamesAsCaptured: nothing is thought silent in what a server sent that was
// whole, and the half that fell silent when another socket died is found, name by
// name.
func TestNamesAsCaptured(t *testing.T) {
	names, err := captures.List("webitel-v3/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	judged := 0
	for _, name := range names {
		t.Run(strings.TrimPrefix(name, "webitel-v3/"), func(t *testing.T) {
			r, err := captures.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			rec, err := ReadRecording(r)
			if err != nil {
				t.Fatal(err)
			}
			zero := time.Unix(1_700_000_000, 0)
			w := newNameWatch("demo.local", 100*time.Millisecond)
			w.renewed(zero)
			silent := map[string]bool{}
			now := zero
			for _, c := range rec.Captured {
				now = zero.Add(time.Duration(max(0, c.After)) * time.Millisecond)
				maps.Copy(silent, w.judge(now))
				if bytes.Contains(c.Raw, []byte("unsubscribe SE:")) {
					maps.Copy(silent, w.judge(now.Add(graceOfEnd)))
					w.renewed(now)
				}
				if c.Raw == nil || c.Sent {
					continue
				}
				f, err := Decode(c.Raw)
				if err != nil || f.Kind != KindLeg || f.Path != "server" {
					continue
				}
				w.note(&f, Normalise(&f, testSource, testArrival).Leg, now)
			}
			w.mu.Lock()
			judged += len(w.ending)
			w.mu.Unlock()
			maps.Copy(silent, w.judge(now.Add(time.Hour)))
			want := silentAsCaptured[strings.TrimPrefix(name, "webitel-v3/")]
			if d := cmp.Diff(want, slices.Sorted(maps.Keys(silent))); d != "" {
				t.Errorf("silent, -want +got:\n%s", d)
			}
			if len(w.legs) > 8 {
				t.Errorf("%d legs are still watched", len(w.legs))
			}
		})
	}
	if judged == 0 {
		t.Error("no leg was judged at a recording's end")
	}
}
