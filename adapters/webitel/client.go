package webitel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/callstate/callstate/adapters/internal/dial"
	"github.com/callstate/callstate/engine"
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

	mu       sync.Mutex // guards what follows
	link     *link      // the signed-in connection; nil while there is none
	settled  []func(context.Context)
	resumed  chan struct{} // closed by Resume; nil while not suspended
	since    time.Time     // of the last change between connected and not
	reason   string        // why not
	refused  error         // the server's last word; Run has ended with it
	shadowed time.Time     // until then a former socket of ours may die at the server
	mute     bool          // by our own logout: the account's calls are not told
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
			return c.refuse(fmt.Errorf("sign in %s: %w", c.user.Login, err))
		}
		c.lost(err)
		if c.suspended() {
			continue
		}
		wait := retry.Wait()
		c.log.Warn("connection lost", "err", err, "retry_in", wait)
		if dial.Sleep(ctx, wait) != nil {
			return nil //nolint:nilerr // a stop is no error
		}
	}
}

// Do sends a command and waits for its reply. The error is [Classify]'s verdict
// on the reply, or matches [ErrDisconnected] or [ErrNoReply] if none came, and
// then the outcome is unknown. Where no channel exists some commands succeed all
// the same; see Classify.
func (c *Client) Do(ctx context.Context, cmd Command) (Reply, error) {
	p, err := c.begin(cmd)
	if err != nil {
		return Reply{}, err
	}
	return c.await(ctx, p)
}

// pending is a command whose reply is awaited.
type pending struct {
	cmd    Command
	link   *link
	answer <-chan Reply
}

// begin sends a command.
func (c *Client) begin(cmd Command) (*pending, error) {
	l := c.current()
	if l == nil {
		return nil, fmt.Errorf("%s: %w", cmd.Func, ErrDisconnected)
	}
	if cmd.ID == "" {
		cmd.ID = uuid.NewString()
	}
	p := &pending{cmd: cmd, link: l, answer: l.await(cmd.ID)}
	if err := l.write(cmd); err != nil {
		l.forget(cmd.ID)
		return nil, fmt.Errorf("%s: %w: %w", cmd.Func, ErrDisconnected, err)
	}
	return p, nil
}

// await waits for a command's reply.
func (c *Client) await(ctx context.Context, p *pending) (Reply, error) {
	limit := time.Duration(c.cfg.ReplyTimeout)
	if p.cmd.long() {
		limit = time.Duration(c.cfg.LongReplyTimeout)
	}
	defer p.link.forget(p.cmd.ID)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case r := <-p.answer:
		return r, Classify(p.cmd.Func, r)
	case <-p.link.gone: // it may have been carried out all the same
		return Reply{}, fmt.Errorf("%s: %w, connection lost: %w", p.cmd.Func, ErrNoReply, ErrDisconnected)
	case <-timer.C:
		return Reply{}, fmt.Errorf("%s: %w within %s", p.cmd.Func, ErrNoReply, limit)
	case <-ctx.Done():
		return Reply{}, fmt.Errorf("%s: %w", p.cmd.Func, context.Cause(ctx))
	}
}

// Renew takes every server event anew. It is the cure for names that fell silent
// because another socket of the domain gave them up or died (protocol 6.5). The
// two commands of a name are sent together, since what is raised between them is
// lost; so follow it by a snapshot.
func (c *Client) Renew(ctx context.Context) error {
	var errs []error
	for _, name := range serverEvents {
		off, err := c.begin(Unsubscribe(name))
		if err != nil {
			return err
		}
		on, err := c.begin(Subscribe(name))
		if err != nil {
			return err
		}
		for _, p := range []*pending{off, on} {
			if _, err := c.await(ctx, p); err != nil {
				errs = append(errs, err)
			}
		}
	}
	if l := c.current(); l != nil && l.names != nil {
		l.names.renewed(time.Now())
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

// setLink makes l the connection that is used; nil is none.
func (c *Client) setLink(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if (l == nil) != (c.link == nil) {
		c.since = time.Now()
	}
	c.link = l
	if l != nil {
		c.reason, c.mute = "", false
	}
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
		HandshakeTimeout: 10 * time.Second, TLSClientConfig: c.cfg.TLSConfig,
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
		return nil, fmt.Errorf("dial %s: %w", u.Host, dial.ExplainTLS(err))
	}
	return &link{
		ws: ws, id: uuid.NewString(), pbx: c.cfg.Name, writeTimeout: time.Duration(c.cfg.WriteTimeout),
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
