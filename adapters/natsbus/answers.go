package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

func (s *Service) callsGet(ctx context.Context, in Scope, data []byte) (any, error) {
	var r struct {
		Account string `json:"account"`
		CallID  string `json:"callId"`
	}
	if err := in.read(data, &r, &r.Account, nil); err != nil {
		return nil, err
	}
	if r.CallID == "" {
		return nil, badRequest("callId is missing")
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
	if err := in.read(data, &f, &f.Account, &f.Domain); err != nil {
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
	if err := in.read(data, &f, &f.Account, nil); err != nil {
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
	if err := in.read(data, &f, &f.Account, &f.Domain); err != nil {
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
	if f.Skip < 0 {
		return nil, badRequest("skip below 0")
	}
	calls := m.Calls[min(len(m.Calls), f.Skip):]
	return struct {
		Time     events.Time    `json:"time"`
		Position uint64         `json:"position"` // the last event that counts
		Calls    []cti.CallView `json:"calls"`
		More     bool           `json:"more"` // ask again, and skip those that were told
	}{f.Time, m.Position, append([]cti.CallView{}, calls[:min(len(calls), f.Limit)]...), len(calls) > f.Limit}, nil
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
	if err := in.read(data, &f, &f.Account, &f.Domain); err != nil {
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
	most := int(s.nc.MaxPayload()) - 1024
	room, fit := most, m.Events[:0]
	for i := range m.Events {
		e := cti.AppendEvent(nil, &m.Events[i])
		if len(e) >= most {
			s.o.Logger.Warn("event too large for nats left out of an answer", "endpoint", "events.since", "position", m.Events[i].Position, "bytes", len(e))
			continue // the stream has it neither
		}
		if room -= len(e) + 1; room < 0 {
			out.cut(fit)
			break
		}
		out.Events, fit = append(out.Events, e), append(fit, m.Events[i])
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
	if err := in.read(data, &r, &r.Account, nil); err != nil {
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
	if err := in.read(data, &f, &f.Account, &f.Domain); err != nil {
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
	if err := in.read(data, &f, &f.Account, &f.Domain); err != nil {
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
