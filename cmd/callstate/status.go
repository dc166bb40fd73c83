package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

func newStatus(e *env) *cobra.Command {
	var src sourceFlags
	var asJSON, mask bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "how a running engine and its links to the PBXs are",
		Long: `Prints where the engine stands in its log and on NATS, and of every link whether it is
connected, since when, and why not; a web phone is a link of mode "phone". COMPARED is
when the PBX last said what channels it has; "refused" means that the PBX says the
password is wrong, and it is not tried again.`,
		Example: "  callstate status",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			var st natsbus.Status
			if err := src.ask(natsbus.Scope{}, "status", struct{}{}, &st); err != nil {
				return err
			}
			st.Links = maskWith(mask, st.Links)
			if asJSON {
				return e.printJSON(&st)
			}
			return e.printStatus(&st)
		},
	}
	src.addURL(e, cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the service's answer, one JSON object")
	cmd.Flags().BoolVar(&mask, "mask", false, maskUsage)
	return cmd
}

// addURL is add for a verb that no log can answer.
func (f *sourceFlags) addURL(e *env, cmd *cobra.Command) {
	f.nats.add(e, cmd, nats.DefaultURL, "ask the running engine over this NATS server")
}

func (e *env) printJSON(v any) error {
	enc := json.NewEncoder(e.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func (e *env) printStatus(st *natsbus.Status) error {
	fmt.Fprintf(e.out, "callstate %s, log %s, since %s\n", st.Version, st.Log, day(st.StartedAt))
	fmt.Fprintf(e.out, "events    %d stored, %d folded, %d on NATS\n", st.Position, st.Folded, st.Confirmed)
	fmt.Fprintf(e.out, "calls     %d live, %d of them doubtful; %d lines\n", st.Live, st.Doubtful, st.Lines)
	fmt.Fprintf(e.out, "frames    %d received, %d quarantined\n\n", st.Frames.Received, st.Frames.Quarantined)
	rows := make([][]string, len(st.Links))
	for i := range st.Links {
		l := &st.Links[i]
		state := "connected"
		switch {
		case l.Refused:
			state = "refused"
		case !l.Connected:
			state = "not connected"
		case l.UnansweredSince != 0:
			state = "PBX silent"
		}
		rows[i] = []string{l.Login, l.Mode, l.PBX, state, day(l.Since), day(l.ComparedAt), l.Reason}
	}
	return e.table([]string{"LINK", "MODE", "PBX", "STATE", "SINCE (UTC)", "COMPARED", "REASON"}, rows)
}

func day(t events.Time) string {
	if t == 0 {
		return "-"
	}
	return t.Time().Format("2006-01-02 15:04:05")
}

func newDoubtful(e *env) *cobra.Command {
	var src sourceFlags
	var asJSON, mask bool
	f := struct {
		engine.DoubtFilter
		UncheckedMs int64 `json:"uncheckedMs,omitempty"`
		SilentMs    int64 `json:"silentMs,omitempty"`
	}{}
	cmd := &cobra.Command{
		Use:   "doubtful",
		Short: "live calls that may be over, and why",
		Long: `Asks a running engine which of its live calls are doubtful, those in doubt for longest
first:

  link-down    no connection shows the account's calls
  unanswered   the PBX does not say what channels it has
  unlisted     the last comparisons did not find the call among the PBX's channels
  not-checked  neither a frame nor a comparison for longer than --unchecked
  no-frame     the PBX has the call, and told nothing of it for longer than --silent

Nothing is ended by asking: a call ends when the PBX, asked for its channels, does not
know them.`,
		Example: "  callstate doubtful\n  callstate doubtful --domain acme.example --json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if f.Unchecked < 0 || f.Silent < 0 {
				return fmt.Errorf("%w: --unchecked and --silent: want 0 or more", errUsage)
			}
			f.UncheckedMs, f.SilentMs = f.Unchecked.Milliseconds(), f.Silent.Milliseconds()
			f.Limit = 1000
			var answer struct {
				Calls []engine.Doubt `json:"calls"`
			}
			if err := src.ask(natsbus.ScopeOf(f.Account, f.Domain), "calls.doubtful", f, &answer); err != nil {
				return err
			}
			return e.printDoubts(maskWith(mask, answer.Calls), asJSON)
		},
	}
	src.addURL(e, cmd)
	cmd.Flags().StringVar(&f.Account, "account", "", "only calls of this account, number@domain")
	cmd.Flags().StringVar(&f.Domain, "domain", "", "only calls of this domain")
	cmd.Flags().DurationVar(&f.Unchecked, "unchecked", 5*time.Minute, "doubt a call that nothing was heard of for longer")
	cmd.Flags().DurationVar(&f.Silent, "silent", 2*time.Hour, "doubt a call that the PBX has, without a frame for longer")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	cmd.Flags().BoolVar(&mask, "mask", false, maskUsage)
	return cmd
}

func (e *env) printDoubts(ds []engine.Doubt, asJSON bool) error {
	if asJSON {
		for i := range ds {
			if err := e.printJSON(&ds[i]); err != nil {
				return err
			}
		}
		return nil
	}
	if len(ds) == 0 {
		e.say("no live call is doubtful")
		return nil
	}
	rows := make([][]string, len(ds))
	for i := range ds {
		d := &ds[i]
		var why []string
		for _, r := range d.Reasons {
			text := string(r.Reason) + " since " + day(r.Since)
			if r.Detail != "" {
				text += " (" + r.Detail + ")"
			}
			why = append(why, text)
		}
		rows[i] = []string{d.Account, day(d.StartedAt), day(d.HeardAt), day(d.ListedAt), d.CallID, strings.Join(why, "; ")}
	}
	return e.table([]string{"ACCOUNT", "STARTED (UTC)", "LAST FRAME", "LAST LISTED", "CALL", "WHY"}, rows)
}

func newAgents(e *env) *cobra.Command {
	var src sourceFlags
	var domain, state string
	var asJSON, mask bool
	cmd := &cobra.Command{
		Use:   "agents",
		Short: "every agent: state, note, presence, and what the line does",
		Long: `Lists the agents that a running engine knows. STATE is made of the agent's presence and
status and of the agent's own calls; LINE is the state of the active call, and how many
calls are beside it.`,
		Example: "  callstate agents\n  callstate agents --domain acme.example --state ONBREAK,DND",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			lines, err := src.allLines(natsbus.ScopeOf("", domain))
			if err != nil {
				return err
			}
			calls, err := src.liveCalls(domain)
			if err != nil {
				return err
			}
			var kept []cti.LineView
			for i := range lines {
				if state == "" || hasWord(state, lines[i].Line.AgentState) {
					kept = append(kept, lines[i])
				}
			}
			return e.printAgents(maskWith(mask, kept), maskWith(mask, calls), asJSON)
		},
	}
	src.addURL(e, cmd)
	cmd.Flags().StringVar(&domain, "domain", "", "only agents of this domain")
	cmd.Flags().StringVar(&state, "state", "", "only agents in one of these states, such as ONBREAK,DND")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the lines, one JSON object each")
	cmd.Flags().BoolVar(&mask, "mask", false, maskUsage)
	return cmd
}

// hasWord reports whether a list of words separated by commas has one.
func hasWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.TrimSpace(w), word) {
			return true
		}
	}
	return false
}

// allLines asks for the lines, as many at a time as the service gives.
func (f *sourceFlags) allLines(of natsbus.Scope) ([]cti.LineView, error) {
	var all []cti.LineView
	for after, more := "", true; more; {
		var answer struct {
			Lines []cti.LineView `json:"lines"`
			More  bool           `json:"more"`
		}
		err := f.ask(of, "lines.list", natsbus.LineFilter{Account: of.Account, Domain: of.Domain, After: after, Limit: 1000}, &answer)
		if err != nil {
			return nil, err
		}
		all = append(all, answer.Lines...)
		if more = answer.More && len(answer.Lines) > 0; more {
			after = answer.Lines[len(answer.Lines)-1].Account
		}
	}
	return all, nil
}

// liveCalls asks for the live calls, the latest first, as many at a time as a message
// of NATS holds.
func (f *sourceFlags) liveCalls(domain string) ([]cti.CallView, error) {
	var all []cti.CallView
	seen := map[events.CallKey]bool{}
	q := engine.CallFilter{Domain: domain, Live: true, Limit: page}
	for {
		var answer struct {
			Calls []cti.CallView `json:"calls"`
		}
		if err := f.ask(natsbus.ScopeOf("", domain), "calls.list", q, &answer); err != nil {
			return nil, err
		}
		before := len(all)
		for _, v := range answer.Calls {
			if key := (events.CallKey{Account: v.Account, Call: v.CallID}); !seen[key] {
				seen[key] = true
				all = append(all, v)
			}
		}
		if len(answer.Calls) < page || len(all) == before {
			return all, nil
		}
		q.Until = answer.Calls[page-1].Call.StartedAt + 1 // others may have begun at that time
	}
}

func (e *env) printAgents(lines []cti.LineView, calls []cti.CallView, asJSON bool) error {
	if asJSON {
		for i := range lines {
			if err := e.printJSON(&lines[i]); err != nil {
				return err
			}
		}
		return nil
	}
	call := map[events.CallKey]*cti.Call{}
	for i := range calls {
		call[events.CallKey{Account: calls[i].Account, Call: calls[i].CallID}] = &calls[i].Call
	}
	rows := make([][]string, len(lines))
	for i := range lines {
		l := &lines[i].Line
		online := "no"
		if l.Online {
			online = "yes"
		}
		what, with := "", ""
		if l.ActiveCall != "" {
			what = "call"
			if c := call[events.CallKey{Account: lines[i].Account, Call: l.ActiveCall}]; c != nil {
				what = strings.ToLower(c.StateName)
				with = party(c.CalledID)
				if c.Direction == events.In {
					with = party(c.CallerID)
				}
			}
			if n := len(l.Waiting); l.SecondCall != "" || n > 0 {
				if l.SecondCall != "" {
					n++
				}
				what += " +" + strconv.Itoa(n)
			}
		}
		rows[i] = []string{lines[i].Account, l.AgentState, l.AgentNote, online, what, with, l.ActiveCall}
	}
	return e.table([]string{"AGENT", "STATE", "NOTE", "ONLINE", "LINE", "WITH", "CALL"}, rows)
}
