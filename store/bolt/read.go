package bolt

import (
	"bytes"
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
	last := s.Last()
	for _, g := range s.segments() {
		if err := s.readCallIn(ctx, g, key, last, fn); err != nil {
			return err
		}
	}
	return nil
}

// readCallIn reads a call's events of one segment.
func (s *Store) readCallIn(ctx context.Context, g *segment, key events.CallKey, last uint64, fn func(*events.Event) error) error {
	for from := uint64(0); ; {
		var evs []events.Event
		err := s.view(g, func(tx *bbolt.Tx) error {
			positions, found := positionsOf(tx, key, from, last)
			evs = make([]events.Event, 0, len(positions))
			c := tx.Bucket(bucketEvents).Cursor()
			for _, pos := range positions {
				k, v := c.Seek(u64(pos))
				e, err := parseEvent(pos, k, v)
				if err == nil && e.Key() != key { // the index has no checksums
					err = fmt.Errorf("%w: event %d is not of the call that the index says", store.ErrDamaged, pos)
				}
				if err != nil {
					return err
				}
				evs = append(evs, e)
			}
			return found
		})
		if err := each(ctx, evs, fn); err != nil {
			return err
		}
		if err != nil || len(evs) < chunk {
			return err
		}
		from = evs[len(evs)-1].Position + 1
	}
}

// positionsOf returns where a call's events stand, in between two positions and at
// most a chunk of them, together with an error those before the damage.
func positionsOf(tx *bbolt.Tx, key events.CallKey, from, last uint64) ([]uint64, error) {
	number, first, err := findCall(tx, key)
	if err != nil || number == 0 {
		return nil, err
	}
	positions := make([]uint64, 0, 16)
	c := tx.Bucket(bucketIndex).Cursor()
	for k, _ := c.Seek(indexKey(number, max(from, first))); len(positions) < chunk; k, _ = c.Next() {
		n, pos, err := parseIndexKey(k)
		if err != nil || n != number || pos > last {
			return positions, err
		}
		positions = append(positions, pos)
	}
	return positions, nil
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
	// A call that is asked for is most often a recent one.
	for _, g := range slices.Backward(s.segments()) {
		err = s.view(g, func(tx *bbolt.Tx) error {
			number, _, err := findCall(tx, key)
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
			body, err := parseRecord(key, key, tx.Bucket(bucketQuarantine).Get(key))
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

// findCall returns a number of 0 for a call that the log does not hold.
func findCall(tx *bbolt.Tx, key events.CallKey) (number, first uint64, err error) {
	k := appendCallKey(nil, key)
	if len(k) > bbolt.MaxKeySize {
		return 0, 0, nil
	}
	v := tx.Bucket(bucketCalls).Get(k)
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

// lastOf returns the position of a call's newest event.
func lastOf(index *bbolt.Cursor, number uint64) (uint64, error) {
	k, _ := index.Seek(indexKey(number, math.MaxUint64))
	if k == nil {
		k, _ = index.Last()
	} else {
		k, _ = index.Prev()
	}
	n, position, err := parseIndexKey(k)
	if err == nil && n != number {
		err = fmt.Errorf("%w: call number %d has no event", store.ErrDamaged, number)
	}
	return position, err
}

func parseEvent(position uint64, k, v []byte) (events.Event, error) {
	body, err := parseRecord(u64(position), k, v)
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
func parseRecord(want, k, v []byte) ([]byte, error) {
	if !bytes.Equal(want, k) || v == nil {
		return nil, fmt.Errorf("%w: record is missing", store.ErrDamaged)
	}
	if len(v) < 4 || binary.BigEndian.Uint32(v) != checksum(k, v[4:]) {
		return nil, fmt.Errorf("%w: checksum differs", store.ErrDamaged)
	}
	return v[4:], nil
}
