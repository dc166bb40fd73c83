package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/cmd/callstate/internal/bench"
	"github.com/callstate/callstate/store/memory"
)

type benchOptions struct {
	short  bool
	only   []string
	growth []int
	asJSON bool
	data   string
	check  bool
	cpu    string
}

func newBench(e *env) *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "measure: every figure beside its limit or its peer",
		Long: `Measures what this release promises, each figure in turn with its peer or limit in
the same run, since the speed of a machine moves more than most of what one wants to
know: what counts is the ratio. The input is recorded calls of a running FreeSWITCH.
Where a figure is measured several times the run with the median ratio is shown.

The figures are P1 to P14; P6 has two rows, P6a and P6b. W1 to W4 are of web phones,
beside pairs of bare PeerConnections. Logs are made in a folder of their own and
removed; the folder should be on the disk that the daemon will use.

With --growth it is one log that is measured as it grows through the sizes given, in
events: what appending, loading a call, opening and starting cost, and how large it is.
Ten million events take some minutes and 3 GB.

With --json one object a line: id, name, value, reference, ratio, unit; limit and
atMost, what the ratio should be; ok, whether it is; alarm, whether it is so far off
that a busy machine does not explain it; short; and a note.`,
		Example: `  callstate bench --short
  callstate bench --only P7,P9
  callstate bench --growth 100000,1000000,10000000
  callstate bench --json --data /var/lib
  callstate bench --only P1 --cpuprofile p1.prof`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return e.bench(cmd.Context(), &o) },
	}
	cmd.Flags().BoolVar(&o.short, "short", false, "smaller logs and fewer rounds: half a minute instead of several")
	cmd.Flags().StringSliceVar(&o.only, "only", nil, "measure these figures only, such as P7,P9")
	cmd.Flags().IntSliceVar(&o.growth, "growth", nil, "measure one log at these numbers of events instead, in order")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print one JSON object a line")
	cmd.Flags().StringVar(&o.data, "data", "", "folder in which logs are made and removed (default: the system's for temporary files)")
	cmd.Flags().BoolVar(&o.check, "check", false, "fail if a figure is so far off that a busy machine does not explain it")
	cmd.Flags().StringVar(&o.cpu, "cpuprofile", "", "write a CPU profile of the run to this file, for go tool pprof")
	return cmd
}

func (e *env) bench(ctx context.Context, o *benchOptions) error {
	ids := bench.IDs()
	for _, id := range o.only {
		if !slices.ContainsFunc(ids, func(known string) bool {
			return strings.EqualFold(id, known) || strings.EqualFold(id, strings.TrimRight(known, "ab"))
		}) {
			return fmt.Errorf("%w: --only %s: want some of %s", errUsage, id, strings.Join(ids, ", "))
		}
	}
	dir, err := os.MkdirTemp(o.data, "callstate-bench-")
	if err != nil {
		return fmt.Errorf("make a folder for the logs: %w", err)
	}
	defer os.RemoveAll(dir)
	if o.cpu != "" {
		f, err := os.Create(o.cpu)
		if err != nil {
			return fmt.Errorf("make the profile: %w", err)
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	if o.short {
		e.say("short: smaller logs and fewer rounds than the figures are meant for")
	}
	if len(o.growth) > 0 {
		return e.benchGrowth(ctx, o, dir)
	}
	var rows []bench.Row
	var far []string
	enc := json.NewEncoder(e.out)
	enc.SetEscapeHTML(false)
	var encodeErr error
	err = bench.Run(ctx, bench.Options{
		Dir: dir, Short: o.short, Only: o.only, Start: startForBench, Progress: e.say,
	}, func(r bench.Row) {
		if r.Alarm {
			far = append(far, fmt.Sprintf("%s is %.3g", r.ID, r.Ratio))
		}
		if o.asJSON {
			encodeErr = enc.Encode(r)
		} else {
			rows = append(rows, r)
		}
	})
	if err == nil {
		err = encodeErr
	}
	if len(rows) > 0 {
		slices.SortStableFunc(rows, func(a, b bench.Row) int { return slices.Index(ids, a.ID) - slices.Index(ids, b.ID) })
		if terr := e.benchTable(rows); err == nil {
			err = terr
		}
	}
	if err == nil && o.check && len(far) > 0 {
		err = fmt.Errorf("far off: %s", strings.Join(far, ", "))
	}
	return err
}

// benchGrowth measures a log at several sizes.
func (e *env) benchGrowth(ctx context.Context, o *benchOptions, dir string) error {
	if !slices.IsSorted(o.growth) || o.growth[0] < 1 {
		return fmt.Errorf("%w: --growth %v: want numbers of events in order", errUsage, o.growth)
	}
	var lines [][]string
	enc := json.NewEncoder(e.out)
	var encodeErr error
	err := bench.Growth(ctx, bench.Options{Dir: dir, Progress: e.say}, o.growth, func(r bench.GrowthRow) {
		if o.asJSON {
			encodeErr = enc.Encode(r)
			return
		}
		line := []string{strconv.FormatUint(r.Events, 10)}
		for _, v := range []float64{
			r.Fill, r.Append, r.AppendOne, r.NewCall, r.OldCall, r.ReadAll, r.Inspect, r.Open, r.Start, r.StartFold, r.Bytes, float64(r.Files),
		} {
			line = append(line, quantity(v))
		}
		lines = append(lines, line)
	})
	if len(lines) > 0 {
		if terr := e.table([]string{
			"EVENTS", "FILL/S", "APPEND/S", "ALONE us", "NEW CALL us", "OLD CALL us", "READ/S", "INSPECT/S", "OPEN ms", "START ms", "FOLD ms", "BYTES", "FILES",
		}, lines); err == nil {
			err = terr
		}
	}
	return errors.Join(err, encodeErr)
}

func (e *env) benchTable(rows []bench.Row) error {
	lines := make([][]string, len(rows))
	missed := 0
	for i, r := range rows {
		limit, verdict := ">= ", "ok"
		if r.AtMost {
			limit = "<= "
		}
		if !r.OK {
			verdict = "missed"
			missed++
		}
		name := r.Name
		if r.Note != "" {
			name += " (" + r.Note + ")"
		}
		lines[i] = []string{
			r.ID, quantity(r.Value), quantity(r.Reference), r.Unit, fmt.Sprintf("%.3g", r.Ratio),
			limit + fmt.Sprint(r.Limit), verdict, name,
		}
	}
	if err := e.table([]string{"ID", "VALUE", "REFERENCE", "UNIT", "RATIO", "LIMIT", "", "WHAT"}, lines); err != nil {
		return err
	}
	e.say("%d figures, %d missed", len(rows), missed)
	return nil
}

// quantity is a number with as many digits as mean something.
func quantity(v float64) string {
	if v >= 1000 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// startForBench starts the daemon as run does.
func startForBench(ctx context.Context, o bench.DaemonOptions) (*bench.Daemon, error) {
	cfg := defaultConfig()
	cfg.Data, cfg.Listen = o.Data, "127.0.0.1:-1"
	cfg.Webitel = []webitel.Config{{
		ConnectionString: o.PBX, Mode: webitel.ModeDomain,
		Users: []webitel.User{{Login: o.Login, Password: webitel.Secret(o.Secret)}},
	}}
	// What is sent has no legs on the server: a comparison would end the calls.
	cfg.ResyncInterval = duration(-time.Second)
	cfg.observer = o.Observer
	open := openApp
	if o.NoStore {
		open = func(cfg config, logger *slog.Logger) (*app, error) { return openAppOn(cfg, memory.New(), logger) }
	}
	a, err := open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	if o.DecodeMap {
		a.links.clients[0].DecodeWith(webitel.DecodeMap)
	}
	settled := make(chan struct{})
	a.links.clients[0].OnSettled(func(context.Context) { close(settled) })
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- a.run(ctx) }()
	return &bench.Daemon{
		NATS: a.server.URL(), Prefix: cfg.Prefix, Engine: a.engine, Settled: settled, Confirmed: a.bus.Confirmed,
		Stop: func() error {
			stop()
			err := <-ended
			a.close()
			return err
		},
	}, nil
}
