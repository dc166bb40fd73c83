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
	if n := len(rs); n > 0 {
		if err := b.publishedThrough(rs[n-1].Position); err != nil {
			return err
		}
	}
	b.views.take(rs)
	return nil
}

// publishedThrough notes that all through position was taken over, and sends the
// last message.
func (b *Bus) publishedThrough(position uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down != nil {
		return b.refuseLocked(b.down)
	}
	if err := b.releaseLocked(true); err != nil {
		return b.refuseLocked(err)
	}
	b.published = position
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
			err := b.releaseLocked(true)
			if err == nil && b.win.full() {
				err = b.waitLocked(ctx, 0)
			}
			if b.down != nil {
				return b.refuseLocked(b.down)
			}
			if err != nil && ctx.Err() == nil {
				return b.refuseLocked(err)
			}
			if err != nil { // some of r is on its way: only a new epoch is sure to be in order
				b.failLocked(fmt.Errorf("interrupted: %w", err))
				b.oweLocked()
				return err
			}
		}
		if b.win.len() == 0 {
			b.progress = time.Now()
		}
		if err := b.sendLocked(b.win.push(m)); err != nil {
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
	b.oweLocked()
	if b.closed {
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrNotReady, cause)
}

// oweLocked notes that the caller publishes again: Run need not bring the bus back.
func (b *Bus) oweLocked() {
	b.owed = true
	b.stopHeal()
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

// askEvery is how many messages share a confirmation at the most.
const askEvery = 32

// sendLocked sends the window's newest message once it is known whether another
// follows: the one that was held back goes now. The lock is held over the
// connection's own, which copies into a buffer and at worst waits for the socket.
func (b *Bus) sendLocked(n uint64) error {
	err := b.releaseLocked(false)
	b.held, b.holds = n, true
	return err
}

// releaseLocked sends the message that is held back. The stream is asked to
// confirm it if it is the last one for now, and else one of many: where that
// stands in the stream tells whether those before it are there, see [Bus.onAck].
func (b *Bus) releaseLocked(last bool) error {
	if !b.holds {
		return nil
	}
	b.holds = false
	ask := last || b.each || b.sent == 0 || b.unasked+1 >= min(askEvery, max(len(b.win.slots)/4, 1))
	return b.transmitLocked(b.held, ask)
}

// transmitLocked sends a message of the window.
func (b *Bus) transmitLocked(n uint64, ask bool) error {
	slot := b.win.at(n)
	var buf [80]byte
	reply := ""
	if ask {
		reply = string(strconv.AppendUint(append(buf[:0], b.reply...), n, 10))
	}
	err := send(b.nc, b.enc.encode(slot.msg, reply))
	b.stats.Sent++
	if tooLarge(err) {
		b.rejectLocked(n, err)
		if ask { // for those before it as well
			return b.askAgainLocked(n)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if b.unasked++; ask {
		b.unasked = 0
	}
	b.sent++
	slot.sent, slot.asked = b.sent, ask
	return nil
}

// maxSubject is how long a subject may be. A server ends a connection for good that
// sends a line of more than 4 KiB, and there is more in one than the subject. Ids
// are shorter (events.MaxID), but for those of old logs.
const maxSubject = 3 << 10

// errSubject is why a message or a view cannot be published.
var errSubject = errors.New("natsbus: subject too long")

// send sends m, unless the server would not take it: then [tooLarge] says so.
func send(nc *nats.Conn, m *nats.Msg) error {
	if len(m.Subject) > maxSubject {
		return errSubject
	}
	return nc.PublishMsg(m)
}

// tooLarge reports whether a message will be too large for the server for ever.
func tooLarge(err error) bool {
	return errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, errSubject)
}

// askAgainLocked sends those of the messages before n again whose confirmation
// nobody has asked for: the stream knows their ids, if it has them. From then on
// each message is asked for.
func (b *Bus) askAgainLocked(n uint64) error {
	for x := b.win.head; x < n; x++ {
		if s := b.win.at(x); s.msg == nil || s.asked {
			continue
		}
		b.askForEachLocked(false)
		if err := b.transmitLocked(x, true); err != nil {
			return err
		}
	}
	return nil
}

// askForEachLocked has each message confirmed by itself until the bus is ready anew.
// others says that there is more in the stream than was sent.
func (b *Bus) askForEachLocked(others bool) {
	if b.each {
		return
	}
	b.each = true
	if others {
		b.log.Warn("somebody else writes to the stream: is another engine running with this prefix? Each needs one of its own, or its subscribers get everything twice", "stream", b.o.Stream, "prefix", b.o.Prefix)
	} else {
		b.log.Info("each message is confirmed by itself from now on: the stream refused one", "stream", b.o.Stream)
	}
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
func (b *Bus) resendLocked() {
	for n := b.win.head; n < b.win.tail; n++ {
		m := b.win.at(n).msg
		if m == nil {
			continue
		}
		if b.storedLocked(m.ID) {
			b.win.confirm(n)
			continue
		}
		if err := b.sendLocked(n); err != nil {
			b.failLocked(err)
			return
		}
	}
	if err := b.releaseLocked(true); err != nil {
		b.failLocked(err)
		return
	}
	b.wakeLocked()
}

// onAck takes JetStream's answers; the connection calls it on one goroutine.
//
// A confirmation says how many messages the stream has had. If that grew by as many
// as were sent since another confirmation, all of them are stored: a stream takes
// what one connection sends in order. If it did not, somebody else writes to the
// stream, or it refused a message that was not asked for, or knew one already; then
// those that are in doubt are asked for again. Somebody else's first messages that
// are exactly as many as the stream refused of ours, between the same two
// confirmations, would be taken for ours.
func (b *Bus) onAck(m *nats.Msg) {
	rest, _ := strings.CutPrefix(m.Subject, b.inbox+".m.")
	epochText, numberText, _ := strings.Cut(rest, ".")
	epoch, err1 := strconv.ParseUint(epochText, 10, 64)
	n, err2 := strconv.ParseUint(numberText, 10, 64)
	if err1 != nil || err2 != nil {
		return
	}
	a, err := parseAck(m, b.okay)
	b.mu.Lock()
	defer b.mu.Unlock()
	if epoch != b.epoch || b.down != nil {
		return
	}
	if err != nil {
		b.refusedLocked(n, err)
		return
	}
	id, sent := b.win.id(n), b.win.at(n).sent
	if id == "" {
		return
	}
	if !b.each && !a.Duplicate && b.known.seq != 0 && a.Seq-b.known.seq == sent-b.known.sent {
		b.stats.Confirmed += b.win.confirmAll(b.known.n+1, n)
	} else {
		b.win.confirm(n)
		b.stats.Confirmed++
		if !a.Duplicate && b.known.seq != 0 { // also where nothing is in doubt this time
			b.askForEachLocked(a.Seq > b.known.seq && a.Seq-b.known.seq > sent-b.known.sent)
		}
		if err := b.askAgainLocked(n); err != nil {
			b.failLocked(err)
			return
		}
	}
	if a.Duplicate {
		b.stats.Duplicates++
	} else {
		b.known = known{n, sent, a.Seq}
		if n >= b.lastAckNo {
			b.lastAck, b.lastAckNo = id, n
		}
	}
	b.attempts = 0
	b.progress = time.Now()
	// Wake the publisher when it can go on for a while, not for every slot.
	if left := b.win.len(); left == 0 || left <= len(b.win.slots)*3/4 {
		b.wakeLocked()
	}
}

// known is a message that is known to be in the stream.
type known struct {
	n    uint64 // its number in the window
	sent uint64 // how many were sent in this epoch, itself included
	seq  uint64 // its sequence in the stream; 0 for none yet
}

// refusedLocked takes the answer that a message was not stored.
func (b *Bus) refusedLocked(n uint64, err error) {
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != codeTooLarge {
		b.failLocked(fmt.Errorf("publish: %w", err))
		return
	}
	b.rejectLocked(n, err)
	if err := b.askAgainLocked(n); err != nil {
		b.failLocked(err)
		return
	}
	b.progress = time.Now()
	b.wakeLocked() // nothing else may come
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
