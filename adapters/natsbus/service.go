package natsbus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// Queries is what the service asks of the engine. Its methods are called by
// several goroutines at once and return when ctx ends at the latest. What they
// return is encoded after they returned and must not change any more.
//
// An error that matches ErrUnavailable is answered as unavailable, any other as
// internal; its text goes to our log, not to the caller.
type Queries interface {
	// Call returns one call's view, and false where it is not known.
	Call(ctx context.Context, key events.CallKey) (cti.CallView, bool, error)
	// Calls returns the calls that f lets through, the latest first.
	Calls(ctx context.Context, f CallFilter) ([]cti.CallView, error)
	// History returns the stored events of the calls that f names, in order of
	// position, each with the CTI events that follow from it.
	History(ctx context.Context, f HistoryFilter) ([]HistoryEntry, error)
	// Explain returns, for every field of the calls that f names, the event that
	// set it last.
	Explain(ctx context.Context, f HistoryFilter) ([]engine.Evidence, error)
	// At returns the PBX as it was at a time.
	At(ctx context.Context, f AtFilter) (engine.Moment, error)
	// Since returns the CTI events that a subscriber missed.
	Since(ctx context.Context, f SinceFilter) (engine.Missed, error)
	// Line returns one account's line, and false where it is not known.
	Line(ctx context.Context, account string) (cti.LineView, bool, error)
	// Lines returns the lines of a domain, of all domains where it is empty,
	// sorted by account.
	Lines(ctx context.Context, f LineFilter) ([]cti.LineView, error)
	// Doubtful returns the live calls that may have ended without our being told.
	Doubtful(ctx context.Context, f DoubtFilter) ([]engine.Doubt, error)
	// Status describes the engine.
	Status(ctx context.Context) (Status, error)
}

// ErrUnavailable says that a query cannot be answered now, and may be later.
var ErrUnavailable = errors.New("natsbus: unavailable")

// CallFilter says which calls; the service makes a Limit of 0 100, and refuses
// one above 1000.
type CallFilter = engine.CallFilter

// HistoryFilter says whose history. An empty Account means all accounts' calls
// of CallID.
type HistoryFilter struct {
	Account string `json:"account,omitempty"`
	CallID  string `json:"callId"`
	After   uint64 `json:"after,omitempty"` // only positions above it
	Limit   int    `json:"limit,omitempty"` // 1 to 1000; the service makes 0 1000
	// Conversation asks for the whole conversation: every account's calls and the
	// legs that are no account's. Explain asks also which event set each field.
	Conversation bool `json:"conversation,omitempty"`
	Explain      bool `json:"explain,omitempty"`
	// Of bounds whose events are told of, also where a conversation has more. The
	// legs of trunks are nobody's: a whole domain's history has them, an account's
	// does not.
	Of Scope `json:"-"`
}

// Tells reports whether the history has an event of an account, empty for a
// trunk's leg.
func (f *HistoryFilter) Tells(account string) bool {
	return account == "" && f.Of.Account == "" || f.Of.Has(account)
}

// AtFilter says which moment, and whose. Limit is 1 to 1000; the service makes 0 100.
type AtFilter = engine.AtFilter

// SinceFilter says which CTI events were missed. Limit is 1 to 1000; the service
// makes 0 1000.
type SinceFilter = engine.SinceFilter

// DoubtFilter says what counts as doubtful. Limit is 1 to 1000; the service makes
// 0 100.
type DoubtFilter = engine.DoubtFilter

// LineFilter says which lines.
type LineFilter struct {
	Account string `json:"account,omitempty"`
	Domain  string `json:"domain,omitempty"`
	After   string `json:"after,omitempty"` // only accounts that sort after it
	Limit   int    `json:"limit,omitempty"` // 1 to 1000; the service makes 0 100
}

// HistoryEntry is one stored event and the CTI events that follow from it.
type HistoryEntry struct {
	Type    events.Type     `json:"type"`
	Event   *events.Event   `json:"event"`
	Payload json.RawMessage `json:"payload,omitempty"` // of the event; the service fills it in where it is nil
	CTI     []cti.Event     `json:"cti,omitempty"`
	Aside   bool            `json:"aside,omitempty"` // the event is of a call that is not told of, and CTI is about one that is
}

// Status describes a running engine.
type Status struct {
	Version   string             `json:"version"` // the service fills it in where it is empty
	Log       string             `json:"log"`     // id of the log
	StartedAt events.Time        `json:"startedAt,omitempty"`
	Position  uint64             `json:"position"`  // last stored event
	Folded    uint64             `json:"folded"`    // last event folded
	Confirmed uint64             `json:"confirmed"` // last event whose CTI events are in the stream
	Live      int                `json:"live"`      // calls that have not ended
	Doubtful  int                `json:"doubtful"`  // of them, those that calls.doubtful lists
	Lines     int                `json:"lines"`
	Frames    events.FrameCounts `json:"frames"`
	Links     []LinkStatus       `json:"links"`
	Bus       Stats              `json:"bus"`
}

// LinkStatus is one connection to a PBX.
type LinkStatus struct {
	Adapter   string      `json:"adapter"`
	PBX       string      `json:"pbx,omitempty"` // its name, where there are several
	Domain    string      `json:"domain,omitempty"`
	Login     string      `json:"login,omitempty"`
	Mode      string      `json:"mode,omitempty"` // domain, account, phone
	Connected bool        `json:"connected"`
	Refused   bool        `json:"refused,omitempty"` // by the PBX, for good: nothing more is tried
	Since     events.Time `json:"since,omitempty"`   // that it is connected or not
	Reason    string      `json:"reason,omitempty"`  // why it is not connected, or the PBX does not answer
	// ComparedAt is when the PBX last said what channels it has, UnansweredSince
	// since when it does not.
	ComparedAt      events.Time `json:"comparedAt,omitempty"`
	UnansweredSince events.Time `json:"unansweredSince,omitempty"`
}

// Error codes of the service, in the header Nats-Service-Error-Code.
const (
	CodeBadRequest  = "bad-request" // the request is not understood; repeating it is useless
	CodeNotFound    = "not-found"   // no such call or line
	CodeGone        = "gone"        // retention has dropped what the answer takes
	CodeUnavailable = "unavailable" // not now: starting, stopping or overloaded
	CodeInternal    = "internal"    // our fault; the log says more
)

const (
	serviceName      = "callstate"
	servicePrefix    = "callstate.v1"
	defaultLimit     = 100
	maxLimit         = 1000
	maxRequest       = 16 << 10 // bytes; a request is two ids and a number
	defaultQueryTime = 5 * time.Second
)

// ServiceOptions configure the service. The zero value of a field means its default.
type ServiceOptions struct {
	Prefix  string        // of the subjects; "" means callstate.v1
	Version string        // semantic; "" means that of the build
	Timeout time.Duration // of one query; 0 means 5 s
	Log     LogSource     // may be read by whoever may ask about everybody; nil: by nobody
	Logger  *slog.Logger  // nil means discard
}

// Service answers queries over NATS. Several instances under one prefix share
// the work, each request going to one of them.
type Service struct {
	q   Queries
	o   ServiceOptions
	nc  *nats.Conn
	svc micro.Service

	mu      sync.Mutex // guards closing, and Add of running against it
	closing bool
	running sync.WaitGroup
}

// StartService registers the service on nc. The caller closes it before the
// connection.
func StartService(nc *nats.Conn, q Queries, o ServiceOptions) (*Service, error) {
	if o.Prefix == "" {
		o.Prefix = servicePrefix
	}
	if o.Version == "" {
		o.Version = buildVersion()
	}
	if o.Timeout == 0 {
		o.Timeout = defaultQueryTime
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if !validPrefix(o.Prefix) {
		return nil, fmt.Errorf("natsbus: service prefix %q: want tokens of letters, digits, '-' and '_', joined by dots", o.Prefix)
	}
	s := &Service{q: q, o: o, nc: nc}
	svc, err := micro.AddService(nc, micro.Config{
		Name: serviceName, Version: o.Version, Description: "call state of a PBX: calls, lines, history",
		QueueGroup: serviceName,
		ErrorHandler: func(_ micro.Service, err *micro.NATSError) {
			o.Logger.Warn("service", "err", err)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("natsbus: start service: %w", err)
	}
	s.svc = svc
	for _, verb := range queryVerbs {
		name := strings.ReplaceAll(verb, ".", "-")
		for _, e := range [][2]string{{name, "." + verb}, {"of-" + name, ".of.*.*." + verb}} {
			subject := o.Prefix + e[1]
			if err := svc.AddEndpoint(e[0], s.handler(verb), micro.WithEndpointSubject(subject)); err != nil {
				s.Close()
				return nil, fmt.Errorf("natsbus: endpoint %s: %w", subject, err)
			}
		}
	}
	if o.Log != nil {
		for _, verb := range []string{logEvents, logBase} {
			if err := svc.AddEndpoint(strings.ReplaceAll(verb, ".", "-"), s.handler(verb), micro.WithEndpointSubject(o.Prefix+"."+verb)); err != nil {
				s.Close()
				return nil, fmt.Errorf("natsbus: endpoint %s.%s: %w", o.Prefix, verb, err)
			}
		}
	}
	return s, nil
}

// queryVerbs are the last tokens of the service's subjects.
var queryVerbs = []string{"calls.get", "calls.list", "calls.history", "calls.doubtful", "calls.at", "events.since", "lines.get", "lines.list", "lines.at", "status"}

// query answers one verb about a scope.
func (s *Service) query(ctx context.Context, verb string, in Scope, data []byte) (any, error) {
	switch verb {
	case "calls.get":
		return s.callsGet(ctx, in, data)
	case "calls.list":
		return s.callsList(ctx, in, data)
	case "calls.history":
		return s.callsHistory(ctx, in, data)
	case "calls.doubtful":
		return s.callsDoubtful(ctx, in, data)
	case "calls.at":
		return s.callsAt(ctx, in, data)
	case "events.since":
		return s.eventsSince(ctx, in, data)
	case "lines.get":
		return s.linesGet(ctx, in, data)
	case "lines.list":
		return s.linesList(ctx, in, data)
	case "lines.at":
		return s.linesAt(ctx, in, data)
	case "status":
		return s.status(ctx, in, data)
	case logEvents:
		return s.logEvents(ctx, data)
	case logBase:
		return s.logBase(data)
	default:
		return nil, badRequest("no query %s", verb)
	}
}

// Close takes no more requests and waits for those under way.
func (s *Service) Close() error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		s.running.Wait()
		return nil
	}
	s.closing = true
	s.mu.Unlock()
	err := s.svc.Stop()
	s.running.Wait()
	if err != nil {
		return fmt.Errorf("natsbus: stop service: %w", err)
	}
	return nil
}

// requestError is a refusal; text is for the caller.
type requestError struct{ code, text string }

func (e *requestError) Error() string { return e.code + ": " + e.text }

func badRequest(format string, v ...any) error {
	return &requestError{CodeBadRequest, fmt.Sprintf(format, v...)}
}

// handler answers each request; each endpoint has a goroutine of its own.
func (s *Service) handler(verb string) micro.HandlerFunc {
	return func(r micro.Request) {
		if !isInbox(r.Reply()) {
			s.o.Logger.Warn("query not answered", "endpoint", verb, "err", errNoInbox(r.Reply()))
			return
		}
		s.mu.Lock()
		closing := s.closing
		if !closing {
			s.running.Add(1)
		}
		s.mu.Unlock()
		if closing {
			_ = r.Error(CodeUnavailable, "stopping", nil)
			return
		}
		defer s.running.Done()
		ctx, cancel := context.WithTimeout(context.Background(), s.o.Timeout)
		defer cancel()
		body, err := s.answer(ctx, verb, r)
		if err == nil {
			if err = r.Respond(body); err != nil {
				s.o.Logger.Warn("service answer not sent", "endpoint", verb, "err", err)
			}
			return
		}
		refusal := s.refusal(verb, err)
		if err := r.Error(refusal.code, refusal.text, nil); err != nil {
			s.o.Logger.Warn("service answer not sent", "endpoint", verb, "err", err)
		}
	}
}

func (s *Service) answer(ctx context.Context, verb string, r micro.Request) ([]byte, error) {
	if len(r.Data()) > maxRequest {
		return nil, badRequest("request of %d bytes, at most %d", len(r.Data()), maxRequest)
	}
	var in Scope
	if rest, ok := strings.CutPrefix(r.Subject(), s.o.Prefix+".of."); ok {
		var err error
		if in, err = readScope(rest); err != nil {
			return nil, err
		}
	}
	v, err := s.query(ctx, verb, in, r.Data())
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	if limit := s.nc.MaxPayload(); int64(b.Len()) > limit {
		return nil, badRequest("answer of %d bytes, NATS carries %d: ask with a lower limit", b.Len(), limit)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// refusal turns an error into what the caller is told; what is our fault is
// logged and not told.
func (s *Service) refusal(verb string, err error) *requestError {
	var e *requestError
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, engine.ErrDropped):
		return &requestError{CodeGone, err.Error()}
	case errors.Is(err, ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		s.o.Logger.Warn("query not answered", "endpoint", verb, "err", err)
		return &requestError{CodeUnavailable, "not now, try again"}
	default:
		s.o.Logger.Error("query failed", "endpoint", verb, "err", err)
		return &requestError{CodeInternal, "query failed, the log of callstate says why"}
	}
}

// decodeRequest reads a request; an empty one is {}. An unknown member is an
// error, since a misspelt filter would let everything through.
func decodeRequest(data []byte, v any) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return badRequest("%v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return badRequest("more than one JSON value")
	}
	return nil
}

func setLimit(limit *int, byDefault int) error {
	if *limit == 0 {
		*limit = byDefault
	}
	if *limit < 1 || *limit > maxLimit {
		return badRequest("limit %d, want 1 to %d", *limit, maxLimit)
	}
	return nil
}

func (s *Service) callsGet(ctx context.Context, in Scope, data []byte) (any, error) {
	var r struct {
		Account string `json:"account"`
		CallID  string `json:"callId"`
	}
	if err := decodeRequest(data, &r); err != nil {
		return nil, err
	}
	if r.CallID == "" {
		return nil, badRequest("callId is missing")
	}
	if err := in.narrow(&r.Account, nil); err != nil {
		return nil, err
	}
	calls := []cti.CallView{}
	if r.Account == "" {
		found, err := s.q.Calls(ctx, CallFilter{Domain: in.Domain, CallID: r.CallID, Limit: maxLimit})
		if err != nil {
			return nil, err
		}
		calls = append(calls, found...)
	} else if v, ok, err := s.q.Call(ctx, events.CallKey{Account: r.Account, Call: r.CallID}); err != nil {
		return nil, err
	} else if ok {
		calls = append(calls, v)
	}
	if len(calls) == 0 {
		return nil, &requestError{CodeNotFound, "no such call"}
	}
	return callsAnswer{calls}, nil
}

type callsAnswer struct {
	Calls []cti.CallView `json:"calls"`
}

func (s *Service) callsList(ctx context.Context, in Scope, data []byte) (any, error) {
	var f CallFilter
	if err := decodeRequest(data, &f); err != nil {
		return nil, err
	}
	if err := in.narrow(&f.Account, &f.Domain); err != nil {
		return nil, err
	}
	if err := setLimit(&f.Limit, defaultLimit); err != nil {
		return nil, err
	}
	calls, err := s.q.Calls(ctx, f)
	if err != nil {
		return nil, err
	}
	return callsAnswer{append([]cti.CallView{}, calls...)}, nil
}

func (s *Service) callsHistory(ctx context.Context, in Scope, data []byte) (any, error) {
	var f HistoryFilter
	if err := decodeRequest(data, &f); err != nil {
		return nil, err
	}
	if err := in.narrow(&f.Account, nil); err != nil {
		return nil, err
	}
	f.Of = in
	if f.CallID == "" {
		return nil, badRequest("callId is missing")
	}
	if err := setLimit(&f.Limit, maxLimit); err != nil {
		return nil, err
	}
	entries, err := s.q.History(ctx, f)
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 && f.After == 0 {
		return nil, &requestError{CodeNotFound, "no such call"}
	}
	out := append([]HistoryEntry{}, entries...)
	for i := range out {
		e := &out[i]
		if e.Event == nil {
			return nil, errors.New("history entry without an event")
		}
		e.Type = e.Event.Type()
		if e.Payload == nil && e.Event.Payload != nil {
			if e.Payload, err = json.Marshal(e.Event.Payload); err != nil {
				return nil, err
			}
		}
	}
	var evidence []engine.Evidence
	if f.Explain {
		if evidence, err = s.q.Explain(ctx, f); err != nil {
			return nil, err
		}
	}
	return struct {
		Events   []HistoryEntry    `json:"events"`
		More     bool              `json:"more"` // ask again, after the last position
		Evidence []engine.Evidence `json:"evidence,omitempty"`
	}{out, len(out) >= f.Limit, evidence}, nil
}

// moment answers what at asks. A page of calls cannot be asked for: a PBX has as
// many live calls as agents, and a limit that cuts says so.
func (s *Service) moment(ctx context.Context, in Scope, data []byte) (engine.Moment, AtFilter, error) {
	var f AtFilter
	if err := decodeRequest(data, &f); err != nil {
		return engine.Moment{}, f, err
	}
	if err := in.narrow(&f.Account, &f.Domain); err != nil {
		return engine.Moment{}, f, err
	}
	if f.Time == 0 {
		return engine.Moment{}, f, badRequest("time is missing")
	}
	if err := setLimit(&f.Limit, defaultLimit); err != nil {
		return engine.Moment{}, f, err
	}
	m, err := s.q.At(ctx, f)
	return m, f, err
}

func (s *Service) callsAt(ctx context.Context, in Scope, data []byte) (any, error) {
	m, f, err := s.moment(ctx, in, data)
	if err != nil {
		return nil, err
	}
	return struct {
		Time     events.Time    `json:"time"`
		Position uint64         `json:"position"` // the last event that counts
		Calls    []cti.CallView `json:"calls"`
		More     bool           `json:"more"` // ask again with a higher limit or one account
	}{f.Time, m.Position, append([]cti.CallView{}, m.Calls[:min(len(m.Calls), f.Limit)]...), len(m.Calls) > f.Limit}, nil
}

func (s *Service) linesAt(ctx context.Context, in Scope, data []byte) (any, error) {
	m, f, err := s.moment(ctx, in, data)
	if err != nil {
		return nil, err
	}
	lines := []cti.LineView{}
	for _, l := range m.Lines {
		if l.Account > f.After {
			lines = append(lines, l)
		}
	}
	return struct {
		Time     events.Time    `json:"time"`
		Position uint64         `json:"position"`
		Lines    []cti.LineView `json:"lines"`
		More     bool           `json:"more"` // ask again, after the last account
	}{f.Time, m.Position, lines[:min(len(lines), f.Limit)], len(lines) > f.Limit}, nil
}

// eventsSince answers with as many events as NATS carries at once, and says
// whether there are more.
func (s *Service) eventsSince(ctx context.Context, in Scope, data []byte) (any, error) {
	var f SinceFilter
	if err := decodeRequest(data, &f); err != nil {
		return nil, err
	}
	if err := in.narrow(&f.Account, &f.Domain); err != nil {
		return nil, err
	}
	if err := setLimit(&f.Limit, maxLimit); err != nil {
		return nil, err
	}
	switch {
	case f.CallID != "" && f.Account == "":
		return nil, badRequest("callId without account")
	case f.After != 0 && f.Account == "":
		return nil, badRequest("after counts in an account or a call: account is missing; position counts in the log")
	}
	m, err := s.q.Since(ctx, f)
	if err != nil {
		return nil, err
	}
	out := sinceAnswer{After: m.After, Position: m.Position, Last: m.Last, More: m.More, Events: []json.RawMessage{}}
	room := int(s.nc.MaxPayload()) - 1024
	for i := range m.Events {
		e := cti.AppendEvent(nil, &m.Events[i])
		if room -= len(e) + 1; room < 0 {
			out.cut(m.Events[:i])
			break
		}
		out.Events = append(out.Events, e)
	}
	return &out, nil
}

// sinceAnswer is the answer of events.since.
type sinceAnswer struct {
	Events   []json.RawMessage `json:"events"`
	More     bool              `json:"more"`     // ask again, after the last one
	After    uint64            `json:"after"`    // as asked, or the last one that retention has dropped
	Position uint64            `json:"position"` // the same
	Last     uint64            `json:"last"`     // position that was looked through
}

// cut ends the answer after the events that fit, at the end of a position.
func (a *sinceAnswer) cut(fit []cti.Event) {
	n := len(fit)
	for n > 1 && fit[n-1].Position == fit[len(fit)-1].Position && fit[0].Position != fit[n-1].Position {
		n--
	}
	a.Events, a.More = a.Events[:n], true
	if n > 0 {
		a.Last = fit[n-1].Position
	}
}

func (s *Service) linesGet(ctx context.Context, in Scope, data []byte) (any, error) {
	var r struct {
		Account string `json:"account"`
	}
	if err := decodeRequest(data, &r); err != nil {
		return nil, err
	}
	if err := in.narrow(&r.Account, nil); err != nil {
		return nil, err
	}
	if r.Account == "" {
		return nil, badRequest("account is missing")
	}
	v, ok, err := s.q.Line(ctx, r.Account)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, &requestError{CodeNotFound, "no such account"}
	}
	return v, nil
}

func (s *Service) linesList(ctx context.Context, in Scope, data []byte) (any, error) {
	var f LineFilter
	if err := decodeRequest(data, &f); err != nil {
		return nil, err
	}
	if err := in.narrow(&f.Account, &f.Domain); err != nil {
		return nil, err
	}
	if err := setLimit(&f.Limit, defaultLimit); err != nil {
		return nil, err
	}
	lines, err := s.q.Lines(ctx, f)
	if err != nil {
		return nil, err
	}
	return struct {
		Lines []cti.LineView `json:"lines"`
		More  bool           `json:"more"` // ask again, after the last account
	}{append([]cti.LineView{}, lines...), len(lines) >= f.Limit}, nil
}

func (s *Service) callsDoubtful(ctx context.Context, in Scope, data []byte) (any, error) {
	var f struct {
		DoubtFilter
		UncheckedMs int64 `json:"uncheckedMs,omitempty"`
		SilentMs    int64 `json:"silentMs,omitempty"`
	}
	if err := decodeRequest(data, &f); err != nil {
		return nil, err
	}
	if err := in.narrow(&f.Account, &f.Domain); err != nil {
		return nil, err
	}
	if err := setLimit(&f.Limit, defaultLimit); err != nil {
		return nil, err
	}
	if f.UncheckedMs < 0 || f.SilentMs < 0 {
		return nil, badRequest("uncheckedMs %d, silentMs %d: want 0 or more", f.UncheckedMs, f.SilentMs)
	}
	f.Unchecked, f.Silent = time.Duration(f.UncheckedMs)*time.Millisecond, time.Duration(f.SilentMs)*time.Millisecond
	ds, err := s.q.Doubtful(ctx, f.DoubtFilter)
	if err != nil {
		return nil, err
	}
	return struct {
		Calls []engine.Doubt `json:"calls"`
		More  bool           `json:"more"`
	}{append([]engine.Doubt{}, ds...), len(ds) >= f.Limit}, nil
}

func (s *Service) status(ctx context.Context, in Scope, data []byte) (any, error) {
	if err := decodeRequest(data, &struct{}{}); err != nil {
		return nil, err
	}
	st, err := s.q.Status(ctx)
	if err != nil {
		return nil, err
	}
	if st.Version == "" {
		st.Version = s.o.Version
	}
	if in.Domain != "" {
		st.Links = slices.DeleteFunc(st.Links, func(l LinkStatus) bool {
			return l.Domain != in.Domain || in.Account != "" && l.Mode != "domain" && l.Login != in.Account
		})
	}
	if st.Links == nil {
		st.Links = []LinkStatus{}
	}
	if in.Domain == "" {
		return st, nil
	}
	// The figures are everybody's: who may see a part is told what a subscriber needs.
	return struct {
		Version   string       `json:"version"`
		Log       string       `json:"log"`
		StartedAt events.Time  `json:"startedAt,omitempty"`
		Position  uint64       `json:"position"`
		Folded    uint64       `json:"folded"`
		Confirmed uint64       `json:"confirmed"`
		Links     []LinkStatus `json:"links"`
	}{st.Version, st.Log, st.StartedAt, st.Position, st.Folded, st.Confirmed, st.Links}, nil
}

// buildVersion is the module's version as semver without the v, 0.0.0 for a
// build from a working copy.
func buildVersion() string {
	if bi, ok := debug.ReadBuildInfo(); ok {
		if v, ok := strings.CutPrefix(bi.Main.Version, "v"); ok {
			return v
		}
	}
	return "0.0.0"
}
