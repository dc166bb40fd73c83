package natsbus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/callstate/callstate/engine"
)

var _ engine.Bus = (*Bus)(nil)

// Bus publishes the results of the fold on NATS: the CTI events to a JetStream
// stream, the views to two KV buckets. See the package comment for what is
// ordered, what can repeat and who waits for whom.
type Bus struct {
	o     Options
	log   *slog.Logger
	nc    *nats.Conn
	js    jetstream.JetStream
	inbox string // confirmations come to <inbox>.m.<epoch>.<number> and <inbox>.v.<round>
	okay  []byte // how the confirmation of a stored message begins
	views *views
	gone  chan struct{} // closed when the connection is closed for good

	closing atomic.Bool // Close was called; tells the connection what to do with what it holds

	preparing chan struct{} // size 1: who fills it prepares, one at a time

	mu        sync.Mutex // guards the following
	enc       *encoder
	win       window
	held      uint64    // the window's message that is sent next
	holds     bool      // there is one
	sent      uint64    // messages in this epoch
	unasked   int       // of those, since the last one whose confirmation was asked for
	known     known     // the last one confirmed in this epoch
	each      bool      // confirmation is asked for each
	published uint64    // last position that Publish took over
	progress  time.Time // of the last confirmation, or of the first message after an empty window
	epoch     uint64    // counts the times that the bus became ready; older confirmations are void
	reply     string    // "<inbox>.m.<epoch>."
	down      error     // why the bus is not ready; nil when it is
	owed      bool      // Publish returned an error: the caller publishes again after Ready
	stopHeal  func()    // ends heal, which is in the way of a caller who publishes again
	drops     uint64    // connections lost; tells prepare that what it saw is out of date
	attempts  int       // to get ready, since the last confirmation
	stored    map[storedID]struct{}
	storedMax uint64 // the highest position in stored
	lastAck   string // id of the newest message that was confirmed since Resume
	lastAckNo uint64 // its number in the window
	made      made
	closed    bool
	changed   chan struct{} // closed and renewed when something happened that a waiter may wait for
	waiters   int
	stats     Stats
}

// Stats are figures since the bus was made.
type Stats struct {
	Sent       uint64 `json:"sent"`       // messages, repeats included
	Confirmed  uint64 `json:"confirmed"`  // by JetStream
	Duplicates uint64 `json:"duplicates"` // of those, recognised as repeats by JetStream
	Skipped    uint64 `json:"skipped"`    // repeats that were found in the stream and not sent
	Rejected   uint64 `json:"rejected"`   // too large for the server; left out for ever
	Failures   uint64 `json:"failures"`   // times that the bus stopped being ready
	ViewWrites uint64 `json:"viewWrites"` // KV writes
}

// New connects to NATS and returns at once, whether or not a server answers:
// Ready waits for it. The caller runs Run, and Close when Run has returned.
func New(o Options) (*Bus, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	b := &Bus{
		o: o, log: o.Logger.With("part", "natsbus"),
		inbox: cmp.Or(o.Access.InboxPrefix, "_INBOX") + "." + acksToken + "." + nuid.Next(),
		okay:  fmt.Appendf(nil, `{"stream":%q,"seq":`, o.Stream),
		enc:   newEncoder(o.Prefix, o.Source),
		gone:  make(chan struct{}), changed: make(chan struct{}), preparing: make(chan struct{}, 1),
		win:  newWindow(o.Window),
		down: errors.New("not connected yet"), stopHeal: func() {},
		// Nobody has published: nothing is owed, and Run may make the bus ready.
	}
	b.views = newViews(o, b.inbox, b.log)
	opts := []nats.Option{
		nats.Name(o.Name),
		nats.SetCustomDialer(dialer{&b.closing}),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(reconnectDelay),
		// Nothing waits in the client while it is disconnected: an error at once
		// makes the engine publish again in order.
		nats.ReconnectBufSize(-1),
		nats.ConnectHandler(func(*nats.Conn) { b.wake() }),
		nats.ReconnectHandler(func(*nats.Conn) { b.wake() }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err == nil {
				err = nats.ErrDisconnected
			}
			b.lost(err)
		}),
		// A user may be made, a certificate renewed: what is refused now is tried again.
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { b.notConnected(err) }),
		nats.ClosedHandler(func(*nats.Conn) { close(b.gone); b.wake() }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			b.log.Warn("nats connection", "err", err)
		}),
	}
	if b.nc, err = o.Access.Connect(o.URL, append(opts, o.dial...)...); err != nil {
		return nil, fmt.Errorf("natsbus: %w", err)
	}
	if b.js, err = jetstream.New(b.nc, jetstream.WithDefaultTimeout(o.patience)); err != nil {
		b.nc.Close()
		return nil, fmt.Errorf("natsbus: %w", err)
	}
	if _, err = b.nc.Subscribe(b.inbox+".m.*.*", b.onAck); err == nil {
		_, err = b.nc.Subscribe(b.inbox+".v.*", b.views.onAck)
	}
	if err != nil {
		b.nc.Close()
		return nil, fmt.Errorf("natsbus: subscribe to confirmations: %w", err)
	}
	return b, nil
}

// reconnectDelay doubles from 100 ms to 5 s, with half of it at random, so that
// the clients of a restarted server do not come all at once. It is never so
// short that a reconnect could be over before the loss is known here.
func reconnectDelay(attempts int) time.Duration {
	d := min(100*time.Millisecond<<min(attempts, 10), 5*time.Second)
	return d/2 + 50*time.Millisecond + rand.N(d/2)
}

// Conn is the connection, for services beside the bus. It is the bus that closes it.
func (b *Bus) Conn() *nats.Conn { return b.nc }

// Stats returns the figures so far.
func (b *Bus) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.ViewWrites = b.views.writes.Load()
	return s
}

// Confirmed is the last position all of whose CTI events are in the stream and
// whose views, or later ones, are in the buckets; 0 before the first one.
func (b *Bus) Confirmed() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.confirmedLocked()
}

func (b *Bus) confirmedLocked() uint64 { return min(b.win.confirmed, b.views.writtenThrough()) }

// Err says why the bus is not ready, nil if it is.
func (b *Bus) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.down
}

// Run writes the views and watches over confirmations until ctx ends, and then
// returns nil. Its error is why the server has closed the connection for good, as
// it does with a client that it takes for broken. When the bus went away and Publish has not said so to anyone yet,
// Run brings it back and sends what was unconfirmed again.
func (b *Bus) Run(ctx context.Context) error {
	tick := time.NewTicker(b.o.FlushInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.gone:
			return b.over()
		case <-b.views.kick:
		case <-tick.C:
		}
		if !b.tend() {
			if err := b.heal(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, ErrClosed) {
				b.log.Warn("nats is away", "err", err)
			}
			continue
		}
		if err := b.flushViews(ctx); err != nil && ctx.Err() == nil {
			b.fail(fmt.Errorf("write views: %w", err))
		}
	}
}

// over says why the connection is closed for good, nil where Close did it.
func (b *Bus) over() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrConnectionClosed, b.nc.LastError())
}

// tend looks for confirmations overdue and reports whether the bus is ready.
func (b *Bus) tend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down == nil && b.win.len() > 0 && time.Since(b.progress) > b.o.AckTimeout {
		b.failLocked(ErrAckTimeout)
	}
	return b.down == nil
}

// Close closes the connection and waits for it. What is unconfirmed is
// forgotten; Flush first. A Run, Publish or Ready under way returns.
func (b *Bus) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		<-b.gone
		return nil
	}
	b.closed = true
	b.failLocked(ErrClosed)
	b.mu.Unlock()
	b.closing.Store(true)
	b.nc.Close()
	<-b.gone
	return nil
}

// lost is called by the connection's callback goroutine.
func (b *Bus) lost(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drops++
	b.failLocked(err)
}

// notConnected is called by the connection's goroutine when an attempt failed.
func (b *Bus) notConnected(err error) {
	err = explainConnect(err)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down == nil || b.closed {
		return
	}
	if b.down.Error() != err.Error() {
		b.log.Warn("nats connection", "url", redacted(b.o.URL), "err", err)
	}
	b.down = err
}

func (b *Bus) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failLocked(err)
}

// failLocked makes the bus not ready. The unconfirmed messages stay in the
// window for heal; the epoch ends, so their late confirmations are void.
func (b *Bus) failLocked(err error) {
	if b.down != nil {
		if b.closed {
			b.down = ErrClosed
		}
		b.wakeLocked()
		return
	}
	b.down = err
	b.epoch++
	b.holds = false
	b.stats.Failures++
	b.views.fail(err)
	if !b.closed {
		b.log.Warn("bus not ready", "err", err, "unconfirmed", b.win.len(), "confirmed", b.confirmedLocked())
	}
	b.wakeLocked()
}

func (b *Bus) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wakeLocked()
}

func (b *Bus) wakeLocked() {
	if b.waiters > 0 {
		close(b.changed)
		b.changed = make(chan struct{})
	}
}

// waitLocked lets go of the lock until something changed, ctx ends, or d passes
// where d is above 0. It returns the cause when ctx ended.
func (b *Bus) waitLocked(ctx context.Context, d time.Duration) error {
	ch := b.changed
	b.waiters++
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.waiters--
	}()
	var timer <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ch:
		return nil
	case <-timer:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Ready waits until the bus can be published to: connected, the stream and the
// buckets there. It makes those that are missing. One who publishes calls Resume,
// which includes it.
//
// It returns ctx's cause, joined with what was in the way, or ErrClosed.
func (b *Bus) Ready(ctx context.Context) error {
	if err := b.prepare(ctx, false); err != nil {
		return fmt.Errorf("natsbus: wait for %s: %w", b.address(), err)
	}
	return nil
}

// heal is Ready for Run: it sends the unconfirmed messages again by itself,
// unless Publish has told its caller to do so.
func (b *Bus) heal(ctx context.Context) error {
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	b.mu.Lock()
	b.stopHeal = cancel
	owed := b.owed
	b.mu.Unlock()
	if owed {
		return nil // the caller's Ready does it
	}
	err := b.prepare(own, true)
	if errors.Is(err, errOwed) || own.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

var errOwed = errors.New("natsbus: the publisher publishes again")

// prepare makes the bus ready. With resend the window is sent again; without, it
// is forgotten, since the caller will publish it again.
func (b *Bus) prepare(ctx context.Context, resend bool) error {
	select {
	case b.preparing <- struct{}{}:
		defer func() { <-b.preparing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var last error
	warned := ""
	for {
		switch {
		case b.closed:
			return ErrClosed
		case b.nc.IsClosed():
			return fmt.Errorf("%w: %w", ErrConnectionClosed, b.nc.LastError())
		case resend && b.owed:
			return errOwed
		case b.down == nil:
			return nil
		}
		if d := backoff(b.attempts); d > 0 {
			if err := b.pauseLocked(ctx, d, resend); err != nil {
				return errors.Join(err, last)
			}
			if b.closed || resend && b.owed {
				continue
			}
		}
		if !b.nc.IsConnected() {
			last = b.down
			if err := b.waitLocked(ctx, time.Second); err != nil {
				return errors.Join(err, last)
			}
			continue
		}
		drops := b.drops
		b.attempts++
		b.mu.Unlock()
		own, fresh, line, err := b.lookAround(ctx, resend)
		b.mu.Lock()
		if err != nil {
			last = err
			if text := err.Error(); text != warned && ctx.Err() == nil {
				b.log.Warn("stream or buckets not ready", "err", err)
				warned = text
			}
			if ctx.Err() != nil {
				return errors.Join(context.Cause(ctx), last)
			}
			continue
		}
		if drops != b.drops || b.closed || resend && b.owed {
			continue
		}
		if resend && b.lostLocked(own, fresh, line) {
			// Only the caller can publish again what is not in the window any more:
			// Confirmed goes back, and Resume says from where.
			b.log.Warn("nats lost what it had confirmed", "confirmed", b.confirmedLocked())
			b.owed, b.win.confirmed = true, 0
			b.win.clear()
			continue
		}
		b.openLocked(own)
		if resend {
			b.resendLocked()
		} else {
			b.win.clear()
			b.owed = false
			b.published = b.confirmedLocked()
		}
	}
}

// lookAround sees to stream and buckets and returns the ids at the end of the
// stream, whether the stream is new, and the last line in its bucket. The caller
// of Ready does without: Resume looks for itself.
func (b *Bus) lookAround(ctx context.Context, healing bool) (own []storedID, fresh bool, line uint64, err error) {
	ctx = undated{ctx}
	s, err := b.provision(ctx)
	if err != nil {
		return nil, false, 0, err
	}
	if healing {
		h, err := b.viewFloor(ctx, LinesBucket(b.o.Prefix))
		if err != nil {
			return nil, false, 0, err
		}
		line = h.floor
	}
	own, fresh, err = b.readBack(ctx, s)
	return own, fresh, line, err
}

// undated is a context for several requests: where it says when it ends, the client
// waits so long for an answer to one that was lost.
type undated struct{ context.Context }

func (undated) Deadline() (deadline time.Time, ok bool) { return deadline, false }

// openLocked begins an epoch.
func (b *Bus) openLocked(own []storedID) {
	b.down = nil
	b.epoch++
	b.sent, b.unasked, b.known, b.each = 0, 0, known{}, false
	b.reply = fmt.Sprintf("%s.m.%d.", b.inbox, b.epoch)
	b.progress = time.Now()
	b.rememberLocked(own)
	b.views.hurry() // what changed meanwhile
	b.log.Info("bus ready", "url", b.address(), "stream", b.o.Stream, "confirmed", b.confirmedLocked())
	b.wakeLocked()
}

// pauseLocked waits for d and lets no wake shorten it, but Close, and for heal a
// caller who publishes again.
func (b *Bus) pauseLocked(ctx context.Context, d time.Duration, healing bool) error {
	for until := time.Now().Add(d); !b.closed && !(healing && b.owed); {
		left := time.Until(until)
		if left <= 0 {
			break
		}
		if err := b.waitLocked(ctx, left); err != nil {
			return err
		}
	}
	return nil
}

// backoff is 0 for the first attempt after a confirmation, then 50 ms to 5 s.
func backoff(attempts int) time.Duration {
	if attempts == 0 {
		return 0
	}
	return min(50*time.Millisecond<<min(attempts-1, 7), 5*time.Second)
}

// address is the server's, without a password.
func (b *Bus) address() string {
	if u := b.nc.ConnectedUrlRedacted(); u != "" {
		return u
	}
	return redacted(b.o.URL)
}

// redacted leaves users and passwords out of a list of URLs.
func redacted(list string) string {
	urls := strings.Split(list, ",")
	for i, u := range urls {
		if at := strings.LastIndexByte(u, '@'); at >= 0 {
			urls[i] = u[at+1:]
		}
	}
	return strings.Join(urls, ",")
}
