package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

func newAt(e *env) *cobra.Command {
	var src sourceFlags
	var f engine.AtFilter
	var asJSON, mask bool
	cmd := &cobra.Command{
		Use:   "at TIME",
		Short: "the PBX as it was: live calls, lines and agents",
		Long: `Prints the calls that were live at a time, with their state then, and the lines with
their agents. TIME is one of ` + timeForms + `
(write -- before a TIME that begins with a minus).

The answer is what the log knew then, by the clock of the machine that wrote it: what
a subscriber had been told. With --occurred it goes by the switch's clock instead: what
had happened by then, also where we heard of it later, for instance after the link to
the PBX was away.`,
		Example: `  callstate at --data data 2026-11-22T10:15:00Z
  callstate at --data data 30m ago
  callstate at --data data --occurred --json -- -2h`,
		Args: usageArgs(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := parseTime(strings.Join(args, " "), time.Now())
			if err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			f.Time = t
			m, err := e.findMoment(cmd.Context(), &src, f)
			if err != nil {
				return err
			}
			return e.printMoment(t, maskWith(mask, m), asJSON)
		},
	}
	src.add(e, cmd)
	cmd.Flags().StringVar(&f.Account, "account", "", "only this account, number@domain")
	cmd.Flags().StringVar(&f.Domain, "domain", "", "only accounts of this domain")
	cmd.Flags().BoolVar(&f.Occurred, "occurred", false, "go by the switch's clock, not by when the log recorded it")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line: the calls, then the lines")
	cmd.Flags().BoolVar(&mask, "mask", false, maskUsage)
	return cmd
}

// page is how many calls or lines are asked of a running engine at once: what
// fits into a message of NATS.
const page = 400

func (e *env) findMoment(ctx context.Context, src *sourceFlags, f engine.AtFilter) (engine.Moment, error) {
	if src.data != "" {
		log, err := e.openWatched(src)
		if err != nil {
			return engine.Moment{}, err
		}
		defer log.close()
		return engine.At(ctx, log, f)
	}
	var m engine.Moment
	f.Limit = page
	for more := true; more; {
		var calls struct {
			Position uint64         `json:"position"`
			Calls    []cti.CallView `json:"calls"`
			More     bool           `json:"more"`
		}
		if err := src.ask(natsbus.ScopeOf(f.Account, f.Domain), "calls.at", natsbus.AtFilter(f), &calls); err != nil {
			return m, err
		}
		if f.Skip > 0 && calls.Position != m.Position {
			return m, errors.New("events of that moment came in meanwhile; ask again")
		}
		m.Position, m.Calls = calls.Position, append(m.Calls, calls.Calls...)
		f.Skip, more = len(m.Calls), calls.More && len(calls.Calls) > 0
	}
	for {
		var lines struct {
			Lines []cti.LineView `json:"lines"`
			More  bool           `json:"more"`
		}
		if err := src.ask(natsbus.ScopeOf(f.Account, f.Domain), "lines.at", natsbus.AtFilter(f), &lines); err != nil {
			return m, err
		}
		m.Lines = append(m.Lines, lines.Lines...)
		if !lines.More || len(lines.Lines) == 0 {
			return m, nil
		}
		f.After = lines.Lines[len(lines.Lines)-1].Account
	}
}

func (e *env) printMoment(t events.Time, m engine.Moment, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(e.out)
		enc.SetEscapeHTML(false)
		for i := range m.Calls {
			if err := enc.Encode(&m.Calls[i]); err != nil {
				return err
			}
		}
		for i := range m.Lines {
			if err := enc.Encode(&m.Lines[i]); err != nil {
				return err
			}
		}
		return nil
	}
	fmt.Fprintf(e.out, "at %s, after event %d: %d live calls, %d lines\n\n", t, m.Position, len(m.Calls), len(m.Lines))
	rows := make([][]string, len(m.Calls))
	for i := range m.Calls {
		v, c := &m.Calls[i], &m.Calls[i].Call
		talking := "-"
		if c.AnsweredAt != 0 {
			talking = seconds(t.Sub(c.AnsweredAt))
		}
		rows[i] = []string{
			v.Account, string(c.Direction), party(c.CallerID), party(c.CalledID), c.StateName,
			c.StartedAt.Time().Format(time.DateTime), seconds(t.Sub(c.StartedAt)), talking, v.CallID,
		}
	}
	if err := e.table([]string{"ACCOUNT", "DIR", "CALLER", "CALLED", "STATE", "STARTED (UTC)", "AGE", "SINCE ANSWER", "CALL"}, rows); err != nil {
		return err
	}
	fmt.Fprintln(e.out)
	rows = make([][]string, len(m.Lines))
	for i := range m.Lines {
		rows[i] = lineRow(&m.Lines[i])
	}
	return e.table(lineHeader, rows)
}

var lineHeader = []string{"ACCOUNT", "AGENT", "FLAGS", "THE LINE CAN", "ACTIVE", "SECOND", "WAITING"}

// lineRow is a line for people.
func lineRow(v *cti.LineView) []string {
	state := v.Line.AgentState
	if state == "" {
		state = "-"
	}
	return []string{
		v.Account, state, fmt.Sprint(int(v.Line.CallFeaturesSet)), v.Line.CallFeaturesSet.String(),
		shortID(v.Line.ActiveCall), shortID(v.Line.SecondCall), fmt.Sprint(len(v.Line.Waiting)),
	}
}
