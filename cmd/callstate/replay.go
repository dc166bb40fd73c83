package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
	"github.com/callstate/callstate/store/bolt"
)

type replayOptions struct {
	src             sourceFlags
	prefix          string
	since, until    string
	from, to        uint64
	account, domain string
	call            string
	speed           string
	maxPause        time.Duration
}

func newReplay(e *env) *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay --data FOLDER",
		Short: "publish the past once more, under another prefix, at any speed",
		Long: `Folds a log and publishes the CTI events and views that follow from it on NATS, under a
prefix of its own: subjects, stream and buckets never meet the live ones. It goes at the
speed at which the events were recorded, ten times that, or as fast as it can. What is
before the part that is asked for is folded and not published, so that every call and line
is as it was then. Nothing is sent to a PBX.

Each replay has message ids of its own, so that a second one under the same prefix is seen
as well as the first.`,
		Example: `  callstate replay --data data --prefix replay.monday --since 2026-11-22T09:00:00Z --until 2026-11-22T10:00:00Z --speed 10
  callstate replay --data data --call 1001@demo.local/954e8d54-41db-4c55-baf8-481bb97b3c74 --speed 1 --max-pause 5s
  callstate replay --data data --account 1001@demo.local`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := o.plan(time.Now())
			if err != nil {
				return err
			}
			return e.replay(cmd.Context(), &o, r)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&o.src.data, "data", "", "replay the log in this folder; no engine may have it open")
	o.src.nats.add(e, cmd, nats.DefaultURL, "URL of the NATS server to publish to")
	fs.StringVar(&o.prefix, "prefix", "replay", "what the subjects begin with; not the live prefix")
	fs.StringVar(&o.since, "since", "", "only what was recorded at this time or later: "+timeForms)
	fs.StringVar(&o.until, "until", "", "only what was recorded before this time")
	fs.Uint64Var(&o.from, "from", 0, "only events from this position on")
	fs.Uint64Var(&o.to, "to", 0, "only events through this position (default: the log's end)")
	fs.StringVar(&o.account, "account", "", "only this account, number@domain")
	fs.StringVar(&o.domain, "domain", "", "only accounts of this domain")
	fs.StringVar(&o.call, "call", "", "only this call, <account>/<call id> or a bare call id")
	fs.StringVar(&o.speed, "speed", "max", "1 is as it was, 10 ten times as fast, max as fast as it goes")
	fs.DurationVar(&o.maxPause, "max-pause", 0, "cut longer silences to this (default: keep them)")
	return cmd
}

// replayPlan is what of a log is replayed, and how fast.
type replayPlan struct {
	since, until events.Time
	from, to     uint64
	account      string
	domain       string
	callID       string
	speed        float64 // 0 means as fast as it goes
	maxPause     time.Duration
}

// plan checks the flags. An error matches errUsage.
func (o *replayOptions) plan(now time.Time) (r replayPlan, err error) {
	r = replayPlan{from: o.from, to: o.to, account: o.account, domain: o.domain, callID: o.call, maxPause: o.maxPause}
	if account, id, ok := strings.Cut(o.call, "/"); ok {
		r.account, r.callID = account, id
	}
	for flag, t := range map[string]*events.Time{"since": &r.since, "until": &r.until} {
		text := o.since
		if flag == "until" {
			text = o.until
		}
		if text == "" {
			continue
		}
		if *t, err = parseTime(text, now); err != nil {
			return r, fmt.Errorf("%w: --%s: %w", errUsage, flag, err)
		}
	}
	if o.speed != "max" {
		r.speed, err = strconv.ParseFloat(strings.TrimSuffix(o.speed, "x"), 64)
		if err != nil || !(r.speed > 0 && r.speed <= 1e6) { // nor no number
			return r, fmt.Errorf("%w: --speed %q: want a number above 0 and at most 1000000, or max", errUsage, o.speed)
		}
	}
	switch {
	case o.src.data == "":
		return r, fmt.Errorf("%w: --data is missing: replay reads a log", errUsage)
	case o.prefix == "": // the bus would take it for the live one
		return r, fmt.Errorf("%w: --prefix is empty", errUsage)
	case o.prefix == cti.DefaultPrefix:
		return r, fmt.Errorf("%w: --prefix %s is the live one: its subscribers would take the past for the present", errUsage, o.prefix)
	case strings.HasPrefix(o.prefix+".", cti.DefaultPrefix+"."), strings.HasPrefix(cti.DefaultPrefix+".", o.prefix+"."):
		return r, fmt.Errorf("%w: --prefix %s meets the subjects of the live one, %s", errUsage, o.prefix, cti.DefaultPrefix)
	case r.until != 0 && r.since >= r.until:
		return r, fmt.Errorf("%w: --since %s is not before --until %s", errUsage, r.since, r.until)
	case r.to != 0 && r.from > r.to:
		return r, fmt.Errorf("%w: --from is above --to", errUsage)
	case r.maxPause < 0:
		return r, fmt.Errorf("%w: --max-pause is below 0", errUsage)
	}
	return r, nil
}

// after reports whether an event is past the end of what is replayed.
func (r *replayPlan) after(ev *events.Event) bool {
	return r.to != 0 && ev.Position > r.to || r.until != 0 && ev.RecordedAt >= r.until
}

// wants reports whether what follows from an event is replayed.
func (r *replayer) wants(ev *events.Event) bool {
	_, domain := cti.SplitAccount(ev.Account)
	return ev.Account != "" && ev.Position >= r.from && ev.RecordedAt >= r.since &&
		(r.account == "" || ev.Account == r.account) && (r.domain == "" || domain == r.domain) &&
		(r.callID == "" || slices.ContainsFunc(r.calls, func(k events.CallKey) bool { return k.Account == ev.Account }))
}

// narrow leaves of a result what is about the calls that are wanted, and reports
// whether that is anything. What they did to the line is the account's story; what
// other calls did to them is theirs.
func (r *replayer) narrow(ev *events.Event, res *engine.Result) bool {
	if r.callID == "" {
		return true
	}
	res.Line = nil
	own := slices.Contains(r.calls, ev.Key())
	if !own {
		res.Call = nil
	}
	res.Messages = slices.DeleteFunc(res.Messages, func(m engine.Message) bool {
		return !slices.Contains(r.calls, events.CallKey{Account: m.Event.Account, Call: m.Event.CallID})
	})
	return own || len(res.Messages) > 0
}

// replaySource is the ce-source of what is played again.
const replaySource = "callstate/replay"

// replayer publishes a part of a log.
type replayer struct {
	replayPlan
	log   *bolt.Store
	bus   *natsbus.Bus
	calls []events.CallKey // that are wanted, where callID names some
	id    string           // begins the message ids in place of the log's

	began     time.Time     // by the clock on the wall
	at        time.Duration // how far into the replay the next event is, pauses cut, at speed 1
	before    events.Time   // when the event before was recorded
	paced     uint64        // position through which at counts
	published int
	events    int
}

func (e *env) replay(ctx context.Context, o *replayOptions, plan replayPlan) error {
	log, err := o.src.openLog(stopFirst)
	if err != nil {
		return err
	}
	defer log.Close()
	r := &replayer{replayPlan: plan, log: log, id: uuid.NewString(), began: time.Now()}
	if plan.callID != "" {
		if r.calls, err = callsNamed(ctx, log, plan.account, plan.callID); err == nil && len(r.calls) == 0 {
			err = fmt.Errorf("no call %s", o.call)
		}
		if err != nil {
			return err
		}
	}
	access, err := o.src.nats.access()
	if err != nil {
		return err
	}
	r.bus, err = natsbus.New(natsbus.Options{
		URL: o.src.nats.url, Access: access, Prefix: o.prefix, LogID: r.id, Source: replaySource, Name: "callstate replay", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	runCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- r.bus.Run(runCtx) }()
	p := e.progress("events", log.Last())
	err = r.run(ctx, o.src.nats.url, p)
	p.done()
	stop()
	err = errors.Join(err, <-done, r.bus.Close())
	e.say("%d CTI events of %d events published under %s.> in %s", r.published, r.events, o.prefix, time.Since(r.began).Round(time.Millisecond))
	if ctx.Err() != nil {
		e.say("interrupted: what is published stays")
		return nil
	}
	return err
}

// run publishes, and where NATS was away publishes again from where the bus says.
func (r *replayer) run(ctx context.Context, url string, p *progress) error {
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := r.bus.Ready(short); err != nil {
		return fmt.Errorf("no JetStream at %s: %w", url, r.bus.Err())
	}
	source, err := r.bus.LastSource(short)
	if err == nil && source != "" && source != replaySource {
		err = fmt.Errorf("%s publishes under this --prefix: its subscribers would take the past for the present", source)
	}
	if err != nil {
		return err
	}
	for {
		from, err := r.bus.Resume(ctx, r.bus.Confirmed())
		if err != nil {
			return err
		}
		r.published, r.events = 0, 0
		err = r.pass(ctx, from, p)
		if err == nil {
			err = r.bus.Flush(ctx)
		}
		if !errors.Is(err, natsbus.ErrNotReady) || ctx.Err() != nil {
			return err
		}
	}
}

// pass folds the log and publishes what is wanted of it, from a position on.
func (r *replayer) pass(ctx context.Context, from uint64, p *progress) error {
	err := engine.Fold(ctx, p.of(r.log), func(ev *events.Event, res *engine.Result) error {
		if r.after(ev) {
			return errEnough
		}
		if !r.wants(ev) || !r.narrow(ev, res) {
			return nil
		}
		r.events++
		r.published += len(res.Messages)
		if err := r.pace(ctx, ev); err != nil || ev.Position < from {
			return err
		}
		for i := range res.Messages {
			m := &res.Messages[i]
			m.ID = r.id + strings.TrimPrefix(m.ID, r.log.ID())
		}
		return r.bus.Publish(ctx, []engine.Result{*res})
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// pace waits until it is an event's turn.
func (r *replayer) pace(ctx context.Context, ev *events.Event) error {
	if r.speed == 0 || ev.Position <= r.paced {
		return nil
	}
	r.paced = ev.Position
	if r.before != 0 {
		pause := max(0, ev.RecordedAt.Time().Sub(r.before.Time()))
		if r.maxPause > 0 {
			pause = min(pause, r.maxPause)
		}
		r.at += pause
	}
	r.before = ev.RecordedAt
	wait := time.Until(r.began.Add(time.Duration(float64(r.at) / r.speed)))
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
