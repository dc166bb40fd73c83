package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// exportOptions are what export can be told.
type exportOptions struct {
	src    sourceFlags
	filter engine.CallFilter
	calls  bool
	events bool
	format string
	from   uint64
	file   string
	mask   bool
}

func newExport(e *env) *cobra.Command {
	var o exportOptions
	var ff filterFlags
	cmd := &cobra.Command{
		Use:   "export",
		Short: "calls and events for analytics, as CSV or JSON Lines",
		Long: `Writes calls, a row each (--calls, the default), or stored events (--events), from a
log (--data) or from that of a running engine, which it reads over NATS and does not
hold up. The columns are documented in cmd/callstate/EXPORT.md and do not change.

The last line on standard error is "next position N". Give --from N the next time, and
only what is new comes: events from that position on, and calls that had an event from
there on. A call that was live, or about which more became known, comes again; the row
with the higher position replaces the earlier one of the same account and call_id.

The filters are those of callstate calls. With --events, --since and --until are about
when the event happened, and the filters that only a call can pass leave out what
belongs to no call.`,
		Example: `  callstate export --data data > calls.csv
  callstate export --data data --format jsonl --from 1 -o calls.jsonl
  callstate export --data data --events --account 1001@demo.local --mask
  callstate export --nats nats://127.0.0.1:4222 --from 386 -o more.csv`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.filter, err = ff.filter(time.Now()); err != nil {
				return err
			}
			switch {
			case o.calls && o.events:
				return fmt.Errorf("%w: --calls and --events are two exports", errUsage)
			case o.format != "csv" && o.format != "jsonl":
				return fmt.Errorf("%w: --format %q: want csv or jsonl", errUsage, o.format)
			}
			return e.export(cmd.Context(), &o)
		},
	}
	o.src.add(e, cmd)
	ff.add(cmd.Flags())
	cmd.Flags().BoolVar(&o.calls, "calls", false, "export calls (the default)")
	cmd.Flags().BoolVar(&o.events, "events", false, "export stored events")
	cmd.Flags().StringVar(&o.format, "format", "csv", "csv or jsonl")
	cmd.Flags().Uint64Var(&o.from, "from", 0, "only what is new from this position on")
	cmd.Flags().StringVarP(&o.file, "output", "o", "", "write this file, whole or not at all (default: standard output)")
	cmd.Flags().BoolVar(&o.mask, "mask", false, maskUsage)
	return cmd
}

func (e *env) export(ctx context.Context, o *exportOptions) error {
	log, closeLog, err := o.src.openSource(ctx)
	if err != nil {
		return err
	}
	defer closeLog()
	base, _, err := log.Base()
	if err != nil {
		return err
	}
	next := log.Last() + 1
	if o.from > next {
		return fmt.Errorf("--from %d: the log ends at event %d; it is not the one of which an export said that position, or it has lost its end", o.from, next-1)
	}
	if base > 0 && o.from <= base {
		e.say("retention has dropped the events through %d: what is exported begins after them", base)
	}
	p := e.progress("events", log.Last())
	err = e.writeOut(o.file, func(w io.Writer) error {
		if o.events {
			return exportEvents(ctx, p.of(log), o, w)
		}
		return exportCalls(ctx, p.of(log), o, w)
	})
	p.done()
	if err != nil {
		return err
	}
	e.say("next position %d", next)
	return nil
}

// writeOut runs write on standard output, or on a file that appears under its
// name only when all of it is on disk. A device or a pipe is written to as it is,
// and what a link leads to is replaced rather than the link.
func (e *env) writeOut(name string, write func(io.Writer) error) error {
	if name == "" {
		return writeTo(e.out, write)
	}
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	if st, err := os.Stat(name); err != nil || st.Mode().IsRegular() || st.IsDir() {
		return writeFile(name, write)
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(writeTo(f, write), f.Close())
}

func writeTo(out io.Writer, write func(io.Writer) error) error {
	w := bufio.NewWriter(out)
	if err := write(w); err != nil {
		_ = w.Flush() // what there is; err says why it is not all
		return err
	}
	return w.Flush()
}

// column is one column of an export. Its value is a string, a number, a bool, a
// time, raw JSON, or nil where it is not known.
type column[T any] struct {
	name  string
	value func(*T) any
}

// callColumns are those of EXPORT.md. New ones go to the end.
var callColumns = []column[engine.PastCall]{
	{"conversation", func(c *engine.PastCall) any { return c.View.Conversation }},
	{"account", func(c *engine.PastCall) any { return c.View.Account }},
	{"call_id", func(c *engine.PastCall) any { return c.View.CallID }},
	{"direction", func(c *engine.PastCall) any { return string(c.View.Call.Direction) }},
	{"callback", func(c *engine.PastCall) any { return c.View.Call.Callback }},
	{"caller", func(c *engine.PastCall) any { return c.View.Call.CallerID }},
	{"caller_name", func(c *engine.PastCall) any { return c.View.Call.CallerName }},
	{"called", func(c *engine.PastCall) any { return c.View.Call.CalledID }},
	{"called_name", func(c *engine.PastCall) any { return c.View.Call.CalledName }},
	{"started", func(c *engine.PastCall) any { return c.View.Call.StartedAt }},
	{"agent_answered", func(c *engine.PastCall) any { return c.View.Call.AgentAnsweredAt }},
	{"answered", func(c *engine.PastCall) any { return c.View.Call.AnsweredAt }},
	{"bridged", func(c *engine.PastCall) any { return c.View.Call.BridgedAt }},
	{"ended", func(c *engine.PastCall) any { return c.View.Call.EndedAt }},
	{"ring_ms", func(c *engine.PastCall) any { return c.View.Call.RingMs }},
	{"talk_ms", func(c *engine.PastCall) any { return c.View.Call.TalkMs }},
	{"hold_ms", func(c *engine.PastCall) any { return c.View.Call.HoldMs }},
	{"outcome", func(c *engine.PastCall) any { return string(c.View.Call.Outcome) }},
	{"cause", func(c *engine.PastCall) any { return c.View.Call.Cause }},
	{"cause_code", func(c *engine.PastCall) any { return int64(c.View.Call.CauseCode) }},
	{"hungup_by", func(c *engine.PastCall) any { return c.View.Call.HungupBy }},
	{"transfer_kind", func(c *engine.PastCall) any { return transferOf(c).Kind }},
	{"transfer_target", func(c *engine.PastCall) any { return transferOf(c).Target }},
	{"transfer_result", func(c *engine.PastCall) any { return transferOf(c).Result }},
	{"parent_call", func(c *engine.PastCall) any { return c.View.Call.ParentCallID }},
	{"queue", func(c *engine.PastCall) any { return c.View.Call.Queue }},
	{"recording", func(c *engine.PastCall) any { return c.View.Call.Recording }},
	{"recorded", func(c *engine.PastCall) any { return c.View.Call.Recorded }},
	{"digits", func(c *engine.PastCall) any { return int64(c.Digits) }},
	{"webrtc_transport", func(c *engine.PastCall) any { return sessionOf(c).Transport }},
	{"origin", func(c *engine.PastCall) any { return c.View.Call.Origin.String() }},
	{"inferred", func(c *engine.PastCall) any { return c.View.Call.Inferred }},
	{"first_position", func(c *engine.PastCall) any { return c.First }},
	{"position", func(c *engine.PastCall) any { return c.View.Position }},
	{"webrtc_codec", quality(func(q *cti.Quality) any { return q.Codec })},
	{"webrtc_packets_received", quality(func(q *cti.Quality) any { return q.PacketsReceived })},
	{"webrtc_packets_sent", quality(func(q *cti.Quality) any { return q.PacketsSent })},
	{"webrtc_packets_lost", quality(func(q *cti.Quality) any { return q.PacketsLost })},
	{"webrtc_jitter_ms", quality(func(q *cti.Quality) any { return q.JitterMs })},
	{"webrtc_round_trip_ms", quality(func(q *cti.Quality) any { return known(q.RoundTripMs) })},
	{"webrtc_mos", quality(func(q *cti.Quality) any { return known(q.MOS) })},
	{"webrtc_inferred", func(c *engine.PastCall) any { return sessionOf(c).Inferred }},
	{"webrtc_reattached", func(c *engine.PastCall) any { return int64(sessionOf(c).Attempt) }},
	{"webrtc_end", func(c *engine.PastCall) any { return sessionOf(c).Reason }},
	{"gap_ms", func(c *engine.PastCall) any {
		ms := int64(0)
		for _, g := range c.View.Call.Gaps {
			ms += g.To.Sub(g.From)
		}
		return ms
	}},
}

func sessionOf(c *engine.PastCall) cti.WebRTC {
	if w := c.View.Call.WebRTC; w != nil {
		return *w
	}
	return cti.WebRTC{}
}

// known is nil for a figure that is 0 where it is not known.
func known(v float64) any {
	if v == 0 {
		return nil
	}
	return v
}

// quality is a figure of the call's media session; nil where nobody measured it.
func quality(value func(*cti.Quality) any) func(*engine.PastCall) any {
	return func(c *engine.PastCall) any {
		q := sessionOf(c).Quality
		if q == nil {
			return nil
		}
		return value(q)
	}
}

func transferOf(c *engine.PastCall) cti.Transfer {
	if t := c.View.Call.Transfer; t != nil {
		return *t
	}
	return cti.Transfer{}
}

// eventColumns are those of EXPORT.md. New ones go to the end.
var eventColumns = []column[events.Event]{
	{"position", func(e *events.Event) any { return e.Position }},
	{"id", func(e *events.Event) any { return e.ID }},
	{"type", func(e *events.Event) any { return string(e.Type()) }},
	{"version", func(e *events.Event) any { return int64(e.Version) }},
	{"account", func(e *events.Event) any { return e.Account }},
	{"call_id", func(e *events.Event) any { return e.Call }},
	{"leg_id", func(e *events.Event) any { return e.Leg }},
	{"conversation", func(e *events.Event) any { return e.Conversation }},
	{"occurred", func(e *events.Event) any { return e.OccurredAt }},
	{"time_source", func(e *events.Event) any { return e.TimeSource.String() }},
	{"recorded", func(e *events.Event) any { return e.RecordedAt }},
	{"origin", func(e *events.Event) any { return e.Origin.String() }},
	{"adapter", func(e *events.Event) any { return e.Source.Adapter }},
	{"connection", func(e *events.Event) any { return e.Source.Connection }},
	{"path", func(e *events.Event) any { return e.Source.Path }},
	{"switch", func(e *events.Event) any { return e.Source.Switch }},
	{"core", func(e *events.Event) any { return e.Source.Core }},
	{"sequence", func(e *events.Event) any { return e.Source.Sequence }},
	{"data", func(e *events.Event) any {
		b, err := json.Marshal(e.Payload)
		if err != nil {
			return json.RawMessage("{}") // payloads are plain structs
		}
		return json.RawMessage(b)
	}},
	{"domain", func(e *events.Event) any { return e.Domain }},
}

// rowWriter writes rows in one of the formats.
type rowWriter[T any] struct {
	columns []column[T]
	csv     *csv.Writer
	w       io.Writer
	record  []string
	line    []byte
}

func newRowWriter[T any](w io.Writer, format string, columns []column[T]) (*rowWriter[T], error) {
	r := &rowWriter[T]{columns: columns, w: w, record: make([]string, len(columns))}
	if format != "csv" {
		return r, nil
	}
	r.csv = csv.NewWriter(w)
	for i := range columns {
		r.record[i] = columns[i].name
	}
	return r, r.csv.Write(r.record)
}

func (r *rowWriter[T]) write(row *T) error {
	if r.csv != nil {
		for i := range r.columns {
			r.record[i] = cell(r.columns[i].value(row))
		}
		return r.csv.Write(r.record)
	}
	b := append(r.line[:0], '{')
	for i := range r.columns {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(cti.AppendString(b, r.columns[i].name), ':')
		b = appendValue(b, r.columns[i].value(row))
	}
	r.line = append(b, "}\n"...)
	_, err := r.w.Write(r.line)
	return err
}

func (r *rowWriter[T]) flush() error {
	if r.csv == nil {
		return nil
	}
	r.csv.Flush()
	return r.csv.Error()
}

// cell is a value in CSV: empty where it is not known.
func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case int64:
		return strconv.FormatInt(v, 10)
	case uint64:
		return strconv.FormatUint(v, 10)
	case bool:
		return strconv.FormatBool(v)
	case json.RawMessage:
		return string(v)
	default:
		return fmt.Sprint(v)
	}
}

// appendValue is a value in JSON: a time that is not known is null.
func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case string:
		return cti.AppendString(b, v)
	case events.Time:
		if v == 0 {
			return append(b, "null"...)
		}
		return cti.AppendString(b, v.String())
	default:
		return append(b, cell(v)...)
	}
}

func exportCalls(ctx context.Context, log engine.Reader, o *exportOptions, w io.Writer) error {
	rows, err := newRowWriter(w, o.format, callColumns)
	if err != nil {
		return err
	}
	err = engine.ScanCalls(ctx, log, o.filter.Account, func(pc *engine.PastCall) error {
		if pc.View.Position < o.from || !o.filter.Match(&pc.View) {
			return nil
		}
		row := maskWith(o.mask, *pc)
		return rows.write(&row)
	})
	return cmp.Or(err, rows.flush()) // where writing failed, the second says the same
}

func exportEvents(ctx context.Context, log engine.Reader, o *exportOptions, w io.Writer) error {
	rows, err := newRowWriter(w, o.format, eventColumns)
	if err != nil {
		return err
	}
	wanted, err := callsOfEvents(ctx, log, &o.filter)
	if err != nil {
		return err
	}
	f := &o.filter
	err = log.Read(ctx, max(o.from, 1), func(ev *events.Event) error {
		at := ev.OccurredAt
		if at == 0 {
			at = ev.RecordedAt
		}
		if f.Account != "" && ev.Account != f.Account || f.Domain != "" && ev.Domain != f.Domain ||
			f.Since != 0 && at < f.Since || f.Until != 0 && at >= f.Until ||
			wanted != nil && !wanted[ev.Key()] {
			return nil
		}
		row := maskWith(o.mask, *ev)
		return rows.write(&row)
	})
	return cmp.Or(err, rows.flush()) // where writing failed, the second says the same
}

// callsOfEvents returns the calls whose events are wanted, nil where the filter
// says nothing that only a call can pass.
func callsOfEvents(ctx context.Context, log engine.Reader, f *engine.CallFilter) (map[events.CallKey]bool, error) {
	g := *f
	g.Account, g.Domain, g.Since, g.Until = "", "", 0, 0
	if g == (engine.CallFilter{}) {
		return nil, nil
	}
	wanted := map[events.CallKey]bool{}
	err := engine.ScanCalls(ctx, log, f.Account, func(pc *engine.PastCall) error {
		if g.Match(&pc.View) {
			wanted[events.CallKey{Account: pc.View.Account, Call: pc.View.CallID}] = true
		}
		return nil
	})
	return wanted, err
}

// progress shows on a terminal how far reading has come.
type progress struct {
	e     *env
	what  string
	last  uint64
	shown time.Time
	on    bool
}

func (e *env) progress(what string, last uint64) *progress {
	return &progress{e: e, what: what, last: last, shown: time.Now(), on: isTerminal(e.errw)}
}

// of returns log with its reading watched.
func (p *progress) of(log engine.Reader) engine.Reader { return &watchedLog{log, p} }

func (p *progress) at(position uint64) {
	if !p.on || time.Since(p.shown) < 200*time.Millisecond {
		return
	}
	p.shown = time.Now()
	if p.last == 0 { // nobody knows
		fmt.Fprintf(p.e.errw, "\r\x1b[Kcallstate: %d %s", position, p.what)
		return
	}
	fmt.Fprintf(p.e.errw, "\r\x1b[Kcallstate: %d of %d %s, %d%%", position, p.last, p.what, 100*position/p.last)
}

// done removes what was shown.
func (p *progress) done() {
	if p.on {
		fmt.Fprint(p.e.errw, "\r\x1b[K")
	}
}

type watchedLog struct {
	engine.Reader
	p *progress
}

func (l *watchedLog) Read(ctx context.Context, from uint64, fn func(*events.Event) error) error {
	return l.Reader.Read(ctx, from, func(ev *events.Event) error {
		if ev.Position%256 == 0 {
			l.p.at(ev.Position)
		}
		return fn(ev)
	})
}
