package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
	"github.com/callstate/callstate/store/bolt"
)

// TestTextOfACallerMovesNoCursor: who calls chooses a number and a name. What
// verbs print for people shows them, and does nothing that they say.
func TestTextOfACallerMovesNoCursor(t *testing.T) {
	lines := map[string]string{} // of each verb, for a caller like any other
	for _, evil := range []string{"", "\x1b[2J", "\n1002@acme.example  in", "\t", "\r", "\u009b2J", "\u202e", "\u2028"} {
		dir := t.TempDir()
		log, err := bolt.Open(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		at := events.Time(1_700_000_000_000_000)
		ev := func(p events.Payload) events.Event {
			at += 1_000_000
			return events.Event{
				ID: at.String(), Version: 1, Domain: "acme.example", Account: "1001@acme.example", Call: "c1", Leg: "l1", Conversation: "c1",
				OccurredAt: at, RecordedAt: at, Payload: p,
			}
		}
		err = log.Append(t.Context(), &events.Batch{Events: []events.Event{
			ev(&events.CallNew{Direction: events.In, Parties: events.Parties{CallerNumber: "380" + evil, CallerName: "Anna" + evil}}),
			ev(&events.CallTransferred{Kind: events.BlindTransfer, Result: "error", Target: "1007" + evil}),
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		for _, verb := range []string{"calls", "at now", "history c1", "history --explain c1", "history --conversation c1"} {
			args := strings.Fields(verb)
			out, _ := runVerb(t, append([]string{args[0], "--data", dir}, args[1:]...)...)
			n := strings.Repeat("\n", strings.Count(out, "\n"))
			if evil == "" {
				lines[verb] = n
			}
			if strings.ContainsFunc(strings.ReplaceAll(out, "\n", ""), moves) || n != lines[verb] {
				t.Errorf("%s, caller %q:\n%q", verb, evil, out)
			}
		}
		var b bytes.Buffer
		e := &env{out: &b}
		line := e.eventLine(&cti.Event{Event: cti.CallStarted, Account: "1001@acme.example", Call: &cti.Call{CallerID: "380" + evil, CalledID: evil}})
		if strings.ContainsFunc(line, moves) || !strings.Contains(line, "380") {
			t.Errorf("caller %q: %q", evil, line)
		}
	}
	if got := onScreen("Anna Коваль\x1b[2J\n"); got != `Anna Коваль\x1b[2J\n` {
		t.Errorf("onScreen: %s", got)
	}
}
