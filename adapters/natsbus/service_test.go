package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

func natsMsg(data string) *nats.Msg { return &nats.Msg{Data: []byte(data)} }

// fakeQueries knows one call id on two accounts.
type fakeQueries struct {
	filter CallFilter // of the last Calls
	err    error
	many   int // calls to list
}

func (q *fakeQueries) view(account string) cti.CallView {
	return cti.CallView{
		Position: 9, Domain: "acme.example", Account: account, CallID: "a2e6",
		Call: cti.Call{ID: "a2e6", CallerName: "<b>", Direction: events.In},
	}
}

func (q *fakeQueries) Call(_ context.Context, key events.CallKey) (cti.CallView, bool, error) {
	return q.view(key.Account), key.Call == "a2e6" && key.Account == "1004@acme.example", q.err
}

func (q *fakeQueries) Calls(_ context.Context, f CallFilter) ([]cti.CallView, error) {
	q.filter = f
	if f.CallID != "" && f.CallID != "a2e6" {
		return nil, q.err
	}
	out := []cti.CallView{q.view("1004@acme.example"), q.view("1005@acme.example")}
	for range q.many {
		v := q.view("1006@acme.example")
		v.Call.Data = strings.Repeat("x", 4096)
		out = append(out, v)
	}
	return out, q.err
}

func (q *fakeQueries) History(_ context.Context, f HistoryFilter) ([]HistoryEntry, error) {
	if f.CallID != "a2e6" {
		return nil, q.err
	}
	e := &events.Event{
		Position: 3, ID: "e3", Version: 1, Account: "1004@acme.example", Call: "a2e6",
		Payload: &events.CallDTMF{Digit: "5"},
	}
	return []HistoryEntry{{Event: e, CTI: []cti.Event{{Event: cti.DTMFEntered, Position: 3, Arguments: cti.Arguments{Digits: "5"}}}}}, q.err
}

func (q *fakeQueries) Explain(_ context.Context, f HistoryFilter) ([]engine.Evidence, error) {
	return []engine.Evidence{{CallID: f.CallID, Field: "state", Value: "2", Position: 3}}, q.err
}

func (q *fakeQueries) At(_ context.Context, f AtFilter) (engine.Moment, error) {
	if f.Occurred {
		return engine.Moment{}, q.err
	}
	return engine.Moment{
		Position: 7,
		Calls:    []cti.CallView{q.view("1004@acme.example"), q.view("1005@acme.example")},
		Lines:    []cti.LineView{{Account: "1004@acme.example"}, {Account: "1005@acme.example"}},
	}, q.err
}

func (q *fakeQueries) Since(_ context.Context, f SinceFilter) (engine.Missed, error) {
	m := engine.Missed{After: f.After, Position: f.Position, Last: 9}
	for p := uint64(8); p <= 9; p++ {
		for range 2 + q.many {
			call := cti.Call{Data: strings.Repeat("x", 4096*min(q.many, 1))}
			m.Events = append(m.Events, cti.Event{Event: cti.Hold, Account: f.Account, Position: p, Call: &call})
		}
	}
	return m, q.err
}

func (q *fakeQueries) Line(_ context.Context, account string) (cti.LineView, bool, error) {
	return cti.LineView{Position: 2, Account: account}, account == "1004@acme.example", q.err
}

func (q *fakeQueries) Lines(_ context.Context, f LineFilter) ([]cti.LineView, error) {
	return []cti.LineView{{Account: f.Domain}}, q.err
}

func (q *fakeQueries) Status(context.Context) (Status, error) {
	return Status{Log: testLog, Position: 12}, q.err
}

func (q *fakeQueries) Doubtful(_ context.Context, f DoubtFilter) ([]engine.Doubt, error) {
	return []engine.Doubt{{
		Account: f.Account, CallID: "a2e6", Legs: []string{"b"},
		Reasons: []engine.Because{{Reason: engine.DoubtUnanswered, Detail: f.Unchecked.String()}},
	}}, q.err
}

// ask sends one request and returns the answer and the error code.
func ask(t *testing.T, nc *nats.Conn, verb, request string) (string, string) {
	t.Helper()
	m, err := nc.RequestWithContext(deadline(t), "callstate.v1."+verb, []byte(request))
	if err != nil {
		t.Fatalf("%s: %v", verb, err)
	}
	return string(m.Data), m.Header.Get(micro.ErrorCodeHeader)
}

func TestServiceAnswers(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL()})
	q := &fakeQueries{}
	svc, err := StartService(b.Conn(), q, ServiceOptions{Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Close()
	for _, c := range []struct {
		verb, request, code string
		has                 string // in the answer
	}{
		{"calls.get", `{"callId":"a2e6","account":"1004@acme.example"}`, "", `"account":"1004@acme.example"`},
		{"calls.get", `{"callId":"a2e6"}`, "", `"account":"1005@acme.example"`},
		{"calls.get", `{"callId":"a2e6"}`, "", `"callerName":"<b>"`},
		{"calls.get", `{"callId":"none"}`, CodeNotFound, ""},
		{"calls.get", `{"callId":"a2e6","account":"1009@acme.example"}`, CodeNotFound, ""},
		{"calls.get", `{}`, CodeBadRequest, ""},
		{"calls.doubtful", `{"account":"1004@acme.example","uncheckedMs":2000}`, "", `"reason":"unanswered","detail":"2s"`},
		{"calls.doubtful", `{"uncheckedMs":-1}`, CodeBadRequest, ""},
		{"calls.doubtful", `{"limit":1001}`, CodeBadRequest, ""},
		{"calls.get", ``, CodeBadRequest, ""},
		{"calls.get", `{"callID":1}`, CodeBadRequest, ""},
		{"calls.get", `[`, CodeBadRequest, ""},
		{"calls.get", `{} {}`, CodeBadRequest, ""},
		{"calls.get", strings.Repeat(" ", maxRequest+1), CodeBadRequest, ""},
		{"calls.list", ``, "", `"calls":[{`},
		{"calls.list", `{"live":true,"limit":1001}`, CodeBadRequest, ""},
		{"calls.list", `{"lvie":true}`, CodeBadRequest, ""},
		{"events.since", `{"account":"1004@acme.example","after":3}`, "", `"more":false,"after":3,"position":0,"last":9}`},
		{"events.since", `{"position":7}`, "", `{"events":[{"event":"hold","position":8,`},
		{"events.since", `{"after":3}`, CodeBadRequest, ""},
		{"events.since", `{"callId":"a2e6","after":3}`, CodeBadRequest, ""},
		{"events.since", `{"limit":1001}`, CodeBadRequest, ""},
		{"calls.history", `{"callId":"a2e6"}`, "", `"type":"call.dtmf"`},
		{"calls.history", `{"callId":"a2e6"}`, "", `"payload":{"digit":"5"}`},
		{"calls.history", `{"callId":"a2e6"}`, "", `"digits":"5"`},
		{"calls.history", `{"callId":"none"}`, CodeNotFound, ""},
		{"calls.history", `{"callId":"a2e6","explain":true}`, "", `"evidence":[{"account":"","callId":"a2e6","field":"state"`},
		{"calls.list", `{"since":"yesterday"}`, CodeBadRequest, ""},
		{"calls.at", `{"time":"2026-11-22T10:15:00Z"}`, "", `"time":"2026-11-22T10:15:00.000000Z","position":7,"calls":[{`},
		{"calls.at", `{"time":"2026-11-22T10:15:00Z","limit":1}`, "", `"more":true`},
		{"calls.at", `{"time":"2026-11-22T10:15:00Z","occurred":true}`, "", `"calls":[],"more":false`},
		{"calls.at", `{}`, CodeBadRequest, ""},
		{"calls.at", `{"time":"10:15"}`, CodeBadRequest, ""},
		{"lines.at", `{"time":"2026-11-22T10:15:00Z","after":"1004@acme.example"}`, "", `"lines":[{"position":0,"lineSeq":0,"domain":"","account":"1005@`},
		{"lines.at", `{"time":"2026-11-22T10:15:00Z","occurred":true}`, "", `"lines":[],"more":false`},
		{"lines.get", `{"account":"1004@acme.example"}`, "", `"position":2`},
		{"lines.get", `{"account":"1009@acme.example"}`, CodeNotFound, ""},
		{"lines.get", `{}`, CodeBadRequest, ""},
		{"lines.list", `{"domain":"acme.example"}`, "", `"lines":[{`},
		{"status", ``, "", `"version":"1.2.3"`},
	} {
		answer, code := ask(t, b.Conn(), c.verb, c.request)
		if code != c.code || !strings.Contains(answer, c.has) {
			t.Errorf("%s %.80s: code %q, want %q; answer %s, want %s in it", c.verb, c.request, code, c.code, answer, c.has)
		}
		if c.code == "" && !json.Valid([]byte(answer)) {
			t.Errorf("%s: answer is no JSON: %s", c.verb, answer)
		}
	}
	ask(t, b.Conn(), "calls.list", `{"live":true,"domain":"acme.example","account":"1004@acme.example"}`)
	if want := (CallFilter{Account: "1004@acme.example", Domain: "acme.example", Live: true, Limit: 100}); q.filter != want {
		t.Errorf("filter = %+v, want %+v", q.filter, want)
	}
	q.many = 1000
	if _, code := ask(t, b.Conn(), "calls.list", `{"limit":1000}`); code != CodeBadRequest {
		t.Errorf("answer above the server's limit: code %q, want %q", code, CodeBadRequest)
	}
	q.many, q.err = 0, fmt.Errorf("starting: %w", ErrUnavailable)
	if _, code := ask(t, b.Conn(), "status", ``); code != CodeUnavailable {
		t.Errorf("code %q, want %q", code, CodeUnavailable)
	}
	q.err = errors.New("secret of ours")
	m, err := b.Conn().RequestWithContext(deadline(t), "callstate.v1.status", nil)
	if err != nil {
		t.Fatal(err)
	}
	if m.Header.Get(micro.ErrorCodeHeader) != CodeInternal || strings.Contains(fmt.Sprint(m.Header), "secret") {
		t.Errorf("headers %v", m.Header)
	}
}

// sinceAnswered is an answer of events.since as a subscriber reads it.
type sinceAnswered struct {
	Events []cti.Event `json:"events"`
	More   bool        `json:"more"`
	Last   uint64      `json:"last"`
}

// sinceOf asks a service over q.
func sinceOf(t *testing.T, q Queries, request string) (a sinceAnswered) {
	t.Helper()
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL()})
	svc, err := StartService(b.Conn(), q, ServiceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Close()
	body, code := ask(t, b.Conn(), "events.since", request)
	if err := json.Unmarshal([]byte(body), &a); err != nil || code != "" {
		t.Fatalf("code %q, %v", code, err)
	}
	return a
}

// TestSinceIsCutToWhatNATSCarries: an answer that is too large ends with whole positions.
func TestSinceIsCutToWhatNATSCarries(t *testing.T) {
	a := sinceOf(t, &fakeQueries{many: 200}, `{"position":1}`) // 1.6 MiB in two positions
	if len(a.Events) != 202 || !a.More || a.Last != 8 {
		t.Errorf("%d events, more %v, last %d; want the 202 of position 8", len(a.Events), a.More, a.Last)
	}
}

// huge gives events of which one is larger than NATS carries.
type huge struct{ fakeQueries }

func (*huge) Since(_ context.Context, f SinceFilter) (engine.Missed, error) {
	m := engine.Missed{Position: f.Position, Last: 9}
	for p := uint64(7); p <= 9; p++ {
		e := cti.Event{Event: cti.Hold, Account: "1004@acme.example", Position: p}
		if p == 7 {
			e.Call = &cti.Call{Data: strings.Repeat("x", 2<<20)}
		}
		m.Events = append(m.Events, e)
	}
	return m, nil
}

// TestSinceLeavesOutWhatNATSDoesNotCarry: an event that is too large for the stream
// is so for the answer, and must not take those after it along.
func TestSinceLeavesOutWhatNATSDoesNotCarry(t *testing.T) {
	a := sinceOf(t, &huge{}, `{"position":6}`)
	if len(a.Events) != 2 || a.Events[0].Position != 8 || a.More || a.Last != 9 {
		t.Errorf("%d events, more %v, last %d; want those of positions 8 and 9", len(a.Events), a.More, a.Last)
	}
}

// The service is found as any NATS micro service is.
func TestServiceIsDiscoverable(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL()})
	svc, err := StartService(b.Conn(), &fakeQueries{}, ServiceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := b.Conn().RequestWithContext(deadline(t), "$SRV.INFO.callstate", nil)
	if err != nil {
		t.Fatal(err)
	}
	var info micro.Info
	if err := json.Unmarshal(m.Data, &info); err != nil {
		t.Fatal(err)
	}
	var subjects []string
	for _, e := range info.Endpoints {
		if e.Subject == strings.Replace(e.Subject, ".of.*.*.", ".", 1) { // each has one about a scope
			subjects = append(subjects, e.Subject)
		}
	}
	if got, want := strings.Join(subjects, " "), "callstate.v1.calls.get callstate.v1.calls.list "+
		"callstate.v1.calls.history callstate.v1.calls.doubtful callstate.v1.calls.at callstate.v1.events.since callstate.v1.lines.get callstate.v1.lines.list callstate.v1.lines.at callstate.v1.status"; got != want {
		t.Errorf("endpoints %s, want %s", got, want)
	}
	for range 2 {
		if err := svc.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := b.Conn().RequestWithContext(deadline(t), "callstate.v1.status", nil); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("request after Close: %v, want no responders", err)
	}
}
