package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/bolt"
	"github.com/callstate/callstate/store/memory"
	"github.com/callstate/callstate/store/storetest"
)

// eventsPerCall and liveCalls make a log as an engine writes it: many calls at
// once, each of some ten events.
const (
	eventsPerCall = 10
	liveCalls     = 500
)

var opens = []struct {
	name string
	open func(b *testing.B) store.Store
}{
	{"memory", func(*testing.B) store.Store { return memory.New() }},
	{"bolt", func(b *testing.B) store.Store {
		s, err := bolt.Open(b.TempDir(), nil)
		if err != nil {
			b.Fatal(err)
		}
		return s
	}},
}

func overStores(b *testing.B, fn func(b *testing.B, s store.Store)) {
	for _, o := range opens {
		b.Run(o.name, func(b *testing.B) {
			s := o.open(b)
			defer s.Close()
			fn(b, s)
		})
	}
}

// event n of the log: call ids spread like UUIDs.
func event(n int) events.Event {
	round, live := n/(liveCalls*eventsPerCall), n%liveCalls
	call := uint64(round*liveCalls+live) * 0x9e3779b97f4a7c15
	k := storetest.Key(live%100, 0)
	k.Call = fmt.Sprintf("%08x-0000-4000-8000-%012x", call>>32, call&0xffffffff)
	return storetest.Event(k, n)
}

func fill(b *testing.B, s store.Store, n int) {
	b.Helper()
	for i := 0; i < n; {
		var batch events.Batch
		for ; i < n && len(batch.Events) < 1000; i++ {
			batch.Events = append(batch.Events, event(i))
		}
		if err := s.Append(b.Context(), &batch); err != nil {
			b.Fatal(err)
		}
	}
}

func perEvent(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/event")
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			overStores(b, func(b *testing.B, s store.Store) {
				b.ReportAllocs()
				n := 0
				batch := events.Batch{Events: make([]events.Event, size)}
				for b.Loop() {
					for i := range batch.Events {
						batch.Events[i] = event(n)
						n++
					}
					if err := s.Append(b.Context(), &batch); err != nil {
						b.Fatal(err)
					}
				}
				perEvent(b, n)
			})
		})
	}
}

// BenchmarkSync is the floor for what is durable: the same bytes written to a
// plain file and synced.
func BenchmarkSync(b *testing.B) {
	for _, size := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "log"))
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			n := 0
			var r store.Records
			batch := events.Batch{Events: make([]events.Event, size)}
			for b.Loop() {
				for i := range batch.Events {
					batch.Events[i] = event(n)
					n++
				}
				if err := r.Encode(&batch); err != nil {
					b.Fatal(err)
				}
				if _, err := f.Write(make([]byte, r.Size())); err != nil {
					b.Fatal(err)
				}
				if err := f.Sync(); err != nil {
					b.Fatal(err)
				}
			}
			perEvent(b, n)
		})
	}
}

func BenchmarkAppendWaiting256(b *testing.B) {
	overStores(b, func(b *testing.B, s store.Store) {
		const callers = 256
		var next atomic.Int64
		var wg sync.WaitGroup
		b.ReportAllocs()
		for range callers {
			wg.Go(func() {
				for {
					n := next.Add(1)
					if n > int64(b.N) {
						return
					}
					batch := events.Batch{Events: []events.Event{event(int(n))}}
					if err := s.Append(b.Context(), &batch); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		perEvent(b, b.N)
	})
}

const filled = 50_000

func BenchmarkReadAll(b *testing.B) {
	overStores(b, func(b *testing.B, s store.Store) {
		fill(b, s, filled)
		n := 0
		b.ReportAllocs()
		for b.Loop() {
			err := s.Read(b.Context(), 1, func(*events.Event) error { n++; return nil })
			if err != nil {
				b.Fatal(err)
			}
		}
		perEvent(b, n)
	})
}

func BenchmarkReadCall(b *testing.B) {
	overStores(b, func(b *testing.B, s store.Store) {
		fill(b, s, filled)
		i, n := 0, 0
		b.ReportAllocs()
		for b.Loop() {
			e := event(i * 7919 % filled)
			i++
			err := s.ReadCall(b.Context(), e.Key(), func(*events.Event) error { n++; return nil })
			if err != nil {
				b.Fatal(err)
			}
		}
		if n != i*eventsPerCall {
			b.Fatal(errors.New("a call has not ten events"))
		}
	})
}
