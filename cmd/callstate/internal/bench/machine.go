package bench

import (
	"context"
	"runtime"
	"time"

	"github.com/looplab/fsm"

	"github.com/callstate/callstate/engine"
)

// transition is P11: one transition of the call machine, and looplab's Event on a
// machine that each call has for itself, both with a callback.
func (b *Bench) transition(ctx context.Context) ([]Row, error) {
	// The library makes a context for each event; under one that can be cancelled it
	// would cost more, for nothing.
	plain := context.Background()
	const calls = 1000
	story := []struct{ trigger string }{
		{"new"}, {"answer"}, {"hold"}, {"retrieve"}, {"hold"}, {"retrieve"}, {"hangup"},
	}
	n := pick(b, 20, 200)
	perTransition := func(began time.Time) float64 {
		return float64(time.Since(began).Nanoseconds()) / float64(n*calls*len(story))
	}
	ours := func() (float64, error) {
		m := engine.NewMachine()
		states := make([]string, calls)
		began := time.Now()
		for range n {
			for i := range states {
				states[i] = "none"
			}
			for _, s := range story {
				for i := range states {
					to, _, err := m.Next(states[i], s.trigger)
					if err != nil {
						return 0, err
					}
					states[i] = to
				}
			}
		}
		return perTransition(began), nil
	}
	theirs := func() (float64, error) {
		entered := 0
		machines := make([]*fsm.FSM, calls)
		for i := range machines {
			machines[i] = fsm.NewFSM("none", engine.Transitions(), fsm.Callbacks{
				"enter_state": func(context.Context, *fsm.Event) { entered++ },
			})
		}
		began := time.Now()
		for range n {
			for _, m := range machines {
				m.SetState("none")
			}
			for _, s := range story {
				for _, m := range machines {
					if err := m.Event(plain, s.trigger); err != nil {
						return 0, err
					}
				}
			}
		}
		return perTransition(began), nil
	}
	p, err := rounds(ctx, pick(b, 3, 7), false, ours, theirs)
	if err != nil {
		return nil, err
	}
	return p.row("P11", "transition of the call machine / looplab Event, a machine a call", "ns", 1, true,
		"memory a call: none, against "+machineBytes()+" of a machine"), nil
}

// machineBytes is the memory of one looplab machine.
func machineBytes() string {
	const n = 1000
	keep := make([]*fsm.FSM, n)
	before := heap()
	for i := range keep {
		keep[i] = fsm.NewFSM("none", engine.Transitions(), fsm.Callbacks{"enter_state": func(context.Context, *fsm.Event) {}})
	}
	each := (heap() - before) / n
	runtime.KeepAlive(keep)
	return humanBytes(each)
}
