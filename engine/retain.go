package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/callstate/callstate/events"
)

// ErrDropped is matched by the answer to a question about what retention dropped,
// also while the log was read for it: then the question may be asked again.
var ErrDropped = events.ErrLogDropped

// readOn reads a log from a position on, as the fold does that has come so far. A
// log begins where retention has left it: what was dropped since the fold began
// must not be passed over, since all that follows would be wrong. It ends without an
// error where fn returns errEnough.
func readOn(ctx context.Context, log Reader, from uint64, fn func(*events.Event) error) error {
	next := from
	err := log.Read(ctx, from, func(ev *events.Event) error {
		if ev.Position != next {
			return fmt.Errorf("events %d to %d: %w while the log was read", next, ev.Position-1, ErrDropped)
		}
		next++
		return fn(ev)
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// LiveError is why a stretch of the log cannot be dropped: calls that began in
// it or before have not ended.
type LiveError struct {
	Calls []events.CallKey // in order
}

func (e *LiveError) Error() string {
	return fmt.Sprintf("%d calls that began by then have not ended, such as %s of %s", len(e.Calls), e.Calls[0].Call, e.Calls[0].Account)
}

// BaseAt returns the state that the events through a position add up to, for
// the log to keep in their place. The error is a [*LiveError] while calls that
// began by then live on: only ended calls are dropped.
func BaseAt(ctx context.Context, log Log, through uint64) ([]byte, error) {
	st, err := openState(log)
	if err != nil {
		return nil, err
	}
	if err := st.advance(ctx, log, through); err != nil {
		return nil, err
	}
	var live LiveError
	for _, a := range st.projection.accounts {
		for _, c := range a.calls {
			key := events.CallKey{Account: a.name, Call: c.id}
			ended, err := endedAfter(ctx, log, key, through, !c.live())
			if err != nil {
				return nil, err
			}
			if !ended {
				live.Calls = append(live.Calls, key)
			}
		}
	}
	if len(live.Calls) > 0 {
		slices.SortFunc(live.Calls, compareKeys)
		return nil, &live
	}
	return st.Append(nil), nil
}

// EmptyBase returns a state in which nothing has happened by a position: what a
// log begins with that has lost its base.
func EmptyBase(through uint64) []byte {
	st := NewState("")
	st.projection.position = through
	return st.Append(nil)
}

// endedAfter reports whether a call has ended by the log's end.
func endedAfter(ctx context.Context, log Log, key events.CallKey, position uint64, ended bool) (bool, error) {
	err := log.ReadCall(ctx, key, func(ev *events.Event) error {
		if ev.Position <= position {
			return nil
		}
		switch ev.Payload.(type) {
		case *events.CallHungup:
			ended = true
		case *events.CallReinstated:
			ended = false
		}
		return nil
	})
	return ended, err
}
