package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store/bolt"
)

// replay is P7: a whole log folded into the states of calls and lines. The peer
// reads the same events as JSON from a bucket and folds nothing.
func (b *Bench) replay(ctx context.Context) ([]Row, error) {
	load, err := mixed()
	if err != nil {
		return nil, err
	}
	log, _, done, err := b.logIn()
	if err != nil {
		return nil, err
	}
	defer done()
	peer, donePeer, err := b.plainIn()
	if err != nil {
		return nil, err
	}
	defer donePeer()
	n := pick(b, 25_000, 300_000)
	for filled := 0; filled < n; {
		evs, err := load.batch(min(4096, n-filled))
		if err != nil {
			return nil, err
		}
		values := make([][]byte, len(evs))
		for i := range evs {
			if values[i], err = json.Marshal(&evs[i]); err != nil {
				return nil, err
			}
		}
		if err := log.Append(ctx, &events.Batch{Events: evs}); err != nil {
			return nil, err
		}
		if err := peer.put(values...); err != nil {
			return nil, err
		}
		filled += len(evs)
	}
	perSecond := func(began time.Time, got int) (float64, error) {
		if got != n {
			return 0, fmt.Errorf("%d of %d events read", got, n)
		}
		return float64(n) / time.Since(began).Seconds(), nil
	}
	p, err := rounds(ctx, pick(b, 3, 7), false,
		func() (float64, error) {
			began := time.Now()
			m, err := engine.At(ctx, log, engine.AtFilter{Time: 1 << 62, Occurred: true})
			if err != nil {
				return 0, err
			}
			return perSecond(began, int(m.Position))
		},
		func() (float64, error) {
			got, began := 0, time.Now()
			err := peer.db.View(func(tx *bbolt.Tx) error {
				return tx.Bucket(plainBucket).ForEach(func(_, v []byte) error {
					var ev events.Event
					got++
					return json.Unmarshal(v, &ev)
				})
			})
			if err != nil {
				return 0, err
			}
			return perSecond(began, got)
		},
	)
	if err != nil {
		return nil, err
	}
	return p.row("P7", "replay of a whole log into call states / bbolt cursor + encoding/json", "events/s", 8, false,
		fmt.Sprintf("log of %d events", n)), nil
}

// start is P12: from opening the folder until frames are taken, with the snapshot
// and after it was deleted.
func (b *Bench) start(ctx context.Context) ([]Row, error) {
	n, live := pick(b, 60_000, 1_000_000), pick(b, 600, 10_000)
	load, err := mixed()
	if err != nil {
		return nil, err
	}
	log, dir, done, err := b.logIn()
	if err != nil {
		return nil, err
	}
	defer done()
	up, err := newLiveLoad(min(live, agents/2))
	if err != nil {
		return nil, err
	}
	// Half of the live calls began long ago, half a moment ago.
	half := live / 2 * up.perCall()
	for _, part := range []struct {
		load *eventLoad
		n    int
	}{{up.eventLoad, half}, {load, n - 2*half}, {up.eventLoad, half}} {
		if err := b.fill(ctx, log, part.load, part.n); err != nil {
			return nil, err
		}
	}
	if err := log.Close(); err != nil {
		return nil, err
	}
	// The engine keeps a snapshot when it stops.
	if _, err := startIn(ctx, dir); err != nil {
		return nil, err
	}
	p, err := rounds(ctx, pick(b, 3, 5), false,
		func() (float64, error) { return startIn(ctx, dir) },
		func() (float64, error) {
			log, err := bolt.Open(dir, nil)
			if err != nil {
				return 0, err
			}
			if err := errors.Join(log.ForgetSnapshots(), log.Close()); err != nil {
				return 0, err
			}
			return startIn(ctx, dir)
		},
	)
	if err != nil {
		return nil, err
	}
	return p.row("P12", "start with snapshot / without", "ms", 0.1, true,
		fmt.Sprintf("log of %d events, %d live calls", n, live)), nil
}

// startIn opens a log and an engine over it, and returns how many milliseconds it
// took until the engine takes frames.
func startIn(ctx context.Context, dir string) (float64, error) {
	began := time.Now()
	log, err := bolt.Open(dir, nil)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	e := engine.New(log, nil, nil, engine.Config{})
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	err = e.Ready(ctx)
	took := time.Since(began)
	stop()
	if rerr := <-ended; err == nil {
		err = rerr
	}
	return float64(took.Microseconds()) / 1000, err
}

// liveLoad gives the events of calls that stay up.
type liveLoad struct {
	*eventLoad
	calls int // accounts' calls a round
}

// newLiveLoad plays inbound calls until they would be hung up.
func newLiveLoad(calls int) (*liveLoad, error) {
	sc, err := webiteltest.Recorded("02-incoming-answered")
	if err != nil {
		return nil, err
	}
	load, err := newEventLoad(calls, calls, []*webiteltest.Scenario{sc}, "CHANNEL_HANGUP")
	if err != nil {
		return nil, err
	}
	return &liveLoad{load, calls}, nil
}

// perCall is how many events a call has by then.
func (l *liveLoad) perCall() int { return len(l.round) / l.calls }
