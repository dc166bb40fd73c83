package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/callstate/callstate/events"
)

// Config shapes an engine. The zero value is usable.
type Config struct {
	Rules    Rules
	Policies Policies
	// Shards is how many goroutines fold, each owning the accounts that hash to
	// it. Zero means one a processor, at most four.
	Shards int
	// Checkpoint names the bus in the log's checkpoints. Empty means "nats".
	Checkpoint string
	// Drain is how long a stopping engine waits for the bus to confirm what was
	// published. Zero means five seconds; what is not confirmed by then is
	// published again at the next start.
	Drain time.Duration
	// SnapshotEvery is after how many events the state is written down anew, so
	// that a start reads no more than those. Zero means 250,000.
	SnapshotEvery int
	// WebPhone reports whether an account's calls are a web phone's. Nil means none.
	WebPhone func(account string) bool
	// PhoneVideo reports whether that web phone has video. Nil means none.
	PhoneVideo func(account string) bool
	// Observer is shown what happens. Nil means none.
	Observer Observer
	// Logger gets the engine's diary. Nil means none.
	Logger *slog.Logger
	// Now is the clock of recording. Nil means the machine's.
	Now func() time.Time
}

// ErrStopped is returned to those who submit to an engine that has stopped.
var ErrStopped = errors.New("engine: stopped")

// Engine is the runtime: it correlates, appends, folds and publishes, in that
// order for every event.
//
// The goroutines are those of ARCHITECTURE.md, section Goroutines; Run starts
// them and waits for them. Submit, Status and the queries are safe for concurrent
// use, from before Run on; they wait until the log has been read.
type Engine struct {
	cfg     Config
	log     Log
	bus     Bus
	command Commander
	logger  *slog.Logger

	correlator *correlator
	shards     []*shard
	outbox     *outbox
	snapshots  *snapshots

	inbox    chan Input
	large    chan struct{} // one for each large frame in the inbox
	stopping chan struct{} // closed by refuse: nothing more is taken
	refused  sync.Once
	gate     sync.RWMutex  // read-held by who submits; refuse waits for them
	ready    chan struct{} // closed when the log has been read
	commands chan Command
	control  control

	folded   atomic.Uint64 // last position folded
	appended atomic.Uint64
	started  time.Time

	mu     sync.Mutex // guards what follows
	frames events.FrameCounts
	reason map[string]uint64 // frames quarantined since the start, by reason
}

const (
	// inboxSize is how many frames may wait for correlation. When it is full the
	// adapters wait, and the PBX's socket behind them.
	inboxSize = 1024
	// largeInputs is how many of them may have more than largeInput bytes, so that
	// they all hold no more than some 100 MB.
	largeInputs, largeInput = 8, 64 << 10
	// commandsSize is how many commands of policies may wait for the adapter; a
	// policy's wish is of no use when it is late, so a full queue drops it.
	commandsSize = 256
	// commandsAtOnce is how many are on their way.
	commandsAtOnce = 16
)

// New returns an engine over a log. bus and command may be nil: nothing is
// published or commanded then.
func New(log Log, bus Bus, command Commander, cfg Config) *Engine {
	if cfg.Shards <= 0 {
		cfg.Shards = defaultShards()
	}
	if cfg.Checkpoint == "" {
		cfg.Checkpoint = "nats"
	}
	if cfg.Drain == 0 {
		cfg.Drain = 5 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Rules.RejectSecond = cfg.Policies.RejectSecondCall
	e := &Engine{
		cfg: cfg, log: log, bus: bus, command: command, logger: cfg.Logger,
		correlator: newCorrelator(cfg.Rules, log.HasCall),
		inbox:      make(chan Input, inboxSize),
		large:      make(chan struct{}, largeInputs),
		stopping:   make(chan struct{}),
		ready:      make(chan struct{}),
		commands:   make(chan Command, commandsSize),
		started:    cfg.Now(),
		reason:     map[string]uint64{},
		control:    control{underway: map[[2]string]*underway{}, watches: map[*watch]struct{}{}},
	}
	for range cfg.Shards {
		e.shards = append(e.shards, newShard(log.ID()))
	}
	e.outbox = newOutbox(log, bus, cfg.Checkpoint, e.logger)
	e.snapshots = newSnapshots(log, e.logger)
	if cfg.SnapshotEvery > 0 {
		e.snapshots.every = uint64(cfg.SnapshotEvery)
	}
	return e
}

// Submit hands one frame to the engine. It waits while the engine is behind, and
// returns when the frame is taken; a frame that was taken is disposed of before
// Run returns, unless Run fails or was stopped before Ready. What in points to is
// the engine's from then on.
func (e *Engine) Submit(ctx context.Context, in Input) error {
	e.gate.RLock()
	defer e.gate.RUnlock()
	select {
	case <-e.stopping:
		return ErrStopped
	default:
	}
	if in.Bytes() > largeInput {
		select {
		case e.large <- struct{}{}:
		case <-e.stopping:
			return ErrStopped
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	select {
	case e.inbox <- in: // mostly there is room, and this costs a fraction of what follows
		return nil
	default:
	}
	select {
	case e.inbox <- in:
		return nil
	case <-e.stopping:
		e.leave(&in)
		return ErrStopped
	case <-ctx.Done():
		e.leave(&in)
		return context.Cause(ctx)
	}
}

// leave says that a frame is not in the inbox any more.
func (e *Engine) leave(in *Input) {
	if in.Bytes() > largeInput {
		<-e.large
	}
}

// refuse takes no more frames. When it returns, all that were taken are in the
// inbox.
func (e *Engine) refuse() {
	e.refused.Do(func() {
		close(e.stopping) // those who wait for room leave
		e.gate.Lock()
		defer e.gate.Unlock()
	})
}

// Ready waits until the engine has read its log and takes frames.
func (e *Engine) Ready(ctx context.Context) error {
	select {
	case <-e.ready:
		return nil
	case <-e.stopping:
		return ErrStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// read waits as Ready does, and also says nil when the engine has stopped since: what
// the shards hold is all of the log.
func (e *Engine) read(ctx context.Context) error {
	select {
	case <-e.ready:
		return nil
	default:
		return e.Ready(ctx)
	}
}

// Run reads the log, so that calls that were live are live, publishes what was
// durable and not yet published, and then works until ctx is done. It drains:
// frames that were taken are appended, folded and published before it returns.
// The error is nil after a clean stop. Run must be called once.
func (e *Engine) Run(ctx context.Context) error {
	defer e.refuse()
	var owners sync.WaitGroup
	defer owners.Wait()
	for _, s := range e.shards {
		owners.Go(s.run)
		defer s.stop()
	}
	if err := e.recover(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // stopped before it began
		}
		return fmt.Errorf("recover: %w", err)
	}
	close(e.ready)

	var (
		batches = make(chan *events.Batch)     // correlated → appended
		stored  = make(chan []events.Event, 1) // appended → folded; one batch ahead, so that the next sync overlaps the fold
	)
	// The stages end one after the other, each when the one before has closed its
	// channel. None looks at ctx but the first, so that nothing taken is dropped.
	g, fatal := errgroup.WithContext(context.WithoutCancel(ctx))
	g.Go(func() error { defer close(batches); return e.ingest(ctx, fatal, batches) })
	g.Go(func() error { defer close(stored); return e.append(ctx, fatal, batches, stored) })
	g.Go(func() error {
		defer e.outbox.finish()
		defer close(e.commands)
		defer close(e.snapshots.done)
		return e.foldAll(fatal, stored)
	})
	g.Go(func() error { return e.outbox.run(ctx, fatal, e.cfg.Drain) })
	g.Go(func() error { e.carryOut(ctx, fatal); return nil })
	g.Go(func() error { e.snapshots.run(fatal); return nil })
	return g.Wait()
}

// carryOut takes the policies' commands to the PBX.
func (e *Engine) carryOut(ctx, fatal context.Context) {
	var sent errgroup.Group // a PBX or a phone that does not answer holds up no other
	sent.SetLimit(commandsAtOnce)
	defer sent.Wait() //nolint:errcheck // each says itself how it went
	for c := range e.commands {
		if e.command == nil || ctx.Err() != nil || fatal.Err() != nil {
			continue
		}
		sent.Go(func() error {
			if ctx.Err() == nil { // there may have been no room until the stop
				e.carryOne(ctx, c)
			}
			return nil
		})
	}
}

func (e *Engine) carryOne(ctx context.Context, c Command) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if _, err := e.command.Command(ctx, c); err != nil {
		e.logger.Warn("command of a policy failed", "policy", c.By, "action", c.Action, "call_id", c.Call, "leg_id", c.Leg, "err", err)
		return
	}
	e.logger.Info("command of a policy", "policy", c.By, "action", c.Action, "call_id", c.Call, "leg_id", c.Leg)
}
