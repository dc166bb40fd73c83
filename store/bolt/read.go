package bolt

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
)

// chunk is how many records one reading transaction takes. Readers' functions
// run outside of transactions: an open one keeps the writer from growing the
// map of the file, and such a function may well append.
const chunk = 256

// Read implements [store.Store].
func (s *Store) Read(ctx context.Context, from uint64, fn func(*events.Event) error) error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	defer s.gate.Leave()
	last := s.Last()
	var evs []events.Event
	for from = max(from, s.base.Load()+1); from <= last; {
		g, end := s.segmentOf(from)
		if from < g.first {
			return fmt.Errorf("event %d: %w", from, errDropped)
		}
		n := min(last-from+1, end-from+1, chunk)
		evs = make([]events.Event, 0, n) // the reader keeps the last ones
		err := s.view(g, func(tx *bbolt.Tx) error {
			c := tx.Bucket(bucketEvents).Cursor()
			k, v := c.Seek(u64(from))
			for pos := from; pos < from+n; pos++ {
				e, err := parseEvent(pos, k, v)
				if err != nil {
					return err
				}
				evs = append(evs, e)
				k, v = c.Next()
			}
			return nil
		})
		if err := each(ctx, evs, fn); err != nil {
			return err
		}
		if err != nil { // after the events before the damage
			return err
		}
		from += n
	}
	return nil
}

// ReadCall implements [store.Store].
func (s *Store) ReadCall(ctx context.Context, key events.CallKey, fn func(*events.Event) error) error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	defer s.gate.Leave()
	if key.IsZero() {
		return nil
	}
	raw := appendCallKey(nil, key)
	if len(raw) > bbolt.MaxKeySize {
		return nil
	}
	last := s.Last()
	for _, g := range s.segments() {
		if err := s.readCallIn(ctx, g, key, raw, last, fn); err != nil {
			return err
		}
	}
	return nil
}

// readCallIn reads a call's events of one segment. Together with an error of the
// index it reads those before the damage.
func (s *Store) readCallIn(ctx context.Context, g *segment, key events.CallKey, raw []byte, last uint64, fn func(*events.Event) error) error {
	var positions []uint64
	var damage error
	recent := g.tail.of(raw)
	for begun := false; !begun || len(positions) > 0; {
		var evs []events.Event
		err := s.view(g, func(tx *bbolt.Tx) (err error) {
			if !begun {
				begun = true
				positions, damage = positionsOf(tx, recent, raw, last)
			}
			n := min(len(positions), chunk)
			evs, err = eventsAt(tx, key, positions[:n])
			positions = positions[n:]
			return err
		})
		if err := each(ctx, evs, fn); err != nil {
			return err
		}
		if err != nil {
			return err
		}
	}
	return s.explainRead(damage)
}

// eventsAt reads a call's events, together with an error those before the damage.
func eventsAt(tx *bbolt.Tx, key events.CallKey, positions []uint64) ([]events.Event, error) {
	if len(positions) == 0 {
		return nil, nil
	}
	evs := make([]events.Event, 0, len(positions))
	c, at := tx.Bucket(bucketEvents).Cursor(), make([]byte, 8)
	for _, pos := range positions {
		binary.BigEndian.PutUint64(at, pos)
		k, v := c.Seek(at)
		e, err := parseEvent(pos, k, v)
		if err == nil && e.Key() != key { // the index has no checksums
			err = fmt.Errorf("%w: event %d is not of the call that the index says", store.ErrDamaged, pos)
		}
		if err != nil {
			return evs, err
		}
		evs = append(evs, e)
	}
	return evs, nil
}

// positionsOf returns where a call's events stand, through the position last and in
// order: those of the index and, after them, of the tail as it was before the
// transaction. With an error come those before the damage.
func positionsOf(tx *bbolt.Tx, recent []uint64, call []byte, last uint64) ([]uint64, error) {
	number, first, err := findCall(tx, call)
	if err != nil {
		return nil, err
	}
	positions := make([]uint64, 0, 32)
	if number != 0 {
		c := tx.Bucket(bucketIndex).Cursor()
		for k, v := c.Seek(indexKey(number, first)); k != nil; k, v = c.Next() {
			all, same, err := parseRun(positions, number, k, v)
			if err != nil {
				return positions, err
			}
			if !same {
				break
			}
			positions = all
		}
	}
	for _, pos := range recent {
		if n := len(positions); n == 0 || positions[n-1] < pos {
			positions = append(positions, pos)
		}
	}
	end, _ := slices.BinarySearch(positions, last+1)
	return positions[:end], nil
}

// HasCall implements [store.Store].
func (s *Store) HasCall(key events.CallKey) (found bool, err error) {
	if err := s.gate.Enter(); err != nil {
		return false, err
	}
	defer s.gate.Leave()
	if key.IsZero() {
		return false, nil
	}
	raw := appendCallKey(nil, key)
	if len(raw) > bbolt.MaxKeySize {
		return false, nil
	}
	// A call that is asked for is most often a recent one.
	for _, g := range slices.Backward(s.segments()) {
		if found = len(g.tail.of(raw)) > 0; found {
			break
		}
		err = s.view(g, func(tx *bbolt.Tx) error {
			number, _, err := findCall(tx, raw)
			found = number != 0
			return err
		})
		if found || err != nil {
			break
		}
	}
	return found, err
}

// Quarantine implements [store.Store].
func (s *Store) Quarantine(ctx context.Context, from uint64, fn func(*events.Quarantined) error) error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	defer s.gate.Leave()
	for _, g := range s.segments() {
		if err := s.quarantineIn(ctx, g, &from, fn); err != nil {
			return err
		}
	}
	return nil
}

// quarantineIn reads the frames of one segment and moves from on.
func (s *Store) quarantineIn(ctx context.Context, g *segment, next *uint64, fn func(*events.Quarantined) error) error {
	var before, last uint64
	err := s.view(g, func(tx *bbolt.Tx) error {
		h, err := readHeader(tx)
		before, last = h.quarantined, tx.Bucket(bucketQuarantine).Sequence()
		return err
	})
	for *next = max(*next, before+1); err == nil && *next <= last; *next++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		from := *next
		// One at a time: a frame may be megabytes, and this is no hot path.
		var q events.Quarantined
		err = s.view(g, func(tx *bbolt.Tx) error {
			key := u64(from)
			body, err := parseRecord(from, key, tx.Bucket(bucketQuarantine).Get(key))
			if err != nil {
				return fmt.Errorf("quarantined frame %d: %w", from, err)
			}
			if q, err = events.DecodeQuarantined(body); err != nil {
				return fmt.Errorf("%w: quarantined frame %d: %w", store.ErrDamaged, from, err)
			}
			q.Number = from
			return nil
		})
		if err != nil {
			return err
		}
		if err := fn(&q); err != nil {
			return err
		}
	}
	return err
}

func each(ctx context.Context, evs []events.Event, fn func(*events.Event) error) error {
	for i := range evs {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := fn(&evs[i]); err != nil {
			return err
		}
	}
	return nil
}

// findCall returns a number of 0 for a call that the index does not have.
func findCall(tx *bbolt.Tx, call []byte) (number, first uint64, err error) {
	v := tx.Bucket(bucketCalls).Get(call)
	if v == nil {
		return 0, 0, nil
	}
	return parseCall(v)
}

func parseCall(v []byte) (number, first uint64, err error) {
	if len(v) != 16 {
		return 0, 0, fmt.Errorf("%w: call entry of %d bytes", store.ErrDamaged, len(v))
	}
	return binary.BigEndian.Uint64(v), binary.BigEndian.Uint64(v[8:]), nil
}

func indexKey(number, position uint64) []byte {
	return binary.BigEndian.AppendUint64(u64(number), position)
}

// parseIndexKey returns 0 for the end of the index.
func parseIndexKey(k []byte) (number, position uint64, err error) {
	if k == nil {
		return 0, 0, nil
	}
	if len(k) != 16 {
		return 0, 0, fmt.Errorf("%w: index entry of %d bytes", store.ErrDamaged, len(k))
	}
	return binary.BigEndian.Uint64(k), binary.BigEndian.Uint64(k[8:]), nil
}

// lastOf returns the position of the newest event of a call that the index has.
func lastOf(index *bbolt.Cursor, number uint64) (uint64, error) {
	newest := index.Prev
	if k, _ := index.Seek(indexKey(number, math.MaxUint64)); k == nil {
		newest = index.Last
	}
	k, v := newest()
	positions, same, err := parseRun(nil, number, k, v)
	if err == nil && !same {
		err = fmt.Errorf("%w: call number %d has no event", store.ErrDamaged, number)
	}
	if err != nil {
		return 0, err
	}
	return positions[len(positions)-1], nil
}

func parseEvent(position uint64, k, v []byte) (events.Event, error) {
	body, err := parseRecord(position, k, v)
	if err != nil {
		return events.Event{}, fmt.Errorf("event %d: %w", position, err)
	}
	e, err := events.DecodeBinary(body)
	if err != nil {
		return events.Event{}, fmt.Errorf("%w: event %d: %w", store.ErrDamaged, position, err)
	}
	e.Position = position
	return e, nil
}

// parseRecord checks that the record found is the one wanted and unharmed.
func parseRecord(want uint64, k, v []byte) ([]byte, error) {
	if len(k) != 8 || binary.BigEndian.Uint64(k) != want || v == nil {
		return nil, fmt.Errorf("%w: record is missing", store.ErrDamaged)
	}
	if len(v) < 4 || binary.BigEndian.Uint32(v) != checksum(k, v[4:]) {
		return nil, fmt.Errorf("%w: checksum differs", store.ErrDamaged)
	}
	return v[4:], nil
}
