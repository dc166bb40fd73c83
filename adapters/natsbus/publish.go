package natsbus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/callstate/callstate/engine"
)

// Publish sends the CTI events of rs and hands their views to Run. It waits
// while the window of unconfirmed messages is full, and for nothing else. One
// goroutine may call it.
//
// The bus keeps rs until it is confirmed: neither the messages nor what the views
// point to may change any more.
//
// An error matches ErrNotReady or ErrClosed, or is ctx's cause; after any, call Resume
// and publish again from where it says.
func (b *Bus) Publish(ctx context.Context, rs []engine.Result) error {
	for i := range rs {
		if err := b.publish(ctx, &rs[i]); err != nil {
			return err
		}
	}
	b.mu.Lock()
	if n := len(rs); n > 0 {
		b.published = rs[n-1].Position
	}
	b.mu.Unlock()
	b.views.take(rs)
	return nil
}

func (b *Bus) publish(ctx context.Context, r *engine.Result) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down != nil {
		return b.refuseLocked(b.down)
	}
	if r.Position <= b.win.confirmed {
		return nil // published again for its views; the messages are in the stream
	}
	for i := range r.Messages {
		m := &r.Messages[i]
		if b.storedLocked(m.ID) {
			continue
		}
		for b.win.full() {
			err := b.waitLocked(ctx, 0)
			if b.down != nil {
				return b.refuseLocked(b.down)
			}
			if err != nil { // some of r is on its way: only a new epoch is sure to be in order
				b.failLocked(fmt.Errorf("interrupted: %w", err))
				b.owed = true
				return err
			}
		}
		if b.win.len() == 0 {
			b.progress = time.Now()
		}
		if err := b.sendLocked(b.enc, b.win.push(m), m); err != nil {
			return b.refuseLocked(err)
		}
	}
	b.win.through(r.Position)
	if b.storedMax != 0 && r.Position >= b.storedMax {
		b.stored, b.storedMax = nil, 0
	}
	return nil
}

// refuseLocked makes the bus not ready and leaves it to the caller to publish
// again.
func (b *Bus) refuseLocked(cause error) error {
	b.failLocked(cause)
	b.owed = true
	if b.closed {
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrNotReady, cause)
}

// storedLocked reports whether a message was found in the stream when the bus
// became ready.
func (b *Bus) storedLocked(id string) bool {
	if len(b.stored) == 0 {
		return false
	}
	s, ok := parseID(id, b.o.LogID)
	if !ok {
		return false
	}
	if _, ok = b.stored[s]; ok {
		b.stats.Skipped++
	}
	return ok
}

// sendLocked sends a message that is in the window. The lock is held over the
// connection's own, which copies into a buffer and at worst waits for the socket.
func (b *Bus) sendLocked(enc *encoder, n uint64, m *engine.Message) error {
	var reply [80]byte
	err := b.nc.PublishMsg(enc.encode(m, string(strconv.AppendUint(append(reply[:0], b.reply...), n, 10))))
	b.stats.Sent++
	if errors.Is(err, nats.ErrMaxPayload) {
		b.rejectLocked(n, err)
		return nil
	}
	return err
}

// rejectLocked gives up a message that the server will never take. Waiting for
// it would stop every call; its consumer sees the gap in seq and asks history.
func (b *Bus) rejectLocked(n uint64, err error) {
	m := b.win.at(n).msg
	if !b.win.confirm(n) {
		return
	}
	b.stats.Rejected++
	b.log.Error("event too large for nats", "err", err, "id", m.ID, "bytes", len(m.Payload))
}

// resendLocked sends the window again in a new epoch.
func (b *Bus) resendLocked(enc *encoder) {
	for n := b.win.head; n < b.win.tail; n++ {
		m := b.win.at(n).msg
		if m == nil {
			continue
		}
		if b.storedLocked(m.ID) {
			b.win.confirm(n)
			continue
		}
		if err := b.sendLocked(enc, n, m); err != nil {
			b.failLocked(err)
			return
		}
	}
	b.wakeLocked()
}

// onAck takes JetStream's answers; the connection calls it on one goroutine.
func (b *Bus) onAck(m *nats.Msg) {
	rest, _ := strings.CutPrefix(m.Subject, b.inbox+".m.")
	epochText, numberText, _ := strings.Cut(rest, ".")
	epoch, err1 := strconv.ParseUint(epochText, 10, 64)
	n, err2 := strconv.ParseUint(numberText, 10, 64)
	if err1 != nil || err2 != nil {
		return
	}
	duplicate, err := parseAck(m, b.okay)
	b.mu.Lock()
	defer b.mu.Unlock()
	if epoch != b.epoch || b.down != nil {
		return
	}
	if err != nil {
		var api *jetstream.APIError
		if errors.As(err, &api) && api.ErrorCode == codeTooLarge {
			b.rejectLocked(n, err)
		} else {
			b.failLocked(fmt.Errorf("publish: %w", err))
		}
		return
	}
	id := b.win.id(n)
	if !b.win.confirm(n) {
		return
	}
	b.stats.Confirmed++
	if duplicate {
		b.stats.Duplicates++
	} else if n >= b.lastAckNo {
		b.lastAck, b.lastAckNo = id, n
	}
	b.attempts = 0
	b.progress = time.Now()
	// Wake the publisher when it can go on for a while, not for every slot.
	if left := b.win.len(); left == 0 || left <= len(b.win.slots)*3/4 {
		b.wakeLocked()
	}
}

// Flush waits until everything that Publish took over is confirmed. Run must be
// running. The error is that of Publish.
func (b *Bus) Flush(ctx context.Context) error {
	b.views.hurry()
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		if b.down != nil {
			return b.refuseLocked(b.down)
		}
		if b.confirmedLocked() >= b.published {
			return nil
		}
		if err := b.waitLocked(ctx, 0); err != nil {
			return err
		}
	}
}
