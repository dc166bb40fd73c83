package verto

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/callstate/callstate/adapters/internal/dial"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// Sink takes what the phone observes. Submit may block: the phone then stops
// reading, which holds back the server; its calls and their media go on. It must
// return when ctx ends, and is called from one goroutine at a time.
type Sink interface {
	Submit(ctx context.Context, in engine.Input) error
}

// Phone is the web phone of one account.
//
// [Phone.Run] owns all goroutines; the other methods are safe at any time.
type Phone struct {
	cfg   Config
	user  User
	media *Media
	sink  Sink
	log   *slog.Logger
	clip  clip
	video videoClip // nil: the phone has none

	out  *mailbox[engine.Input] // on the way to the sink
	room chan struct{}          // holds one: the sink has taken some

	mu       sync.Mutex // guards what follows; nobody waits while holding it
	dialogs  Dialogs
	src      source
	sessID   string
	lastID   uint64
	link     *link // nil while there is none
	signedIn bool  // over link
	sessions map[string]*session
	auto     map[string]time.Time // sessions that are to be answered when they ring, until then
	stop     chan struct{}        // closed at the end of Run; nil while it does not run
	running  sync.WaitGroup       // of the sessions
	onDigit  func(session string, digit byte, d time.Duration)
}

// NewPhone returns a phone for an account. It reads the user's audio and video
// files. A nil logger discards.
func NewPhone(cfg Config, user User, media *Media, sink Sink, logger *slog.Logger) (*Phone, error) {
	if err := errors.Join(cfg.Validate(), user.Validate()); err != nil {
		return nil, err
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	p := &Phone{
		cfg: cfg.withDefaults(), user: user, media: media, sink: sink,
		log: logger.With("adapter", adapterName, "login", user.Login),
		out: newMailbox[engine.Input](), room: make(chan struct{}, 1),
		src:      source{account: user.Login},
		sessID:   string(user.SessID),
		sessions: make(map[string]*session), auto: make(map[string]time.Time),
	}
	if p.sessID == "" {
		p.sessID = uuid.NewString()
	}
	switch user.Audio {
	case "", AudioSilence, AudioEcho:
	default:
		var err error
		if p.clip, err = readClip(user.Audio); err != nil {
			return nil, err
		}
	}
	if user.Video != "" {
		var err error
		if p.video, err = readVideoClip(user.Video); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// OnDigit sets what is told of the digits that come in as telephone-events (RFC
// 4733), on a goroutine of the call's media; fn must not wait. FreeSWITCH itself
// shows a digit of the far end as an event of that end's channel, so that the
// engine knows it already. It must be called before Run.
func (p *Phone) OnDigit(fn func(session string, digit byte, d time.Duration)) { p.onDigit = fn }

// Run signs in, follows the calls, and connects again after a loss, until ctx
// ends; then it closes the connection and returns nil. The server keeps answered
// calls for a while: a phone that comes back with the same session id has them
// again.
//
// It returns an error that matches [ErrCredentials] if the server refuses the
// login, or [ErrDisplaced] if another phone took this one's place: trying again
// would not help, or would begin a fight. A server that is no Verto server is
// reported and tried again, since it may be a matter of its start.
func (p *Phone) Run(ctx context.Context) error {
	stop := make(chan struct{})
	p.mu.Lock()
	p.stop = stop
	p.mu.Unlock()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	finish := make(chan struct{})
	var submitter sync.WaitGroup
	submitter.Go(func() {
		if err := p.submit(ctx, finish); err != nil {
			cancel(err)
		}
	})

	err := p.reconnect(ctx)
	if errors.Is(err, ErrCredentials) {
		p.abandon(events.SessionAuthFailed)
	}
	p.mu.Lock()
	close(stop)
	p.stop = nil
	p.mu.Unlock()
	p.running.Wait()
	close(finish)
	submitter.Wait()
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, ctx.Err()) {
		err = cause
	}
	return err
}

// reconnect makes one connection after the other.
func (p *Phone) reconnect(ctx context.Context) error {
	retry := dial.Backoff{Lowest: time.Duration(p.cfg.BackoffMin), Highest: time.Duration(p.cfg.BackoffMax)}
	noVerto := false // told already
	for {
		err := p.connect(ctx, func() { retry.Reset(); noVerto = false })
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // a stop is no error, whatever it did to the connection
		case errors.Is(err, ErrCredentials):
			return fmt.Errorf("sign in %s: %w", p.user.Login, err)
		case errors.Is(err, ErrDisplaced):
			return fmt.Errorf("%s: %w", p.user.Login, err)
		case errors.Is(err, ErrSessionInUse):
			p.mu.Lock()
			p.sessID = uuid.NewString()
			p.mu.Unlock()
		case errors.Is(err, ErrNotVerto) && !noVerto:
			noVerto = true
			p.tell(engine.SessionObservation{Kind: engine.SessionUnregistered, Transport: transport, Reason: events.SessionNoVerto})
		}
		wait := retry.Wait()
		p.log.Warn("connection lost", "err", err, "retry_in", wait)
		if dial.Sleep(ctx, wait) != nil {
			return nil //nolint:nilerr // a stop is no error
		}
	}
}

// submit takes what was observed to the sink, and what is left when finish is
// closed. After ctx has ended the rest has ten seconds.
func (p *Phone) submit(ctx context.Context, finish <-chan struct{}) error {
	for {
		last := false
		select {
		case <-p.out.wake:
		case <-finish:
			last = true
		}
		for _, in := range p.out.take() {
			if err := p.deliver(ctx, in); err != nil {
				return err
			}
		}
		select {
		case p.room <- struct{}{}:
		default:
		}
		if last && p.out.len() == 0 {
			return nil
		}
	}
}

func (p *Phone) deliver(ctx context.Context, in engine.Input) error {
	if ctx.Err() == nil {
		err := p.sink.Submit(ctx, in)
		if err == nil || ctx.Err() == nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err := p.sink.Submit(ctx, in)
	if err != nil {
		p.log.Error("input lost", "err", err)
	}
	return err
}

// maxQueued is how many inputs wait for the sink before the socket has to wait.
const maxQueued = 1000

func (p *Phone) awaitRoom(ctx context.Context) {
	for p.out.len() > maxQueued {
		select {
		case <-p.room:
		case <-ctx.Done():
			return
		}
	}
}

// took hands a step's inputs on and tells the sessions. p.mu is held.
func (p *Phone) took(s Step, framed bool) {
	if s.Fault != "" {
		p.log.Warn("unexpected frame, state kept", "fault", s.Fault)
	}
	p.out.put(p.src.step(s, events.At(time.Now()), framed)...)
	for _, c := range s.Changes {
		if one := p.sessions[c.CallID]; one != nil {
			one.box.put(c)
		}
	}
	for _, id := range p.dialogs.Over() {
		if one := p.sessions[id]; one != nil {
			one.box.put(isOver{}) // it tells the last of it, and destroys it
			continue
		}
		p.took(p.dialogs.Destroy(id), false) // of an earlier Run
	}
}

// tell hands an observation on that no frame caused.
func (p *Phone) tell(o engine.SessionObservation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.put(p.src.input(&o, events.At(time.Now()), false))
}

// tellOf is tell for what a living session's media did.
func (p *Phone) tellOf(o engine.SessionObservation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if state, over := p.dialogs.State(o.Session); state == "" || over {
		return
	}
	o.Transport = transport
	p.out.put(p.src.input(&o, events.At(time.Now()), false))
}

// apply takes a step that no frame caused.
func (p *Phone) apply(step func(*Dialogs) Step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took(step(&p.dialogs), false)
}

// abandon ends what no connection will bring back.
func (p *Phone) abandon(reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.sessions {
		p.took(p.dialogs.Fail(id, reason), false)
	}
}

// request sends a request over a connection, by default the signed-in one; done is
// told the answer, once, and must not wait. An error means that nothing was sent, and that done is not called.
func (p *Phone) request(l *link, method string, params func(sessID string) Object, done func(*Frame, error)) error {
	p.mu.Lock()
	if l == nil {
		if l = p.link; l == nil || !p.signedIn {
			p.mu.Unlock()
			return fmt.Errorf("%s: %w", method, ErrDisconnected)
		}
	}
	p.lastID++
	b, err := EncodeRequest(p.lastID, method, params(p.sessID))
	if err != nil {
		p.mu.Unlock()
		return fmt.Errorf("%s: %w", method, err)
	}
	f, err := Decode(b)
	if err != nil || len(b) > writeBuffer {
		p.mu.Unlock()
		return fmt.Errorf("%s: %w: %d bytes", method, ErrArgument, len(b))
	}
	id := string(f.ID)
	if !l.await(id, pending{method, time.Now().Add(time.Duration(p.cfg.ReplyTimeout)), done}) {
		p.mu.Unlock()
		return fmt.Errorf("%s: %w", method, ErrDisconnected)
	}
	p.took(p.dialogs.Sent(&f), false)
	p.mu.Unlock()
	if err := l.write(b); err != nil {
		l.settle(id, nil, fmt.Errorf("%s: %w: %w", method, ErrDisconnected, err))
	}
	return nil
}
