package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/callstate/callstate/events"
)

// alongLog is a log that keeps states along the way, at every few events.
type alongLog struct {
	passingLog
	states map[uint64][]byte
	read   int // events so far
}

// Base is the state at what retention has dropped.
func (l *alongLog) Base() (uint64, []byte, error) { return l.dropped, l.states[l.dropped], nil }

func (l *alongLog) Snapshot(most uint64) (uint64, []byte, error) {
	for p := min(most, l.Last()); p > l.dropped; p-- {
		if b := l.states[p]; b != nil {
			return p, b, nil
		}
	}
	return 0, nil, nil
}

func (l *alongLog) Read(ctx context.Context, from uint64, fn func(*events.Event) error) error {
	return l.passingLog.Read(ctx, from, func(ev *events.Event) error {
		l.read++
		return fn(ev)
	})
}

func (l *alongLog) ReadCall(ctx context.Context, key events.CallKey, fn func(*events.Event) error) error {
	return l.passingLog.Read(ctx, 1, func(ev *events.Event) error {
		if ev.Key() != key {
			return nil
		}
		return fn(ev)
	})
}

// readerOnly hides the states and the index of a log.
type readerOnly struct{ Reader }

// TestAnswersFromStatesAlongTheWay: what is asked of the past is the same whether
// the fold begins at the log's first event or at a state shortly before.
func TestAnswersFromStatesAlongTheWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawWideStory(t, func(*story) {})
		evs := s.evs[:rapid.IntRange(0, len(s.evs)).Draw(t, "events")] // calls may be live in the end
		log := &alongLog{passingLog: passingLog{sliceLog: sliceLog{evs: evs}}, states: map[uint64][]byte{}}
		every := rapid.IntRange(1, 20).Draw(t, "every")
		cut := uint64(rapid.IntRange(0, len(evs)/2).Draw(t, "dropped"))
		st := NewState(log.ID())
		keys := map[events.CallKey]bool{}
		for i := range evs {
			if st.Apply(&evs[i]); (i+1)%every == 0 || uint64(i+1) == cut {
				log.states[uint64(i+1)] = st.Append(nil)
			}
			if key := evs[i].Key(); !key.IsZero() {
				keys[key] = true
			}
		}
		log.dropped = cut
		ctx := context.Background()
		same := func(what string, ask func(Reader) (any, error)) {
			t.Helper()
			want, wantErr := ask(readerOnly{log})
			got, err := ask(log)
			if err != nil || wantErr != nil {
				if !errors.Is(err, ErrDropped) || !errors.Is(wantErr, ErrDropped) {
					t.Fatalf("%s: %v, want %v", what, err, wantErr)
				}
				return
			}
			if d := gocmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
				t.Fatalf("%s, of %d events with a state at every %d (-want +got):\n%s", what, len(evs), every, d)
			}
		}
		for key := range keys {
			same("history", func(r Reader) (any, error) { return History(ctx, r, key) })
			same("explain", func(r Reader) (any, error) { return Explain(ctx, r, key) })
		}
		for i := range evs {
			for _, at := range []events.Time{evs[i].RecordedAt, evs[i].RecordedAt - 1} {
				same("at", func(r Reader) (any, error) { return At(ctx, r, AtFilter{Time: at, Account: evs[i].Account}) })
			}
			same("calls", func(r Reader) (any, error) { return FindCalls(ctx, r, CallFilter{Since: evs[i].OccurredAt}) })
		}
	})
}

// TestPastIsReadFromNearby: what is read for an answer is what lies around it.
func TestPastIsReadFromNearby(t *testing.T) {
	log := &alongLog{states: map[uint64][]byte{}}
	const calls, every = 3000, 100
	for i := range calls {
		log.call(10*i, 5, anna, fmt.Sprint("c", i), "380")
	}
	st := NewState(log.ID())
	for i := range log.evs {
		if st.Apply(&log.evs[i]); (i+1)%every == 0 {
			log.states[uint64(i+1)] = st.Append(nil)
		}
	}
	ctx, last := t.Context(), log.evs[len(log.evs)-1].RecordedAt
	key := events.CallKey{Account: anna, Call: fmt.Sprint("c", calls/2)}
	for what, ask := range map[string]func() error{
		"history":       func() error { _, err := History(ctx, log, key); return err },
		"explain":       func() error { _, err := Explain(ctx, log, key); return err },
		"calls":         func() error { _, err := FindCalls(ctx, log, CallFilter{Since: second(10*calls - 30)}); return err },
		"since, of all": func() error { _, err := Since(ctx, log, SinceFilter{Position: log.Last() - 30}); return err },
		"since, of an account": func() error {
			_, err := Since(ctx, log, SinceFilter{Account: anna, After: st.projection.accounts[anna].lineSeq - 30})
			return err
		},
	} {
		log.read = 0
		if err := ask(); err != nil || log.read == 0 || log.read > 5*every {
			t.Errorf("%s: %d of %d events were read, %v", what, log.read, len(log.evs), err)
		}
	}
	// A moment is looked for in the log's last 32,768 events at once.
	log.read = 0
	m, err := At(ctx, log, AtFilter{Time: last})
	if err != nil || m.Position != log.Last() || log.read > len(log.evs)+every {
		t.Errorf("at: event %d, %d read, %v", m.Position, log.read, err)
	}
}
