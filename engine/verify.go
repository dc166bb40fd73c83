package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/callstate/callstate/events"
)

// Fold folds the log from its first event on and gives fn each event with what
// followed from it. It is what was published, if nothing was lost (I3).
func Fold(ctx context.Context, log Reader, fn func(*events.Event, *Result) error) error {
	p, from, err := openProjection(log)
	if err != nil {
		return err
	}
	return readOn(ctx, log, from, func(ev *events.Event) error {
		r := p.Apply(ev)
		return fn(ev, &r)
	})
}

// ErrSnapshot is matched by the error of [CheckSnapshot] where the snapshot is
// not what the log adds up to.
var ErrSnapshot = errors.New("engine: snapshot differs from the log")

// CheckSnapshots folds the log up to each of its snapshots and compares, byte for
// byte (I4). It returns the position of the last one, 0 where there is none that
// would be used, and how many there are.
func CheckSnapshots(ctx context.Context, log Log) (last uint64, n int, err error) {
	var at []uint64
	for most := log.Last(); most > 0; {
		position, b, err := log.Snapshot(most)
		if err != nil {
			return 0, 0, err
		}
		if position == 0 {
			break
		}
		if h, err := headerOf(b); err != nil || h.fold == foldVersion {
			at = append(at, position)
		}
		most = position - 1
	}
	if len(at) == 0 {
		return 0, 0, nil
	}
	last, n = at[0], len(at)
	st, err := openState(log)
	for _, position := range slices.Backward(at) {
		if err == nil {
			err = st.check(ctx, log, position)
		}
	}
	return last, n, err
}

// check goes on to the position and compares with the snapshot of it.
func (s *State) check(ctx context.Context, log Log, position uint64) error {
	at, kept, err := log.Snapshot(position)
	if err != nil || at != position { // thinned out meanwhile
		return err
	}
	if s.Position() > position {
		return fmt.Errorf("%w: it is of position %d, and the log begins at %d", ErrSnapshot, position, s.Position()+1)
	}
	if err := s.advance(ctx, log, position); err != nil {
		return err
	}
	if !bytes.Equal(s.Append(make([]byte, 0, len(kept))), kept) {
		return fmt.Errorf("%w, at position %d; delete it, and more of the log is read instead", ErrSnapshot, position)
	}
	return nil
}
