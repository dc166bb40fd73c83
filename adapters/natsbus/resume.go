package natsbus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// made says what this bus made since Resume was called last: it is empty whatever
// we know of the log.
type made struct{ stream, calls, lines bool }

// holding is what the server holds of our log.
type holding struct {
	own          []storedID // the last messages of our log, as they are in the stream
	fresh        bool       // the stream has no history: made just now, or never written to
	calls, lines bucketHolding
}

type bucketHolding struct {
	fresh bool
	floor uint64 // views through this position are in the bucket; 0 means unknown
}

// Resume waits until the bus is ready and returns the position from which its
// caller publishes: JetStream confirms before it syncs, so after a power cut it
// may hold less than it confirmed. checkpoint is what it is known to have
// confirmed. For the events
//
//   - the last message of our log in the stream decides. Its position is published
//     again, since it may be there in part; what is there is not sent again.
//   - In a stream with a history that holds none of ours they aged out, or were
//     removed on purpose: the checkpoint decides.
//   - A stream without a history, such as one that was made just now, is filled
//     from the log's start, or with NoRefill from the checkpoint.
//
// For the views it is the same with the position of the last one in each bucket.
// The lower position is returned.
//
// Resume is called by the goroutine that publishes, before the first Publish,
// after each error of Publish or Flush, and when Confirmed went back.
func (b *Bus) Resume(ctx context.Context, checkpoint uint64) (uint64, error) {
	for {
		if err := b.Ready(ctx); err != nil {
			return 0, err
		}
		from, err := b.resume(ctx, checkpoint)
		switch {
		case err == nil:
			return from, nil
		case ctx.Err() != nil:
			return 0, context.Cause(ctx)
		case errors.Is(err, ErrClosed):
			return 0, ErrClosed
		}
		b.fail(fmt.Errorf("resume: %w", err))
	}
}

func (b *Bus) resume(ctx context.Context, checkpoint uint64) (uint64, error) {
	b.views.flushing.Lock() // nothing is written while we look at what is
	defer b.views.flushing.Unlock()
	b.mu.Lock()
	epoch := b.epoch
	b.win.clear()
	b.mu.Unlock()
	h, err := b.inspect(ctx)
	if err != nil {
		return 0, err
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down != nil {
		return 0, b.down
	}
	if b.epoch != epoch {
		return 0, ErrNotReady
	}
	h.fresh = h.fresh || b.made.stream
	h.calls.fresh, h.lines.fresh = h.calls.fresh || b.made.calls, h.lines.fresh || b.made.lines
	messages, calls, lines := h.from(checkpoint, !b.o.NoRefill)
	b.made, b.owed = made{}, false
	b.lastAck, b.lastAckNo = "", b.win.tail
	if n := len(h.own); n > 0 {
		b.lastAck = fmt.Sprintf("%s.%d.%d", b.o.LogID, h.own[n-1].position, h.own[n-1].n)
	}
	b.rememberLocked(h.own)
	b.win.confirmed = messages - 1
	b.views.resume(calls-1, lines-1)
	from := min(messages, calls, lines)
	b.published = from - 1
	if last := len(h.own) - 1; last >= 0 && h.own[last].position < checkpoint || h.fresh && checkpoint > 0 {
		b.log.Info("the stream ends before what was confirmed", "confirmed", checkpoint, "publish_from", from)
	}
	b.wakeLocked()
	return from, nil
}

// from returns the positions from which to publish messages, calls and lines.
func (h *holding) from(checkpoint uint64, refill bool) (messages, calls, lines uint64) {
	last := checkpoint + 1
	switch n := len(h.own); {
	case h.fresh && refill:
		messages, last = 1, 1
	case n == 0:
		messages = checkpoint + 1
	default:
		// What was confirmed and is before the last message is there, since the
		// stream loses from its end. Of the rest we know what is in own, and what is
		// before it: that much is never unconfirmed at one time.
		last = h.own[n-1].position
		known := h.own[0].position
		if h.own[0].n > 0 && known < last {
			known++
		}
		messages = max(min(checkpoint+1, last), known)
	}
	// Where a bucket cannot tell, what the others lost it may have lost as well.
	lines = h.lines.from(min(checkpoint+1, last), refill)
	calls = h.calls.from(min(checkpoint+1, last, lines), refill)
	return messages, calls, lines
}

func (h bucketHolding) from(unknown uint64, refill bool) uint64 {
	switch {
	case h.fresh && refill:
		return 1
	case h.floor > 0:
		return h.floor + 1
	default:
		return unknown
	}
}

// inspect asks the server what it holds of our log.
func (b *Bus) inspect(ctx context.Context) (h holding, err error) {
	ctx = undated{ctx}
	s, err := b.js.Stream(ctx, b.o.Stream)
	if err != nil {
		return h, fmt.Errorf("stream %s: %w", b.o.Stream, err)
	}
	if h.calls, err = b.viewFloor(ctx, CallsBucket(b.o.Prefix)); err != nil {
		return h, err
	}
	if h.lines, err = b.viewFloor(ctx, LinesBucket(b.o.Prefix)); err != nil {
		return h, err
	}
	h.own, h.fresh, err = b.readBack(ctx, s)
	return h, err
}

// rememberLocked notes what is in the stream and is not to be sent again.
func (b *Bus) rememberLocked(own []storedID) {
	b.stored, b.storedMax = nil, 0
	if len(own) == 0 {
		return
	}
	b.stored = make(map[storedID]struct{}, len(own))
	for _, id := range own {
		b.stored[id] = struct{}{}
		b.storedMax = max(b.storedMax, id.position)
	}
}

// lostLocked reports whether the server lost something that it confirmed to this
// process. own is the end of the stream, lines the last line in its bucket.
func (b *Bus) lostLocked(own []storedID, fresh bool, line uint64) bool {
	if line < b.views.lastLine() {
		return true
	}
	if b.made != (made{}) {
		return b.published > 0
	}
	acked, ok := parseID(b.lastAck, b.o.LogID)
	if !ok || len(own) == 0 {
		return ok && fresh
	}
	last := own[len(own)-1]
	return last.position < acked.position || last.position == acked.position && last.n < acked.n
}

// readBack reads the ids of the last messages of our log in the stream, so that
// what is there is not sent again however long the bus was away; JetStream itself
// knows an id for two minutes only. It reads twice as many as can be unconfirmed
// at one time, and of more than one position where there are more. fresh says
// that nothing was ever written to the stream.
//
// Other logs' messages in between are read over, to the stream's start if need be.
func (b *Bus) readBack(ctx context.Context, s jetstream.Stream) (own []storedID, fresh bool, err error) {
	fail := func(err error) ([]storedID, bool, error) {
		return nil, false, fmt.Errorf("read back from stream %s: %w", b.o.Stream, err)
	}
	info, err := s.Info(ctx)
	if err != nil {
		return fail(err)
	}
	st := info.State
	if b.o.LogID == "" || st.Msgs == 0 {
		return nil, st.LastSeq == 0, nil
	}
	want := 2 * b.o.Window
	chunk := uint64(max(want, 256))
	for end := st.LastSeq; ; {
		from := st.FirstSeq
		if end > chunk {
			from = max(from, end-chunk+1)
		}
		ids, err := b.readIDs(ctx, s, from, end)
		if err != nil {
			return fail(err)
		}
		own = append(ids, own...)
		if n := len(own); n >= want && own[0].position != own[n-1].position || from <= st.FirstSeq {
			return own, false, nil
		}
		if end-from > 1<<15 {
			b.log.Info("looking for this log's last messages in the stream", "stream", b.o.Stream, "sequence", from)
		}
		end, chunk = from-1, min(2*chunk, 1<<16)
	}
}

// LastSource is the ce-source of the last message in the stream, whoever sent it, and
// empty where there is none.
func (b *Bus) LastSource(ctx context.Context) (string, error) {
	s, err := b.js.Stream(ctx, b.o.Stream)
	if err != nil {
		return "", fmt.Errorf("stream %s: %w", b.o.Stream, err)
	}
	m, err := s.GetLastMsgForSubject(ctx, b.o.Prefix+".>")
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("last message of stream %s: %w", b.o.Stream, err)
	}
	return m.Header.Get(HeaderSource), nil
}

// readIDs returns the ids of our log between two sequences of the stream.
func (b *Bus) readIDs(ctx context.Context, s jetstream.Stream, from, end uint64) ([]storedID, error) {
	t, err := newTape(ctx, s, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from, HeadersOnly: true,
	}, end)
	if err != nil {
		return nil, err
	}
	var ids []storedID
	for {
		m, err := t.next()
		if m == nil {
			return ids, err
		}
		if id, ok := parseID(m.Headers().Get(jetstream.MsgIDHeader), b.o.LogID); ok {
			ids = append(ids, id)
		}
	}
}
