package webitel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// Comparer is what a resynchronisation needs of the engine.
type Comparer interface {
	Sink
	Compare(ctx context.Context, s engine.Snapshot) (ids []string, err error)
}

// Resync finds out what the PBX did while nobody told us: after each connect, and
// periodically, since the server's stream can stop without a sign (protocol 6.5,
// point 4). It asks for the list of channels, has the engine compare, and asks
// for each channel that we and the PBX differ about. It only ever asks: nothing
// in it commands the PBX.
type Resync struct {
	client *Client
	engine Comparer
	every  time.Duration
	log    *slog.Logger
	start  chan struct{} // a connection has settled
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
	r := &Resync{client: c, engine: e, every: every, log: logger, start: make(chan struct{}, 1)}
	c.OnSettled(func(context.Context) {
		select {
		case r.start <- struct{}{}:
		default: // one is asked for already
		}
	})
	return r
}

// maxGrace is how old a difference must be, outside the first comparison of a
// connection, before the stream is suspected: frames may be on their way. It is
// less where the comparisons are close together.
const maxGrace = 5 * time.Second

// Run works until ctx ends.
func (r *Resync) Run(ctx context.Context) error {
	var tick <-chan time.Time
	if r.every > 0 {
		t := time.NewTicker(r.every)
		defer t.Stop()
		tick = t.C
	}
	for {
		first := false
		select {
		case <-ctx.Done():
			return nil
		case <-r.start:
			first = true
		case <-tick:
			if !r.client.Connected() {
				continue
			}
		}
		if err := r.round(ctx, first); err != nil && ctx.Err() == nil {
			// The link's own supervision, or the next round, takes care of it.
			r.log.Warn("resynchronisation not finished", "err", err)
		}
	}
}

// round compares once. A difference in a running stream means that names of it
// are silent: they are taken anew, and what was lost meanwhile is compared again.
func (r *Resync) round(ctx context.Context, first bool) error {
	found, err := r.compare(ctx, first)
	if err != nil || first || found == 0 || r.client.mode != ModeDomain {
		return err
	}
	r.log.Warn("the PBX has calls that its event stream did not tell of, subscriptions are renewed", "legs", found)
	if err := r.client.Renew(ctx); err != nil {
		return fmt.Errorf("renew subscriptions: %w", err)
	}
	_, err = r.compare(ctx, true)
	return err
}

// compare asks for the list and for each leg in doubt, and returns how many were.
func (r *Resync) compare(ctx context.Context, all bool) (found int, err error) {
	requested := time.Now()
	l := r.client.current()
	if l == nil {
		return 0, ErrDisconnected
	}
	domain := l.domain
	cmd, err := ShowChannel(domain)
	if err != nil {
		return 0, err
	}
	reply, err := r.client.Do(ctx, cmd)
	if err != nil {
		return 0, fmt.Errorf("list channels: %w", err)
	}
	var list channelList
	if err := json.Unmarshal(reply.Response, &list); err != nil {
		return 0, fmt.Errorf("list channels: %w", err)
	}
	s := engine.Snapshot{Domain: domain, RequestedAt: events.At(requested)}
	if r.client.mode == ModeAccount {
		s.Account = l.login
	}
	if !all {
		s.RequestedAt = events.At(requested.Add(-min(maxGrace, r.every/2)))
	}
	for i := range list.Rows {
		row := &list.Rows[i]
		if row.concerns(s.Domain, s.Account) && (all || row.created() <= s.RequestedAt.Time().Unix()) {
			s.Legs = append(s.Legs, row.leg())
		} else if row.ID != "" && !all {
			s.Young = append(s.Young, row.ID)
		}
	}
	ids, err := r.engine.Compare(ctx, s)
	if err != nil {
		return 0, err
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
	if !all && len(ids) == 0 {
		return 0, nil // nothing to note in the log every minute
	}
	now := events.At(time.Now())
	return len(ids), r.engine.Submit(ctx, engine.Input{
		ReceivedAt: now, Source: l.source(0), Origin: events.Resync, Unframed: true,
		Link: &engine.LinkObservation{
			Kind: engine.LinkResynced, At: now, Domain: domain, Live: len(list.Rows), Opened: opened, Closed: closed,
		},
	})
}

// ask asks the PBX for one leg and hands on what it says: how the leg is, or that
// there is none.
func (r *Resync) ask(ctx context.Context, l *link, id string) (gone bool, err error) {
	cmd, err := ChannelDump(id)
	if err != nil {
		r.log.Warn("a leg's id is no UUID, the PBX cannot be asked for it", "leg_id", id)
		return false, nil //nolint:nilerr // one leg that cannot be asked for must not hide the others
	}
	in := engine.Input{ReceivedAt: events.At(time.Now()), Source: l.source(0)}
	reply, err := r.client.Do(ctx, cmd)
	switch {
	case errors.Is(err, ErrNoChannel):
		in.Leg, gone = &engine.LegObservation{Kind: engine.LegAbsent, Leg: id}, true
	case err != nil:
		return false, err
	default:
		dump, ok := reply.Text()
		if !ok {
			return false, fmt.Errorf("%w: dump is no text", ErrBadResponse)
		}
		in = Observe([]byte(dump), l.source(0), in.ReceivedAt)
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
	CreatedEpoch string `json:"created_epoch"`
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

// created is when the channel was, in seconds since 1970; 0 if the row does not say.
func (r *channelRow) created() int64 {
	n, err := strconv.ParseInt(r.CreatedEpoch, 10, 64)
	if err != nil {
		return 0
	}
	return n
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
