package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/callstate/callstate/events"
)

// Rescue copies what can be read of a damaged log into a new one, in a folder that
// has none, and says what is lost. Positions stay what they were: where an event is
// lost [events.LogLost] stands, with the call that it was of if the index tells.
// The new log has an id of its own, so that its messages are not taken for the old
// one's, and the old one's checkpoints, so that what was published is not published
// again. emptyBase gives the state that a log begins with whose own is lost.
func Rescue(ctx context.Context, from, to string, emptyBase func(position uint64) []byte) (d *Damage, id string, err error) {
	to = filepath.Clean(to)
	s, err := openWreckage(from)
	if err != nil {
		return nil, "", err
	}
	defer s.close()
	if err := vacant(to); err != nil {
		return nil, "", fmt.Errorf("rescue to %s: %w", to, err)
	}
	// Nothing is written before all was read once: of a file that is not damaged
	// there is nothing to rescue.
	probe, err := Inspect(ctx, from)
	if err != nil {
		return nil, "", err
	}
	if probe.Whole() {
		return probe, "", nil
	}
	first := start{after: s.next - 1, base: s.base, quarantined: probe.framesBefore}
	if s.found.BaseLost {
		first.base = emptyBase(first.after)
	}
	// A log that is not whole must not be taken for one.
	part, err := os.MkdirTemp(filepath.Dir(to), "."+filepath.Base(to)+"-*")
	if err != nil {
		return nil, "", fmt.Errorf("rescue to %s: %w", to, err)
	}
	defer os.RemoveAll(part) // it is not there any more if all went well
	if id, err = s.copyTo(ctx, part, first); err != nil {
		return nil, "", fmt.Errorf("rescue %s: %w", from, err)
	}
	if err := errors.Join(os.Rename(part, to), osDisk{}.syncDir(filepath.Dir(to))); err != nil {
		return nil, "", fmt.Errorf("rescue to %s: %w", to, err)
	}
	return &s.found, id, nil
}

// copyTo makes a log of what can be read, and returns its id.
func (s *wreckage) copyTo(ctx context.Context, dir string, from start) (id string, err error) {
	log, err := Open(dir, &Options{start: from})
	if err != nil {
		return "", err
	}
	defer log.Close()
	c := &copying{log: log, from: s.found.LogID}
	if err := s.read(ctx, c); err != nil {
		return "", err
	}
	c.batch.Frames = s.totals
	if err := c.flush(ctx); err != nil {
		return "", err
	}
	for name, position := range s.checkpoints {
		if err := log.SetCheckpoint(name, min(position, log.Last())); err != nil {
			return "", err
		}
	}
	return log.ID(), log.Close()
}

// vacant reports whether a folder may become a new log's: there is none, or it is empty.
func vacant(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return os.MkdirAll(filepath.Dir(dir), 0o700)
	case err == nil && len(entries) > 0:
		return fmt.Errorf("%w: %s is in it already", fs.ErrExist, entries[0].Name())
	}
	return err
}

// copying puts what survives into a new log.
type copying struct {
	log   *Store
	from  string // id of the old log
	batch events.Batch
	size  int         // of what is in the batch
	at    events.Time // when the event before was recorded
}

func (c *copying) event(ctx context.Context, ev *events.Event, size int) error {
	c.at = max(c.at, ev.RecordedAt)
	c.batch.Events = append(c.batch.Events, *ev)
	return c.added(ctx, size)
}

// lost puts a mark where an event is lost. It says that it was recorded when the
// one before was, since what is forgotten with time must not be sooner.
func (c *copying) lost(ctx context.Context, position uint64, key events.CallKey) error {
	_, domain, _ := strings.Cut(key.Account, "@")
	c.batch.Events = append(c.batch.Events, events.Event{
		ID: fmt.Sprintf("lost:%s:%d", c.from, position), Version: 1, Position: position,
		Domain: domain, Account: key.Account, Call: key.Call,
		OccurredAt: c.at, TimeSource: events.TimeOfArrival, RecordedAt: c.at,
		Payload: &events.LogLost{Log: c.from},
	})
	return c.added(ctx, 200)
}

func (c *copying) frame(ctx context.Context, q *events.Quarantined, size int) error {
	c.batch.Quarantine = append(c.batch.Quarantine, *q)
	return c.added(ctx, size)
}

func (c *copying) lostFrame(ctx context.Context, _ uint64) error {
	return c.frame(ctx, &events.Quarantined{ReceivedAt: c.at, Reason: "lost", Detail: "damaged in log " + c.from}, 200)
}

// added stores what has come together, in transactions as large as the writer's.
func (c *copying) added(ctx context.Context, size int) error {
	if c.size += size; c.size < maxGatheredBytes && len(c.batch.Events) < maxGatheredEvents {
		return nil
	}
	return c.flush(ctx)
}

func (c *copying) flush(ctx context.Context) error {
	want := make([]uint64, len(c.batch.Events))
	for i := range want {
		want[i] = c.batch.Events[i].Position
	}
	if err := c.log.Append(ctx, &c.batch); err != nil {
		return err
	}
	for i := range want {
		if got := c.batch.Events[i].Position; got != want[i] {
			return fmt.Errorf("event %d became event %d", want[i], got)
		}
	}
	c.batch, c.size = events.Batch{}, 0
	return nil
}
