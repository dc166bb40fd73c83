package webitel

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// quarantinedPrefix is how much is kept of a frame above the limit.
const quarantinedPrefix = 64 << 10

// reader reads one connection and drives its sign-in; all on one goroutine.
type reader struct {
	c      *Client
	link   *link
	up     func()
	spawn  func(func(context.Context)) // runs a function that ends with the connection
	signIn *SignIn

	asked  map[string]bool // exec-uuids of the sign-in's commands; nil once it is complete
	held   []engine.Input  // frames before LinkUp
	holds  int             // bytes of those
	agents int             // told of before LinkUp
	frames uint64
	buf    bytes.Buffer

	limited io.LimitedReader // read's
}

// run reads until the connection ends.
func (r *reader) run(ctx context.Context) error {
	began := time.Now()
	r.asked = make(map[string]bool)
	if err := r.send(r.signIn.Start()); err != nil {
		return err
	}
	for {
		if err := r.link.ws.SetReadDeadline(r.deadline(began)); err != nil {
			return err
		}
		raw, err := r.read()
		if err != nil && raw == nil {
			return err
		}
		if ctx.Err() != nil {
			continue // leaving: what comes before the close is not ours any more
		}
		if err := r.frame(ctx, raw, err); err != nil {
			return err
		}
		if err != nil {
			return err
		}
	}
}

// deadline is for the next read. It is set anew after each frame was handed on,
// so that a slow sink is not taken for a silent server. The sign-in as a whole
// has the time of one reply.
func (r *reader) deadline(began time.Time) time.Time {
	cfg := &r.c.cfg
	switch {
	case r.asked != nil:
		return began.Add(time.Duration(cfg.ReplyTimeout))
	case cfg.PingInterval < 0:
		return time.Time{}
	default:
		return time.Now().Add(time.Duration(cfg.PingInterval + cfg.PingDeadline))
	}
}

// read returns the next frame, which holds until the next call. A frame above
// the limit comes cut, together with ErrTooLarge.
func (r *reader) read() ([]byte, error) {
	_, rd, err := r.link.ws.NextReader()
	if err != nil {
		return nil, err
	}
	limit := int64(r.c.cfg.MaxFrame)
	r.buf.Reset()
	r.limited = io.LimitedReader{R: rd, N: limit + 1}
	n, err := r.buf.ReadFrom(&r.limited)
	if err != nil {
		return nil, err
	}
	if n > limit {
		return r.buf.Bytes()[:min(limit, quarantinedPrefix)], ErrTooLarge
	}
	return r.buf.Bytes(), nil
}

// frame hands one frame on. It is decoded once; only what cannot be read is left
// to Observe to judge. tooLarge is nil or ErrTooLarge.
func (r *reader) frame(ctx context.Context, raw []byte, tooLarge error) error {
	r.frames++
	src, at := r.link.source(r.frames), events.At(time.Now())
	in := engine.Input{ReceivedAt: at, Source: src}
	if tooLarge != nil {
		in.Quarantine = quarantine(raw, ReasonTooLarge, fmt.Sprintf(
			"above %d bytes; the first %d are kept", r.c.cfg.MaxFrame, len(raw)))
		return r.submit(ctx, in)
	}
	f, err := r.c.decode(raw)
	switch {
	case err != nil:
		return r.submit(ctx, Observe(raw, src, at))
	case f.Kind != KindReply:
		in := Normalise(&f, src, at)
		in.Size = len(raw)
		if w := r.link.names; w != nil && in.Leg != nil && f.Path == events.PathServer {
			w.note(&f, in.Leg, at.Time())
		}
		return r.submit(ctx, in)
	case r.asked[f.Reply.ID]:
		delete(r.asked, f.Reply.ID)
		return r.signInReply(ctx, f.Reply, in, raw)
	}
	r.link.deliver(f.Reply)
	return r.submit(ctx, in)
}

// signInReply advances the sign-in. The reply with the accounts carries them.
func (r *reader) signInReply(ctx context.Context, reply Reply, in engine.Input, raw []byte) error {
	accounts := r.signIn.AwaitsAccounts()
	next, done, err := r.signIn.Handle(reply)
	if accounts && err == nil {
		agents, lerr := r.signIn.Agents()
		in.Agents = agents
		if lerr != nil {
			in.Quarantine = quarantine(raw, ReasonType, lerr.Error())
		}
	}
	if serr := r.submit(ctx, in); serr != nil {
		return serr
	}
	if err != nil {
		return fmt.Errorf("sign-in: %w", err)
	}
	if done {
		return r.linkUp(ctx)
	}
	return r.send(next)
}

// send writes commands of the sign-in.
func (r *reader) send(cmds []Command) error {
	for _, cmd := range cmds {
		cmd.ID = uuid.NewString()
		r.asked[cmd.ID] = true
		if err := r.link.write(cmd); err != nil {
			return fmt.Errorf("sign-in: %s: %w", cmd.Func, err)
		}
	}
	return nil
}

// linkUp announces the connection, then what was read while it signed in.
func (r *reader) linkUp(ctx context.Context) error {
	s := r.signIn
	for _, err := range s.Refused() {
		r.c.log.Warn("refused at sign-in", "err", err)
	}
	now := events.At(time.Now())
	up := engine.Input{ReceivedAt: now, Source: r.link.source(0), Unframed: true, Link: &engine.LinkObservation{
		Kind: engine.LinkUp, At: now, Domain: s.Domain(), Login: s.Login(), Mode: string(r.c.mode), Accounts: r.agents,
	}}
	r.asked = nil
	if err := r.submit(ctx, up); err != nil {
		return err
	}
	if err := r.release(ctx); err != nil {
		return err
	}
	r.up()
	r.link.login, r.link.domain = s.Login(), s.Domain()
	if r.c.mode == ModeDomain {
		r.link.names = newNameWatch(s.Domain(), max(0, time.Duration(r.c.cfg.Settle)))
	}
	r.c.setLink(r.link)
	r.c.log.Info("connected", "domain", s.Domain(), "mode", r.c.mode, "accounts", r.agents)
	if fns := r.c.onSettled(); len(fns) > 0 {
		r.spawn(func(ctx context.Context) { r.settle(ctx, fns) })
	}
	return nil
}

// settle waits until the server delivers what it promised.
func (r *reader) settle(ctx context.Context, fns []func(context.Context)) {
	timer := time.NewTimer(max(0, time.Duration(r.c.cfg.Settle)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
		for _, fn := range fns {
			fn(ctx)
		}
	}
}

// maxHeld is how many bytes of frames wait for the sign-in: a server that answers
// late or never may send as much as it likes meanwhile. A small frame counts as
// much as what is made of it.
const maxHeld, leastHeld = 16 << 20, 2 << 10

// submit hands an input to the sink, or keeps it until the link is up. Where too
// much waits, the frames go ahead of it.
func (r *reader) submit(ctx context.Context, in engine.Input) error {
	if r.asked == nil {
		return r.c.sink.Submit(ctx, in)
	}
	r.held, r.holds, r.agents = append(r.held, in), r.holds+max(leastHeld, in.Bytes()), r.agents+len(in.Agents)
	if r.holds < maxHeld {
		return nil
	}
	return r.release(ctx)
}

// release hands over what was held; what is left after an error is still held.
func (r *reader) release(ctx context.Context) error {
	for len(r.held) > 0 {
		if err := r.c.sink.Submit(ctx, r.held[0]); err != nil {
			return err
		}
		r.held = r.held[1:]
	}
	r.held, r.holds = nil, 0
	return nil
}

// finish runs after the connection ended: commands that wait fail, frames that
// were held are handed over all the same, and the loss is announced if there was
// a link. ctx does not end with the client's.
func (r *reader) finish(ctx context.Context, cause error) {
	r.c.setLink(nil)
	close(r.link.gone)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	last := r.held
	if r.asked == nil {
		r.c.shadow(lossReason(cause))
		now := events.At(time.Now())
		last = append(last, engine.Input{ReceivedAt: now, Source: r.link.source(0), Unframed: true, Link: &engine.LinkObservation{
			Kind: engine.LinkDown, At: now, Domain: r.signIn.Domain(), Login: r.signIn.Login(),
			Mode: string(r.c.mode), Reason: lossReason(cause),
		}})
	}
	for _, in := range last {
		if err := r.c.sink.Submit(ctx, in); err != nil {
			r.c.log.Error("input lost", "err", err)
		}
	}
}
