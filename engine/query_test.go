package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// sliceLog is a log in memory. It counts how often it was read.
type sliceLog struct {
	evs   []events.Event
	reads int
}

func (l *sliceLog) ID() string { return "log" }

func (l *sliceLog) Base() (uint64, []byte, error) { return 0, nil, nil }

func (l *sliceLog) Read(_ context.Context, from uint64, fn func(*events.Event) error) error {
	l.reads++
	for i := range l.evs {
		if ev := l.evs[i]; ev.Position >= from {
			if err := fn(&ev); err != nil {
				return err
			}
		}
	}
	return nil
}

const base = events.Time(1_700_000_000_000_000)

func second(n int) events.Time { return base + events.Time(n)*1_000_000 }

// add appends an event that happened, and was recorded, at second n.
func (l *sliceLog) add(n int, account, call, conv string, p events.Payload) *events.Event {
	leg := ""
	if call != "" {
		leg = "leg-" + account + call
	}
	l.evs = append(l.evs, events.Event{
		Position: uint64(len(l.evs) + 1), ID: fmt.Sprint("e", len(l.evs)), Version: 1, Domain: "acme.example", Account: account, Call: call,
		Leg: leg, Conversation: conv, OccurredAt: second(n), RecordedAt: second(n), Payload: p,
	})
	return &l.evs[len(l.evs)-1]
}

// call adds a call of one second's ringing and talk, from second n on.
func (l *sliceLog) call(n, talk int, account, id string, from string) {
	l.add(n, account, id, id, &events.CallNew{Direction: events.In, StartedAt: second(n), Parties: events.Parties{CallerNumber: from, CalledNumber: "1004"}})
	if talk > 0 {
		l.add(n+1, account, id, id, &events.CallAccepted{AnsweredAt: second(n + 1)})
	}
	l.add(n+1+talk, account, id, id, &events.CallHungup{Hangup: events.Hangup{Cause: "NORMAL_CLEARING", CauseCode: 16}, EndedAt: second(n + 1 + talk)})
}

func TestSameNumber(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"+380671112233", "380671112233", true},
		{"0671112233", "+38 (067) 111-22-33", true},
		{"00380671112233", "+380671112233", true},
		{"1112233", "+380671112233", true},
		{"2233", "+380671112233", false}, // an extension is no tail of a number
		{"1001", "1001", true},
		{"1001", "11001", false},
		{"1001", "01001", false},
		{"+380671112233", "+380671112234", false},
		{"+48671112233", "+380671112233", false},
		{"anonymous", "Anonymous", true},
		{"anonymous", "", false},
		{"", "", false},
		{"*11", "11", true},
		{"0000000", "0", false},
	} {
		if got := SameNumber(c.a, c.b); got != c.want {
			t.Errorf("SameNumber(%q, %q) = %v", c.a, c.b, got)
		}
		if SameNumber(c.a, c.b) != SameNumber(c.b, c.a) {
			t.Errorf("SameNumber(%q, %q) depends on the order", c.a, c.b)
		}
	}
}

func TestCallFilterMatch(t *testing.T) {
	v := cti.CallView{Domain: "acme.example", Account: anna, CallID: "a2e6", Call: cti.Call{
		Aliases: []string{"b3f7"}, CallerID: "+380671112233", CalledID: "1004", Direction: events.In,
		StartedAt: second(10), Outcome: cti.OutcomeAnswered, Cause: "NORMAL_CLEARING", CauseCode: 16, TalkMs: 2000, HoldMs: 500,
	}}
	for name, c := range map[string]struct {
		f    CallFilter
		want bool
	}{
		"nothing":            {CallFilter{}, true},
		"id":                 {CallFilter{CallID: "a2e6"}, true},
		"alias":              {CallFilter{CallID: "b3f7"}, true},
		"other id":           {CallFilter{CallID: "c"}, false},
		"account":            {CallFilter{Account: anna}, true},
		"other account":      {CallFilter{Account: bert}, false},
		"other domain":       {CallFilter{Domain: "other.example"}, false},
		"since its start":    {CallFilter{Since: second(10)}, true},
		"since later":        {CallFilter{Since: second(10) + 1}, false},
		"until its start":    {CallFilter{Until: second(10)}, false},
		"until later":        {CallFilter{Until: second(10) + 1}, true},
		"caller":             {CallFilter{Number: "067 111 22 33"}, true},
		"called":             {CallFilter{Number: "1004"}, true},
		"stranger":           {CallFilter{Number: "1005"}, false},
		"direction":          {CallFilter{Direction: events.In}, true},
		"other direction":    {CallFilter{Direction: events.Out}, false},
		"outcome":            {CallFilter{Outcome: "missed, answered"}, true},
		"other outcome":      {CallFilter{Outcome: "missed"}, false},
		"cause text":         {CallFilter{Cause: "normal_clearing"}, true},
		"cause number":       {CallFilter{Cause: "17,16"}, true},
		"other cause":        {CallFilter{Cause: "17"}, false},
		"talked and held":    {CallFilter{MinMs: 2500, MaxMs: 2500}, true},
		"too short":          {CallFilter{MinMs: 2501}, false},
		"too long":           {CallFilter{MaxMs: 2499}, false},
		"live":               {CallFilter{Live: true}, false},
		"all but one passes": {CallFilter{Account: anna, Number: "1004", Direction: events.Out}, false},
	} {
		if got := c.f.Match(&v); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	v.Call.Outcome, v.Call.Cause, v.Call.CauseCode = "", "", 0
	for f, want := range map[CallFilter]bool{
		{Live: true}: true, {Outcome: "answered"}: false, {Cause: "0"}: false,
	} {
		if got := f.Match(&v); got != want {
			t.Errorf("live call, %+v: %v, want %v", f, got, want)
		}
	}
}

func ids(vs []cti.CallView) string {
	var s []string
	for i := range vs {
		s = append(s, vs[i].CallID)
	}
	return strings.Join(s, " ")
}

// TestFindCallsFindsTheForgotten: calls that the fold has forgotten are found,
// as they ended, beside those that it still holds.
func TestFindCallsFindsTheForgotten(t *testing.T) {
	log := &sliceLog{}
	for i := range 30 {
		log.call(i*100, i%3, anna, fmt.Sprintf("c%02d", i), "+380671112233")
	}
	log.call(3100, 1, bert, "b1", "1004")
	log.add(3200, anna, "live", "live", &events.CallNew{Direction: events.Out, StartedAt: second(3200), Parties: events.Parties{CalledNumber: "1007"}})
	find := func(f CallFilter) []cti.CallView {
		t.Helper()
		vs, err := FindCalls(t.Context(), log, f)
		if err != nil {
			t.Fatal(err)
		}
		return vs
	}
	if vs := find(CallFilter{}); len(vs) != 32 || vs[0].CallID != "live" || vs[31].CallID != "c00" {
		t.Errorf("all: %s", ids(vs))
	}
	if vs := find(CallFilter{Account: anna, MinMs: 2000, Limit: 3}); ids(vs) != "c29 c26 c23" {
		t.Errorf("limited: %s", ids(vs))
	}
	if vs := find(CallFilter{Since: second(100), Until: second(301)}); ids(vs) != "c03 c02 c01" {
		t.Errorf("range: %s", ids(vs))
	}
	if vs := find(CallFilter{Live: true}); ids(vs) != "live" || vs[0].Call.State != cti.StateAlerting || vs[0].Call.CallFeaturesSet != cti.RingOut {
		t.Errorf("live: %+v", vs)
	}
	v := find(CallFilter{CallID: "c02"})[0]
	if v.Position != 8 || v.Domain != "acme.example" || v.Call.TalkMs != 2000 || v.Call.RingMs != 1000 || v.Call.EndedAt != second(203) {
		t.Errorf("c02: %+v", v)
	}
}

// TestScanCallsHoldsNoHistory: what the scan holds at any time does not grow
// with the log.
func TestScanCallsHoldsNoHistory(t *testing.T) {
	log := &sliceLog{}
	const calls = 2000
	for i := range calls {
		log.call(i*10, 1, anna, fmt.Sprintf("c%d", i), "1005")
	}
	var first []uint64
	err := ScanCalls(t.Context(), log, "", func(pc *PastCall) error { first = append(first, pc.First); return nil })
	if err != nil || len(first) != calls || !slices.IsSorted(first) {
		t.Fatalf("%d calls, in order %v: %v", len(first), slices.IsSorted(first), err)
	}
	// A call is handed on when eight others of the account have ended after it.
	handed, recorded := 0, 0
	counting := &hookedLog{log, func(ev *events.Event) {
		if _, ok := ev.Payload.(*events.CallHungup); ok {
			recorded++
		}
		if held := recorded - handed; held > keepEnded+2 {
			t.Fatalf("%d ended calls are held at event %d", held, ev.Position)
		}
	}}
	if err := ScanCalls(t.Context(), counting, "", func(*PastCall) error { handed++; return nil }); err != nil {
		t.Fatal(err)
	}
}

type hookedLog struct {
	Reader
	hook func(*events.Event)
}

func (l *hookedLog) Read(ctx context.Context, from uint64, fn func(*events.Event) error) error {
	return l.Reader.Read(ctx, from, func(ev *events.Event) error { l.hook(ev); return fn(ev) })
}

// TestScanCallsGivesReinstatedCallsOnce: an inferred end that is withdrawn is no
// second call, and an error of the function ends the scan.
func TestScanCallsGivesReinstatedCallsOnce(t *testing.T) {
	log := &sliceLog{}
	log.call(0, 1, anna, "a", "1005")
	log.evs[2].Payload = &events.CallHungup{Inferred: "resync"}
	log.add(9, anna, "a", "a", &events.CallReinstated{Reason: "alive"})
	log.add(10, anna, "a", "a", &events.CallDTMF{Digit: "5"})
	log.add(11, anna, "a", "a", &events.CallDTMF{Digit: "6"})
	var got []PastCall
	if err := ScanCalls(t.Context(), log, "", func(pc *PastCall) error { got = append(got, *pc); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].View.Call.State != cti.StateConnected || got[0].Digits != 2 || got[0].View.Position != 6 || got[0].First != 1 {
		t.Errorf("got %+v", got)
	}
	if err := ScanCalls(t.Context(), log, "", func(*PastCall) error { return errEnough }); err != errEnough { //nolint:errorlint // as it is
		t.Errorf("error %v, want that of the function", err)
	}
}

// TestConversationFollowsMerges: merges of merges, in whatever order they were
// found, and the legs that belong to no account.
func TestConversationFollowsMerges(t *testing.T) {
	log := &sliceLog{}
	log.call(0, 1, anna, "a", "1005")
	log.call(10, 1, bert, "b", "1005")
	log.add(20, "", "", "trunk-conv", &events.LegNew{Presence: "x"}).Leg = "trunk"
	log.add(21, "", "", "mid", &events.ConversationMerged{From: "b", Into: "mid"})
	log.add(22, "", "", "mid", &events.ConversationMerged{From: "trunk-conv", Into: "mid"})
	log.add(23, "", "", "a", &events.ConversationMerged{From: "mid", Into: "a"})
	log.call(30, 1, anna, "other", "1005")
	for _, key := range []events.CallKey{{Account: anna, Call: "a"}, {Account: bert, Call: "b"}} {
		h, err := ConversationHistory(t.Context(), log, []events.CallKey{key})
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		for i := range h {
			got = append(got, h[i].Event.Position)
			if h[i].Event.Type() == events.TypeCallNew && len(h[i].CTI) == 0 {
				t.Errorf("event %d: no CTI events", h[i].Event.Position)
			}
		}
		if want := []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}; !slices.Equal(got, want) {
			t.Errorf("from %s: events %v, want %v", key, got, want)
		}
	}
	alone, err := ConversationHistory(t.Context(), log, []events.CallKey{{Account: anna, Call: "other"}})
	if err != nil || len(alone) != 3 {
		t.Errorf("unmerged: %d events, %v", len(alone), err)
	}
}

// TestHistoryKeepsSequences: the CTI events are those of the whole fold.
func TestHistoryKeepsSequences(t *testing.T) {
	log := &sliceLog{}
	log.call(0, 1, anna, "a", "1005")
	log.call(10, 1, anna, "b", "1005")
	all := map[string]cti.Event{}
	p := NewProjection("log")
	for i := range log.evs {
		for _, m := range p.Apply(&log.evs[i]).Messages {
			all[fmt.Sprint(m.Event.LineSeq)] = m.Event
		}
	}
	h, err := History(t.Context(), log, events.CallKey{Account: anna, Call: "b"})
	if err != nil || len(h) != 3 {
		t.Fatalf("%d entries, %v", len(h), err)
	}
	for i := range h {
		for _, ev := range h[i].CTI {
			if d := cmp.Diff(all[fmt.Sprint(ev.LineSeq)], ev); d != "" {
				t.Errorf("line sequence %d (-published +told):\n%s", ev.LineSeq, d)
			}
		}
	}
	if h, err := History(t.Context(), log); err != nil || h != nil {
		t.Errorf("of no call: %v, %v", h, err)
	}
}

func TestExplainNamesTheEvent(t *testing.T) {
	log := &sliceLog{}
	log.call(0, 5, anna, "a", "1005")
	// While a is up: b waits, which is no event of a; then a's end is corrected.
	hungup := log.evs[2]
	log.evs = log.evs[:2]
	log.add(3, anna, "c", "c", &events.CallNew{Direction: events.Out, StartedAt: second(3), Parties: events.Parties{CalledNumber: "1007"}})
	log.add(4, anna, "c", "c", &events.CallHungup{EndedAt: second(4)})
	hungup.Position = 5
	log.evs = append(log.evs, hungup)
	log.add(8, anna, "a", "a", &events.CallDetails{Hangup: events.Hangup{Cause: "USER_BUSY", CauseCode: 17, By: "other"}})
	ev, err := Explain(t.Context(), log, events.CallKey{Account: anna, Call: "a"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Evidence{}
	for _, e := range ev {
		got[e.Field] = e
	}
	for field, want := range map[string]uint64{
		"callerId": 1, "startedAt": 1, "parked": 1, "answeredAt": 2, "talkMs": 5, "outcome": 5, "state": 5,
		"cause": 6, "hungupBy": 6, "legs.leg-" + anna + "a.answered": 2,
	} {
		if got[field].Position != want {
			t.Errorf("%s: %+v, want event %d", field, got[field], want)
		}
	}
	upTo := &sliceLog{evs: log.evs[:3]}
	ev, _ = Explain(t.Context(), upTo, events.CallKey{Account: anna, Call: "a"})
	for _, e := range ev {
		if e.Field == "callFeaturesSet" && (e.Position != 3 || e.Of != "c" || e.Type != events.TypeCallNew) {
			t.Errorf("flags of a call that is consulted for: %+v, want event 3 of call c", e)
		}
	}
	if ev, err := Explain(t.Context(), log, events.CallKey{Account: anna, Call: "none"}); err != nil || len(ev) != 0 {
		t.Errorf("of no call: %v, %v", ev, err)
	}
}

// TestViewFieldsAreComplete: evidence knows every field that the JSON of a call
// has, by the same name.
func TestViewFieldsAreComplete(t *testing.T) {
	c := cti.Call{Transfer: &cti.Transfer{}, WebRTC: &cti.WebRTC{Quality: &cti.Quality{}}, Legs: []cti.Leg{{ID: "leg"}}}
	got := viewFields(&c)
	want := map[string]bool{}
	var names func(prefix string, ty reflect.Type)
	names = func(prefix string, ty reflect.Type) {
		for i := range ty.NumField() {
			name, _, _ := strings.Cut(ty.Field(i).Tag.Get("json"), ",")
			switch f := ty.Field(i).Type; {
			case name == "legs":
				names("legs.leg.", f.Elem())
			case f.Kind() == reflect.Pointer:
				names(prefix+name+".", f.Elem())
			case prefix+name != "legs.leg.id": // in the name of the others
				want[prefix+name] = true
			}
		}
	}
	names("", reflect.TypeFor[cti.Call]())
	for name := range want {
		if _, ok := got[name]; !ok {
			t.Errorf("field %s of the view has no evidence", name)
		}
	}
	for name := range got {
		if !want[name] {
			t.Errorf("evidence of %s, which the view does not have", name)
		}
	}
	if _, err := json.Marshal(got); err != nil {
		t.Error(err)
	}
}

// TestAtGoesByTheRightClock: a fact that happened at second 1 and was heard of at
// second 10, before another that was heard of at once.
func TestAtGoesByTheRightClock(t *testing.T) {
	log := &sliceLog{}
	log.add(0, anna, "", "", &events.AgentOnline{State: cti.AgentOnHook, Status: "NONE"})
	log.add(1, anna, "a", "a", &events.CallNew{Direction: events.In, StartedAt: second(1)}).RecordedAt = second(10)
	log.add(12, anna, "a", "a", &events.CallAccepted{AnsweredAt: second(12)})
	log.add(20, anna, "a", "a", &events.CallHungup{EndedAt: second(20)})
	log.add(21, bert, "", "", &events.AgentStateChanged{State: cti.AgentOnHook, Status: cti.AgentDND})
	for _, c := range []struct {
		at       int
		occurred bool
		position uint64
		calls    string // id and state
		agents   string
	}{
		{-1, false, 0, "", ""},
		{-1, true, 0, "", ""},
		{5, false, 1, "", "ONHOOK"},
		{5, true, 2, "a/ALERTING", "ISBUSY"},
		{10, false, 2, "a/ALERTING", "ISBUSY"},
		{12, false, 3, "a/CONNECTED", "ISBUSY"},
		{15, true, 3, "a/CONNECTED", "ISBUSY"},
		{20, false, 4, "", "ONHOOK"},
		{99, false, 5, "", "ONHOOK DND"},
		{99, true, 5, "", "ONHOOK DND"},
	} {
		m, err := At(t.Context(), log, AtFilter{Time: second(c.at), Occurred: c.occurred})
		if err != nil {
			t.Fatal(err)
		}
		var calls, agents []string
		for i := range m.Calls {
			calls = append(calls, m.Calls[i].CallID+"/"+m.Calls[i].Call.StateName)
		}
		for i := range m.Lines {
			agents = append(agents, m.Lines[i].Line.AgentState)
		}
		if m.Position != c.position || strings.Join(calls, " ") != c.calls || strings.Join(agents, " ") != c.agents {
			t.Errorf("at second %d (occurred %v): event %d, calls %v, agents %v, want %+v", c.at, c.occurred, m.Position, calls, agents, c)
		}
	}
	m, err := At(t.Context(), log, AtFilter{Time: second(99), Account: bert})
	if err != nil || len(m.Lines) != 1 || m.Lines[0].Account != bert {
		t.Errorf("of one account: %+v, %v", m.Lines, err)
	}
}

// TestAtWhereTheClockWasSetBack: the answer is a state that the engine was in,
// after the last event that our clock stamped so early.
func TestAtWhereTheClockWasSetBack(t *testing.T) {
	log := &sliceLog{}
	log.add(0, anna, "a", "a", &events.CallNew{Direction: events.In, StartedAt: second(0)})
	log.add(1, anna, "a", "a", &events.CallAccepted{}).RecordedAt = second(3600)
	log.add(2, anna, "a", "a", &events.CallHeld{})
	log.add(9, anna, "a", "a", &events.CallHungup{})
	m, err := At(t.Context(), log, AtFilter{Time: second(5)})
	if err != nil || m.Position != 3 || len(m.Calls) != 1 || m.Calls[0].Call.State != cti.StateHeld {
		t.Errorf("%+v, %v", m, err)
	}
}
