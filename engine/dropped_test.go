package engine

import (
	"context"
	"errors"
	"testing"

	"github.com/callstate/callstate/events"
)

// passingLog is a log of which retention drops the beginning after somebody has
// asked where it begins.
type passingLog struct {
	sliceLog
	dropped uint64
}

func (l *passingLog) Read(ctx context.Context, from uint64, fn func(*events.Event) error) error {
	return l.sliceLog.Read(ctx, max(from, l.dropped+1), fn)
}

func (l *passingLog) ReadCall(ctx context.Context, key events.CallKey, fn func(*events.Event) error) error {
	return l.sliceLog.Read(ctx, 1, func(ev *events.Event) error { // what is known when it is asked
		if ev.Key() != key {
			return nil
		}
		return fn(ev)
	})
}
func (l *passingLog) Append(context.Context, *events.Batch) error { return nil }
func (l *passingLog) Last() uint64                                { return uint64(len(l.evs)) }
func (l *passingLog) HasCall(events.CallKey) (bool, error)        { return false, nil }
func (l *passingLog) Frames() events.FrameCounts                  { return events.FrameCounts{} }
func (l *passingLog) Checkpoint(string) (uint64, error)           { return 0, nil }
func (l *passingLog) SetCheckpoint(string, uint64) error          { return nil }
func (l *passingLog) SetSnapshot(uint64, []byte) error            { return nil }
func (l *passingLog) Snapshot(uint64) (uint64, []byte, error)     { return 0, nil, nil }
func (l *passingLog) ForgetSnapshots() error                      { return nil }

// TestNoFoldPassesOverWhatWasDropped: retention may drop files between the moment
// at which a fold begins and its reading. A state that misses them is wrong for
// ever, where it is written down.
func TestNoFoldPassesOverWhatWasDropped(t *testing.T) {
	for _, dropped := range []uint64{3, 100} { // a part, and all
		l := &passingLog{dropped: dropped}
		l.call(1, 2, anna, "c1", "380")
		l.call(9, 2, anna, "c2", "380")
		ctx, key := t.Context(), events.CallKey{Account: anna, Call: "c1"}
		last := l.Last()
		for name, ask := range map[string]func() error{
			"base":     func() error { _, err := BaseAt(ctx, l, last); return err },
			"snapshot": func() error { return NewState("log").advance(ctx, l, last) },
		} {
			if err := ask(); !errors.Is(err, ErrDropped) {
				t.Errorf("%d dropped, %s: %v", dropped, name, err)
			}
		}
		if dropped > last {
			continue // there is nothing that would be wrong
		}
		for name, ask := range map[string]func() error{
			"fold":    func() error { return Fold(ctx, l, func(*events.Event, *Result) error { return nil }) },
			"calls":   func() error { _, err := FindCalls(ctx, l, CallFilter{}); return err },
			"history": func() error { _, err := History(ctx, l, key); return err },
			"explain": func() error { _, err := Explain(ctx, l, key); return err },
			"at":      func() error { _, err := At(ctx, l, AtFilter{Time: second(100)}); return err },
			"since":   func() error { _, err := Since(ctx, l, SinceFilter{Account: anna}); return err },
		} {
			if err := ask(); !errors.Is(err, ErrDropped) {
				t.Errorf("%d dropped, %s: %v", dropped, name, err)
			}
		}
	}
}
