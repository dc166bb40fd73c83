package verto

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/callstate/callstate/events"
)

// connection is what the goroutines of one connection share.
type connection struct {
	p     *Phone
	l     *link
	heard atomic.Bool  // a Verto frame came
	since atomic.Int64 // when the login was accepted, in ns; 0 before
	renew atomic.Int64 // when to repeat the login, in s since 1970; 0: never
}

// connect lives as long as one connection and returns why it ended. up is called
// when the phone is signed in.
func (p *Phone) connect(parent context.Context, up func()) error {
	l, err := connectTo(parent, &p.cfg)
	if err != nil {
		return err
	}
	c := &connection{p: p, l: l}
	p.mu.Lock()
	p.link, p.signedIn = l, false
	p.src.server, p.src.connection, p.src.inputs = l.host, uuid.NewString(), 0
	p.mu.Unlock()

	g, ctx := errgroup.WithContext(parent)
	g.Go(func() error { return c.read(ctx) })
	g.Go(func() error { return c.tend(ctx) })
	g.Go(func() error {
		<-ctx.Done()
		l.close(parent.Err() != nil)
		return nil
	})
	g.Go(func() error { return c.login(ctx, up) })
	err = g.Wait()
	return p.disconnected(c, err)
}

// disconnected takes the end of a connection and returns what it means.
func (p *Phone) disconnected(c *connection, err error) error {
	p.mu.Lock()
	displaced := p.dialogs.punted
	p.link, p.signedIn = nil, false
	reason := lossReason(err)
	p.took(p.dialogs.Disconnected(reason), false)
	p.mu.Unlock()
	c.l.fail()
	switch {
	case displaced:
		return ErrDisplaced
	case !c.heard.Load() && !errors.Is(err, ErrNotVerto) && lostByPeer(err):
		return notVerto(c.l.host, "it closed the WebSocket without a word")
	}
	return err
}

// lostByPeer tells a close by the server from a stop of ours.
func lostByPeer(err error) bool {
	_, is := errors.AsType[*websocket.CloseError](err)
	return is
}

// login signs in. The first word of the server shows whether it speaks Verto.
func (c *connection) login(ctx context.Context, up func()) error {
	answer := make(chan error, 1)
	err := c.p.request(c.l, MethodLogin, c.p.loginParams, func(f *Frame, err error) { answer <- c.signedIn(f, err) })
	if err != nil {
		return err
	}
	timer := time.NewTimer(time.Duration(c.p.cfg.ProbeTimeout))
	defer timer.Stop()
	for {
		select {
		case err := <-answer:
			if err != nil {
				return err
			}
			up()
			c.p.log.Info("signed in", "server", c.l.host)
			return nil
		case <-ctx.Done():
			return nil
		case <-timer.C:
			if !c.heard.Load() {
				return notVerto(c.l.host, fmt.Sprintf("no answer to login within %s", time.Duration(c.p.cfg.ProbeTimeout)))
			}
		}
	}
}

func (p *Phone) loginParams(sessID string) Object {
	return &Login{
		SessID: sessID, Login: p.user.Login, Passwd: p.user.Password,
		UserVariables: map[string]string{"verto_user_agent": p.cfg.UserAgent},
	}
}

// signedIn takes the answer to the login. It runs on the reader, so that no frame
// that follows is seen before.
func (c *connection) signedIn(f *Frame, err error) error {
	if err = outcome(f, err); err != nil {
		return err
	}
	var r LoginResult
	if err := Read(f.Result, &r); err != nil {
		return notVerto(c.l.host, err.Error())
	}
	c.expires(r.AuthExpires)
	c.since.CompareAndSwap(0, time.Now().UnixNano())
	return nil
}

// expires notes when the server will close the socket for want of a new login.
func (c *connection) expires(at Number) {
	const ahead = 60
	if at > 0 {
		c.renew.Store(max(1, int64(at)-ahead))
	}
}

// outcome is the error of an answer.
func outcome(f *Frame, err error) error {
	switch {
	case err != nil:
		return err
	case f.Kind == KindError:
		return f.Error
	}
	return nil
}

// read reads until the connection ends.
func (c *connection) read(ctx context.Context) error {
	var buf bytes.Buffer
	for {
		if err := c.l.ws.SetReadDeadline(time.Now().Add(2 * time.Duration(c.p.cfg.PingInterval))); err != nil {
			return err
		}
		raw, err := c.l.read(&buf)
		if err != nil && raw == nil {
			return err
		}
		if ctx.Err() != nil {
			continue // leaving: what comes before the close is not ours any more
		}
		if ferr := c.frame(raw, err); ferr != nil {
			return ferr
		}
		if err != nil {
			return err
		}
		c.p.awaitRoom(ctx)
	}
}

// frame takes one message. tooLarge is nil or ErrTooLarge.
func (c *connection) frame(raw []byte, tooLarge error) error {
	f, err := Decode(raw)
	if tooLarge != nil {
		err = &DecodeError{Size: MaxFrame, Err: tooLarge}
	}
	if err != nil {
		if !c.heard.Load() {
			return notVerto(c.l.host, "its first word is no JSON-RPC: "+err.Error())
		}
		c.p.quarantine(raw, err)
		return nil
	}
	c.heard.Store(true)
	switch f.Kind {
	case KindRequest:
		c.request(&f, raw)
	case KindResult, KindError:
		c.p.mu.Lock()
		step := c.p.dialogs.Received(&f)
		c.p.signedIn = c.p.signedIn || step.Registered // before anybody is told
		c.p.took(step, true)
		c.p.mu.Unlock()
		c.l.settle(string(f.ID), &f, nil)
	case KindSpeedTest:
		c.p.count()
	}
	return nil
}

// request takes a request of the server and acknowledges it.
func (c *connection) request(f *Frame, raw []byte) {
	typed := ParamsOf(f.Method, true)
	var err error
	switch {
	case typed != nil:
		err = Read(f.Params, typed)
	case !silentMethods[f.Method]:
		err = fmt.Errorf("%w: %.40q", ErrUnknown, f.Method)
	}
	if err != nil {
		c.p.quarantine(raw, err)
	} else {
		c.p.received(c.l, f, typed)
	}
	if ping, is := typed.(*Ping); is && err == nil {
		c.expires(ping.AuthExpires)
	}
	if f.ID == nil {
		return
	}
	if b, err := EncodeResult(f.ID, &Ack{Method: f.Method}); err == nil {
		_ = c.l.write(b) // a courtesy; the reader notices a dead socket
	}
}

// silentMethods are known and have no params that we read.
var silentMethods = map[string]bool{
	MethodPunt: true, MethodSubscribe: true, MethodUnsubscribe: true, MethodBroadcast: true,
}

// received follows a request and hands it to its session, which begins with it
// where it is new.
func (p *Phone) received(l *link, f *Frame, typed Object) {
	p.mu.Lock()
	defer p.mu.Unlock()
	step := p.dialogs.Received(f)
	call, about := typed.(*Call)
	offered := f.Method == MethodInvite || f.Method == MethodAttach
	if offered && len(step.Changes) > 0 && p.sessions[call.CallID] == nil {
		p.begin(call.CallID)
	}
	p.took(step, true)
	if about {
		if s := p.sessions[call.CallID]; s != nil && step.Fault == "" {
			s.box.put(fromServerMsg{f.Method, call, l})
		}
	}
}

// quarantine hands on a frame that could not be understood.
func (p *Phone) quarantine(raw []byte, err error) {
	p.log.Warn("frame not understood", "err", err)
	p.mu.Lock()
	defer p.mu.Unlock()
	in := p.src.input(nil, events.At(time.Now()), true)
	in.Quarantine = quarantine(raw, err)
	p.out.put(in)
}

// count counts a frame that means nothing.
func (p *Phone) count() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took(Step{}, true)
}

// tend keeps the connection alive: it pings, gives up what gets no answer, repeats
// a login that expires, and once finds out which calls were not offered again.
func (c *connection) tend(ctx context.Context) error {
	cfg := &c.p.cfg
	ping := time.Duration(cfg.PingInterval)
	tick := max(time.Millisecond, min(time.Second, ping/4, time.Duration(cfg.ReplyTimeout)/4, time.Duration(cfg.SettleTime)/4))
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	pinged, settled := time.Now(), false
	for {
		var now time.Time
		select {
		case <-ctx.Done():
			return nil
		case now = <-ticker.C:
		}
		c.l.expire(now)
		since := c.since.Load()
		if since == 0 {
			continue
		}
		if !settled && now.UnixNano()-since > int64(cfg.SettleTime) {
			settled = true
			c.p.apply((*Dialogs).Settled)
		}
		if renew := c.renew.Load(); renew != 0 && now.Unix() >= renew {
			c.renew.Store(0)
			_ = c.p.request(c.l, MethodLogin, c.p.loginParams, func(f *Frame, err error) {
				if err := c.signedIn(f, err); err != nil {
					c.p.log.Warn("login not renewed", "err", err)
				}
			})
		}
		if now.Sub(pinged) >= ping {
			pinged = now
			// The answers are not awaited: any frame proves that the server lives, a
			// refusal too, and the reader's deadline notices that none comes.
			_ = c.p.request(c.l, MethodPing, func(sessID string) Object { return &Ping{SessID: sessID} }, c.ponged)
		}
	}
}

func (c *connection) ponged(f *Frame, err error) {
	if err != nil || f.Kind != KindResult {
		return
	}
	var pong Ping
	if Read(f.Result, &pong) == nil {
		c.expires(pong.AuthExpires)
	}
}

// Probe finds out whether a Verto server answers at the address, without signing
// in. An error matches [ErrNotVerto] if something else does.
func Probe(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	l, err := connectTo(ctx, &cfg)
	if err != nil {
		return err
	}
	defer l.close(true)
	b, err := EncodeRequest(1, MethodPing, &Ping{SessID: uuid.NewString()})
	if err == nil {
		err = l.write(b)
	}
	if err == nil {
		err = l.ws.SetReadDeadline(time.Now().Add(time.Duration(cfg.ProbeTimeout)))
	}
	if err != nil {
		return fmt.Errorf("probe %s: %w", l.host, err)
	}
	var buf bytes.Buffer
	raw, err := l.read(&buf)
	if err != nil {
		return notVerto(l.host, "no answer to verto.ping: "+err.Error())
	}
	f, err := Decode(raw)
	if err != nil || f.Version != Version || string(f.ID) != "1" {
		return notVerto(l.host, "its first word is no answer to verto.ping")
	}
	return nil
}
