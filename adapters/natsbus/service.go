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
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/callstate/callstate/engine"
)

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
	announceTime     = 2 * time.Second
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

	room chan struct{} // holds one for each query under way

	mu      sync.Mutex // guards what follows, and Add of running against closing
	closing bool
	busy    map[Scope]int // queries under way, by whom they are about
	running sync.WaitGroup
}

// Queries under way together, and those about one account or domain: who may ask
// about a part alone cannot keep everybody else waiting.
const (
	queriesAtOnce     = 32
	queriesOfOneScope = 4
)

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
	s := &Service{q: q, o: o, nc: nc, room: make(chan struct{}, queriesAtOnce), busy: map[Scope]int{}}
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
	announce(nc)
	return s, nil
}

// announce returns when the server knows what was subscribed to: who asks from then
// on is answered. A connection that is down tells the server when it is up.
func announce(nc *nats.Conn) {
	if nc.IsConnected() {
		_ = nc.FlushTimeout(announceTime) // one that is lost meanwhile does the same
	}
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

// handler answers requests, each on a goroutine of its own; where too many are
// under way, the endpoint waits.
func (s *Service) handler(verb string) micro.HandlerFunc {
	return func(r micro.Request) {
		if !isInbox(r.Reply()) {
			s.o.Logger.Warn("query not answered", "endpoint", verb, "err", errNoInbox(r.Reply()))
			return
		}
		in, err := s.scopeOf(r.Subject())
		if err == nil {
			err = s.enter(in)
		}
		if err != nil {
			s.respond(verb, r, nil, err)
			return
		}
		s.room <- struct{}{}
		s.running.Go(func() { // counted twice for a moment, see enter
			defer s.leave(in)
			ctx, cancel := context.WithTimeout(context.Background(), s.o.Timeout)
			defer cancel()
			body, err := s.answer(ctx, verb, in, r.Data())
			s.respond(verb, r, body, err)
		})
		s.running.Done()
	}
}

// enter admits a query, or says why not. It adds to running, so that Close waits
// also for one that waits for room.
func (s *Service) enter(in Scope) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return &requestError{CodeUnavailable, "stopping"}
	case in != (Scope{}) && s.busy[in] >= queriesOfOneScope:
		return &requestError{CodeUnavailable, "too many queries of this account or domain are under way, try again"}
	}
	s.busy[in]++
	s.running.Add(1)
	return nil
}

func (s *Service) leave(in Scope) {
	<-s.room
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[in]--; s.busy[in] == 0 {
		delete(s.busy, in)
	}
}

// scopeOf reads the scope from a query's subject.
func (s *Service) scopeOf(subject string) (Scope, error) {
	if rest, ok := strings.CutPrefix(subject, s.o.Prefix+".of."); ok {
		return readScope(rest)
	}
	return Scope{}, nil
}

func (s *Service) respond(verb string, r micro.Request, body []byte, err error) {
	var refusal *requestError
	if err != nil {
		refusal = s.refusal(verb, err)
	}
	if err := reply(s.nc, r, refusal, body); err != nil {
		s.o.Logger.Warn("service answer not sent", "endpoint", verb, "err", err)
	}
}

func (s *Service) answer(ctx context.Context, verb string, in Scope, data []byte) ([]byte, error) {
	if len(data) > maxRequest {
		return nil, badRequest("request of %d bytes, at most %d", len(data), maxRequest)
	}
	v, err := s.query(ctx, verb, in, data)
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

// read reads a request about a scope, which fills in the account and the domain
// that the request leaves open; domain may be nil.
func (in Scope) read(data []byte, r any, account, domain *string) error {
	if err := decodeRequest(data, r); err != nil {
		return err
	}
	return in.narrow(account, domain)
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
