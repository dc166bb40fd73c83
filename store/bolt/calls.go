package bolt

import (
	"bytes"
	"context"

	"go.etcd.io/bbolt"

	"github.com/callstate/callstate/events"
)

// Calls implements [store.Store]. A call may have events in several segments,
// each of which names it in the same order, and in what the index does not have yet.
func (s *Store) Calls(ctx context.Context, account string, fn func(key events.CallKey, first, last uint64) error) error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	defer s.gate.Leave()
	var pagers []*callPager
	for _, g := range s.segments() {
		p := &callPager{s: s, g: g, more: true}
		if account != "" {
			p.prefix = appendAccountKey(nil, account)
		}
		p.seek = bytes.Clone(p.prefix)
		tail := &callPager{page: g.tail.entries(p.prefix)}
		pagers = append(pagers, p, tail)
	}
	for {
		var least *callEntry
		var last uint64
		var turn []*callPager // those that have the least call
		for _, p := range pagers {
			e, err := p.peek()
			if err != nil {
				return err
			}
			if e == nil {
				continue
			}
			switch c := compareEntries(e, least); {
			case c < 0:
				least, last, turn = e, e.last, append(turn[:0], p)
			case c == 0: // the same call further on
				last, turn = max(last, e.last), append(turn, p)
			}
		}
		if least == nil {
			return nil
		}
		for _, p := range turn {
			p.skip()
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		key, err := parseCallKey(least.raw)
		if err != nil {
			return err
		}
		if err := fn(key, least.first, last); err != nil {
			return err
		}
	}
}

// callEntry is one call of one segment.
type callEntry struct {
	raw         []byte // its key
	first, last uint64
}

// compareEntries compares with the least so far, nil for none.
func compareEntries(e, least *callEntry) int {
	if least == nil {
		return -1
	}
	return bytes.Compare(e.raw, least.raw)
}

// callPager reads the calls of a segment, a chunk a transaction.
type callPager struct {
	s      *Store
	g      *segment
	prefix []byte
	seek   []byte
	page   []*callEntry
	more   bool
}

// peek returns the next call, nil after the last.
func (p *callPager) peek() (*callEntry, error) {
	if len(p.page) == 0 && p.more {
		if err := p.s.view(p.g, p.load); err != nil {
			return nil, err
		}
	}
	if len(p.page) == 0 {
		return nil, nil
	}
	return p.page[0], nil
}

func (p *callPager) skip() { p.page = p.page[1:] }

func (p *callPager) load(tx *bbolt.Tx) error {
	index := tx.Bucket(bucketIndex).Cursor()
	c := tx.Bucket(bucketCalls).Cursor()
	k, v := c.Seek(p.seek)
	for ; len(p.page) < chunk; k, v = c.Next() {
		if k == nil || !bytes.HasPrefix(k, p.prefix) {
			p.more = false
			return nil
		}
		number, first, err := parseCall(v)
		if err != nil {
			return err
		}
		last, err := lastOf(index, number)
		if err != nil {
			return err
		}
		p.page = append(p.page, &callEntry{bytes.Clone(k), first, last})
	}
	p.seek = append(p.seek[:0], k...)
	p.more = k != nil
	return nil
}
