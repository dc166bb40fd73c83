package natsbus

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/callstate/callstate/engine"
)

// Fold gives fn the results of a fold of the log, in order of position. An audit
// may call it twice; it gives the same each time (I3).
type Fold func(fn func(*engine.Result) error) error

// AuditOptions configure an [Audit]. The zero value of a field means its default.
type AuditOptions struct {
	Prefix string // as in [Options]
	Stream string // as in [Options]
	LogID  string // whose messages and views are compared; the others are counted
	Base   uint64 // what is of positions through this one cannot be compared: the log has dropped them

	// Found gets each difference. An error of it ends the audit. Nil means that
	// they are counted only.
	Found func(Difference) error
}

// DifferenceKind says in what the server and the log differ.
type DifferenceKind string

// The ways in which what is published can differ from what the log gives.
const (
	Missing    DifferenceKind = "missing"    // the log gives it, and the server lacks it between others
	Unexpected DifferenceKind = "unexpected" // the server holds it, and the log does not give it
	Changed    DifferenceKind = "changed"    // both have it, with other contents
	Stale      DifferenceKind = "stale"      // the view is of an earlier position than later ones that were written
)

// Difference is one message or view that is not as the log gives it.
type Difference struct {
	Kind      DifferenceKind `json:"kind"`
	What      string         `json:"what"`         // message, call view or line view
	ID        string         `json:"id,omitempty"` // of a message
	Position  uint64         `json:"position"`
	Account   string         `json:"account,omitempty"`
	CallID    string         `json:"callId,omitempty"`
	Published string         `json:"published,omitempty"` // as it is on the server; empty where it lacks it
	Expected  string         `json:"expected,omitempty"`  // as the log gives it; empty where it does not
}

// AuditReport is what an audit found.
type AuditReport struct {
	Stream      string `json:"stream"`
	Messages    int    `json:"messages"`        // of this log, repeats included
	First       uint64 `json:"first,omitempty"` // positions of the first and last of them
	Last        uint64 `json:"last,omitempty"`
	Repeats     int    `json:"repeats"`     // messages that are there more than once
	Foreign     int    `json:"foreign"`     // messages of other logs
	Dropped     int    `json:"dropped"`     // messages and views of events that the log has dropped
	AgedOut     int    `json:"agedOut"`     // messages that the log gives before First
	Unpublished int    `json:"unpublished"` // messages that the log gives after Last
	Calls       int    `json:"calls"`       // views of calls of this log
	Lines       int    `json:"lines"`
	ViewsBehind int    `json:"viewsBehind"` // views that are not written yet in their last form
	Differences int    `json:"differences"`
}

// ErrNotPublished is matched by an Audit of a server that has neither the stream
// nor the views.
var ErrNotPublished = errors.New("natsbus: nothing was published there")

// Audit compares what the server holds of a log with what a fold of the log gives
// (I3). Stream and views may be behind the log, as after a crash, and may have
// lost their beginning to retention; what is between must be equal, byte for byte.
func Audit(ctx context.Context, nc *nats.Conn, o AuditOptions, fold Fold) (AuditReport, error) {
	opts, err := Options{Prefix: o.Prefix, Stream: o.Stream, LogID: o.LogID}.withDefaults()
	if err != nil {
		return AuditReport{}, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return AuditReport{}, err
	}
	a := &audit{
		ctx: ctx, js: js, o: opts, base: o.Base, found: o.Found,
		enc: newEncoder(opts.Prefix, opts.Source), views: newViews(opts, "", slog.New(slog.DiscardHandler)),
		calls: auditedViews{what: "call view"}, lines: auditedViews{what: "line view"},
	}
	a.report.Stream = opts.Stream
	if err := a.open(); err != nil {
		return a.report, fmt.Errorf("audit: %w", err)
	}
	if err := fold(a.result); err != nil {
		return a.report, err
	}
	if err := a.finish(); err != nil {
		return a.report, err
	}
	return a.report, a.checkLate(fold)
}

type audit struct {
	ctx    context.Context
	js     jetstream.JetStream
	o      Options
	base   uint64
	found  func(Difference) error
	report AuditReport

	enc   *encoder
	tape  *tape // nil without a stream
	next  *published
	begun bool                      // a message was matched
	late  map[storedID][]*published // out of order: repeats, and what was sent again after later ones
	lacks map[storedID]bool         // what the stream did not have in its place

	views        *views
	calls, lines auditedViews
}

// published is a message of our log as the stream holds it.
type published struct {
	id      storedID
	subject string
	data    []byte
}

func (a *audit) open() error {
	s, err := a.js.Stream(a.ctx, a.o.Stream)
	missing := errors.Is(err, jetstream.ErrStreamNotFound)
	if err == nil {
		a.tape, err = newTape(a.ctx, s, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy}, 0)
	}
	if err != nil && !missing {
		return fmt.Errorf("stream %s: %w", a.o.Stream, err)
	}
	for bucket, v := range map[string]*auditedViews{CallsBucket(a.o.Prefix): &a.calls, LinesBucket(a.o.Prefix): &a.lines} {
		s, err := a.js.Stream(a.ctx, "KV_"+bucket)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err == nil {
			missing = false
			err = v.load(a.ctx, s, a.o.LogID)
		}
		if err != nil {
			return fmt.Errorf("bucket %s: %w", bucket, err)
		}
	}
	if missing {
		return fmt.Errorf("%w: no stream %s", ErrNotPublished, a.o.Stream)
	}
	a.report.Calls, a.report.Lines = len(a.calls.held), len(a.lines.held)
	a.late, a.lacks = map[storedID][]*published{}, map[storedID]bool{}
	return a.advance(storedID{})
}

// less is the order of messages.
func (s storedID) less(t storedID) bool {
	return cmp.Or(cmp.Compare(s.position, t.position), cmp.Compare(s.n, t.n)) < 0
}

// advance takes the next message of ours from the stream. What is not after last
// is put aside.
func (a *audit) advance(last storedID) error {
	a.next = nil
	for a.tape != nil {
		m, err := a.tape.next()
		if err != nil || m == nil {
			return err
		}
		id, ok := parseID(m.Headers().Get(jetstream.MsgIDHeader), a.o.LogID)
		if !ok {
			a.report.Foreign++
			continue
		}
		if a.report.Messages++; a.report.First == 0 {
			a.report.First = id.position
		}
		if id.position <= a.base {
			a.report.Dropped++
			continue
		}
		p := &published{id, m.Subject(), m.Data()}
		if a.report.Messages > 1 && !last.less(id) {
			a.late[id] = append(a.late[id], p)
			continue
		}
		a.next, a.report.Last = p, id.position
		return nil
	}
	return nil
}

// result compares what one event gave.
func (a *audit) result(r *engine.Result) error {
	for i := range r.Messages {
		if err := a.message(&r.Messages[i]); err != nil {
			return err
		}
	}
	if r.Call != nil {
		v := view{key: viewKey{r.Account, r.CallID}, position: r.Position, seq: r.Seq, conversation: r.Conversation, call: r.Call}
		if err := a.view(&a.calls, &v, r.Call.EndedAt == 0); err != nil {
			return err
		}
	}
	if r.Line != nil {
		v := view{key: viewKey{account: r.Account}, position: r.Position, seq: r.LineSeq, line: r.Line}
		return a.view(&a.lines, &v, true)
	}
	return nil
}

func (a *audit) message(m *engine.Message) error {
	id, ok := parseID(m.ID, a.o.LogID)
	if !ok {
		return fmt.Errorf("audit: the fold gave message id %q, which is not one of log %s", m.ID, a.o.LogID)
	}
	for a.next != nil && a.next.id.less(id) {
		p := a.next
		if err := a.differ(p.difference(Unexpected, a.o.LogID)); err != nil {
			return err
		}
		if err := a.advance(p.id); err != nil {
			return err
		}
	}
	switch {
	case a.next == nil:
		a.report.Unpublished++
	case id.less(a.next.id):
		if a.begun {
			a.lacks[id] = true
		} else {
			a.report.AgedOut++
		}
	default:
		p := a.next
		a.begun = true
		if err := a.compare(p, m); err != nil {
			return err
		}
		return a.advance(p.id)
	}
	return nil
}

func (a *audit) compare(p *published, m *engine.Message) error {
	if want := a.enc.encode(m, "").Subject; p.subject == want && bytes.Equal(p.data, m.Payload) {
		return nil
	}
	d := p.difference(Changed, a.o.LogID)
	d.Account, d.CallID, d.Expected = m.Event.Account, m.Event.CallID, string(m.Payload)
	return a.differ(d)
}

func (p *published) difference(kind DifferenceKind, log string) Difference {
	return Difference{
		Kind: kind, What: "message", ID: fmt.Sprintf("%s.%d.%d", log, p.id.position, p.id.n), Position: p.id.position,
		Published: string(p.data),
	}
}

func (a *audit) differ(d Difference) error {
	a.report.Differences++
	if a.found == nil {
		return nil
	}
	if d.Account == "" {
		var whose struct{ Account, CallID string }
		_ = json.Unmarshal([]byte(d.Published), &whose) // what it is not is seen from Published
		d.Account, d.CallID = whose.Account, whose.CallID
	}
	return a.found(d)
}

// finish tells of what the fold left over.
func (a *audit) finish() error {
	for a.next != nil {
		p := a.next
		if err := a.differ(p.difference(Unexpected, a.o.LogID)); err != nil {
			return err
		}
		if err := a.advance(p.id); err != nil {
			return err
		}
	}
	for _, v := range []*auditedViews{&a.calls, &a.lines} {
		if err := a.finishViews(v); err != nil {
			return err
		}
	}
	return nil
}

// checkLate folds once more where the stream has repeats or messages out of
// their place, for they must be equal too.
func (a *audit) checkLate(fold Fold) error {
	if len(a.late) == 0 && len(a.lacks) == 0 {
		return nil
	}
	err := fold(func(r *engine.Result) error {
		for i := range r.Messages {
			if err := a.again(&r.Messages[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, ps := range a.late {
		for _, p := range ps {
			if err := a.differ(p.difference(Unexpected, a.o.LogID)); err != nil {
				return err
			}
		}
	}
	return nil
}

// again looks at a message that is in the stream out of its place, or not at all.
func (a *audit) again(m *engine.Message) error {
	id, _ := parseID(m.ID, a.o.LogID)
	ps := a.late[id]
	delete(a.late, id)
	a.report.Repeats += len(ps)
	for _, p := range ps {
		if err := a.compare(p, m); err != nil {
			return err
		}
	}
	if !a.lacks[id] {
		return nil
	}
	if len(ps) > 0 {
		a.report.Repeats--
		return nil
	}
	return a.differ(Difference{
		Kind: Missing, What: "message", ID: m.ID, Position: id.position,
		Account: m.Event.Account, CallID: m.Event.CallID, Expected: string(m.Payload),
	})
}
