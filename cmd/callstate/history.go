package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

func newHistory(e *env) *cobra.Command {
	var src sourceFlags
	var f natsbus.HistoryFilter
	var asJSON, mask bool
	cmd := &cobra.Command{
		Use:   "history CALL",
		Short: "one call's story: what happened, when, on which leg, and which CTI events followed",
		Long: `Prints the stored events of a call in order, each with the CTI events that follow
from it. CALL is <account>/<call id>, or a bare call id for all accounts' calls of it;
an alias will do.

With --conversation the story is that of the whole conversation: all accounts' calls,
consultations and transfers, and the legs that are no account's (trunks), across
merges. With --explain it is not a story but evidence: every field of the call as it is
now, with the event, by position and type, that set it last; dropped where retention
has dropped that event.`,
		Example: `  callstate history --data ~/.cache/callstate/demo 1001@demo.local/954e8d54-41db-4c55-baf8-481bb97b3c74
  callstate history --data data --conversation 954e8d54-41db-4c55-baf8-481bb97b3c74
  callstate history --data data --explain 954e8d54-41db-4c55-baf8-481bb97b3c74`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.CallID = args[0]
			if account, id, ok := strings.Cut(args[0], "/"); ok {
				f.Account, f.CallID = account, id
			}
			st, err := e.findStory(cmd.Context(), &src, f)
			if err != nil {
				return err
			}
			if len(st.Events) == 0 {
				return fmt.Errorf("no call %s", args[0])
			}
			st = maskWith(mask, st)
			switch {
			case f.Explain:
				return e.printEvidence(st.Evidence, asJSON)
			case asJSON:
				return e.printHistoryJSON(st.Events)
			case f.Conversation:
				e.printConversation(st.Events)
			default:
				e.printHistory(st.Events)
			}
			return nil
		},
	}
	src.add(e, cmd)
	cmd.Flags().BoolVar(&f.Conversation, "conversation", false, "all calls and legs of the call's conversation")
	cmd.Flags().BoolVar(&f.Explain, "explain", false, "name for every field of the call the event that set it")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	cmd.Flags().BoolVar(&mask, "mask", false, maskUsage)
	return cmd
}

// story is what history tells.
type story struct {
	Events   []engine.HistoryEntry `json:"events"`
	Evidence []engine.Evidence     `json:"evidence"`
}

func (e *env) findStory(ctx context.Context, src *sourceFlags, f natsbus.HistoryFilter) (story, error) {
	if src.data == "" {
		return e.askStory(src, f)
	}
	var st story
	log, err := e.openWatched(src)
	if err != nil {
		return st, err
	}
	defer log.close()
	if st.Events, err = historyOf(ctx, log, f); err == nil && f.Explain {
		st.Evidence, err = evidenceOf(ctx, log, f)
	}
	return st, err
}

// askStory asks the running engine, page by page: NATS carries a megabyte at once.
// A conversation is everybody's, or as much of it as the user may ask about.
func (e *env) askStory(src *sourceFlags, f natsbus.HistoryFilter) (story, error) {
	var st story
	own := natsbus.ScopeOf(f.Account, "")
	of := []natsbus.Scope{own}
	if f.Conversation && f.Account != "" {
		of = []natsbus.Scope{{}, {Domain: own.Domain}, own}
	}
	f.Limit = page / 4
	for {
		var answer struct {
			story
			More bool `json:"more"`
		}
		err := src.ask(of[0], "calls.history", f, &answer)
		if errors.Is(err, nats.ErrPermissionViolation) && len(of) > 1 {
			of = of[1:]
			e.say("the user may not ask about everybody: of the conversation this is what concerns %s", cmp.Or(of[0].Account, of[0].Domain))
			continue
		}
		if refusal, ok := errors.AsType[*engineError](err); ok && refusal.code == natsbus.CodeBadRequest && f.Limit > 1 {
			f.Limit /= 2 // the answer may have been larger than NATS carries
			continue
		}
		if err != nil {
			return st, err
		}
		for i := range answer.Events {
			if answer.Events[i].CTI == nil { // left out on the way
				answer.Events[i].CTI = []cti.Event{}
			}
		}
		st.Events = append(st.Events, answer.Events...)
		st.Evidence = append(st.Evidence, answer.Evidence...)
		if !answer.More || len(answer.Events) == 0 {
			return st, nil
		}
		f.After, f.Explain = answer.Events[len(answer.Events)-1].Event.Position, false
	}
}

func (e *env) printHistoryJSON(entries []engine.HistoryEntry) error {
	enc := json.NewEncoder(e.out)
	enc.SetEscapeHTML(false)
	for i := range entries {
		if err := enc.Encode(&entries[i]); err != nil {
			return err
		}
	}
	return nil
}

// printHistory prints the events under a heading for each run of one call's.
func (e *env) printHistory(entries []engine.HistoryEntry) {
	var last events.CallKey
	for i := range entries {
		ev := &entries[i].Event
		if !entries[i].Aside && ev.Key() != last {
			last = ev.Key()
			e.printCallHeading(ev)
		}
		e.printEntry(&entries[i], "")
	}
}

// printConversation names the calls and then tells one story, each event with
// whose it is.
func (e *env) printConversation(entries []engine.HistoryEntry) {
	var keys []events.CallKey
	width := len(trunk)
	for i := range entries {
		ev := &entries[i].Event
		if k := ev.Key(); !entries[i].Aside && !k.IsZero() && !slices.Contains(keys, k) {
			keys = append(keys, k)
			width = max(width, len(ev.Account))
			e.printCallHeading(ev)
		}
	}
	for i := range entries {
		who := entries[i].Event.Account
		if who == "" && entries[i].Event.Leg != "" {
			who = trunk
		}
		e.printEntry(&entries[i], fmt.Sprintf("%-*s  ", width, who))
	}
}

// printCallHeading names a call and the day, since the lines below give times of day.
func (e *env) printCallHeading(ev *events.Event) {
	at := ev.OccurredAt
	if at == 0 {
		at = ev.RecordedAt
	}
	fmt.Fprintf(e.out, "%s  call %s  conversation %s  %s UTC\n", onScreen(ev.Account), onScreen(ev.Call), onScreen(ev.Conversation), at.Time().Format(time.DateOnly))
}

// trunk stands for the account of a leg that has none.
const trunk = "(trunk)"

func (e *env) printEntry(h *engine.HistoryEntry, who string) {
	ev := &h.Event
	origin := ""
	if ev.Origin != events.Live {
		origin = "  (" + ev.Origin.String() + ")"
	}
	if h.Aside {
		origin += "  (of call " + ev.Call + ")"
	}
	leg := ""
	if ev.Leg != "" {
		leg = "leg " + shortID(ev.Leg)
	}
	fmt.Fprintf(e.out, "%6d  %s  %s%s %-12s  %s%s\n", ev.Position, clock(ev.OccurredAt), onScreen(who), e.paint("1", fmt.Sprintf("%-22s", ev.Type())), onScreen(leg), onScreen(payloadText(ev.Payload)), onScreen(origin))
	for j := range h.CTI {
		c := &h.CTI[j]
		fmt.Fprintf(e.out, "        %s %-20s %s\n", e.paint("90", "↳"), c.Event, eventText(c))
	}
}

// printEvidence prints which event set each field. The table leaves out what is
// empty; the JSON does not.
func (e *env) printEvidence(all []engine.Evidence, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(e.out)
		enc.SetEscapeHTML(false)
		for i := range all {
			if err := enc.Encode(&all[i]); err != nil {
				return err
			}
		}
		return nil
	}
	for len(all) > 0 {
		key := events.CallKey{Account: all[0].Account, Call: all[0].CallID}
		var rows [][]string
		n := 0
		for ; n < len(all) && all[n].Account == key.Account && all[n].CallID == key.Call; n++ {
			ev := &all[n]
			if ev.Value == "" || ev.Value == "false" {
				continue
			}
			of := ""
			if ev.Of != "" {
				of = "of call " + shortID(ev.Of)
			}
			event := fmt.Sprint(ev.Position)
			if ev.Position == 0 {
				event = "dropped"
			}
			rows = append(rows, []string{ev.Field, ev.Value, event, string(ev.Type), clock(ev.OccurredAt), of})
		}
		fmt.Fprintf(e.out, "%s  call %s\n", onScreen(key.Account), onScreen(key.Call))
		if err := e.table([]string{"FIELD", "VALUE", "EVENT", "TYPE", "WHEN", ""}, rows); err != nil {
			return err
		}
		if all = all[n:]; len(all) > 0 {
			fmt.Fprintln(e.out)
		}
	}
	return nil
}

// payloadText is what an event says, for people: its fields that are set.
func payloadText(p events.Payload) string {
	if s, ok := sessionText(p); ok {
		return s
	}
	b, err := json.Marshal(p)
	if err != nil || len(b) < 3 {
		return ""
	}
	var parts []string
	for field, v := range leaves(string(b)) {
		if v != "" {
			parts = append(parts, field+"="+v)
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}
