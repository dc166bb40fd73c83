package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/user"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events/cti"
)

// controlVerb is a verb that commands the PBX through a running engine.
type controlVerb struct {
	use, short, long, example string
	args                      int // besides the account: how many must be given
	more                      int // and how many may be
	flags                     func(*cobra.Command, *controlOptions)
	oneOf                     func(o *controlOptions, args []string) error // checks what excludes each other
	request                   func(o *controlOptions, args []string) engine.Request
}

type controlOptions struct {
	call, note, by, id string
	complete, cancel   bool
	timeout            time.Duration
	asJSON             bool
}

// controlVerbs are the connector's methods as a person types them. ACCOUNT is
// number@domain; the call is the line's active one unless --call names another.
var controlVerbs = []controlVerb{
	{
		use: "call ACCOUNT NUMBER", short: "place a call: the agent's own phone rings first, then the number", args: 1,
		example: "  callstate call 1001@acme.example +380501234567",
		request: func(_ *controlOptions, a []string) engine.Request {
			return engine.Request{Method: "makeCall", Target: a[0]}
		},
	},
	{
		use: "hold ACCOUNT", short: "put the agent's call on hold", example: "  callstate hold 1001@acme.example",
		long: "Succeeds when the PBX raised the event, not when it answered: it says OK for a\nchannel that does not exist as well. On a call that is held it is an error.",
		request: func(*controlOptions, []string) engine.Request {
			return engine.Request{Method: "holdCall", State: holdOnly}
		},
	},
	{
		use: "unhold ACCOUNT", short: "take the agent's call back from hold", example: "  callstate unhold 1001@acme.example",
		request: func(*controlOptions, []string) engine.Request { return engine.Request{Method: "unholdCall"} },
	},
	{
		use: "dtmf ACCOUNT DIGITS", short: "send digits into the agent's call", args: 1, example: "  callstate dtmf 1001@acme.example '12#'",
		request: func(_ *controlOptions, a []string) engine.Request {
			return engine.Request{Method: "sendDtmf", Digits: a[0]}
		},
	},
	{
		use: "transfer ACCOUNT [NUMBER]", short: "send the other party to a number, or complete or cancel a consultation", more: 1,
		long:    "With NUMBER a blind transfer. With --complete the consultation's party is connected\nwith the other one; with --cancel the consultation ends.",
		example: "  callstate transfer 1001@acme.example 1007\n  callstate transfer 1001@acme.example --complete",
		flags: func(cmd *cobra.Command, o *controlOptions) {
			cmd.Flags().BoolVar(&o.complete, "complete", false, "complete the consultation")
			cmd.Flags().BoolVar(&o.cancel, "cancel", false, "end the consultation")
			cmd.Flags().StringVar(&o.note, "note", "", "a comment for the one who takes the call; one word")
		},
		oneOf: func(o *controlOptions, a []string) error {
			given := 0
			for _, is := range []bool{o.complete, o.cancel, strings.Join(a, "") != ""} {
				if is {
					given++
				}
			}
			if given != 1 {
				return fmt.Errorf("%w: transfer: want one of a number, --complete and --cancel", errUsage)
			}
			return nil
		},
		request: func(o *controlOptions, a []string) engine.Request {
			switch {
			case o.complete:
				return engine.Request{Method: "transferCall"}
			case o.cancel:
				return engine.Request{Method: "cancelTransfer"}
			}
			return engine.Request{Method: "blindTransferCall", Target: strings.Join(a, ""), Note: o.note}
		},
	},
	{
		use: "consult ACCOUNT NUMBER", short: "hold the agent's call and call a number beside it", args: 1,
		example: "  callstate consult 1001@acme.example 1007",
		request: func(_ *controlOptions, a []string) engine.Request {
			return engine.Request{Method: "makeConsultCall", Target: a[0]}
		},
	},
	{
		use: "hangup ACCOUNT", short: "end the agent's call", example: "  callstate hangup 1001@acme.example",
		request: func(*controlOptions, []string) engine.Request { return engine.Request{Method: "dropCall"} },
	},
	{
		use: "state ACCOUNT [STATE]", short: "set an agent's state, or print it", more: 1,
		long:    "STATE is ONHOOK (ready), ONBREAK, DND, CALLFORWARD, VOICEMAIL or NONREG (signed out,\nover the account's own connection only). Without STATE the state is printed.",
		example: "  callstate state 1001@acme.example\n  callstate state 1001@acme.example ONBREAK --note lunch",
		flags: func(cmd *cobra.Command, o *controlOptions) {
			cmd.Flags().StringVar(&o.note, "note", "", "why")
		},
		request: func(o *controlOptions, a []string) engine.Request {
			if len(a) == 0 {
				return engine.Request{Method: "queryUserState"}
			}
			return engine.Request{Method: "setUserState", State: a[0], Note: o.note}
		},
	},
}

// holdOnly asks holdCall, which is a toggle, for holding alone.
const holdOnly = "HELD"

func newControlVerbs(e *env) []*cobra.Command {
	var cmds []*cobra.Command
	for _, v := range controlVerbs {
		cmds = append(cmds, newControlVerb(e, v))
	}
	return cmds
}

func newControlVerb(e *env, v controlVerb) *cobra.Command {
	var nf natsFlags
	var o controlOptions
	cmd := &cobra.Command{
		Use: v.use, Short: v.short, Example: v.example, GroupID: groupControl,
		Long: strings.TrimSpace(v.long + `

The request goes to the running engine over NATS, which checks it against the flags of
the call and the line, records it with who asked, and sends it to the PBX. The outcome is
printed; exit code 1 where it is not ok.`),
		Args: usageArgs(cobra.RangeArgs(1+v.args, 1+v.args+v.more)),
		RunE: func(_ *cobra.Command, args []string) error {
			r := v.request(&o, args[1:])
			r.Account, r.Call, r.By, r.ID = args[0], o.call, o.by, o.id
			if r.By == "" {
				r.By = whoami()
			}
			if r.ID == "" {
				r.ID = uuid.NewString()
			}
			if v.oneOf != nil {
				if err := v.oneOf(&o, args[1:]); err != nil {
					return err
				}
			}
			if o.timeout < 0 {
				return fmt.Errorf("%w: --timeout %s is below 0", errUsage, o.timeout)
			}
			return e.control(&nf, r, &o)
		},
	}
	nf.add(e, cmd, nats.DefaultURL, "URL of the NATS server")
	cmd.Flags().StringVar(&o.call, "call", "", "the call's id (default: the line's active call)")
	cmd.Flags().StringVar(&o.by, "by", "", "who asks, for the record (default: the user of this machine)")
	cmd.Flags().StringVar(&o.id, "id", "", "the request's id: asking again with the same is not doing again (default: a new one)")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 0, "how long to wait for the outcome (default: 20s, 60s where a phone has to be picked up)")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print the outcome as one JSON object")
	if v.flags != nil {
		v.flags(cmd, &o)
	}
	return cmd
}

func whoami() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "callstate"
}

// control sends one request and prints its outcome.
func (e *env) control(nf *natsFlags, r engine.Request, o *controlOptions) error {
	if _, domain := cti.SplitAccount(r.Account); domain == "" {
		return fmt.Errorf("%w: account %q: want number@domain", errUsage, r.Account)
	}
	nc, err := nf.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	out, raw, err := askControl(nc, r, o.timeout)
	if err != nil {
		return err
	}
	if out.Result == engine.VerdictOK && r.Method == "queryUserState" && out.Answer == "" && !o.asJSON {
		return fmt.Errorf("no state of %s is known", r.Account)
	}
	if o.asJSON {
		fmt.Fprintf(e.out, "%s\n", raw)
	} else if out.Result == engine.VerdictOK {
		fmt.Fprintln(e.out, strings.TrimSpace(fmt.Sprintf("%s %s", out.Result, out.Answer)))
	}
	if out.Result != engine.VerdictOK {
		return fmt.Errorf("%s: %s", out.Result, out.Answer)
	}
	return nil
}

// askControl sends a request and waits for its outcome, as long as the engine does
// and a little more.
func askControl(nc *nats.Conn, r engine.Request, timeout time.Duration) (out engine.Outcome, raw []byte, err error) {
	body, err := json.Marshal(struct {
		engine.Request
		TimeoutMs int64 `json:"timeoutMs,omitempty"`
	}{r, timeout.Milliseconds()})
	if err != nil {
		return out, nil, err
	}
	wait := 70 * time.Second
	if timeout > 0 {
		wait = timeout + 10*time.Second
	}
	m, err := natsRequest(nc, natsbus.ControlPrefix+"."+cti.LineKey(r.Account)+"."+r.Method, body, wait)
	if errors.Is(err, nats.ErrNoResponders) {
		return out, nil, fmt.Errorf("no engine answers on %s", nc.ConnectedUrlRedacted())
	}
	if err != nil {
		return out, nil, fmt.Errorf("ask the engine: %w", err)
	}
	if err := json.Unmarshal(m.Data, &out); err != nil {
		return out, nil, fmt.Errorf("the engine's answer: %w", err)
	}
	return out, m.Data, nil
}
