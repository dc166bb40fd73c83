package webitel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/callstate/callstate/adapters/internal/dial"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// Comparer is what a resynchronisation needs of the engine.
type Comparer interface {
	Sink
	Compare(ctx context.Context, s engine.Snapshot) (ids []string, err error)
}

// Resync finds out what the PBX did while nobody told us: after each connect, and
// periodically, since the server's stream can stop without a sign, wholly or by
// half (protocol 6.5, point 4). It asks for the list of channels, has the engine
// compare, and asks for each channel that we and the PBX still differ about when
// the frames that were on their way have come. It only ever asks: nothing in it
// commands the PBX.
type Resync struct {
	client *Client
	engine Comparer
	every  time.Duration
	log    *slog.Logger
	start  chan struct{} // a connection has settled

	patience map[string]*patience // by name

	mu         sync.Mutex // guards what follows
	compared   time.Time
	unanswered time.Time
	reason     string
}

// patience is with a name that stays away though it was taken anew.
type patience struct {
	tries int
	until time.Time
}

// NewResync returns the resynchronisation of a client's link. A zero interval is
// a minute, a negative one means only after each connect. Call it before the
// client runs.
func NewResync(c *Client, e Comparer, every time.Duration, logger *slog.Logger) *Resync {
	if every == 0 {
		every = time.Minute
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	r := &Resync{
		client: c, engine: e, every: every, log: logger,
		start: make(chan struct{}, 1), patience: map[string]*patience{},
	}
	c.OnSettled(func(context.Context) {
		select {
		case r.start <- struct{}{}:
		default: // one is asked for already
		}
	})
	return r
}

const (
	// maxGrace is how long frames that may be on their way are waited for before a
	// difference counts. It is less where the comparisons are close together.
	maxGrace = 5 * time.Second
	// retryEvery is how soon the PBX is asked again that did not answer: its engine
	// looks for a lost switch as often (protocol 8).
	retryEvery = 5 * time.Second
	// judgeEvery is how often names that fell silent are looked for. It is less where
	// the comparisons are close together.
	judgeEvery = time.Second
	// longestPatience bounds the pause between two attempts at a name that never comes.
	longestPatience = time.Hour
)

// Run works until ctx ends.
func (r *Resync) Run(ctx context.Context) error {
	judge := time.NewTicker(r.pace())
	defer judge.Stop()
	next := time.NewTimer(time.Hour)
	next.Stop()
	defer next.Stop()
	missed := false // what happened before the last comparison is not known yet
	for {
		full := missed
		select {
		case <-ctx.Done():
			return nil
		case <-r.start:
			full = true
		case <-next.C:
			if !r.client.Connected() {
				continue // the next connection starts one
			}
		case <-judge.C:
			r.judge(ctx)
			continue
		}
		err := r.round(ctx, full)
		missed = err != nil
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, ErrDisconnected): // else the next connection starts one
			r.unansweredBy(ctx, err)
			next.Reset(retryEvery)
			if r.every > 0 {
				next.Reset(min(retryEvery, r.every))
			}
		case r.every > 0:
			// Many links connect together, and must not all ask at one moment.
			next.Reset(r.every - rand.N(r.every/4+1))
		}
	}
}

// pace is how often names that fell silent are looked for.
func (r *Resync) pace() time.Duration {
	if r.every > 0 {
		return min(judgeEvery, r.every)
	}
	return judgeEvery
}

// unansweredBy notes that the PBX could not be asked, and says so once.
func (r *Resync) unansweredBy(ctx context.Context, err error) {
	now := time.Now()
	r.mu.Lock()
	first := r.unanswered.IsZero()
	if first {
		r.unanswered = now
	}
	r.reason = err.Error()
	r.mu.Unlock()
	if first {
		r.log.Warn("the PBX does not say what channels it has, what it does is not known", "err", err)
	}
	r.note(ctx, &engine.LinkObservation{Kind: engine.LinkUnanswered, Reason: err.Error()})
}

// silentSince notes that what happened since then may not have been told.
func (r *Resync) silentSince(ctx context.Context, since time.Time) {
	r.note(ctx, &engine.LinkObservation{Kind: engine.LinkSilent, Since: events.At(since)})
}

// note hands on what was found out about the connection.
func (r *Resync) note(ctx context.Context, o *engine.LinkObservation) {
	l := r.client.current()
	if l == nil {
		return
	}
	o.At, o.Domain, o.Login = events.At(time.Now()), l.domain, l.login
	err := r.engine.Submit(ctx, engine.Input{ReceivedAt: o.At, Source: l.source(0), Unframed: true, Link: o})
	if err != nil && ctx.Err() == nil {
		r.log.Warn("not noted", "err", err)
	}
}

// answered notes that the PBX was asked and answered.
func (r *Resync) answered() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.unanswered.IsZero() {
		r.log.Info("the PBX answers again", "after", time.Since(r.unanswered).Round(time.Millisecond))
	}
	r.compared, r.unanswered, r.reason = time.Now(), time.Time{}, ""
}

// Compared returns when the PBX last said what channels it has, and since when
// and why it does not.
func (r *Resync) Compared() (at, unanswered time.Time, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.compared, r.unanswered, r.reason
}

// judge takes anew the names that fell silent while others go on. A name that
// does not come even then is let wait longer each time: the PBX may not raise it.
func (r *Resync) judge(ctx context.Context) {
	l := r.client.current()
	if l == nil || l.names == nil {
		return
	}
	now := time.Now()
	var silent []string
	for name, came := range l.names.judge(now) {
		p := r.patience[name]
		if p == nil || came {
			p = &patience{}
			r.patience[name] = p
		}
		if now.Before(p.until) {
			continue
		}
		silent = append(silent, name)
		p.until = now.Add(min(longestPatience, time.Minute<<min(p.tries, 10)))
		p.tries++
	}
	if len(silent) == 0 {
		return
	}
	slices.Sort(silent)
	r.log.Warn("server events have fallen silent while others go on, subscriptions are renewed", "names", silent)
	since, _, _ := r.Compared()
	r.silentSince(ctx, since)
	if err := r.renew(ctx); err != nil && ctx.Err() == nil {
		r.log.Warn("subscriptions not renewed", "err", err)
	}
}

// renew restores what the PBX tells, and catches up with what it did not.
func (r *Resync) renew(ctx context.Context) error {
	if r.client.mode == ModeDomain {
		if err := r.client.Renew(ctx); err != nil {
			return fmt.Errorf("renew subscriptions: %w", err)
		}
	} else if !r.client.muted() {
		// Another socket's logout silences the account (capture 40).
		if _, err := r.client.Do(ctx, Login()); err != nil {
			return err
		}
	}
	_, err := r.compare(ctx, true)
	return err
}

// round compares once. A difference in a running stream means that it is silent:
// it is taken anew, and what was lost meanwhile is compared again. A full round
// follows a time of which nothing is known, and finds no fault in the stream.
func (r *Resync) round(ctx context.Context, full bool) error {
	since, _, _ := r.Compared()
	found, err := r.compare(ctx, full)
	switch {
	case err != nil:
		return err
	case !full && found > 0:
		r.silentSince(ctx, since)
		r.log.Warn("the PBX has calls that its event stream did not tell of, subscriptions are renewed", "legs", found)
	case r.client.mode == ModeDomain && r.client.mayBeShadowed(time.Now()):
		r.log.Debug("a former socket may die at the server, subscriptions are renewed")
	default:
		return nil
	}
	return r.renew(ctx)
}

// compare asks for the list and for each leg in doubt, and returns how many were.
func (r *Resync) compare(ctx context.Context, full bool) (found int, err error) {
	l := r.client.current()
	if l == nil {
		return 0, ErrDisconnected
	}
	s, err := r.list(ctx, l)
	if err != nil {
		return 0, err
	}
	ids, err := r.engine.Compare(ctx, s)
	if err != nil {
		return 0, err
	}
	if len(ids) > 0 {
		if err := dial.Sleep(ctx, r.grace(full)); err != nil {
			return 0, err
		}
		if ids, err = r.engine.Compare(ctx, s); err != nil {
			return 0, err
		}
	}
	opened, closed := 0, 0
	for _, id := range ids {
		gone, err := r.ask(ctx, l, id)
		if err != nil {
			return 0, fmt.Errorf("ask for channel: %w", err)
		}
		if gone {
			closed++
		} else {
			opened++
		}
	}
	r.answered()
	if len(ids) > 0 {
		// What still differs did not change by what the switch says of it: its list has
		// legs that it does not know. That is no fault of the stream.
		left, err := r.engine.Compare(ctx, s)
		if err != nil {
			return 0, err
		}
		ids = slices.DeleteFunc(ids, func(id string) bool {
			_, is := slices.BinarySearch(left, id)
			return is
		})
	}
	if !full && len(ids) == 0 {
		return 0, nil // nothing to note in the log every minute
	}
	now := events.At(time.Now())
	return len(ids), r.engine.Submit(ctx, engine.Input{
		ReceivedAt: now, Source: l.source(0), Origin: events.Resync, Unframed: true,
		Link: &engine.LinkObservation{
			Kind: engine.LinkResynced, At: now, Domain: l.domain, Live: len(s.Legs), Opened: opened, Closed: closed,
		},
	})
}

// grace is for frames that are on their way.
func (r *Resync) grace(full bool) time.Duration {
	if full {
		return max(0, time.Duration(r.client.cfg.Settle))
	}
	return min(maxGrace, r.every/2)
}

// list asks the PBX for its channels.
func (r *Resync) list(ctx context.Context, l *link) (engine.Snapshot, error) {
	s := engine.Snapshot{Connection: l.id, Domain: l.domain, RequestedAt: events.At(time.Now())}
	if r.client.mode == ModeAccount {
		s.Account = l.login
	}
	cmd, err := ShowChannel(l.domain)
	if err != nil {
		return s, err
	}
	reply, err := r.client.Do(ctx, cmd)
	if err != nil {
		return s, fmt.Errorf("list channels: %w", err)
	}
	var list channelList
	if err := json.Unmarshal(reply.Response, &list); err != nil {
		return s, fmt.Errorf("list channels: %w", err)
	}
	for i := range list.Rows {
		if row := &list.Rows[i]; row.concerns(s.Domain, s.Account) {
			s.Legs = append(s.Legs, row.leg())
		}
	}
	return s, nil
}

// ask asks the PBX for one leg and hands on what it says: how the leg is, or that
// there is none.
func (r *Resync) ask(ctx context.Context, l *link, id string) (gone bool, err error) {
	cmd, err := ChannelDump(id)
	if err != nil {
		r.log.Warn("a leg's id is no UUID, the PBX cannot be asked for it", "leg_id", id)
		return false, nil //nolint:nilerr // one leg that cannot be asked for must not hide the others
	}
	asked := events.At(time.Now())
	reply, err := r.client.Do(ctx, cmd)
	in := engine.Input{ReceivedAt: events.At(time.Now()), Source: l.source(0)}
	switch {
	case errors.Is(err, ErrNoChannel):
		in.Leg, gone = &engine.LegObservation{Kind: engine.LegAbsent, Leg: id}, true
	case err != nil:
		return false, err
	default:
		dump, ok := reply.Text()
		if !ok {
			r.log.Warn("what the PBX says of a leg cannot be read", "leg_id", id)
			return false, nil // nor must one that is told of so
		}
		if in = Observe([]byte(dump), l.source(0), in.ReceivedAt); in.Leg != nil {
			in.Leg.Asked = asked
		}
	}
	// The reply is the frame, and is counted as such; what is read from it is not.
	in.Unframed, in.Origin = true, events.Resync
	return gone, r.engine.Submit(ctx, in)
}

// channelList is the reply to show_channel (protocol, section 9).
type channelList struct {
	Rows []channelRow `json:"rows"`
}

type channelRow struct {
	ID           string `json:"uuid"`
	PresenceID   string `json:"presence_id"`
	PresenceData string `json:"presence_data"`
	CallState    string `json:"callstate"`
	State        string `json:"state"`
}

// concerns reports whether the row is of the domain, or of the account. The
// switch lists every channel in which the domain's name occurs.
func (r *channelRow) concerns(domain, account string) bool {
	presence := string(percentDecode([]byte(r.PresenceID)))
	if account != "" {
		return presence == account
	}
	return r.ID != "" && (strings.HasSuffix(presence, "@"+domain) || r.PresenceData == domain)
}

func (r *channelRow) leg() engine.SnapshotLeg {
	l := engine.SnapshotLeg{ID: r.ID, Held: r.CallState == "HELD"}
	switch r.State {
	case "CS_HANGUP", "CS_REPORTING", "CS_DESTROY":
		l.Ending = true
	}
	switch r.CallState {
	case "ACTIVE", "HELD", "UNHELD", "RING_WAIT":
		l.Answered = true
	}
	return l
}
