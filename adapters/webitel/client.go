package webitel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/callstate/callstate/adapters/internal/dial"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// adapterName is the Source.Adapter of everything that comes from here.
const adapterName = "webitel"

// Sink takes what the client observes, one input a frame. Submit may block: the
// client then stops reading, which holds back the server and is not mistaken for
// its silence. It must return when ctx ends, and is called from one goroutine at
// a time.
type Sink interface {
	Submit(ctx context.Context, in engine.Input) error
}

// Client keeps one account connected to a Webitel server and turns every frame
// into an [engine.Input].
//
// [Client.Run] owns all goroutines; the other methods are safe at any time.
type Client struct {
	cfg  Config
	user User
	mode Mode
	sink Sink
	log  *slog.Logger

	decode func([]byte) (Frame, error)

	mu      sync.Mutex // guards what follows
	link    *link      // the signed-in connection; nil while there is none
	settled []func(context.Context)
	resumed chan struct{} // closed by Resume; nil while not suspended
}

// NewClient returns a client for one of cfg's users. An empty mode is cfg's; a nil
// logger discards.
func NewClient(cfg Config, user User, mode Mode, sink Sink, logger *slog.Logger) *Client {
	cfg = cfg.withDefaults()
	if mode == "" {
		mode = cfg.Mode
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Client{
		cfg: cfg, user: user, mode: mode, sink: sink, decode: Decode,
		log: logger.With("adapter", adapterName, "login", user.Login),
	}
}

// OnSettled adds what runs each time a connection has settled: signed in, and the
// settle time over, so that the server delivers what it promised. This is the
// moment for a snapshot of the legs. fn may call Do; its context ends with the
// connection, and it must return then. It counts from the next sign-in on.
func (c *Client) OnSettled(fn func(ctx context.Context)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settled = append(c.settled, fn)
}

// DecodeWith makes the client decode by another function than [Decode], such as
// [DecodeMap], to measure the difference. It must be called before Run.
func (c *Client) DecodeWith(fn func([]byte) (Frame, error)) { c.decode = fn }

// onSettled returns what runs when a connection has settled.
func (c *Client) onSettled() []func(context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.settled)
}

// Connected reports whether there is a signed-in connection.
func (c *Client) Connected() bool { return c.current() != nil }

// Run connects, signs in, reads, and connects again after a loss, until ctx ends;
// then it closes the connection cleanly and returns nil. It returns an error that
// matches [ErrSecret] if the server says that the password is wrong: trying again
// would not help. Each connection's inputs lie between its LinkUp and its
// LinkDown, which are not counted as frames.
func (c *Client) Run(ctx context.Context) error {
	retry := dial.Backoff{Lowest: time.Duration(c.cfg.BackoffMin), Highest: time.Duration(c.cfg.BackoffMax)}
	for {
		if !c.awaitResumed(ctx) {
			return nil
		}
		err := c.connect(ctx, retry.Reset)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // a stop is no error, whatever it did to the connection
		}
		if errors.Is(err, ErrSecret) {
			return fmt.Errorf("sign in %s: %w", c.user.Login, err)
		}
		if c.suspended() {
			continue
		}
		wait := retry.Wait()
		c.log.Warn("connection lost", "err", err, "retry_in", wait)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// Do sends a command and waits for its reply. The error is [Classify]'s verdict
// on the reply, or matches [ErrDisconnected] or [ErrNoReply] if none came, and
// then the outcome is unknown. Where no channel exists some commands succeed all
// the same; see Classify.
func (c *Client) Do(ctx context.Context, cmd Command) (Reply, error) {
	l := c.current()
	if l == nil {
		return Reply{}, fmt.Errorf("%s: %w", cmd.Func, ErrDisconnected)
	}
	if cmd.ID == "" {
		cmd.ID = uuid.NewString()
	}
	limit := time.Duration(c.cfg.ReplyTimeout)
	if cmd.long() {
		limit = time.Duration(c.cfg.LongReplyTimeout)
	}
	answer := l.await(cmd.ID)
	defer l.forget(cmd.ID)
	if err := l.write(cmd); err != nil {
		return Reply{}, fmt.Errorf("%s: %w: %w", cmd.Func, ErrDisconnected, err)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case r := <-answer:
		return r, Classify(cmd.Func, r)
	case <-l.gone:
		return Reply{}, fmt.Errorf("%s: %w", cmd.Func, ErrDisconnected)
	case <-timer.C:
		return Reply{}, fmt.Errorf("%s: %w within %s", cmd.Func, ErrNoReply, limit)
	case <-ctx.Done():
		return Reply{}, fmt.Errorf("%s: %w", cmd.Func, context.Cause(ctx))
	}
}

// Renew takes every server event anew. It is the cure for names that fell silent
// because another socket of the domain gave them up or died (protocol 6.5); the
// events between the two commands of a name are lost, so follow it by a snapshot.
func (c *Client) Renew(ctx context.Context) error {
	var errs []error
	for _, name := range serverEvents {
		if _, err := c.Do(ctx, Unsubscribe(name)); err != nil {
			errs = append(errs, err)
		}
		if _, err := c.Do(ctx, Subscribe(name)); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (c *Client) current() *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link
}

// Suspend closes the connection and makes no other until Resume.
func (c *Client) Suspend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resumed == nil {
		c.resumed = make(chan struct{})
	}
	if c.link != nil {
		_ = c.link.ws.Close() // the reader notices
	}
}

// Resume ends what Suspend began; without it nothing happens.
func (c *Client) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resumed != nil {
		close(c.resumed)
		c.resumed = nil
	}
}

func (c *Client) suspended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resumed != nil
}

// awaitResumed returns false when ctx ended.
func (c *Client) awaitResumed(ctx context.Context) bool {
	c.mu.Lock()
	resumed := c.resumed
	c.mu.Unlock()
	if resumed == nil {
		return true
	}
	select {
	case <-resumed:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *Client) setLink(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link = l
}

// connect lives as long as one connection and returns why it ended. up is called
// once the sign-in is complete.
func (c *Client) connect(parent context.Context, up func()) error {
	l, err := c.dial(parent)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(parent)
	r := reader{c: c, link: l, up: up, signIn: NewSignIn(c.user, c.mode), spawn: func(fn func(context.Context)) {
		g.Go(func() error { fn(ctx); return nil })
	}}
	readerDone := make(chan struct{})
	g.Go(func() error {
		defer close(readerDone)
		return r.run(ctx)
	})
	g.Go(func() error { return c.ping(ctx, l) })
	g.Go(func() error {
		<-ctx.Done()
		l.close(parent.Err() != nil, readerDone)
		return nil
	})
	err = g.Wait()
	if parent.Err() != nil {
		err = parent.Err()
	}
	r.finish(context.WithoutCancel(parent), err)
	return err
}

// dial opens the socket. The environment's proxy is not used: a call centre's
// PBX is on its own network, and a proxy would see the passwords.
func (c *Client) dial(ctx context.Context) (*link, error) {
	d := websocket.Dialer{
		HandshakeTimeout: 10 * time.Second, TLSClientConfig: c.cfg.TLS,
		ReadBufferSize: 64 << 10, WriteBufferSize: 4 << 10,
	}
	u, err := url.Parse(c.cfg.ConnectionString)
	if err != nil {
		return nil, errors.New("webitel: webitelConnectionString is not a URL") // the cause would quote it
	}
	ws, resp, err := d.DialContext(ctx, u.String(), nil)
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("dial %s: %w: %s", u.Host, err, resp.Status)
		}
		return nil, fmt.Errorf("dial %s: %w", u.Host, err)
	}
	return &link{
		ws: ws, id: uuid.NewString(), writeTimeout: time.Duration(c.cfg.WriteTimeout),
		gone: make(chan struct{}), pending: make(map[string]chan Reply),
	}, nil
}

// ping asks for a sign of life. The answers are not awaited: any frame proves
// that the server lives, and the reader's deadline notices that none comes.
func (c *Client) ping(ctx context.Context, l *link) error {
	interval := time.Duration(c.cfg.PingInterval)
	if interval < 0 {
		return nil
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			cmd := Ping()
			cmd.ID = uuid.NewString()
			if err := l.write(cmd); err != nil {
				return fmt.Errorf("ping: %w", err)
			}
		}
	}
}

// link is one connection.
type link struct {
	ws           *websocket.Conn
	id           string // events.Source.Connection
	login        string // of the signed-in account
	domain       string // that the connection watches; both set before the link is the client's
	writeTimeout time.Duration
	gone         chan struct{} // closed when the connection is lost

	writeMu sync.Mutex // held while a frame is written

	mu      sync.Mutex // guards pending
	pending map[string]chan Reply
}

func (l *link) write(cmd Command) error {
	b, err := cmd.Encode()
	if err != nil {
		return fmt.Errorf("encode %s: %w", cmd.Func, err)
	}
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	if err := l.ws.SetWriteDeadline(time.Now().Add(l.writeTimeout)); err != nil {
		return err
	}
	return l.ws.WriteMessage(websocket.TextMessage, b)
}

// await registers a command; the channel holds its reply, so that the reader
// never waits for the caller.
func (l *link) await(id string) <-chan Reply {
	ch := make(chan Reply, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending[id] = ch
	return ch
}

func (l *link) forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, id)
}

func (l *link) deliver(r Reply) {
	l.mu.Lock()
	ch := l.pending[r.ID]
	delete(l.pending, r.ID)
	l.mu.Unlock()
	if ch != nil {
		ch <- r
	}
}

// close ends the socket. When we leave on our own it says so first and waits a
// moment for the answer: a socket that the server believes alive silences half of
// our next subscriptions when it dies (protocol 6.5, capture 24).
func (l *link) close(clean bool, readerDone <-chan struct{}) {
	if clean {
		bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		if l.ws.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second)) == nil {
			timer := time.NewTimer(time.Second)
			defer timer.Stop()
			select {
			case <-readerDone:
			case <-timer.C:
			}
		}
	}
	_ = l.ws.Close() // nothing to do about it: the connection is over
}

// lossReason is the short constant word for the end of a connection.
func lossReason(err error) string {
	closed, isClose := errors.AsType[*websocket.CloseError](err)
	netErr, isNet := errors.AsType[net.Error](err)
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "stopped"
	case errors.Is(err, ErrTooLarge):
		return ReasonTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded), isNet && netErr.Timeout():
		return "silent"
	case isClose:
		return fmt.Sprintf("closed-%d", closed.Code)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed-1006"
	default:
		return "failed"
	}
}

// source names the frame numbered n of the connection; 0 for what is no frame.
func (l *link) source(n uint64) events.Source {
	return events.Source{Adapter: adapterName, Connection: l.id, Sequence: n}
}
