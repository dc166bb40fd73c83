package natsbus

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/callstate/callstate/engine"
)

// Controller carries out requests; the engine is one. Do is called by many
// goroutines at once and returns when the outcome is known or ctx ends.
type Controller interface {
	Do(ctx context.Context, r engine.Request) engine.Outcome
}

// ControlPrefix begins the subjects of control:
// callstate.v1.control.<domain>.<account number>.<method>.
const ControlPrefix = servicePrefix + ".control"

// controlsAtOnce bounds the requests that wait for the PBX together.
const controlsAtOnce = 256

// longestTimeout bounds what a request may ask for.
const longestTimeout = 5 * time.Minute

// Control answers requests over NATS, an endpoint a method.
type Control struct {
	nc   *nats.Conn
	c    Controller
	o    ServiceOptions
	svc  micro.Service
	ctx  context.Context
	stop context.CancelFunc
	room chan struct{} // holds one for each request under way

	mu      sync.Mutex // guards closing, and Add of running against it
	closing bool
	running sync.WaitGroup
}

// StartControl registers the service on nc. The caller closes it before the
// connection.
func StartControl(nc *nats.Conn, c Controller, o ServiceOptions) (*Control, error) {
	if o.Version == "" {
		o.Version = buildVersion()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Control{nc: nc, c: c, o: o, room: make(chan struct{}, controlsAtOnce)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	svc, err := micro.AddService(nc, micro.Config{
		Name: serviceName + "-control", Version: o.Version, Description: "calls of a PBX, commanded for an account",
		QueueGroup: serviceName,
		ErrorHandler: func(_ micro.Service, err *micro.NATSError) {
			o.Logger.Warn("control service", "err", err)
		},
	})
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("natsbus: start control: %w", err)
	}
	s.svc = svc
	for _, method := range engine.Methods() {
		subject := ControlPrefix + ".*.*." + method
		if err := svc.AddEndpoint(method, micro.HandlerFunc(s.handle), micro.WithEndpointSubject(subject)); err != nil {
			_ = s.Close()
			return nil, fmt.Errorf("natsbus: endpoint %s: %w", subject, err)
		}
	}
	announce(nc)
	return s, nil
}

// Close takes no more requests, ends the waiting of those under way, and returns
// when they are answered.
func (s *Control) Close() error {
	s.mu.Lock()
	closed := s.closing
	s.closing = true
	s.mu.Unlock()
	s.stop()
	s.running.Wait()
	if closed {
		return nil
	}
	if err := s.svc.Stop(); err != nil {
		return fmt.Errorf("natsbus: stop control: %w", err)
	}
	return nil
}

// controlRequest is a request's body; subject and headers say the rest.
type controlRequest struct {
	engine.Request
	TimeoutMs int64 `json:"timeoutMs,omitempty"`
}

// handle reads a request and carries it out on a goroutine of its own: one that
// waits for a phone to be picked up holds up nobody.
func (s *Control) handle(r micro.Request) {
	if !isInbox(r.Reply()) { // nobody asked: an answer, an event, or one that means harm
		s.o.Logger.Warn("request not carried out", "subject", r.Subject(), "err", errNoInbox(r.Reply()))
		return
	}
	q, err := readControl(r.Subject(), r.Data())
	if err != nil {
		s.answer(r, engine.Outcome{Request: q.ID, Result: engine.VerdictBadArgument, Answer: err.Error()})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		s.answer(r, engine.Outcome{Request: q.ID, Result: engine.VerdictUnavailable, Answer: "stopping"})
		return
	}
	select {
	case s.room <- struct{}{}:
	default:
		s.answer(r, engine.Outcome{Request: q.ID, Result: engine.VerdictUnavailable, Answer: "too many requests are under way"})
		return
	}
	s.running.Go(func() {
		defer func() { <-s.room }()
		s.answer(r, s.c.Do(s.ctx, q))
	})
}

// readControl takes account and method from the subject, the rest from the body.
func readControl(subject string, data []byte) (engine.Request, error) {
	var q controlRequest
	if len(data) > maxRequest {
		return q.Request, fmt.Errorf("request of %d bytes, at most %d", len(data), maxRequest)
	}
	if err := decodeRequest(data, &q); err != nil {
		return q.Request, err
	}
	parts := strings.Split(strings.TrimPrefix(subject, ControlPrefix+"."), ".")
	if len(parts) != 3 {
		return q.Request, fmt.Errorf("subject %s: want %s.<domain>.<account number>.<method>", subject, ControlPrefix)
	}
	number, domain, err := readAccount(parts[0], parts[1])
	if err != nil {
		return q.Request, fmt.Errorf("subject: %w", err)
	}
	account := number + "@" + domain
	if q.Account != "" && q.Account != account {
		return q.Request, fmt.Errorf("account %s in the request, %s in the subject", q.Account, account)
	}
	if q.Method != "" && q.Method != parts[2] {
		return q.Request, fmt.Errorf("method %s in the request, %s in the subject", q.Method, parts[2])
	}
	if q.TimeoutMs < 0 || q.TimeoutMs > longestTimeout.Milliseconds() {
		return q.Request, fmt.Errorf("timeoutMs %d, want 0 to %d", q.TimeoutMs, longestTimeout.Milliseconds())
	}
	q.Account, q.Method = account, parts[2]
	q.Timeout = time.Duration(q.TimeoutMs) * time.Millisecond
	return q.Request, nil
}

// answer sends the outcome; what is not ok has its word in the service's error headers too.
func (s *Control) answer(r micro.Request, o engine.Outcome) {
	body, err := json.Marshal(o)
	if err == nil {
		var refusal *requestError
		if o.Result != engine.VerdictOK {
			refusal = &requestError{string(o.Result), o.Answer}
		}
		err = reply(s.nc, r, refusal, body)
	}
	if err != nil {
		s.o.Logger.Warn("outcome of a request not sent", "request", o.Request, "result", o.Result, "err", err)
	}
}
