package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events/cti"
	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/bolt"
)

// sourceFlags say where a verb reads: a log that nobody has open, or a running
// engine over NATS.
type sourceFlags struct {
	data string
	url  string
}

func (f *sourceFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.data, "data", "", "read the log in this folder; no engine may have it open")
	cmd.Flags().StringVar(&f.url, "nats", nats.DefaultURL, "ask the running engine over this NATS server")
	cmd.MarkFlagsMutuallyExclusive("data", "nats")
}

// openLog opens the log for reading.
func (f *sourceFlags) openLog() (*bolt.Store, error) {
	s, err := bolt.Open(f.data, &bolt.Options{ReadOnly: true})
	if errors.Is(err, store.ErrInUse) {
		return nil, &store.HintError{Err: fmt.Errorf("%s: %w", f.data, store.ErrInUse), Hint: "ask the engine that has it with --nats URL, or stop it first"}
	}
	return s, err
}

// ask sends a request to the running engine and decodes its answer.
func (f *sourceFlags) ask(verb string, request, answer any) error {
	nf := natsFlags{url: f.url}
	nc, err := nf.connect()
	if err != nil {
		return fmt.Errorf("%w; is an engine running there? a log is read with --data", err)
	}
	defer nc.Close()
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	msg, err := nc.Request("callstate.v1."+verb, b, 10*time.Second)
	if errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("no engine answers on %s; a log is read with --data", f.url)
	}
	if err != nil {
		return fmt.Errorf("ask the engine: %w", err)
	}
	if text := msg.Header.Get("Nats-Service-Error"); text != "" {
		return fmt.Errorf("the engine answers: %s", text)
	}
	return json.Unmarshal(msg.Data, answer)
}

func newCalls(e *env) *cobra.Command {
	var src sourceFlags
	var account string
	var live, asJSON bool
	var limit int
	cmd := &cobra.Command{
		Use:   "calls",
		Short: "list calls, from a log or from a running engine",
		Long: `Lists calls with their numbers, times and outcome. From a log (--data) all that it
holds; from a running engine those that are live or ended a short while ago.`,
		Example: `  callstate calls --data ~/.cache/callstate/demo
  callstate calls --nats nats://127.0.0.1:4222 --live`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			vs, err := findCalls(cmd.Context(), &src, account, live, limit)
			if err != nil {
				return err
			}
			return e.printCalls(vs, asJSON)
		},
	}
	src.add(cmd)
	cmd.Flags().StringVar(&account, "account", "", "only this account, number@domain")
	cmd.Flags().BoolVar(&live, "live", false, "only calls that have not ended")
	cmd.Flags().IntVar(&limit, "limit", 0, "at most this many, the latest (default: all of a log, 100 of an engine)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return cmd
}

func findCalls(ctx context.Context, src *sourceFlags, account string, live bool, limit int) ([]cti.CallView, error) {
	if src.data == "" {
		var answer struct {
			Calls []cti.CallView `json:"calls"`
		}
		err := src.ask("calls.list", natsbus.CallFilter{Account: account, Live: live, Limit: limit}, &answer)
		return answer.Calls, err
	}
	log, err := src.openLog()
	if err != nil {
		return nil, err
	}
	defer log.Close()
	var vs []cti.CallView
	err = engine.PastCalls(ctx, log, account, func(v cti.CallView) error {
		if !live || v.Call.Outcome == "" {
			vs = append(vs, v)
		}
		return nil
	})
	if limit > 0 && len(vs) > limit {
		vs = vs[len(vs)-limit:]
	}
	return vs, err
}

func (e *env) printCalls(vs []cti.CallView, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(e.out)
		enc.SetEscapeHTML(false)
		for i := range vs {
			if err := enc.Encode(&vs[i]); err != nil {
				return err
			}
		}
		return nil
	}
	rows := make([][]string, len(vs))
	for i := range vs {
		c := &vs[i].Call
		outcome := string(c.Outcome)
		if outcome == "" {
			outcome = "(" + c.StateName + ")"
		}
		rows[i] = []string{
			c.StartedAt.Time().Format("2006-01-02 15:04:05"), vs[i].Account, string(c.Direction), party(c.CallerID), party(c.CalledID),
			outcome, seconds(c.RingMs), seconds(c.TalkMs), seconds(c.HoldMs), c.Cause, vs[i].CallID,
		}
	}
	return e.table([]string{"STARTED (UTC)", "ACCOUNT", "DIR", "CALLER", "CALLED", "OUTCOME", "RING", "TALK", "HOLD", "CAUSE", "CALL"}, rows)
}
