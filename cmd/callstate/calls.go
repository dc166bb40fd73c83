package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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
	nats natsFlags
	log  bool // there is a --data
}

func (f *sourceFlags) add(e *env, cmd *cobra.Command) {
	f.log = true
	cmd.Flags().StringVar(&f.data, "data", "", "read the log in this folder; no engine may have it open")
	f.nats.add(e, cmd, nats.DefaultURL, "ask the running engine over this NATS server")
	cmd.MarkFlagsMutuallyExclusive("data", "nats")
}

// openLog opens the log for reading. instead is what to do where an engine has it.
func (f *sourceFlags) openLog(instead string) (*bolt.Store, error) {
	s, err := bolt.Open(f.data, &bolt.Options{ReadOnly: true})
	if errors.Is(err, store.ErrInUse) {
		return nil, &store.HintError{Err: fmt.Errorf("%s: %w", f.data, store.ErrInUse), Hint: instead}
	}
	return s, err
}

// What to do where an engine has the log.
const (
	askOrStop = "ask the engine that has it with --nats URL, or stop it first"
	stopFirst = "stop the engine that has it first"
)

// openSource opens the log for reading, that of the running engine where no folder
// is given.
func (f *sourceFlags) openSource(ctx context.Context) (log natsbus.LogSource, stop func(), err error) {
	if f.data != "" {
		s, err := f.openLog(askOrStop)
		if err != nil {
			return nil, nil, err
		}
		return s, func() { s.Close() }, nil
	}
	nc, err := f.connect()
	if err != nil {
		return nil, nil, err
	}
	remote, err := natsbus.OpenRemoteLog(ctx, nc)
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return remote, nc.Close, nil
}

// connect connects to the NATS server of a running engine.
func (f *sourceFlags) connect() (*nats.Conn, error) {
	nc, err := f.nats.connect()
	if _, hinted := errors.AsType[*natsbus.HintError](err); err != nil && !hinted {
		err = fmt.Errorf("%w; is an engine running there?%s", err, f.orLog(""))
	}
	return nc, err
}

// orLog says what can be asked where no engine is, for a verb that can ask it.
func (f *sourceFlags) orLog(sign string) string {
	if !f.log {
		return ""
	}
	return sign + " a log is read with --data"
}

// openWatched opens the log for a reading that shows its progress.
func (e *env) openWatched(src *sourceFlags) (*watchedReads, error) {
	log, err := src.openLog(askOrStop)
	if err != nil {
		return nil, err
	}
	return &watchedReads{log, e.progress("events", log.Last())}, nil
}

// errNoEngine is matched where nobody answers.
var errNoEngine = errors.New("no engine answers")

// engineError is a running engine's refusal, with its code of SUBJECTS.md.
type engineError struct{ code, text string }

func (e *engineError) Error() string { return "the engine answers: " + e.text }

// ask sends a request about a scope to the running engine and decodes its answer.
func (f *sourceFlags) ask(of natsbus.Scope, verb string, request, answer any) error {
	nc, err := f.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	msg, err := natsRequest(nc, of.Subject(verb), b, 10*time.Second)
	if errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("%w on %s%s", errNoEngine, nc.ConnectedUrlRedacted(), f.orLog(";"))
	}
	if err != nil {
		return fmt.Errorf("ask the engine: %w", err)
	}
	if text := msg.Header.Get("Nats-Service-Error"); text != "" {
		return &engineError{msg.Header.Get("Nats-Service-Error-Code"), text}
	}
	return json.Unmarshal(msg.Data, answer)
}

func newCalls(e *env) *cobra.Command {
	var src sourceFlags
	var ff filterFlags
	var asJSON, mask bool
	var limit int
	cmd := &cobra.Command{
		Use:   "calls",
		Short: "list calls, from a log or from a running engine",
		Long: `Lists calls with their numbers, times and outcome, the latest last: live ones and
ended ones, from a log (--data) or from a running engine, which answers from its log.
A call is listed when it passes every filter that is given.`,
		Example: `  callstate calls --data ~/.cache/callstate/demo
  callstate calls --data data --since -2h --direction in --outcome missed,no-answer
  callstate calls --data data --number 0671112233 --since 2026-11-22 --mask
  callstate calls --nats nats://127.0.0.1:4222 --live`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := ff.filter(time.Now())
			if err != nil {
				return err
			}
			if f.Limit = limit; limit < 0 {
				return fmt.Errorf("%w: --limit %d is below 0", errUsage, limit)
			}
			vs, err := e.findCalls(cmd.Context(), &src, f)
			if err != nil {
				return err
			}
			if src.data == "" && limit == 0 && len(vs) == ofEngine {
				e.say("these are the latest %d; there may be more, which --limit, a filter or export tells", ofEngine)
			}
			slices.Reverse(vs)
			return e.printCalls(maskWith(mask, vs), asJSON)
		},
	}
	src.add(e, cmd)
	ff.add(cmd.Flags())
	cmd.Flags().IntVar(&limit, "limit", 0, "at most this many, the latest (default: all of a log, 100 of an engine)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	cmd.Flags().BoolVar(&mask, "mask", false, maskUsage)
	return cmd
}

// ofEngine is how many calls a running engine is asked for unless it is said.
const ofEngine = 100

// findCalls returns the calls that f lets through, the latest first.
func (e *env) findCalls(ctx context.Context, src *sourceFlags, f engine.CallFilter) ([]cti.CallView, error) {
	if src.data == "" {
		var answer struct {
			Calls []cti.CallView `json:"calls"`
		}
		f.Limit = cmp.Or(f.Limit, ofEngine)
		err := src.ask(natsbus.ScopeOf(f.Account, f.Domain), "calls.list", f, &answer)
		return answer.Calls, err
	}
	log, err := e.openWatched(src)
	if err != nil {
		return nil, err
	}
	defer log.close()
	return engine.FindCalls(ctx, log, f)
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
	header := []string{"STARTED (UTC)", "ACCOUNT", "DIR", "CALLER", "CALLED", "OUTCOME", "RING", "TALK", "HOLD", "CAUSE", "CALL"}
	sessions := slices.ContainsFunc(vs, func(v cti.CallView) bool { return v.Call.WebRTC != nil })
	if sessions {
		header = append(header, "WEB PHONE")
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
		if sessions {
			rows[i] = append(rows[i], webPhoneText(c.WebRTC))
		}
	}
	return e.table(header, rows)
}
