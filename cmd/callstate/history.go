package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

func newHistory(e *env) *cobra.Command {
	var src sourceFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "history CALL",
		Short: "one call's story: what happened, when, on which leg, and which CTI events followed",
		Long: `Prints the stored events of a call in order, each with the CTI events that follow
from it. CALL is <account>/<call id>, or a bare call id for all accounts' calls of it.`,
		Example: `  callstate history --data ~/.cache/callstate/demo 1001@demo.local/954e8d54-41db-4c55-baf8-481bb97b3c74`,
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			account, id := "", args[0]
			if i := strings.IndexByte(id, '/'); i >= 0 {
				account, id = id[:i], id[i+1:]
			}
			entries, err := findHistory(cmd.Context(), &src, account, id)
			if err != nil {
				return err
			}
			if len(entries) == 0 {
				return fmt.Errorf("no call %s", args[0])
			}
			return e.printHistory(entries, asJSON)
		},
	}
	src.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return cmd
}

func findHistory(ctx context.Context, src *sourceFlags, account, id string) ([]engine.HistoryEntry, error) {
	if src.data == "" {
		var answer struct {
			Events []engine.HistoryEntry `json:"events"`
		}
		err := src.ask("calls.history", natsbus.HistoryFilter{Account: account, CallID: id}, &answer)
		return answer.Events, err
	}
	log, err := src.openLog()
	if err != nil {
		return nil, err
	}
	defer log.Close()
	keys, err := callsNamed(ctx, log, account, id)
	if err != nil {
		return nil, err
	}
	var all []engine.HistoryEntry
	for _, k := range keys {
		h, err := engine.History(ctx, log, k)
		if err != nil {
			return nil, err
		}
		all = append(all, h...)
	}
	slices.SortStableFunc(all, func(a, b engine.HistoryEntry) int { return cmp.Compare(a.Event.Position, b.Event.Position) })
	return all, nil
}

func (e *env) printHistory(entries []engine.HistoryEntry, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(e.out)
		enc.SetEscapeHTML(false)
		for i := range entries {
			if err := enc.Encode(&entries[i]); err != nil {
				return err
			}
		}
		return nil
	}
	account := ""
	for i := range entries {
		ev := &entries[i].Event
		if ev.Account != account {
			account = ev.Account
			fmt.Fprintf(e.out, "%s  call %s  conversation %s\n", account, ev.Call, ev.Conversation)
		}
		origin := ""
		if ev.Origin != events.Live {
			origin = "  (" + ev.Origin.String() + ")"
		}
		fmt.Fprintf(e.out, "%6d  %s  %-22s leg %s  %s%s\n", ev.Position, clock(ev.OccurredAt), e.paint("1", string(ev.Type())), shortID(ev.Leg), payloadText(ev.Payload), origin)
		for j := range entries[i].CTI {
			c := &entries[i].CTI[j]
			fmt.Fprintf(e.out, "        %s %-20s %s\n", e.paint("90", "↳"), c.Event, eventText(c))
		}
	}
	return nil
}

// payloadText is what an event says, for people: its fields that are set.
func payloadText(p events.Payload) string {
	b, err := json.Marshal(p)
	if err != nil || len(b) < 3 {
		return ""
	}
	var m map[string]any
	if json.Unmarshal(b, &m) != nil {
		return string(b)
	}
	var parts []string
	flatten("", m, &parts)
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

func flatten(prefix string, m map[string]any, parts *[]string) {
	for k, v := range m {
		if sub, ok := v.(map[string]any); ok {
			flatten(prefix+k+".", sub, parts)
			continue
		}
		if s := fmt.Sprint(v); s != "" {
			*parts = append(*parts, prefix+k+"="+s)
		}
	}
}
