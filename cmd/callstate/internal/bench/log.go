package bench

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store/bolt"
)

// logIn opens a log in a new folder; done closes and removes it.
func (b *Bench) logIn() (log *bolt.Store, dir string, done func(), err error) {
	if dir, err = b.tempDir(); err != nil {
		return nil, "", nil, err
	}
	if log, err = bolt.Open(dir, nil); err != nil {
		return nil, "", nil, err
	}
	return log, dir, func() { _ = log.Close(); _ = os.RemoveAll(dir) }, nil
}

// fill appends events in large batches.
func (b *Bench) fill(ctx context.Context, log *bolt.Store, load *eventLoad, n int) error {
	said := time.Now()
	for done := 0; done < n; {
		evs, err := load.batch(min(4096, n-done))
		if err != nil {
			return err
		}
		if err := log.Append(ctx, &events.Batch{Events: evs}); err != nil {
			return err
		}
		if done += len(evs); time.Since(said) > 2*time.Second {
			said = time.Now()
			b.Progress("writing a log: %d of %d events", done, n)
		}
	}
	return nil
}

// mixed is the load of the figures about the log: some hundred calls at once.
func mixed() (*eventLoad, error) { return newEventLoad(200, 100, nil, "") }

// plain is bbolt with one bucket and ascending keys: the floor of a log that is
// kept in it.
type plain struct {
	db *bbolt.DB
	n  uint64
}

var plainBucket = []byte("log")

func (b *Bench) plainIn() (*plain, func(), error) {
	dir, err := b.tempDir()
	if err != nil {
		return nil, nil, err
	}
	db, err := bbolt.Open(filepath.Join(dir, "plain.db"), 0o600, nil)
	if err == nil {
		err = db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket(plainBucket); return err })
	}
	if err != nil {
		return nil, nil, err
	}
	return &plain{db: db}, func() { _ = db.Close(); _ = os.RemoveAll(dir) }, nil
}

func (p *plain) put(values ...[]byte) error {
	return p.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(plainBucket)
		bucket.FillPercent = 1
		for _, v := range values {
			p.n++
			if err := bucket.Put(u64(p.n), v); err != nil {
				return err
			}
		}
		return nil
	})
}

// reads has fn read n times, each in a transaction of its own, and returns what one
// took in microseconds.
func (p *plain) reads(n int, fn func(c *bbolt.Cursor, i int) error) (float64, error) {
	began := time.Now()
	for i := range n {
		err := p.db.View(func(tx *bbolt.Tx) error { return fn(tx.Bucket(plainBucket).Cursor(), i) })
		if err != nil {
			return 0, err
		}
	}
	return micros(time.Since(began)) / float64(n), nil
}

func u64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

const waiting = 256

// appendMany is P4: 256 callers that each wait for one event. The peer has the
// same callers and gathers in the same way, and only puts bytes into one bucket.
func (b *Bench) appendMany(ctx context.Context) ([]Row, error) {
	load, err := mixed()
	if err != nil {
		return nil, err
	}
	n := pick(b, 10_000, 60_000)
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

	ours := func() (float64, error) {
		evs, err := load.batch(n)
		if err != nil {
			return 0, err
		}
		return callers(n, func(i int) error {
			return log.Append(ctx, &events.Batch{Events: evs[i : i+1]})
		})
	}
	theirs := func() (float64, error) {
		evs, err := load.batch(n)
		if err != nil {
			return 0, err
		}
		w := newGatherer(peer)
		defer w.stop()
		return callers(n, func(i int) error {
			rec, err := events.AppendBinary(nil, &evs[i])
			if err != nil {
				return err
			}
			return w.append(rec)
		})
	}
	p, err := rounds(ctx, pick(b, 3, 7), false, ours, theirs)
	if err != nil {
		return nil, err
	}
	return p.row("P4", "append, 256 waiting callers / bbolt in one sequential bucket, same load", "events/s", 0.6, false, ""), nil
}

// callers has 256 goroutines do something n times and returns how often a second.
func callers(n int, fn func(i int) error) (float64, error) {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	began := time.Now()
	for range waiting {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := fn(i); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// gatherer is natural batching over a plain bucket.
type gatherer struct {
	in   chan put
	quit chan struct{}
}

type put struct {
	value []byte
	done  chan error
}

func newGatherer(p *plain) *gatherer {
	g := &gatherer{in: make(chan put), quit: make(chan struct{})}
	go func() {
		defer close(g.quit)
		for first := range g.in {
			group := []put{first}
			for yielded := false; len(group) < 4096; {
				select {
				case next, ok := <-g.in:
					if ok {
						group, yielded = append(group, next), false
						continue
					}
				default:
				}
				if yielded {
					break
				}
				yielded = true
				runtime.Gosched()
			}
			values := make([][]byte, len(group))
			for i := range group {
				values[i] = group[i].value
			}
			err := p.put(values...)
			for i := range group {
				group[i].done <- err
			}
		}
	}()
	return g
}

func (g *gatherer) append(value []byte) error {
	p := put{value, make(chan error, 1)}
	g.in <- p
	return <-p.done
}

func (g *gatherer) stop() {
	close(g.in)
	<-g.quit
}

// appendOne is P5: nobody else waits.
func (b *Bench) appendOne(ctx context.Context) ([]Row, error) {
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
	n := pick(b, 200, 1000)
	p, err := rounds(ctx, pick(b, 3, 7), false,
		func() (float64, error) {
			return half(n, load, func(ev *events.Event, _ []byte) error {
				return log.Append(ctx, &events.Batch{Events: []events.Event{*ev}})
			})
		},
		func() (float64, error) {
			return half(n, load, func(_ *events.Event, rec []byte) error { return peer.put(rec) })
		},
	)
	if err != nil {
		return nil, err
	}
	return p.row("P5", "append, one waiting caller, p50 / one-Put bbolt transaction p50", "us", 1.25, true, ""), nil
}

// half is the median of n times, in microseconds.
func half(n int, load *eventLoad, fn func(*events.Event, []byte) error) (float64, error) {
	took := make([]time.Duration, n)
	for i := range took {
		ev, err := load.next()
		if err != nil {
			return 0, err
		}
		rec, err := events.AppendBinary(nil, &ev)
		if err != nil {
			return 0, err
		}
		began := time.Now()
		if err := fn(&ev, rec); err != nil {
			return 0, err
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return micros(quantile(took, 0.5)), nil
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// loadCall is P8: the events of one call, spread over the log. The peer reads as
// many bytes that stand one after the other in a bucket.
func (b *Bench) loadCall(ctx context.Context) ([]Row, error) {
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
	keys, want, err := b.callsOf(ctx, log, peer, load, pick(b, 30_000, 200_000), 10)
	if err != nil {
		return nil, err
	}
	n := pick(b, 2000, 10_000)
	var places [][]uint64 // of each call's events
	for _, key := range keys {
		var at []uint64
		err := log.ReadCall(ctx, key, func(e *events.Event) error { at = append(at, e.Position); return nil })
		if err != nil {
			return nil, err
		}
		places = append(places, at)
	}
	ours := func() (float64, error) {
		got, began := 0, time.Now()
		for i := range n {
			err := log.ReadCall(ctx, keys[i*7919%len(keys)], func(*events.Event) error { got++; return nil })
			if err != nil {
				return 0, err
			}
		}
		if got != n*want {
			return 0, fmt.Errorf("%d calls have %d events", n, got)
		}
		return micros(time.Since(began)) / float64(n), nil
	}
	inSequence := func() (float64, error) {
		return peer.reads(n, func(c *bbolt.Cursor, i int) error {
			k, v := c.Seek(u64(uint64(i)*7919%(peer.n-uint64(want)) + 1))
			for range want {
				if k == nil {
					return fmt.Errorf("bucket ends")
				}
				_ = slices.Clone(v) // it is valid no longer than the transaction
				k, v = c.Next()
			}
			return nil
		})
	}
	// The same two as one could at best: without call ids, index and checksums.
	whereTheyLie := func(record func([]byte) error) (float64, error) {
		return peer.reads(n, func(c *bbolt.Cursor, i int) error {
			for _, at := range places[i*7919%len(keys)] {
				_, v := c.Seek(u64(at))
				if err := record(v); err != nil {
					return err
				}
			}
			return nil
		})
	}
	var there, decoded []float64
	p, err := rounds(ctx, pick(b, 5, 9), false, ours, func() (float64, error) {
		reference, err := inSequence()
		if err != nil {
			return 0, err
		}
		raw, err := whereTheyLie(func(v []byte) error { _ = slices.Clone(v); return nil })
		if err != nil {
			return 0, err
		}
		whole, err := whereTheyLie(func(v []byte) error { _, err := events.DecodeBinary(v); return err })
		there, decoded = append(there, raw/reference), append(decoded, whole/reference)
		return reference, err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(there)
	slices.Sort(decoded)
	half := len(there) / 2
	return p.row("P8", "load a call of 10 events, decoded / read the same bytes in sequence through bbolt", "us", 3, true,
		fmt.Sprintf("calls of %d events in a log of %d; bbolt alone where the events lie: %.1f, and decoding them: %.1f", want, log.Last(), there[half], decoded[half])), nil
}

// callsOf fills log and peer with n events and returns calls that all have the same
// number of events, the one next to what is wanted.
func (b *Bench) callsOf(ctx context.Context, log *bolt.Store, peer *plain, load *eventLoad, n, want int) ([]events.CallKey, int, error) {
	count := map[events.CallKey]int{}
	for done := 0; done < n; {
		evs, err := load.batch(4096)
		if err != nil {
			return nil, 0, err
		}
		values := make([][]byte, len(evs))
		for i := range evs {
			count[evs[i].Key()]++
			if values[i], err = events.AppendBinary(nil, &evs[i]); err != nil {
				return nil, 0, err
			}
		}
		if err := log.Append(ctx, &events.Batch{Events: evs}); err != nil {
			return nil, 0, err
		}
		if err := peer.put(values...); err != nil {
			return nil, 0, err
		}
		done += len(evs)
	}
	of := map[int][]events.CallKey{}
	for k, c := range count {
		if !k.IsZero() {
			of[c] = append(of[c], k)
		}
	}
	for off := range want {
		for _, n := range []int{want + off, want - off} {
			if len(of[n]) >= 20 {
				return of[n], n, nil
			}
		}
	}
	return nil, 0, fmt.Errorf("no calls of about %d events", want)
}

// size is P13: what the log takes on disk, all its indexes included.
func (b *Bench) size(ctx context.Context) ([]Row, error) {
	load, err := mixed()
	if err != nil {
		return nil, err
	}
	log, dir, done, err := b.logIn()
	if err != nil {
		return nil, err
	}
	defer done()
	n := pick(b, 30_000, 300_000)
	text := 0
	for filled := 0; filled < n; {
		evs, err := load.batch(min(1000, n-filled))
		if err != nil {
			return nil, err
		}
		if err := log.Append(ctx, &events.Batch{Events: evs}); err != nil {
			return nil, err
		}
		for i := range evs {
			j, err := json.Marshal(&evs[i])
			if err != nil {
				return nil, err
			}
			text += len(j)
		}
		filled += len(evs)
	}
	used, err := folderSize(dir)
	if err != nil {
		return nil, err
	}
	p := pair{float64(used) / float64(n), float64(text) / float64(n), float64(used) / float64(text)}
	return p.row("P13", "bytes on disk an event, with its indexes / bytes of its JSON", "B/event", 0.6, true,
		fmt.Sprintf("log of %d events", n)), nil
}

// folderSize is what the files in a folder take on the disk.
func folderSize(dir string) (int64, error) {
	var sum int64
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return 0, err
		}
		sum += diskBytes(info)
	}
	return sum, nil
}
