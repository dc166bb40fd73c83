package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/events/cti"
)

// natsFlags are those of every verb that asks a running engine.
type natsFlags struct {
	url    string
	prefix string
}

func (f *natsFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.url, "nats", nats.DefaultURL, "URL of the NATS server")
	cmd.Flags().StringVar(&f.prefix, "prefix", cti.DefaultPrefix, "what the subjects of CTI events begin with")
}

func (f *natsFlags) connect() (*nats.Conn, error) {
	nc, err := nats.Connect(f.url, nats.Name("callstate"), nats.MaxReconnects(-1))
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", f.url, err)
	}
	return nc, nil
}

func newWatch(e *env) *cobra.Command {
	var nf natsFlags
	var account string
	var asJSON, all, linesOnly bool
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
			nc, err := nf.connect()
			if err != nil {
				return err
			}
			defer nc.Close()
			if !asJSON {
				if err := e.printLines(cmd.Context(), nc, nf.prefix, account); err != nil {
					return err
				}
			}
			if linesOnly {
				return nil
			}
			return e.watch(cmd.Context(), nc, nf.prefix, account, asJSON, all)
		},
	}
	nf.add(cmd)
	cmd.Flags().StringVar(&account, "account", "", "only this account, number@domain")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the payloads as they are on NATS, one a line")
	cmd.Flags().BoolVar(&all, "all", false, "print also lineStateChanged, agentStateChanged and callDetails")
	cmd.Flags().BoolVar(&linesOnly, "lines", false, "print the lines and end")
	return cmd
}

// printLines prints the views of the lines.
func (e *env) printLines(ctx context.Context, nc *nats.Conn, prefix, account string) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	kv, err := js.KeyValue(ctx, natsbus.LinesBucket(prefix))
	if err != nil {
		return fmt.Errorf("no lines on this NATS server: %w", err)
	}
	keys := ">"
	if account != "" {
		keys = cti.LineKey(account)
	}
	w, err := kv.Watch(ctx, keys, jetstream.IgnoreDeletes())
	if err != nil {
		return fmt.Errorf("read lines: %w", err)
	}
	defer func() { _ = w.Stop() }()
	var rows [][]string
	for entry := range w.Updates() {
		if entry == nil { // all that was there
			break
		}
		var v cti.LineView
		if err := json.Unmarshal(entry.Value(), &v); err != nil {
			return fmt.Errorf("line %s: %w", entry.Key(), err)
		}
		state := v.Line.AgentState
		if state == "" {
			state = "-"
		}
		rows = append(rows, []string{
			v.Account, state, fmt.Sprint(int(v.Line.CallFeaturesSet)), v.Line.CallFeaturesSet.String(),
			shortID(v.Line.ActiveCall), shortID(v.Line.SecondCall), fmt.Sprint(len(v.Line.Waiting)),
		})
	}
	return e.table([]string{"ACCOUNT", "AGENT", "FLAGS", "THE LINE CAN", "ACTIVE", "SECOND", "WAITING"}, rows)
}

func (e *env) watch(ctx context.Context, nc *nats.Conn, prefix, account string, asJSON, all bool) error {
	subject := prefix + ".>"
	if account != "" {
		number, domain := cti.SplitAccount(account)
		subject = prefix + "." + cti.Token(domain) + "." + cti.Token(number) + ".>"
	}
	sub, err := nc.SubscribeSync(subject)
	if err != nil {
		return fmt.Errorf("subscribe %s: %w", subject, err)
	}
	for {
		msg, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return fmt.Errorf("watch: %w", err)
		}
		if asJSON {
			fmt.Fprintf(e.out, "%s\n", msg.Data)
			continue
		}
		var ev cti.Event
		if err := json.Unmarshal(msg.Data, &ev); err != nil {
			e.say("not a CTI event on %s: %v", msg.Subject, err)
			continue
		}
		if all || ev.Event != cti.LineStateChanged && ev.Event != cti.AgentStateChanged && ev.Event != cti.CallDetails {
			fmt.Fprintln(e.out, e.eventLine(&ev))
		}
	}
}
