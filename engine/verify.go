package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"

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

// CheckSnapshot folds the log up to its snapshot and compares, byte for byte
// (I4). It returns the snapshot's position, 0 where there is none that would be
// used.
func CheckSnapshot(ctx context.Context, log Log) (position uint64, err error) {
	position, kept, err := log.Snapshot()
	if err != nil || position == 0 {
		return 0, err
	}
	if s, err := LoadState(log.ID(), kept); err == nil && s.fold != foldVersion {
		return 0, nil
	}
	st, err := openState(log)
	if err != nil {
		return 0, err
	}
	if st.Position() > position {
		return position, fmt.Errorf("%w: it is of position %d, and the log begins at %d", ErrSnapshot, position, st.Position()+1)
	}
	if err := st.advance(ctx, log, position); err != nil {
		return 0, err
	}
	if !bytes.Equal(st.Append(nil), kept) {
		return position, fmt.Errorf("%w, at position %d; delete it, and the next start reads the log", ErrSnapshot, position)
	}
	return position, nil
}
