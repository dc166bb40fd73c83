package main

// The rules of what is printed:
//
//   - Data goes to standard output, and nothing else does. Messages, progress
//     and errors go to standard error.
//   - A message begins with "callstate: ", has no capital and no final stop. An
//     error that has a hint shows it on a line of its own.
//   - Times are UTC, durations seconds, numbers those of the PBX.
//   - --json prints one JSON object a line, and its fields are documented.

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"unicode"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
	"github.com/callstate/callstate/store"
)

// output is standard output. It remembers that it could not be written to, so that
// who prints need not look: what does not arrive is not done.
type output struct {
	to io.Writer

	mu  sync.Mutex // guards err
	err error      // the first
}

func (o *output) Write(b []byte) (int, error) {
	n, err := o.to.Write(b)
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.err = cmp.Or(o.err, err)
	}
	return n, err
}

func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

// say prints a message for people. The daemon's are lines of a log.
func (e *env) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if e.daemon && !e.logNumbers {
		text = maskLogText(text)
	}
	fmt.Fprintf(e.errw, "callstate: %s\n", text)
}

// fail prints an error, and its hint where it has one.
func (e *env) fail(err error) {
	var sh *store.HintError
	var nh *natsbus.HintError
	switch {
	case errors.As(err, &sh):
		e.say("%s", strings.TrimSuffix(err.Error(), ": "+sh.Hint))
		e.say("hint: %s", sh.Hint)
	case errors.As(err, &nh):
		e.say("%s", strings.TrimSuffix(err.Error(), " ("+nh.Hint+")"))
		e.say("hint: %s", nh.Hint)
	default:
		e.say("%v", err)
	}
}

// paint colours text on a terminal.
func (e *env) paint(code, s string) string {
	if !e.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

var eventColours = map[cti.Name]string{
	cti.CallStarted: "36", cti.CommutationStarted: "32", cti.Hold: "33", cti.Unhold: "32", cti.CallFinished: "35",
	cti.CallTransferred: "34", cti.Initialized: "90", cti.Disconnected: "31", cti.AgentStateChanged: "90",
	cti.LineStateChanged: "90", cti.CallDetails: "90",
}

// eventLine is one CTI event for people.
func (e *env) eventLine(ev *cti.Event) string {
	name := fmt.Sprintf("%-18s", ev.Event)
	if c := eventColours[ev.Event]; c != "" {
		name = e.paint(c, name)
	}
	return fmt.Sprintf("%s  %-18s %s  %s", clock(ev.Time), onScreen(ev.Account), name, eventText(ev))
}

// eventText is what an event says, for people.
func eventText(ev *cti.Event) string { return onScreen(eventWords(ev)) }

func eventWords(ev *cti.Event) string {
	var b strings.Builder
	switch ev.Event {
	case cti.LineStateChanged:
		fmt.Fprintf(&b, "%d %s", *ev.CallFeaturesSet, *ev.CallFeaturesSet)
		return b.String()
	case cti.AgentStateChanged:
		return ev.UserState
	case cti.Disconnected:
		return ev.Reason
	}
	c := ev.Call
	if c == nil {
		return ""
	}
	fmt.Fprintf(&b, "%-3s %s > %s", c.Direction, party(c.CallerID), party(c.CalledID))
	switch ev.Event {
	case cti.CallFinished:
		fmt.Fprintf(&b, "  %s, ring %s, talk %s, hold %s", c.Outcome, seconds(c.RingMs), seconds(c.TalkMs), seconds(c.HoldMs))
		if c.Cause != "" {
			fmt.Fprintf(&b, " (%s)", c.Cause)
		}
	case cti.DTMFEntered:
		fmt.Fprintf(&b, "  digit %s", ev.Digits)
	case cti.CallTransferred:
		fmt.Fprintf(&b, "  %s transfer to %s %s", ev.Transfer.Kind, party(ev.Transfer.Target), ev.Transfer.Result)
	case cti.CallAliased:
		fmt.Fprintf(&b, "  also known as %s (%s)", ev.Alias, ev.AliasReason)
	case cti.WebRTCStarted, cti.WebRTCVideoStarted, cti.WebRTCDestroyed:
		fmt.Fprintf(&b, "  session %s", shortID(ev.SessionID))
	case cti.SessionQuality:
		fmt.Fprintf(&b, "  %s", qualityText(ev.Quality))
	default:
		fmt.Fprintf(&b, "  %s", c.StateName)
	}
	fmt.Fprintf(&b, "  [%s]", shortID(ev.CallID))
	return b.String()
}

func party(number string) string {
	if number == "" {
		return "-"
	}
	return number
}

// onScreen is a text as it may go to a screen: who calls chooses a number and a name,
// and must not move the cursor, colour a line, or begin another one.
func onScreen(s string) string {
	if !strings.ContainsFunc(s, moves) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if moves(r) {
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// moves reports whether a screen does something with r other than showing it.
func moves(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

// shortID is enough of an id to tell calls apart on a screen.
func shortID(id string) string {
	if len(id) > 8 {
		return id[:8]
	}
	return id
}

func clock(t events.Time) string {
	if t == 0 {
		return "--:--:--.---"
	}
	return t.Time().Format("15:04:05.000")
}

func seconds(ms int64) string {
	return fmt.Sprintf("%.1fs", float64(ms)/1000)
}

// table prints rows in columns.
func (e *env) table(header []string, rows [][]string) error {
	w := tabwriter.NewWriter(e.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(header, "\t"))
	for _, r := range rows {
		cells := make([]string, len(r))
		for i := range r {
			cells[i] = onScreen(r[i])
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}
