package engine

import (
	"context"
	"errors"
	"testing"

	"github.com/callstate/callstate/events"
)

// retainedLog is a log of which retention has left what comes after base.
type retainedLog struct {
	sliceLog
	base  uint64
	state []byte
}

func (l *retainedLog) Base() (uint64, []byte, error) { return l.base, l.state, nil }

func (l *retainedLog) Read(ctx context.Context, from uint64, fn func(*events.Event) error) error {
	return l.sliceLog.Read(ctx, max(from, l.base+1), fn)
}

// retained returns what retention leaves of a log when it drops the events
// through a position.
func retained(t *testing.T, log *sliceLog, through uint64) *retainedLog {
	t.Helper()
	st := NewState(log.ID())
	if err := st.advance(t.Context(), log, through); err != nil {
		t.Fatal(err)
	}
	return &retainedLog{*log, through, st.Append(nil)}
}

// TestAtBeforeWhatIsLeft: of a time that retention has dropped nobody knows which
// calls were live, by either clock.
func TestAtBeforeWhatIsLeft(t *testing.T) {
	log := &sliceLog{}
	log.call(1, 2, anna, "c1", "380")
	log.call(10, 5, anna, "c2", "380") // at 10, 11 and 16; the first is dropped
	left := retained(t, log, 4)
	for _, occurred := range []bool{false, true} {
		for _, at := range []int{0, 2, 10} {
			if m, err := At(t.Context(), left, AtFilter{Time: second(at), Occurred: occurred}); !errors.Is(err, ErrDropped) {
				t.Errorf("second %d, occurred %v: %d calls, %v", at, occurred, len(m.Calls), err)
			}
		}
		for at, want := range map[int]int{11: 1, 15: 1, 16: 0} {
			if m, err := At(t.Context(), left, AtFilter{Time: second(at), Occurred: occurred}); err != nil || len(m.Calls) != want {
				t.Errorf("second %d, occurred %v: %d calls, want %d, %v", at, occurred, len(m.Calls), want, err)
			}
		}
	}
}
