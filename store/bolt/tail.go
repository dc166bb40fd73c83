package bolt

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/callstate/callstate/store"
)

// maxTail is how many events the index may be behind. Written for many events at
// once it costs a fraction: an event's entry is on a page of its own, and a
// thousand calls' entries share theirs. After a crash as many are read again.
const maxTail = 16384

// tail are the events of a segment that index and calls do not have yet. Only the
// writer changes it; readers look here before they look there, since what leaves
// the one is in the other by then.
type tail struct {
	mu    sync.RWMutex
	calls map[string]*tailCall // by key in stored form
	n     int                  // events, those without a call too
	last  uint64               // position of the last one
}

type tailCall struct{ positions []uint64 }

// load reads what the index of a file does not have. A record that cannot be read
// may be any call's: no call could be told from one that is whole.
func (t *tail) load(tx *bbolt.Tx, h header) error {
	if h.version < versionOfRuns {
		return nil
	}
	last, err := lastEvent(tx, h)
	if err != nil {
		return err
	}
	if h.indexed > last {
		return fmt.Errorf("%w: the index goes on to event %d, the file ends with %d", store.ErrDamaged, h.indexed, last)
	}
	from := max(h.indexed+1, h.first)
	c := tx.Bucket(bucketEvents).Cursor()
	k, v := c.Seek(u64(from))
	for pos := from; pos <= last; pos++ {
		e, err := parseEvent(pos, k, v)
		if err != nil {
			return err
		}
		var call []byte
		if key := e.Key(); !key.IsZero() {
			call = appendCallKey(nil, key)
		}
		t.add(pos, call)
		k, v = c.Next()
	}
	return nil
}

// add notes an event and its call, in stored form, empty for none.
func (t *tail) add(position uint64, call []byte) {
	t.n, t.last = t.n+1, position
	if len(call) == 0 {
		return
	}
	c := t.calls[string(call)]
	if c == nil {
		if t.calls == nil {
			t.calls = make(map[string]*tailCall)
		}
		c = &tailCall{}
		t.calls[string(call)] = c
	}
	c.positions = append(c.positions, position)
}

// of returns where a call's events are, none that are in the index.
func (t *tail) of(call []byte) []uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if c := t.calls[string(call)]; c != nil {
		return c.positions // it is only ever appended to
	}
	return nil
}

// entries returns the calls whose keys begin with prefix, in order.
func (t *tail) entries(prefix []byte) []*callEntry {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var all []*callEntry
	for call, c := range t.calls {
		if len(call) >= len(prefix) && call[:len(prefix)] == string(prefix) {
			all = append(all, &callEntry{[]byte(call), c.positions[0], c.positions[len(c.positions)-1]})
		}
	}
	slices.SortFunc(all, compareEntries)
	return all
}

// store puts the tail into calls and index. New calls are numbered in the order of
// their first events. What the index has already is left alone.
func (t *tail) store(tx *bbolt.Tx) error {
	calls, index := tx.Bucket(bucketCalls), tx.Bucket(bucketIndex)
	c := index.Cursor()
	keys := slices.SortedFunc(maps.Keys(t.calls), func(a, b string) int {
		return cmp.Compare(t.calls[a].positions[0], t.calls[b].positions[0])
	})
	for _, key := range keys {
		positions := t.calls[key].positions
		number, err := uint64(0), error(nil)
		if v := calls.Get([]byte(key)); v != nil {
			var last uint64
			if number, _, err = parseCall(v); err == nil {
				last, err = lastOf(c, number)
			}
			after, _ := slices.BinarySearch(positions, last+1)
			positions = positions[after:]
		} else if number, err = calls.NextSequence(); err == nil {
			err = calls.Put([]byte(key), indexKey(number, positions[0]))
		}
		if err == nil && len(positions) > 0 {
			err = index.Put(indexKey(number, positions[0]), appendRun(nil, positions))
		}
		if err != nil {
			return err
		}
	}
	return index.SetSequence(t.last)
}

// clear empties the tail when the index has it.
func (t *tail) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls, t.n = nil, 0
}

// appendRun appends what the value of an index entry is: the positions after the
// first, which is in the key, as distances.
func appendRun(b []byte, positions []uint64) []byte {
	for i, p := range positions[1:] {
		b = binary.AppendUvarint(b, p-positions[i])
	}
	return b
}

// parseRun appends the positions of an index entry, if it is of the call with that
// number, to those of the entries before it. With an error it appends none.
func parseRun(positions []uint64, number uint64, k, v []byte) (all []uint64, same bool, err error) {
	n, at, err := parseIndexKey(k)
	if err != nil || n != number {
		return positions, false, err
	}
	if n := len(positions); n > 0 && positions[n-1] >= at {
		return positions, false, fmt.Errorf("%w: index entry of event %d after %d", store.ErrDamaged, at, positions[n-1])
	}
	all = append(positions, at)
	for len(v) > 0 {
		d, n := binary.Uvarint(v)
		if n <= 0 || d == 0 || at+d < at {
			return positions, false, fmt.Errorf("%w: index entry of event %d", store.ErrDamaged, at)
		}
		at, v = at+d, v[n:]
		all = append(all, at)
	}
	return all, true, nil
}
