package bolt

import (
	"context"
	"fmt"
	"os"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
)

// filePass reads the records of one file in order.
type filePass struct {
	s     *wreckage
	w     *wreck
	to    survivors
	file  *os.File
	byNum map[uint64]string // key of a call by its number; nil until needed
	// indexed are the calls met and how many events each has, nil where the index is
	// not to be checked: it is damaged anyway.
	indexed map[string]uint64
	entries int
}

func (p *filePass) events(ctx context.Context, end uint64) error {
	s := p.s
	for _, r := range p.w.events {
		if r.n < s.next || r.n > end {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := p.lostTo(ctx, r.n); err != nil {
			return err
		}
		body, err := p.body(r)
		var ev events.Event
		if err == nil {
			ev, err = events.DecodeBinary(body)
		}
		if err != nil {
			p.w.damage("event %d: %v", r.n, err)
			continue // it is lost when the next one comes
		}
		ev.Position = r.n
		p.meet(&ev)
		s.next = r.n + 1
		if err := p.to.event(ctx, &ev, r.size); err != nil {
			return err
		}
	}
	return p.lostTo(ctx, end+1)
}

// lostTo counts the positions up to next as lost.
func (p *filePass) lostTo(ctx context.Context, next uint64) error {
	s := p.s
	if s.next >= next {
		return nil
	}
	if next-s.next > maxLost {
		return fmt.Errorf("%w: events %d to %d cannot all be lost", store.ErrForeign, s.next, next-1)
	}
	s.found.Lost = appendStretch(s.found.Lost, Stretch{s.next, next - 1})
	if p.byNum == nil {
		p.byNum = make(map[uint64]string, len(p.w.calls))
		for key, c := range p.w.calls {
			p.byNum[c.number] = key
		}
	}
	for ; s.next < next; s.next++ {
		var key events.CallKey
		if raw, ok := p.byNum[p.w.index[s.next]]; ok {
			key, _ = parseCallKey([]byte(raw)) // it was parsed when it was taken
		}
		if key.IsZero() {
			s.found.UnknownCalls++
		} else if c := s.calls[key]; c != nil {
			c.Lost++
		} else {
			s.calls[key] = &LostCall{key.Account, key.Call, s.next, 1}
		}
		if err := p.to.lost(ctx, s.next, key); err != nil {
			return err
		}
	}
	return nil
}

// maxLost is more events than a log has; only the name of a foreign file says so.
const maxLost = 1 << 36

func appendStretch(all []Stretch, s Stretch) []Stretch {
	if n := len(all); n > 0 && all[n-1].Last+1 == s.First {
		all[n-1].Last = s.Last
		return all
	}
	return append(all, s)
}

// body reads a record again and checks it again: the disk may have changed its mind.
func (p *filePass) body(r ref) ([]byte, error) {
	v := make([]byte, r.size)
	if _, err := p.file.ReadAt(v, r.at); err != nil {
		return nil, err
	}
	return parseRecord(r.n, u64(r.n), v)
}

// meet compares an event with the index.
func (p *filePass) meet(ev *events.Event) {
	if p.indexed == nil || ev.Key().IsZero() || ev.Position > p.w.indexed {
		return
	}
	p.entries++
	key := string(appendCallKey(nil, ev.Key()))
	c, known := p.w.calls[key]
	if p.indexed[key]++; p.indexed[key] == 1 && known && c.first != ev.Position {
		known = false
	}
	if !known || p.w.index[ev.Position] != c.number {
		p.w.damage("the index is wrong about event %d", ev.Position)
		p.indexed = nil
	}
}

// checkIndex finds entries of the index that no event has.
func (p *filePass) checkIndex() {
	if p.indexed != nil && (len(p.w.calls) != len(p.indexed) || len(p.w.index) != p.entries) {
		p.w.damage("the index has %d events of %d calls, the log %d of %d", len(p.w.index), len(p.w.calls), p.entries, len(p.indexed))
	}
}

func (p *filePass) frames(ctx context.Context) error {
	s := p.s
	if s.nextFrame == 0 {
		if !p.w.hasHead && len(p.w.frames) == 0 {
			return nil
		}
		s.nextFrame = p.w.head.quarantined + 1
		if n := len(p.w.frames); n > 0 && (!p.w.hasHead || !plausible(p.w.frames[0].n, s.nextFrame)) {
			s.nextFrame = p.w.frames[0].n
		}
		s.found.framesBefore = s.nextFrame - 1
	}
	lostTo := func(next uint64) error {
		if s.nextFrame >= next {
			return nil
		}
		s.found.LostFrames = appendStretch(s.found.LostFrames, Stretch{s.nextFrame, next - 1})
		for ; s.nextFrame < next; s.nextFrame++ {
			if err := p.to.lostFrame(ctx, s.nextFrame); err != nil {
				return err
			}
		}
		return nil
	}
	for _, r := range p.w.frames {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := lostTo(r.n); err != nil {
			return err
		}
		body, err := p.body(r)
		var q events.Quarantined
		if err == nil {
			q, err = events.DecodeQuarantined(body)
		}
		if err != nil {
			p.w.damage("quarantined frame %d: %v", r.n, err)
			continue
		}
		q.Number, s.nextFrame = r.n, r.n+1
		if err := p.to.frame(ctx, &q, r.size); err != nil {
			return err
		}
	}
	return lostTo(p.w.lastFrame + 1)
}
