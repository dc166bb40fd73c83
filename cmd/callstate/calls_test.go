package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
	"github.com/callstate/callstate/store/memory"
)

// TestQueriesAgreeWithTheFold: for every recording, calls are found as the fold
// left them, and at the time of each event the PBX is what the fold had made of
// it then.
func TestQueriesAgreeWithTheFold(t *testing.T) {
	for _, name := range captureNames(t) {
		rec := readCapture(t, name)
		p := play(t, rec, rec.Inputs())
		log := memory.New()
		b := &events.Batch{}
		for i := range p.steps {
			b.Events = append(b.Events, p.steps[i].Event)
		}
		if err := log.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		found, err := engine.FindCalls(t.Context(), log, engine.CallFilter{})
		if err != nil || len(found) != len(p.calls) {
			t.Fatalf("%s: %d calls of %d, %v", name, len(found), len(p.calls), err)
		}
		for i := range found {
			v := &found[i]
			want := *p.calls[events.CallKey{Account: v.Account, Call: v.CallID}]
			if v.Call.Outcome == "" { // what the agent may do depends on the other calls
				want.CallFeaturesSet, want.Features = v.Call.CallFeaturesSet, v.Call.Features
			}
			if d := gocmp.Diff(want, v.Call); d != "" {
				t.Errorf("%s: %s/%s (-fold +found):\n%s", name, v.Account, v.CallID, d)
			}
		}
		momentsAgree(t, name, p.steps, log)
	}
}

func momentsAgree(t *testing.T, name string, steps []engine.Step, log engine.Reader) {
	t.Helper()
	live := map[events.CallKey]cti.State{}
	flags := map[string]cti.Features{}
	for i := range steps {
		s := &steps[i]
		if s.Result.Call != nil {
			live[s.Event.Key()] = s.Result.Call.State
			if s.Result.Call.Outcome != "" {
				delete(live, s.Event.Key())
			}
		}
		if s.Result.Line != nil {
			flags[s.Event.Account] = s.Result.Line.CallFeaturesSet
		}
		if i+1 < len(steps) && steps[i+1].Event.RecordedAt <= s.Event.RecordedAt || i%5 != 0 {
			continue
		}
		m, err := engine.At(t.Context(), log, engine.AtFilter{Time: s.Event.RecordedAt})
		if err != nil {
			t.Fatal(err)
		}
		got := map[events.CallKey]cti.State{}
		for j := range m.Calls {
			got[events.CallKey{Account: m.Calls[j].Account, Call: m.Calls[j].CallID}] = m.Calls[j].Call.State
		}
		lines := map[string]cti.Features{}
		for j := range m.Lines {
			lines[m.Lines[j].Account] = m.Lines[j].Line.CallFeaturesSet
		}
		if d := gocmp.Diff(live, got) + gocmp.Diff(flags, lines); d != "" || m.Position != s.Event.Position {
			t.Errorf("%s: at event %d, got %d (-fold +at):\n%s", name, s.Event.Position, m.Position, d)
			return
		}
	}
}

// TestCallsOfOneIDAreOfAllAccounts: a call id that two agents share is asked for when
// one of them has had so many calls since that the fold has forgotten it.
func TestCallsOfOneIDAreOfAllAccounts(t *testing.T) {
	log := memory.New()
	at, b := events.At(time.Now()), &events.Batch{}
	add := func(account, call string, p events.Payload) {
		at++
		b.Events = append(b.Events, events.Event{
			ID: at.String(), Version: 1, Domain: "acme.example", Account: account, Call: call, Leg: "l" + call, Conversation: call,
			OccurredAt: at, RecordedAt: at, Payload: p,
		})
	}
	calls := [][2]string{{"1001@acme.example", "c"}, {"1002@acme.example", "c"}}
	for i := range 20 {
		calls = append(calls, [2]string{"1001@acme.example", fmt.Sprint("later-", i)})
	}
	for _, c := range calls {
		add(c[0], c[1], &events.CallNew{Direction: events.In})
		add(c[0], c[1], &events.CallHungup{Hangup: events.Hangup{Cause: "USER_BUSY"}})
	}
	add("1001@acme.example", "c-2", &events.CallNew{Direction: events.In})
	add("1001@acme.example", "c-2", &events.CallUUIDChanged{Alias: "c", Reason: "record"})
	if err := log.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	e := engine.New(log, nullBus{}, nil, engine.Config{})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	if err := e.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	q := &queries{engine: e, store: log}
	for _, c := range []struct {
		filter natsbus.CallFilter
		want   int
	}{
		{natsbus.CallFilter{CallID: "c"}, 3},
		{natsbus.CallFilter{CallID: "c", Domain: "acme.example"}, 3},
		{natsbus.CallFilter{CallID: "c", Account: "1002@acme.example"}, 1},
		{natsbus.CallFilter{CallID: "c", Live: true}, 1},
		{natsbus.CallFilter{CallID: "later-19"}, 1},
		{natsbus.CallFilter{CallID: "none"}, 0},
	} {
		if vs, err := q.Calls(t.Context(), c.filter); err != nil || len(vs) != c.want {
			t.Errorf("%+v: %d calls, want %d, %v", c.filter, len(vs), c.want, err)
		}
	}
	for _, id := range []string{"c", "c-2", "later-1"} {
		if v, ok, err := q.Call(t.Context(), events.CallKey{Account: "1001@acme.example", Call: id}); err != nil || v.CallID != id {
			t.Errorf("call %s: %s, %v, %v", id, v.CallID, ok, err)
		}
	}
}

// TestCallsOfAnEngineSayThatThereAreMore: a list that is cut is not taken for a whole one.
func TestCallsOfAnEngineSayThatThereAreMore(t *testing.T) {
	log, b := memory.New(), &events.Batch{}
	for i := range ofEngine + 1 {
		at := events.At(time.Now()) + events.Time(i)
		b.Events = append(b.Events, events.Event{
			ID: fmt.Sprint(i), Version: 1, Domain: "acme.example", Account: "1001@acme.example", Call: fmt.Sprint("c", i), Leg: "l",
			OccurredAt: at, RecordedAt: at, Payload: &events.CallNew{Direction: events.In},
		})
	}
	if err := log.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	url := engineOn(t, log)
	for _, c := range []struct {
		args  []string
		calls int
		said  bool
	}{
		{nil, ofEngine, true},
		{[]string{"--limit", "100"}, ofEngine, false},
		{[]string{"--limit", "1000"}, ofEngine + 1, false},
		{[]string{"--since", "1h ago", "--direction", "out"}, 0, false},
	} {
		out, said := runVerb(t, append([]string{"calls", "--json", "--nats", url}, c.args...)...)
		if n := strings.Count(out, "\n"); n != c.calls || strings.Contains(said, "there may be more") != c.said {
			t.Errorf("%v: %d calls, want %d; said %q", c.args, n, c.calls, said)
		}
	}
}

// TestRunningEngineAnswersAsItsLog: the queries that the log answers say over
// NATS, of a running engine, what they say of the log when it has stopped; also
// of calls that ended, and masked.
func TestRunningEngineAnswersAsItsLog(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	ch := d.subscribe(t, agent)
	watched := watchMasked(t, d.server.URL())
	for _, name := range []string{"02-incoming-answered", "03-incoming-caller-cancels"} {
		sc, err := webiteltest.Recorded(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.pbx.Play(t.Context(), sc, webiteltest.PlayOptions{Domain: demoDomain}); err != nil {
			t.Fatal(err)
		}
		await(t, ch, cti.CallDetails)
	}
	var first cti.CallView
	out, _ := runVerb(t, "calls", "--nats", d.server.URL(), "--json", "--limit", "1", "--outcome", "answered")
	if err := json.Unmarshal([]byte(out), &first); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for how, out := range watched() {
		if !strings.Contains(out, "callStarted") || !strings.Contains(out, "+**********33") ||
			strings.Contains(out, "3806") || strings.Contains(out, "1001") {
			t.Errorf("watch --mask%s says\n%s", how, out)
		}
	}
	for end := time.Now().Add(20 * time.Second); ; { // views may be behind the events
		out, _ := runVerb(t, "watch", "--nats", d.server.URL(), "--lines", "--mask")
		if strings.Contains(out, "1001@") {
			t.Errorf("watch --lines --mask says\n%s", out)
		}
		if strings.Contains(out, "**01@demo.local") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("watch --lines --mask says\n%s", out)
		}
	}
	asks := [][]string{
		{"calls", "--outcome", "missed", "--json"},
		{"calls", "--outcome", "answered", "--number", "067-111-22-33", "--direction", "in", "--min-duration", "1s", "--since", "-1h"},
		{"calls", "--cause", "16", "--mask"},
		{"calls", "--until", "2020-01-01"},
		{"at", first.Call.AnsweredAt.String(), "--occurred"},
		{"at", first.Call.AnsweredAt.String(), "--occurred", "--json", "--account", agent},
		{"at", "1h ago"},
		{"history", "--conversation", first.CallID},
		{"history", "--conversation", agent + "/" + first.CallID},
		{"history", "--conversation", "--json", "--mask", first.CallID},
		{"history", "--explain", first.CallID},
		{"history", "--explain", "--json", agent + "/" + first.CallID},
	}
	running := make([]string, len(asks))
	for i, args := range asks {
		running[i], _ = runVerb(t, append(slices.Clone(args), "--nats", d.server.URL())...)
	}
	if !strings.Contains(running[0], `"outcome":"missed"`) || !strings.Contains(running[4], "CONNECTED") || !strings.Contains(running[10], "call.accepted") {
		t.Errorf("missed: %s\nat: %s\nexplain: %s", running[0], running[4], running[10])
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	// The link's own account is configuration; of telephone numbers the diary has none.
	for _, digits := range []string{"3806711", "1001"} {
		if n := d.logs.containing(digits); n > 0 {
			t.Errorf("%d lines of the log hold %s", n, digits)
		}
	}
	for i, args := range asks {
		got, _ := runVerb(t, append(slices.Clone(args), "--data", d.cfg.Data)...)
		if args[0] == "at" { // the age of a relative time's answer is of its own
			got, running[i] = untimed(got), untimed(running[i])
		}
		if diff := gocmp.Diff(running[i], got); diff != "" {
			t.Errorf("%v (-running +log):\n%s", args, diff)
		}
	}
}

// untimed leaves out the heading, which says the time, and sorts nothing.
func untimed(s string) string {
	head, rest, _ := strings.Cut(s, "\n")
	if strings.HasPrefix(head, "{") {
		return s
	}
	return cmp.Or(rest, "-")
}

// watchMasked watches live events, masked, as text and as JSON. The function that
// it returns ends that and says what was printed.
func watchMasked(t *testing.T, url string) func() map[string]string {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	outs := map[string]*strings.Builder{"": {}, " --json": {}}
	errs := make(chan error, len(outs))
	for how, out := range outs {
		e := &env{out: out, errw: io.Discard}
		watching.Go(func() {
			errs <- e.watch(ctx, nc, cti.DefaultPrefix, natsbus.Scope{}, showOptions{json: how != "", mask: true})
		})
	}
	for nc.NumSubscriptions() < len(outs) { // or the first events are missed
		time.Sleep(time.Millisecond)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return func() map[string]string {
		stop()
		watching.Wait()
		nc.Close()
		said := map[string]string{}
		for how, out := range outs {
			said[how] = out.String()
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		return said
	}
}
