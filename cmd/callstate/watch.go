package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/events/cti"
)

func newWatch(e *env) *cobra.Command {
	var src sourceFlags
	var account, domain, prefix string
	var asJSON, all, linesOnly, mask bool
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "live CTI events and lines from NATS",
		Long: `Prints the lines as they are now, then the CTI events as they come, until Ctrl-C.
It needs a running engine (callstate run, or callstate demo --port 4222) and nothing
else: it is a subscriber like any other.`,
		Example: `  callstate watch
  callstate watch --account 1001@demo.local --json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			nc, err := src.nats.connect()
			if err != nil {
				return err
			}
			defer nc.Close()
			of := natsbus.ScopeOf(account, domain)
			if !asJSON || linesOnly {
				if err := e.printLines(cmd.Context(), &src, nc, prefix, of, asJSON, mask); err != nil {
					return err
				}
			}
			if linesOnly {
				return nil
			}
			return e.watch(cmd.Context(), nc, prefix, of, showOptions{asJSON, all, mask})
		},
	}
	src.nats.add(e, cmd, nats.DefaultURL, "URL of the NATS server")
	cmd.Flags().StringVar(&prefix, "prefix", cti.DefaultPrefix, "what the subjects of CTI events begin with")
	cmd.Flags().StringVar(&account, "account", "", "only this account, number@domain")
	cmd.Flags().StringVar(&domain, "domain", "", "only the accounts of this domain")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the payloads as they are on NATS, one a line; with --lines the lines")
	cmd.Flags().BoolVar(&all, "all", false, "print also lineStateChanged, agentStateChanged and callDetails")
	cmd.Flags().BoolVar(&linesOnly, "lines", false, "print the lines and end")
	cmd.Flags().BoolVar(&mask, "mask", false, maskUsage)
	return cmd
}

// printLines prints the lines as they are now. Under the live prefix the engine is
// asked, which a user who sees a part alone may do as well; the views of another
// prefix, and those that an engine left which is gone, are in their bucket.
func (e *env) printLines(ctx context.Context, src *sourceFlags, nc *nats.Conn, prefix string, of natsbus.Scope, asJSON, mask bool) error {
	err := errNoEngine
	var views []cti.LineView
	if prefix == cti.DefaultPrefix {
		views, err = src.allLines(of)
	}
	if errors.Is(err, errNoEngine) {
		views, err = linesIn(ctx, nc, prefix, of)
	}
	if err != nil {
		return err
	}
	slices.SortFunc(views, func(a, b cti.LineView) int { return strings.Compare(a.Account, b.Account) })
	views = maskWith(mask, views)
	if asJSON {
		return e.printAgents(views, nil, true)
	}
	rows := make([][]string, len(views))
	for i := range views {
		rows[i] = lineRow(&views[i])
	}
	return e.table(lineHeader, rows)
}

// linesIn reads the views of the lines from their bucket.
func linesIn(ctx context.Context, nc *nats.Conn, prefix string, of natsbus.Scope) ([]cti.LineView, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	kv, err := js.KeyValue(ctx, natsbus.LinesBucket(prefix))
	if err != nil {
		return nil, fmt.Errorf("no lines on this NATS server: %w", err)
	}
	keys := ">"
	switch {
	case of.Account != "":
		keys = cti.LineKey(of.Account)
	case of.Domain != "":
		keys = cti.Token(of.Domain) + ".>"
	}
	w, err := kv.Watch(ctx, keys, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, fmt.Errorf("read lines: %w", err)
	}
	defer func() { _ = w.Stop() }()
	var views []cti.LineView
	for entry := range w.Updates() {
		if entry == nil { // all that was there
			break
		}
		var v cti.LineView
		if err := json.Unmarshal(entry.Value(), &v); err != nil {
			return nil, fmt.Errorf("line %s: %w", entry.Key(), err)
		}
		views = append(views, v)
	}
	return views, nil
}

// showOptions are how CTI events are printed.
type showOptions struct{ json, all, mask bool }

// show prints a CTI event. payload is its JSON as it came.
func (e *env) show(o showOptions, ev cti.Event, payload []byte) (err error) {
	ev = maskWith(o.mask, ev)
	switch {
	case o.json && o.mask:
		_, err = fmt.Fprintf(e.out, "%s\n", cti.AppendEvent(nil, &ev))
	case o.json:
		_, err = fmt.Fprintf(e.out, "%s\n", payload)
	case o.all || ev.Event != cti.LineStateChanged && ev.Event != cti.AgentStateChanged && ev.Event != cti.CallDetails:
		_, err = fmt.Fprintln(e.out, e.eventLine(&ev))
	}
	return err
}

func (e *env) watch(ctx context.Context, nc *nats.Conn, prefix string, of natsbus.Scope, o showOptions) error {
	subject := prefix + ".>"
	switch {
	case of.Account != "":
		subject = prefix + "." + cti.LineKey(of.Account) + ".>"
	case of.Domain != "":
		subject = prefix + "." + cti.Token(of.Domain) + ".>"
	}
	ctx, stop := refusable(ctx, nc)
	defer stop()
	sub, err := nc.SubscribeSync(subject)
	if err != nil {
		return fmt.Errorf("subscribe %s: %w", subject, err)
	}
	for {
		msg, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return fmt.Errorf("watch: %w", err)
		}
		if o.json && !o.mask {
			if _, err := fmt.Fprintf(e.out, "%s\n", msg.Data); err != nil {
				return err
			}
			continue
		}
		var ev cti.Event
		if err := json.Unmarshal(msg.Data, &ev); err != nil {
			e.say("not a CTI event: %v", err)
			continue
		}
		if err := e.show(o, ev, msg.Data); err != nil {
			return err // who watches would miss what comes, and not know
		}
	}
}
