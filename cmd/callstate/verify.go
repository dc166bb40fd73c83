package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/bolt"
)

type verifyOptions struct {
	src    sourceFlags
	prefix string
	diff   bool
	asJSON bool
	mask   bool
}

func newVerify(e *env) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify --data FOLDER",
		Short: "prove that what was published is what the log says",
		Long: `Reads the whole log, folds it anew, and compares: the snapshot with the state that
the log adds up to, the messages of the CTI stream with the CTI events that follow
from the log, by message id and byte for byte, and the views of calls and lines with
the fold at their positions.

A log that is ahead of stream and views, as after a crash, is in order, and it is said
by how much; the next start publishes the rest. A stream that has lost its beginning
to its retention is in order too.

Before that it reads every page of the log, without trusting any: of a damaged one it
says which events are lost and which calls they are of, and compares nothing;
callstate rescue copies what can be read.

The engine that has the log must be stopped. Stream and views are those of the embedded
NATS server in the data folder, or with --nats those of another server.

With --diff every difference is shown, call by call and field by field: after an update
that changed the projection, it is what the new one says differently. Exit code 1 where
anything differs.`,
		Example: `  callstate verify --data data
  callstate verify --data data --nats nats://nats.example:4222
  callstate verify --data data --diff --mask`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.src.data == "" {
				return fmt.Errorf("%w: --data is missing: verify reads a log", errUsage)
			}
			return e.verify(cmd.Context(), &o)
		},
	}
	cmd.Flags().StringVar(&o.src.data, "data", "", "verify the log in this folder; no engine may have it open")
	o.src.nats.add(e, cmd, "", "compare with the stream and views of this NATS server (default: the embedded one's, in the folder)")
	cmd.Flags().StringVar(&o.prefix, "prefix", "", "subject prefix of the stream (default: the usual one)")
	cmd.Flags().BoolVar(&o.diff, "diff", false, "show every difference, call by call")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print one JSON object")
	cmd.Flags().BoolVar(&o.mask, "mask", false, maskUsage)
	return cmd
}

// verdict is what verify found; --json prints it.
type verdict struct {
	Log       string               `json:"log"`
	First     uint64               `json:"first"` // position of the log's first event; those before were dropped by retention
	Last      uint64               `json:"last"`
	Calls     int                  `json:"calls"`
	Live      int                  `json:"live"`
	Snapshot  uint64               `json:"snapshot"`                // position of the last one, 0 without one
	Snapshots int                  `json:"snapshots"`               // how many there are
	State     string               `json:"snapshotError,omitempty"` // why the snapshot is wrong
	Bus       *natsbus.AuditReport `json:"published,omitempty"`     // absent where nothing was published
	Diff      []callDiff           `json:"diff,omitempty"`
}

var errDiffers = errors.New("the log and what was made of it differ")

func (e *env) verify(ctx context.Context, o *verifyOptions) error {
	log, err := o.src.openLog(stopFirst)
	if err != nil && !errors.Is(err, store.ErrDamaged) {
		return err
	}
	if err == nil {
		defer log.Close()
	}
	d, inspectErr := bolt.Inspect(ctx, o.src.data)
	switch {
	case inspectErr != nil:
		return cmp.Or(err, inspectErr)
	case !d.Whole():
		return e.damaged(o, d)
	case err != nil:
		return err
	}
	base, _, err := log.Base()
	if err != nil {
		return err
	}
	v := verdict{Log: log.ID(), First: base + 1, Last: log.Last()}

	p := e.progress("events of the snapshot", log.Last())
	v.Snapshot, v.Snapshots, err = engine.CheckSnapshots(ctx, &watchedReads{log, p})
	p.done()
	switch {
	case errors.Is(err, engine.ErrSnapshot), errors.Is(err, engine.ErrState):
		v.State = err.Error()
	case err != nil:
		return err
	case d.Snapshot != "":
		v.State = d.Snapshot + "; delete it, and more of the log is read instead"
	}

	diffs := newDiffs(o.mask)
	if err := e.verifyPublished(ctx, o, log, &v, diffs); err != nil {
		return err
	}
	if o.diff {
		v.Diff = diffs.calls()
	}
	if o.asJSON {
		enc := json.NewEncoder(e.out)
		enc.SetEscapeHTML(false)
		err = enc.Encode(&v)
	} else {
		e.printVerdict(&v, diffs, o.diff)
	}
	if err == nil && (v.State != "" || diffs.n > 0) {
		err = errDiffers
	}
	return err
}

// damaged says what is lost of a log, in place of a verdict on what was made of it.
func (e *env) damaged(o *verifyOptions, d *bolt.Damage) error {
	d = maskDamage(o.mask, d)
	if !o.asJSON {
		printDamage(e.out, d)
		return errDamaged
	}
	if err := json.NewEncoder(e.out).Encode(map[string]any{"damage": d}); err != nil {
		return err
	}
	return errDamaged
}

// watchedReads is a log whose reading shows its progress.
type watchedReads struct {
	*bolt.Store
	p *progress
}

// close ends the progress and closes the log.
func (l *watchedReads) close() {
	l.p.done()
	l.Close()
}

func (l *watchedReads) Read(ctx context.Context, from uint64, fn func(*events.Event) error) error {
	return l.p.of(l.Store).Read(ctx, from, fn)
}

// verifyPublished folds the log and compares with the stream and the views.
func (e *env) verifyPublished(ctx context.Context, o *verifyOptions, log *bolt.Store, v *verdict, diffs *diffs) error {
	nc, stop, err := o.connect()
	if err != nil {
		return err
	}
	defer stop()
	p := e.progress("events", log.Last())
	defer p.done()
	count := true
	fold := func(fn func(*engine.Result) error) error {
		if count {
			v.Calls, v.Live = 0, 0
		}
		err := engine.Fold(ctx, p.of(log), func(ev *events.Event, r *engine.Result) error {
			if count {
				v.count(ev)
			}
			return fn(r)
		})
		count = false
		return err
	}
	if nc == nil {
		return fold(func(*engine.Result) error { return nil })
	}
	report, err := natsbus.Audit(ctx, nc, natsbus.AuditOptions{Prefix: o.prefix, LogID: log.ID(), Base: v.First - 1, Found: diffs.add}, fold)
	if errors.Is(err, natsbus.ErrNotPublished) {
		return fold(func(*engine.Result) error { return nil })
	}
	v.Bus = &report
	return err
}

func (v *verdict) count(ev *events.Event) {
	switch ev.Payload.(type) {
	case *events.CallNew:
		v.Calls++
		v.Live++
	case *events.CallReinstated:
		v.Live++
	case *events.CallHungup:
		v.Live--
	}
}

// connect returns a connection to the server that holds stream and views, nil
// where nothing was published. stop closes it, and the server where it is ours.
func (o *verifyOptions) connect() (nc *nats.Conn, stop func(), err error) {
	stop = func() {}
	if o.src.nats.url == "" {
		dir := filepath.Join(o.src.data, "nats")
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil, stop, nil
		}
		var s *natsbus.Server
		s, err = natsbus.StartServer(natsbus.ServerOptions{StoreDir: dir, Port: -1, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return nil, stop, fmt.Errorf("open the published stream: %w", err)
		}
		stop = s.Close
		nc, err = nats.Connect(s.URL(), nats.Name("callstate"))
	} else {
		nc, err = o.src.nats.connect()
	}
	if err != nil {
		stop()
		return nil, func() {}, err
	}
	server := stop
	return nc, func() { nc.Close(); server() }, nil
}

func (e *env) printVerdict(v *verdict, d *diffs, all bool) {
	row := func(what, format string, args ...any) {
		fmt.Fprintf(e.out, "%-9s %s\n", what, fmt.Sprintf(format, args...))
	}
	if v.First > 1 {
		row("log", "%s, retention has dropped the events before %d", v.Log, v.First)
	}
	row("log", "%s, events %d to %d, %d calls, %d of them live", v.Log, v.First, v.Last, v.Calls, v.Live)
	switch {
	case v.State != "":
		row("snapshot", "%s", v.State)
	case v.Snapshot == 0:
		row("snapshot", "none")
	case v.Snapshots == 1:
		row("snapshot", "at event %d: what the log adds up to", v.Snapshot)
	default:
		row("snapshots", "%d, the last at event %d: what the log adds up to", v.Snapshots, v.Snapshot)
	}
	if b := v.Bus; b == nil {
		row("stream", "nothing was published here")
	} else {
		row("stream", "%s: %d messages of events %d to %d", b.Stream, b.Messages, b.First, b.Last)
		if b.AgedOut > 0 {
			row("", "%d earlier ones are no longer kept", b.AgedOut)
		}
		if b.Dropped > 0 {
			row("", "%d messages and views are of events that the log has dropped", b.Dropped)
		}
		if b.Repeats > 0 {
			row("", "%d of them are there again, with the same id", b.Repeats)
		}
		if b.Foreign > 0 {
			row("", "%d messages of other logs are left alone", b.Foreign)
		}
		if b.Unpublished > 0 {
			row("", "the log is ahead: %d messages are published at the next start", b.Unpublished)
		}
		row("views", "%d calls, %d lines", b.Calls, b.Lines)
		if b.ViewsBehind > 0 {
			row("", "the log is ahead: %d views are written at the next start", b.ViewsBehind)
		}
	}
	if d.n == 0 {
		if v.State == "" {
			row("verdict", "all is what the log says")
		}
		return
	}
	fmt.Fprintln(e.out)
	d.print(e.out, all)
	row("verdict", "%d differences in %d calls and lines", d.n, len(d.byCall))
}
