package engine

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"github.com/callstate/callstate/events"
)

// openState returns the state that a fold of the whole log begins with: empty,
// or what the dropped events added up to.
func openState(log Reader) (*State, error) {
	position, b, err := log.Base()
	if err != nil || position == 0 {
		return NewState(log.ID()), err
	}
	s, err := LoadState(log.ID(), b)
	if err != nil {
		return nil, fmt.Errorf("state before position %d: %w", position+1, err)
	}
	s.fold = foldVersion // whichever made it: what follows is ours
	return s, nil
}

// stated is a log that keeps states along the way.
type stated interface {
	Reader
	Last() uint64
	Snapshot(most uint64) (position uint64, state []byte, err error)
	ForgetSnapshots() error
}

// lastState returns the latest of the log's snapshots that is not after the position
// most, or where there is none that can be used what openState returns.
func lastState(log stated, most uint64, logger *slog.Logger) (*State, error) {
	for most > 0 {
		position, b, err := log.Snapshot(most)
		if err != nil {
			logger.Warn("no snapshot, the whole log is read", "err", err)
		}
		if err != nil || position == 0 {
			break
		}
		s, err := LoadState(log.ID(), b)
		switch {
		case err != nil:
		case s.fold != foldVersion:
			logger.Info("snapshots are removed: another release made them, which folded events differently")
			if err := log.ForgetSnapshots(); err != nil {
				logger.Debug("snapshots not removed", "err", err) // a log that is read only
			}
			return openState(log)
		case s.Position() == position:
			return s, nil
		}
		logger.Warn("snapshot is not used, more of the log is read", "position", position, "err", err)
		most = position - 1
	}
	return openState(log)
}

// earlier is the position up to which to look for a snapshot next, where the one at
// position is too late: as much before it as the log has after it.
func earlier(position, last uint64) uint64 {
	return position - min(position, 1+last-position)
}

// openProjection returns the fold that begins at the log's first event, and the
// position of that.
func openProjection(log Reader) (*Projection, uint64, error) {
	s, err := openState(log)
	if err != nil {
		return nil, 0, err
	}
	s.projection.mute = 0
	return s.projection, s.Position() + 1, nil
}

// recentResults is how many results of the log's end the outbox gets at the
// start: the bus rarely lacks more.
const recentResults = 4096

// recover takes up the snapshot and reads the log from there: correlation learns
// what it knew, the shards what they held, and nothing is commanded.
func (e *Engine) recover(ctx context.Context) error {
	last := e.log.Last()
	st, err := lastState(e.log, last, e.logger)
	if err != nil {
		return err
	}
	from := st.Position()
	mute := max(from, last-min(last, recentResults))
	if err := e.takeUp(ctx, st, mute); err != nil {
		return err
	}
	recent, err := e.readTail(ctx, from+1, mute)
	if err != nil {
		return err
	}
	e.correlator.takenUp()
	e.correlator.frames = e.log.Frames()
	// What waited for its leg when the process ended was never disposed of.
	e.correlator.frames.Received = e.correlator.frames.Disposed()
	e.report(e.correlator.frames, nil)
	e.folded.Store(last)
	e.appended.Store(last)
	e.snapshots.at = from
	e.snapshots.kept.Store(from)
	if err := e.outbox.begin(last, recent); err != nil {
		return err
	}
	live, _ := e.live(ctx)
	e.logger.Info("log read", "log_id", e.log.ID(), "position", last, "snapshot", from, "live_calls", live)
	return nil
}

// takeUp gives correlation and the shards their parts of a state.
func (e *Engine) takeUp(ctx context.Context, st *State, mute uint64) error {
	k := st.correlator
	k.rules, k.hasCall = e.correlator.rules, e.correlator.hasCall
	maps.Copy(k.domains, e.correlator.domains)
	k.began = events.At(e.started)
	e.correlator = k
	for n, s := range e.shards {
		err := s.do(ctx, func(p *Projection) {
			p.mute, p.position = mute, st.Position()
			for name, a := range st.projection.accounts {
				if e.shardOf(name) == n {
					p.accounts[name] = a
					p.live += a.liveCalls()
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// readTail folds the log from a position on, and returns the results of what is
// after mute, or none where they are too large to be kept.
func (e *Engine) readTail(ctx context.Context, from, mute uint64) (recent []Result, err error) {
	const chunk = 2048
	kept := 0 // weight of the results so far
	evs := make([]events.Event, 0, chunk)
	flush := func() error {
		if len(evs) == 0 {
			return nil
		}
		results, err := e.fold(ctx, evs)
		for i := range results {
			if results[i].Position > mute {
				recent = append(recent, results[i:]...)
				kept += weight(results[i:])
				break
			}
		}
		if kept > maxQueued {
			recent = nil
		}
		evs = make([]events.Event, 0, chunk)
		return err
	}
	err = readOn(ctx, e.log, from, func(ev *events.Event) error {
		e.correlator.learn(ev)
		if evs = append(evs, *ev); len(evs) == chunk {
			return flush()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return recent, flush()
}

// snapshotEvery is how many events a start reads at most beside the snapshot; a
// quarter of a million are read in less than a second.
const snapshotEvery = 250_000

// snapshotAtEnd is the same after a clean stop.
const snapshotAtEnd = 2_000

// snapshots keeps the log's snapshot near its end. It is the fold once more, from
// the last snapshot, on a goroutine of its own: the state that is written down
// is what the log says, not what happens to be in memory, and nobody waits for it.
type snapshots struct {
	log    Log
	logger *slog.Logger
	every  uint64
	at     uint64        // position of the last attempt; run's own after the start
	size   int           // of the last one, in bytes
	kept   atomic.Uint64 // position of the last one
	keptAt atomic.Int64  // when, Unix nanoseconds; 0 before the first of this run
	kick   chan uint64   // a position worth one; size 1
	done   chan struct{} // closed when nothing more is folded
}

func newSnapshots(log Log, logger *slog.Logger) *snapshots {
	return &snapshots{log: log, logger: logger, every: snapshotEvery, kick: make(chan uint64, 1), done: make(chan struct{})}
}

// folded says how far the fold is. It never waits.
func (s *snapshots) folded(position uint64) {
	select {
	case s.kick <- position:
	default:
	}
}

// run keeps the snapshot until done is closed, and at a clean end once more.
func (s *snapshots) run(fatal context.Context) {
	for {
		select {
		case p := <-s.kick:
			if p >= s.at+s.every {
				s.take(fatal, p)
			}
		case <-s.done:
			if last := s.log.Last(); fatal.Err() == nil && last >= s.at+min(snapshotAtEnd, s.every) {
				s.take(fatal, last)
			}
			return
		}
	}
}

// take writes the state at a position down, and where the last one is long ago
// those on the way. It is an optimisation: what goes wrong is said, and the log is
// read instead.
func (s *snapshots) take(ctx context.Context, position uint64) {
	st, err := lastState(s.log, position, s.logger)
	for err == nil && st.Position() < position {
		if err = st.advance(ctx, s.log, min(position, st.Position()+s.every)); err == nil {
			err = s.keep(st)
		}
	}
	s.at = position // also where it failed: not again at once
	if err != nil && ctx.Err() == nil {
		s.logger.Warn("snapshot not kept", "position", position, "err", err)
	}
}

func (s *snapshots) keep(st *State) error {
	b := st.Append(make([]byte, 0, s.size+s.size/8))
	s.size = len(b)
	if err := s.log.SetSnapshot(st.Position(), b); err != nil {
		return err
	}
	s.kept.Store(st.Position())
	s.keptAt.Store(time.Now().UnixNano())
	s.logger.Debug("snapshot kept", "position", st.Position(), "live_calls", st.Live())
	return nil
}
