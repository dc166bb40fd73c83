package tracing

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	account      = "1004@acme.example"
	conversation = "a2e60000-0000-4000-8000-000000000001"
	begin        = events.Time(1_750_000_000_000_000)
)

// teller folds events as the engine does, and shows them to a tracer.
type teller struct {
	t *Tracer
	p *engine.Projection
	n uint64
}

func (x *teller) tell(account, call string, second int, payloads ...events.Payload) {
	for _, p := range payloads {
		x.n++
		ev := events.Event{
			Position: x.n, ID: fmt.Sprint(x.n), Version: 1, Domain: "acme.example", Account: account, Call: call, Leg: call, Conversation: conversation,
			OccurredAt: begin + events.Time(second*1_000_000), Payload: p,
		}
		x.t.Folded([]events.Event{ev}, []engine.Result{x.p.Apply(&ev)})
	}
}

func newTeller(t *Tracer) *teller { return &teller{t: t, p: engine.NewProjection("log")} }

func hangup() *events.CallHungup {
	return &events.CallHungup{Hangup: events.Hangup{Cause: "NORMAL_CLEARING", CauseCode: 16}}
}

// aCall rings for 5 s, talks for 35 s with 10 s on hold, and is ended by a request
// whose outcome comes after the end.
func (x *teller) aCall(account, call string) {
	x.tell(account, call, 0, &events.CallNew{Direction: events.In})
	x.tell(account, call, 5, &events.CallAccepted{})
	x.tell(account, call, 10, &events.CommandRequested{Request: "h", Method: "holdCall", By: "crm"}, &events.CallHeld{}, &events.CommandCompleted{Request: "h", Result: "ok"})
	x.tell(account, call, 20, &events.CallUnheld{})
	x.tell(account, call, 30, &events.CommandRequested{Request: "t", Method: "blindTransferCall"}, &events.CommandCompleted{Request: "t", Result: "refused"})
	x.tell(account, call, 40, &events.CommandRequested{Request: "d", Method: "dropCall"}, hangup())
	x.tell(account, call, 41, &events.CommandCompleted{Request: "d", Result: "ok"})
}

// traced runs a tracer until all that was told is exported.
func traced(t *testing.T, tell func(*teller)) tracetest.SpanStubs {
	t.Helper()
	// What is exported is dropped at the shutdown.
	kept := &keeper{InMemoryExporter: tracetest.NewInMemoryExporter()}
	tr, err := New(Options{exporter: kept})
	if err != nil {
		t.Fatal(err)
	}
	tell(newTeller(tr))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tr.Run(ctx)
	if len(tr.live) != 0 {
		t.Errorf("%d calls are remembered", len(tr.live))
	}
	return kept.spans
}

type keeper struct {
	*tracetest.InMemoryExporter
	spans tracetest.SpanStubs
}

func (k *keeper) Shutdown(ctx context.Context) error {
	k.spans = k.GetSpans()
	return k.InMemoryExporter.Shutdown(ctx)
}

func TestSpansOfACall(t *testing.T) {
	spans := traced(t, func(x *teller) { x.aCall(account, conversation) })
	var got []string
	var root trace.SpanID
	for _, s := range spans {
		if s.Name == "call" {
			root = s.SpanContext.SpanID()
		}
	}
	for _, s := range spans {
		got = append(got, fmt.Sprintf("%s %d-%d %s", s.Name, (s.StartTime.UnixMicro()-int64(begin))/1e6, (s.EndTime.UnixMicro()-int64(begin))/1e6, s.Status.Code))
		if id := s.SpanContext.TraceID().String(); id != strings.ReplaceAll(conversation, "-", "") {
			t.Errorf("%s: trace %s", s.Name, id)
		}
		if s.Name != "call" && s.Parent.SpanID() != root {
			t.Errorf("%s is no child of the call's span", s.Name)
		}
		for _, a := range s.Attributes {
			if strings.Contains(a.Value.String(), "1004") {
				t.Errorf("%s has a number: %s=%s", s.Name, a.Key, a.Value.String())
			}
		}
	}
	slices.Sort(got)
	want := "blindTransferCall 30-30 Error; call 0-40 Unset; dropCall 40-41 Unset; hold 10-20 Unset; holdCall 10-10 Unset; ringing 0-5 Unset; talk 5-40 Unset"
	if s := strings.Join(got, "; "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

// TestOneTraceAConversation: the calls of a conversation share it, and the same
// events give the same ids.
func TestOneTraceAConversation(t *testing.T) {
	both := func(x *teller) {
		x.aCall(account, conversation)
		x.aCall("1005@acme.example", conversation)
	}
	ids := func(spans tracetest.SpanStubs) (ids []string) {
		for _, s := range spans {
			ids = append(ids, s.SpanContext.TraceID().String()+"/"+s.SpanContext.SpanID().String())
		}
		slices.Sort(ids)
		return ids
	}
	first := ids(traced(t, both))
	if again := ids(traced(t, both)); !slices.Equal(first, again) {
		t.Errorf("ids differ:\n%v\n%v", first, again)
	}
	if len(slices.Compact(first)) != 14 {
		t.Errorf("%d spans of their own, want 14", len(first))
	}
	if traceID("not a uuid") == traceID("another") || traceID("").IsValid() == false {
		t.Error("trace ids of other conversations")
	}
}

// TestCallThatNobodyAnswered has no talk, and one whose beginning was not seen is
// told by its view alone.
func TestCallThatNobodyAnswered(t *testing.T) {
	spans := traced(t, func(x *teller) {
		x.tell(account, "m", 0, &events.CallNew{Direction: events.In})
		x.tell(account, "m", 9, hangup())
		x.tell(account, "m", 20, &events.CommandRequested{Request: "r", Method: "queryCallRecords"}, &events.CommandCompleted{Request: "r", Result: "ok"})
	})
	var names []string
	for _, s := range spans {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "call ringing" {
		t.Errorf("spans %s", got)
	}
}

// TestNobodyWaitsForTraces: with nobody to take them, calls end as fast as ever and
// their traces are dropped and counted.
func TestNobodyWaitsForTraces(t *testing.T) {
	tr, err := New(Options{exporter: tracetest.NewNoopExporter()})
	if err != nil {
		t.Fatal(err)
	}
	x := newTeller(tr)
	for i := range waiting + 10 {
		id := fmt.Sprint("c", i)
		x.tell(account, id, i, &events.CallNew{Direction: events.In}, hangup())
	}
	if tr.Dropped() != 10 || len(tr.live) != 0 {
		t.Errorf("dropped %d, %d remembered", tr.Dropped(), len(tr.live))
	}
}

// receiver is an OTLP receiver.
type receiver struct {
	mu    sync.Mutex
	spans []string
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	b, err := io.ReadAll(q.Body)
	var req collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(b, &req)
	}
	if err != nil || q.URL.Path != "/v1/traces" {
		http.Error(w, "not OTLP", http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rs := range req.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				r.spans = append(r.spans, s.Name)
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func TestExportOverHTTP(t *testing.T) {
	r := &receiver{}
	s := httptest.NewServer(r)
	defer s.Close()
	tr, err := New(Options{URL: s.URL, Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	newTeller(tr).aCall(account, conversation)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what waits is exported all the same
	tr.Run(ctx)
	if len(r.spans) != 7 {
		t.Errorf("received %v", r.spans)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// TestCollectorThatRefuses: it is said once, without what was sent.
func TestCollectorThatRefuses(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadRequest) }))
	defer s.Close()
	var log strings.Builder
	tr, err := New(Options{URL: s.URL, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	x := newTeller(tr)
	for i := range 3 * 512 / 7 {
		x.aCall(account, fmt.Sprint("c", i))
	}
	cancel()
	began := time.Now()
	tr.Run(ctx)
	if n := strings.Count(log.String(), "not exported"); n != 1 || strings.Contains(log.String(), account) {
		t.Errorf("said %d times after %s:\n%s", n, time.Since(began), &log)
	}
}
