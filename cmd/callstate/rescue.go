package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store/bolt"
)

func newRescue(e *env) *cobra.Command {
	var from, to string
	var asJSON, mask bool
	cmd := &cobra.Command{
		Use:   "rescue --data FOLDER --to FOLDER",
		Short: "copy what can be read of a damaged log into a new one",
		Long: `Reads every page of a damaged log, copies each event and each quarantined frame that
is whole into a new log, and says what is lost, which calls it is of, and from which
position. The old folder is only read.

Positions stay what they were: where an event is lost, a log.lost stands in its place.
The new log has an id of its own, and so have its messages; it knows through which
position the old one was published, and goes on there: a CTI stream that has a history
gets no event of the past again, and an empty one is filled from the log's start.

The engine that has the log must be stopped. Then run it with the new folder.`,
		Example: `  callstate verify --data data
  callstate rescue --data data --to rescued
  callstate run --data rescued`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from == "" || to == "" {
				return fmt.Errorf("%w: rescue wants --data, the damaged log's folder, and --to, a new one", errUsage)
			}
			return e.rescue(cmd.Context(), from, to, asJSON, mask)
		},
	}
	cmd.Flags().StringVar(&from, "data", "", "folder of the damaged log; no engine may have it open")
	cmd.Flags().StringVar(&to, "to", "", "folder for the new log; it is made, or is empty")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.Flags().BoolVar(&mask, "mask", false, maskUsage)
	return cmd
}

func (e *env) rescue(ctx context.Context, from, to string, asJSON, mask bool) error {
	d, id, err := bolt.Rescue(ctx, from, to, engine.EmptyBase)
	if err != nil {
		return err
	}
	if d.Whole() {
		return fmt.Errorf("rescue %s: nothing is damaged, and nothing was copied", from)
	}
	if asJSON {
		return json.NewEncoder(e.out).Encode(struct {
			*bolt.Damage
			New     string `json:"newLog"`
			Rescued uint64 `json:"rescued"`
		}{maskDamage(mask, d), id, d.Last + 1 - d.First - d.LostEvents()})
	}
	printDamage(e.out, maskDamage(mask, d))
	fmt.Fprintf(e.out, "%-9s %s in %s: %s of %s events\n", "rescued", id, to,
		humanize.Comma(int64(d.Last+1-d.First-d.LostEvents())), humanize.Comma(int64(d.Last+1-d.First)))
	return nil
}

var errDamaged = errors.New("the log is damaged; `callstate rescue` copies what can be read into a new one")

// maskDamage hides the accounts' numbers.
func maskDamage(mask bool, d *bolt.Damage) *bolt.Damage { return maskWith(mask, d) }

// printDamage says what is lost, and of which calls.
func printDamage(w io.Writer, d *bolt.Damage) {
	row := func(what, format string, args ...any) {
		fmt.Fprintf(w, "%-9s %s\n", what, fmt.Sprintf(format, args...))
	}
	row("log", "%s, events %d to %d", d.LogID, d.First, d.Last)
	for _, f := range d.Files {
		for _, what := range f.What {
			row("damaged", "%s: %s", f.Name, what)
		}
	}
	for _, s := range d.Lost {
		row("lost", "events %d to %d", s.First, s.Last)
	}
	for _, s := range d.LostFrames {
		row("lost", "quarantined frames %d to %d", s.First, s.Last)
	}
	if d.Unsure {
		row("lost", "perhaps the newest events: the page that counts them is damaged")
	}
	if d.BaseLost {
		row("lost", "the state before event %d: line sequences begin anew", d.First)
	}
	if d.Snapshot != "" {
		row("snapshot", "%s; the log does without", d.Snapshot)
	}
	for _, c := range d.Calls {
		row("affected", "%s from event %d on: %d lost", events.CallKey{Account: c.Account, Call: c.Call}, c.First, c.Lost)
	}
	if d.UnknownCalls > 0 {
		row("affected", "calls that the index no longer tells: %d events lost", d.UnknownCalls)
	}
	if len(d.Lost) == 0 && !d.Unsure {
		row("lost", "no event")
	}
}
