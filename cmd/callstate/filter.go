package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// filterFlags are those of every verb that picks calls.
type filterFlags struct {
	since, until, number, direction, outcome, cause string
	account, domain                                 string
	minDuration, maxDuration                        time.Duration
	live                                            bool
}

func (f *filterFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.since, "since", "", "only calls that began at this time or later: "+timeForms)
	fs.StringVar(&f.until, "until", "", "only calls that began before this time")
	fs.StringVar(&f.account, "account", "", "only this account, number@domain")
	fs.StringVar(&f.domain, "domain", "", "only accounts of this domain")
	fs.StringVar(&f.number, "number", "", "only calls from or to this number; signs, blanks and prefixes do not count")
	fs.StringVar(&f.direction, "direction", "", "only calls that came in, or went out")
	fs.StringVar(&f.outcome, "outcome", "", "only calls that ended so: "+strings.Join(outcomes(), ", ")+"; several with commas")
	fs.StringVar(&f.cause, "cause", "", "only calls with this hangup cause, text or Q.850 number; several with commas")
	fs.DurationVar(&f.minDuration, "min-duration", 0, "only calls that talked, hold included, at least this long")
	fs.DurationVar(&f.maxDuration, "max-duration", 0, "only calls that talked, hold included, at most this long (default: no limit)")
	fs.BoolVar(&f.live, "live", false, "only calls that have not ended")
}

// filter returns what the flags say. An error matches errUsage.
func (f *filterFlags) filter(now time.Time) (engine.CallFilter, error) {
	cf := engine.CallFilter{
		Account: f.account, Domain: f.domain, Number: f.number, Outcome: f.outcome, Cause: f.cause, Live: f.live,
		MinMs: f.minDuration.Milliseconds(), MaxMs: f.maxDuration.Milliseconds(),
	}
	var err error
	if f.since != "" {
		if cf.Since, err = parseTime(f.since, now); err != nil {
			return cf, fmt.Errorf("%w: --since: %w", errUsage, err)
		}
	}
	if f.until != "" {
		if cf.Until, err = parseTime(f.until, now); err != nil {
			return cf, fmt.Errorf("%w: --until: %w", errUsage, err)
		}
	}
	switch {
	case cf.Until != 0 && cf.Since >= cf.Until:
		return cf, fmt.Errorf("%w: --since %s is not before --until %s", errUsage, cf.Since, cf.Until)
	case f.minDuration < 0 || f.maxDuration < 0:
		return cf, fmt.Errorf("%w: a duration is below 0", errUsage)
	case cf.MaxMs > 0 && cf.MinMs > cf.MaxMs:
		return cf, fmt.Errorf("%w: --min-duration is above --max-duration", errUsage)
	}
	switch f.direction {
	case "", "in", "out":
		cf.Direction = events.Direction(f.direction)
	default:
		return cf, fmt.Errorf("%w: --direction %q: want in or out", errUsage, f.direction)
	}
	for o := range strings.SplitSeq(f.outcome, ",") {
		if o = strings.TrimSpace(o); o != "" && !slices.Contains(outcomes(), strings.ToLower(o)) {
			return cf, fmt.Errorf("%w: --outcome %q: want %s", errUsage, o, strings.Join(outcomes(), ", "))
		}
	}
	return cf, nil
}

func outcomes() []string {
	var names []string
	for _, o := range []cti.Outcome{
		cti.OutcomeAnswered, cti.OutcomeTransferred, cti.OutcomeMissed, cti.OutcomeNoAnswer, cti.OutcomeBusy,
		cti.OutcomeRejected, cti.OutcomeCancelled, cti.OutcomeAnsweredElsewhere, cti.OutcomeFailed, cti.OutcomeUnknown,
	} {
		names = append(names, string(o))
	}
	return names
}

// timeForms says which texts parseTime reads.
const timeForms = `2026-11-22T10:15:00Z, 2026-11-22, "2026-11-22 10:15" (UTC), -2h, "30m ago", now`

var timeLayouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999",
	"2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly,
}

// parseTime reads a time as people write it. A time without a zone is UTC, a
// date is its midnight. The earliest is in 1970: earlier ones are no times of calls.
func parseTime(s string, now time.Time) (events.Time, error) {
	s = strings.TrimSpace(s)
	if s == "now" {
		return events.At(now), nil
	}
	back, ago := strings.CutSuffix(s, "ago")
	if rel, minus := strings.CutPrefix(s, "-"); minus && !ago {
		back, ago = rel, true
	}
	if ago {
		d, err := parseSpan(back)
		if err != nil {
			return 0, fmt.Errorf("time %q: %w", s, err)
		}
		if t := now.Add(-d); t.Unix() > 0 {
			return events.At(t), nil
		}
		return 0, fmt.Errorf("time %q: before 1970", s)
	}
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, s); err == nil {
			if t.UnixMicro() <= 0 {
				return 0, fmt.Errorf("time %q: before 1970", s)
			}
			return events.At(t), nil
		}
	}
	return 0, fmt.Errorf("time %q: want one of %s", s, timeForms)
}

// parseSpan is time.ParseDuration with days and weeks: 1w2d3h.
func parseSpan(s string) (time.Duration, error) {
	rest := strings.Join(strings.Fields(s), "")
	var total time.Duration
	for _, u := range []struct {
		name string
		unit time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		head, tail, ok := strings.Cut(rest, u.name)
		if !ok {
			continue
		}
		hours, err := time.ParseDuration(head + "h")
		if err != nil || hours > 100_000*time.Hour {
			return 0, fmt.Errorf("%q is no length of time such as 90s, 2h30m or 3d", strings.TrimSpace(s))
		}
		total += time.Duration(hours.Hours() * float64(u.unit))
		rest = tail
	}
	if rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil {
			return 0, fmt.Errorf("%q is no length of time such as 90s, 2h30m or 3d", strings.TrimSpace(s))
		}
		total += d
	} else if total == 0 {
		return 0, fmt.Errorf("%q is no length of time such as 90s, 2h30m or 3d", strings.TrimSpace(s))
	}
	if total < 0 {
		return 0, fmt.Errorf("%q is negative", strings.TrimSpace(s))
	}
	return total, nil
}
