// Package tracing makes OpenTelemetry traces of calls: a trace for each
// conversation, in it a span for each account's call, with spans for its ringing,
// talk, holds and commands.
//
// Spans are made of what is durable, when a call has ended, with the times of its
// events. So a trace says what the log says, also of a call that began before the
// process did, and nothing of it is in the way of a call. What a call's span holds
// are ids, durations and causes, and no numbers of people.
package tracing

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// waiting is how many ended calls may wait to be made spans of. When it is full
// the collector is away or slow, and the call's trace is dropped: the log has it.
const waiting = 1024

// Options configure a tracer.
type Options struct {
	// URL of the OTLP receiver over HTTP, such as http://127.0.0.1:4318. Headers, such
	// as a key, come from the environment's OTEL_EXPORTER_OTLP_HEADERS.
	URL     string
	Version string       // of callstate
	Logger  *slog.Logger // nil means discard

	exporter sdktrace.SpanExporter // for tests
}

// Tracer is an [engine.Observer] that exports traces. Run owns its goroutine.
type Tracer struct {
	log      *slog.Logger
	version  string
	exporter sdktrace.SpanExporter
	tracer   trace.Tracer // Run's own
	ended    chan *story
	dropped  atomic.Uint64
	troubled atomic.Int64 // when an error was logged last, Unix nanoseconds

	live map[events.CallKey]*story // the fold's own
}

var _ engine.Observer = (*Tracer)(nil)

// story is what a call's spans are made of.
type story struct {
	account, conversation string
	view                  *cti.Call
	position              uint64 // of the end
	held                  events.Time
	holds                 [][2]events.Time
	commands              []command
}

type command struct {
	id, method, result string
	asked, done        events.Time
}

// New returns a tracer. It connects to nobody yet.
func New(o Options) (*Tracer, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	t := &Tracer{
		log: o.Logger.With("part", "tracing"), version: o.Version, exporter: o.exporter,
		ended: make(chan *story, waiting), live: map[events.CallKey]*story{},
	}
	if t.exporter == nil {
		u, err := url.Parse(o.URL)
		if err != nil {
			return nil, errors.New("tracing: the receiver's address is not a URL") // the cause would quote it
		}
		if strings.Trim(u.Path, "/") == "" {
			u.Path = "/v1/traces" // of every receiver
		}
		if t.exporter, err = otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(u.String())); err != nil {
			return nil, fmt.Errorf("tracing: %w", err)
		}
	}
	return t, nil
}

// quiet is how often an error of the exporter is logged: each batch has one while
// the collector is away.
const quiet = time.Minute

func (t *Tracer) trouble(err error) {
	now, last := time.Now().UnixNano(), t.troubled.Load()
	if now-last < int64(quiet) || !t.troubled.CompareAndSwap(last, now) {
		return
	}
	t.log.Warn("traces are not exported, and dropped", "err", err)
}

// Dropped is how many calls' traces were dropped before they were spans.
func (t *Tracer) Dropped() uint64 { return t.dropped.Load() }

// Appended implements [engine.Observer].
func (t *Tracer) Appended(int, time.Duration) {}

// Folded implements [engine.Observer]. It remembers what the view of an ended call
// does not say, and hands over calls that ended.
func (t *Tracer) Folded(evs []events.Event, results []engine.Result) {
	for i := range evs {
		ev := &evs[i]
		switch p := ev.Payload.(type) {
		case *events.CallHeld:
			if s := t.of(ev); s.held == 0 {
				s.held = when(ev)
			}
		case *events.CallUnheld:
			t.of(ev).unhold(when(ev))
		case *events.CommandRequested:
			if c := results[i].Call; c != nil && c.EndedAt == 0 {
				s := t.of(ev)
				s.commands = append(s.commands, command{id: p.Request, method: p.Method, asked: when(ev)})
			}
		case *events.CommandCompleted:
			if s := t.live[ev.Key()]; s != nil {
				s.complete(p, when(ev))
				t.handOver(ev.Key(), s)
			}
		case *events.CallHungup:
			t.end(ev, &results[i])
		}
	}
}

func when(ev *events.Event) events.Time {
	if ev.OccurredAt != 0 {
		return ev.OccurredAt
	}
	return ev.RecordedAt
}

// of returns the story of a call that is live.
func (t *Tracer) of(ev *events.Event) *story {
	s := t.live[ev.Key()]
	if s == nil {
		s = &story{account: ev.Account}
		t.live[ev.Key()] = s
	}
	return s
}

func (s *story) unhold(at events.Time) {
	if s.held != 0 {
		s.holds = append(s.holds, [2]events.Time{s.held, at})
		s.held = 0
	}
}

func (s *story) complete(p *events.CommandCompleted, at events.Time) {
	for i := range s.commands {
		if c := &s.commands[i]; c.id == p.Request {
			c.result, c.done = p.Result, at
		}
	}
}

func (t *Tracer) end(ev *events.Event, r *engine.Result) {
	s := t.of(ev)
	if r.Call == nil {
		delete(t.live, ev.Key())
		return
	}
	s.view, s.conversation, s.position = r.Call, r.Conversation, ev.Position
	s.unhold(s.view.EndedAt)
	t.handOver(ev.Key(), s)
}

// handOver lets go of a call that has ended. The outcome of a request, such as the
// one that ended it, may come after the end.
func (t *Tracer) handOver(key events.CallKey, s *story) {
	if s.view == nil || slices.ContainsFunc(s.commands, func(c command) bool { return c.result == "" }) {
		return
	}
	delete(t.live, key)
	select {
	case t.ended <- s:
	default:
		t.dropped.Add(1)
	}
}

// Run makes spans of the calls that ended until ctx is done, and then exports what
// is left, as long as the collector takes it within some seconds.
func (t *Tracer) Run(ctx context.Context) {
	// The library reports through one place for the whole process.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(t.trouble))
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(t.exporter), // on a goroutine of its own; drops when its queue is full
		sdktrace.WithIDGenerator(ids{}),
		sdktrace.WithResource(resource.NewSchemaless(semconv.ServiceName("callstate"), semconv.ServiceVersion(t.version))),
	)
	t.tracer = provider.Tracer("github.com/callstate/callstate")
	for ctx.Err() == nil {
		select {
		case s := <-t.ended:
			t.export(s)
		case <-ctx.Done():
		}
	}
	for more := true; more; {
		select {
		case s := <-t.ended:
			t.export(s)
		default:
			more = false
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := provider.Shutdown(last); err != nil {
		t.trouble(errors.Join(errors.New("not all was exported at the end"), err))
	}
}

// export makes the spans of one call.
func (t *Tracer) export(s *story) {
	v := s.view
	if v.StartedAt == 0 || v.EndedAt == 0 {
		return
	}
	_, domain := cti.SplitAccount(s.account)
	key := fmt.Sprintf("%s/%s/%d", s.account, v.ID, s.position)
	ctx := context.WithValue(context.Background(), idsKey{}, ids{trace: traceID(s.conversation), key: key})
	ctx, root := t.tracer.Start(ctx, "call", trace.WithNewRoot(), at(v.StartedAt), trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("callstate.call_id", v.ID), attribute.String("callstate.conversation", s.conversation), attribute.String("callstate.domain", domain),
		attribute.String("callstate.direction", string(v.Direction)), attribute.String("callstate.outcome", string(v.Outcome)),
		attribute.String("callstate.cause", v.Cause), attribute.Int("callstate.cause_code", v.CauseCode), attribute.Int64("callstate.position", int64(s.position)),
		attribute.Int64("callstate.ring_ms", v.RingMs), attribute.Int64("callstate.talk_ms", v.TalkMs), attribute.Int64("callstate.hold_ms", v.HoldMs),
		attribute.String("callstate.inferred", v.Inferred),
	))
	n := 0
	span := func(name string, from, to events.Time, result engine.Verdict, attrs ...attribute.KeyValue) {
		n++
		ctx := context.WithValue(ctx, idsKey{}, ids{key: fmt.Sprintf("%s/%d", key, n)})
		_, sp := t.tracer.Start(ctx, name, at(from), trace.WithAttributes(attrs...))
		if result != engine.VerdictOK {
			sp.SetStatus(codes.Error, string(result))
		}
		sp.End(at(max(from, to)))
	}
	answered := firstOf(v.AnsweredAt, v.BridgedAt)
	span("ringing", v.StartedAt, firstOf(answered, v.EndedAt), engine.VerdictOK)
	if answered != 0 {
		span("talk", answered, v.EndedAt, engine.VerdictOK)
	}
	for _, h := range s.holds {
		span("hold", h[0], h[1], engine.VerdictOK)
	}
	for _, c := range s.commands {
		span(c.method, c.asked, c.done, engine.Verdict(c.result), attribute.String("callstate.request", c.id), attribute.String("callstate.result", c.result))
	}
	root.End(at(max(v.StartedAt, v.EndedAt)))
}

func firstOf(a, b events.Time) events.Time {
	if a != 0 {
		return a
	}
	return b
}

func at(t events.Time) trace.SpanEventOption { return trace.WithTimestamp(t.Time()) }

// ids gives spans ids that follow from what they are of, so that a call that is
// exported twice is one.
type ids struct {
	trace trace.TraceID
	key   string
}

type idsKey struct{}

// NewIDs implements the SDK's IDGenerator.
func (ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	i, _ := ctx.Value(idsKey{}).(ids)
	return i.trace, spanID(i.key)
}

// NewSpanID implements the SDK's IDGenerator.
func (ids) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	i, _ := ctx.Value(idsKey{}).(ids)
	return spanID(i.key)
}

// traceID is the conversation's UUID, else made of its name.
func traceID(conversation string) trace.TraceID {
	if u, err := uuid.Parse(conversation); err == nil && u != uuid.Nil {
		return trace.TraceID(u)
	}
	sum := sha256.Sum256([]byte(conversation))
	return trace.TraceID(sum[:16])
}

func spanID(key string) trace.SpanID {
	sum := sha256.Sum256([]byte(key))
	var id trace.SpanID
	binary.BigEndian.PutUint64(id[:], binary.BigEndian.Uint64(sum[:8])|1) // never zero
	return id
}
