package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// LogSource is a log that the service lets others read.
type LogSource interface {
	engine.Reader
	Last() uint64 // position of the last event
}

// The queries of a log. They are about everybody: there are none about a scope.
const (
	logEvents = "log.events"
	logBase   = "log.base"
)

// logPage is the answer of log.events.
type logPage struct {
	Log    string            `json:"log"`
	Last   uint64            `json:"last"` // position of the log's last event
	Events []json.RawMessage `json:"events"`
	More   bool              `json:"more"` // ask again, from after the last one
}

// logBasePart is the answer of log.base: a part of the state, since NATS carries a
// megabyte at once.
type logBasePart struct {
	Log      string `json:"log"`
	Last     uint64 `json:"last"`
	Position uint64 `json:"position"` // of the last event that was dropped, 0 where none was
	Size     int    `json:"size"`     // of the whole state
	State    []byte `json:"state,omitempty"`
}

var errFull = errors.New("natsbus: answer is full")

// logEvents answers with as many stored events as NATS carries at once.
func (s *Service) logEvents(ctx context.Context, data []byte) (any, error) {
	var r struct {
		From  uint64 `json:"from"`
		Limit int    `json:"limit"`
	}
	if err := decodeRequest(data, &r); err != nil {
		return nil, err
	}
	if r.From == 0 {
		return nil, badRequest("from is missing: positions count from 1")
	}
	if err := setLimit(&r.Limit, maxLimit); err != nil {
		return nil, err
	}
	log := s.o.Log
	base, _, err := log.Base()
	if err != nil {
		return nil, err
	}
	if r.From <= base {
		return nil, &requestError{CodeGone, fmt.Sprintf("retention has dropped the events through %d", base)}
	}
	page := logPage{Log: log.ID(), Last: log.Last(), Events: []json.RawMessage{}}
	room := int(s.nc.MaxPayload()) - 1024
	err = log.Read(ctx, r.From, func(ev *events.Event) error {
		b, err := json.Marshal(ev)
		if err != nil {
			return err
		}
		if room -= len(b) + 1; len(page.Events) == r.Limit || room < 0 && len(page.Events) > 0 {
			page.More = true
			return errFull
		}
		page.Events = append(page.Events, b)
		return nil
	})
	if err != nil && !errors.Is(err, errFull) {
		return nil, err
	}
	return &page, nil
}

func (s *Service) logBase(data []byte) (any, error) {
	var r struct {
		Offset int `json:"offset"`
	}
	if err := decodeRequest(data, &r); err != nil {
		return nil, err
	}
	log := s.o.Log
	position, state, err := log.Base()
	if err != nil {
		return nil, err
	}
	if r.Offset < 0 || r.Offset > len(state) {
		return nil, badRequest("offset %d, want 0 to %d", r.Offset, len(state))
	}
	part := state[r.Offset:]
	part = part[:min(len(part), int(s.nc.MaxPayload()/2))] // base64 and the rest of the answer
	return &logBasePart{Log: log.ID(), Last: log.Last(), Position: position, Size: len(state), State: part}, nil
}

// RemoteLog is the log of a running engine, read over NATS as far as it reached
// when it was opened. It is an [engine.Reader].
type RemoteLog struct {
	nc       *nats.Conn
	id       string
	last     uint64
	position uint64 // of the base
	state    []byte
}

// OpenRemoteLog asks the engine on nc for its log.
func OpenRemoteLog(ctx context.Context, nc *nats.Conn) (*RemoteLog, error) {
	l := &RemoteLog{nc: nc}
	for {
		var part logBasePart
		if err := l.ask(ctx, logBase, map[string]int{"offset": len(l.state)}, &part); err != nil {
			return nil, err
		}
		if l.id != "" && (part.Log != l.id || part.Position != l.position) { // retention went on meanwhile
			*l = RemoteLog{nc: nc}
			continue
		}
		l.id, l.last, l.position = part.Log, part.Last, part.Position
		l.state = append(l.state, part.State...)
		if len(l.state) >= part.Size {
			return l, nil
		}
	}
}

func (l *RemoteLog) ask(ctx context.Context, verb string, request, answer any) error {
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	m, err := l.nc.RequestWithContext(ctx, Scope{}.Subject(verb), b)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return &HintError{fmt.Errorf("read the log over NATS: %w", err), "no engine answers there that lets its log be read"}
	case err != nil:
		return fmt.Errorf("read the log over NATS: %w", err)
	}
	if text := m.Header.Get("Nats-Service-Error"); text != "" {
		return fmt.Errorf("read the log over NATS: the engine answers: %s", text)
	}
	return json.Unmarshal(m.Data, answer)
}

// ID is that of the engine's log.
func (l *RemoteLog) ID() string { return l.id }

// Last is the position of the last event when the log was opened.
func (l *RemoteLog) Last() uint64 { return l.last }

// Base implements [engine.Reader].
func (l *RemoteLog) Base() (uint64, []byte, error) { return l.position, l.state, nil }

// Read implements [engine.Reader], through Last.
func (l *RemoteLog) Read(ctx context.Context, from uint64, fn func(*events.Event) error) error {
	for from = max(from, l.position+1); from <= l.last; {
		var page struct {
			Log    string         `json:"log"`
			Events []events.Event `json:"events"`
		}
		if err := l.ask(ctx, logEvents, map[string]uint64{"from": from}, &page); err != nil {
			return err
		}
		if page.Log != l.id || len(page.Events) == 0 {
			return fmt.Errorf("read the log over NATS: log %s ends before event %d", page.Log, from)
		}
		for i := range page.Events {
			ev := &page.Events[i]
			if ev.Position > l.last {
				return nil
			}
			if err := fn(ev); err != nil {
				return err
			}
			from = ev.Position + 1
		}
	}
	return nil
}
