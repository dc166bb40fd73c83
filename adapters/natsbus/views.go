package natsbus

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events/cti"
)

// viewsAtOnce bounds the KV writes that wait for confirmation together.
const viewsAtOnce = 1024

// viewKey names a view; call is empty for a line's.
type viewKey struct{ account, call string }

// view is the latest state of one key that was not written yet.
type view struct {
	key          viewKey
	position     uint64
	seq          uint64 // of the call's or the line's last CTI event
	conversation string
	call         *cti.Call
	line         *cti.Line
}

// views conflates: it keeps the latest state of each key that changed since it
// was written. Its memory is that of the keys that changed.
type views struct {
	calls, lines string // subjects of the buckets, "$KV.<bucket>."
	inbox        string
	okCalls      []byte
	okLines      []byte
	msg          nats.Msg // filled again and again by Run
	logID        []string
	posText      []string
	ttl          []string // Nats-TTL of an ended call, nil for none
	buf, value   []byte
	sorted       []view
	kick         chan struct{} // size 1: a flush that is already asked for is enough
	writes       atomic.Uint64
	log          *slog.Logger
	flushing     sync.Mutex // held while views are written; taken before Bus.mu

	mu       sync.Mutex // guards the following
	dirty    map[viewKey]view
	writing  map[viewKey]view // what flush took; empty between flushes
	taken    uint64           // every result through this position was taken
	written  uint64           // every view through this position, or a later one, is in its bucket
	callsLow uint64           // the calls through this position are in their bucket
	linesLow uint64
	lowKnown bool
	lineAt   uint64 // the last line written: its bucket holds it, or has lost its end
	round    uint64 // counts the batches of writes; names the one whose confirmations count
	missing  int    // confirmations that the round waits for
	err      error  // the round's
	done     chan struct{}
}

func newViews(o Options, inbox string, log *slog.Logger) *views {
	v := &views{
		calls: "$KV." + CallsBucket(o.Prefix) + ".", lines: "$KV." + LinesBucket(o.Prefix) + ".",
		okCalls: fmt.Appendf(nil, `{"stream":%q,"seq":`, "KV_"+CallsBucket(o.Prefix)),
		okLines: fmt.Appendf(nil, `{"stream":%q,"seq":`, "KV_"+LinesBucket(o.Prefix)),
		inbox:   inbox, log: log, kick: make(chan struct{}, 1),
		logID: []string{headerValue(o.LogID)}, posText: []string{""},
		dirty: map[viewKey]view{}, writing: map[viewKey]view{},
	}
	if o.EndedTTL > 0 {
		v.ttl = []string{o.EndedTTL.Round(time.Second).String()}
	}
	v.msg.Header = nats.Header{HeaderLog: v.logID, HeaderPosition: v.posText}
	return v
}

// take notes the views of rs, which come in order of position.
func (v *views) take(rs []engine.Result) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range rs {
		r := &rs[i]
		if r.Position <= v.taken {
			continue // published again: taken before, written or still dirty
		}
		v.taken = r.Position
		if r.Call != nil && r.Position > v.callsLow {
			k := viewKey{r.Account, r.CallID}
			v.dirty[k] = view{key: k, position: r.Position, seq: r.Seq, conversation: r.Conversation, call: r.Call}
		}
		if r.Line != nil && r.Position > v.linesLow {
			k := viewKey{account: r.Account}
			v.dirty[k] = view{key: k, position: r.Position, seq: r.LineSeq, line: r.Line}
		}
	}
	v.settleLocked()
}

// resume begins anew after what the buckets hold: the calls through callsLow, the
// lines through linesLow. What waited to be written comes again.
func (v *views) resume(callsLow, linesLow uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.dirty)
	v.callsLow, v.linesLow, v.lowKnown, v.lineAt = callsLow, linesLow, true, linesLow
	v.taken = min(callsLow, linesLow)
	v.written = v.taken
}

// lastLine is the position of the last line written by this process.
func (v *views) lastLine() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.lineAt
}

// settleLocked moves written on where nothing waits to be written.
func (v *views) settleLocked() {
	if len(v.dirty) == 0 && len(v.writing) == 0 {
		v.written = max(v.written, v.taken)
	}
}

func (v *views) writtenThrough() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.written
}

// hurry asks for a flush before the interval is over.
func (v *views) hurry() {
	select {
	case v.kick <- struct{}{}:
	default:
	}
}

// fail ends a round under way.
func (v *views) fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.finishLocked(err)
}

func (v *views) finishLocked(err error) {
	if v.done != nil {
		v.err = err
		close(v.done)
		v.done = nil
	}
}

// flushViews writes what changed, each key once, in order of position, and
// returns when all of it is confirmed. Run alone calls it.
func (b *Bus) flushViews(ctx context.Context) error {
	v := b.views
	v.flushing.Lock()
	defer v.flushing.Unlock()
	v.mu.Lock()
	if len(v.dirty) == 0 {
		v.mu.Unlock()
		return nil
	}
	v.dirty, v.writing = v.writing, v.dirty
	through := v.taken
	v.sorted = v.sorted[:0]
	for _, w := range v.writing {
		v.sorted = append(v.sorted, w)
	}
	v.mu.Unlock()

	slices.SortFunc(v.sorted, func(x, y view) int {
		return cmp.Or(cmp.Compare(x.position, y.position), cmp.Compare(y.key.call, x.key.call))
	})
	var err error
	for batch := range slices.Chunk(v.sorted, viewsAtOnce) {
		if err = v.write(ctx, b.nc, batch, b.o.AckTimeout); err != nil {
			break
		}
	}

	v.mu.Lock()
	if err != nil { // write again, unless there is something newer
		for k, w := range v.writing {
			if _, ok := v.dirty[k]; !ok {
				v.dirty[k] = w
			}
		}
	} else {
		v.written = max(v.written, through)
		for i := range v.sorted {
			if v.sorted[i].line != nil {
				v.lineAt = max(v.lineAt, v.sorted[i].position)
			}
		}
	}
	clear(v.writing)
	clear(v.sorted)
	if len(v.sorted) > 1<<16 { // after a storm, give the memory back
		v.writing, v.sorted = map[viewKey]view{}, nil
	}
	v.settleLocked()
	v.mu.Unlock()
	b.wake()
	return err
}

// write sends one batch and waits for its confirmations.
func (v *views) write(ctx context.Context, nc *nats.Conn, batch []view, patience time.Duration) error {
	v.mu.Lock()
	v.round++
	v.missing, v.err = len(batch), nil
	done := make(chan struct{})
	v.done = done
	round := v.round
	reply := v.inbox + ".v." + strconv.FormatUint(round, 10)
	v.mu.Unlock()
	for i := range batch {
		err := send(nc, v.encode(&batch[i], reply))
		if tooLarge(err) {
			v.log.Error("view too large for nats", "err", err, "account", batch[i].key.account, "call_id", batch[i].key.call)
			v.confirm(round, nil)
			continue
		}
		if err != nil {
			v.fail(err)
			break
		}
		v.writes.Add(1)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		v.fail(ErrAckTimeout)
	case <-ctx.Done():
		v.fail(context.Cause(ctx))
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.err
}

// encode returns the KV write of w, valid until the next call.
func (v *views) encode(w *view, reply string) *nats.Msg {
	bucket := v.lines
	v.value = append(v.value[:0], `{"position":`...)
	v.value = strconv.AppendUint(v.value, w.position, 10)
	if w.call != nil {
		v.value = append(v.value, `,"seq":`...)
	} else {
		v.value = append(v.value, `,"lineSeq":`...)
	}
	v.value = strconv.AppendUint(v.value, w.seq, 10)
	_, domain := cti.SplitAccount(w.key.account)
	v.value = append(v.value, `,"domain":`...)
	v.value = cti.AppendString(v.value, domain)
	v.value = append(v.value, `,"account":`...)
	v.value = cti.AppendString(v.value, w.key.account)
	delete(v.msg.Header, jetstream.MsgTTLHeader)
	if w.call != nil {
		bucket = v.calls
		v.value = append(v.value, `,"callId":`...)
		v.value = cti.AppendString(v.value, w.key.call)
		if w.conversation != "" {
			v.value = append(v.value, `,"conversation":`...)
			v.value = cti.AppendString(v.value, w.conversation)
		}
		v.value = append(v.value, `,"call":`...)
		v.value = cti.AppendCall(v.value, w.call)
		if v.ttl != nil && w.call.EndedAt != 0 {
			v.msg.Header[jetstream.MsgTTLHeader] = v.ttl
		}
	} else {
		v.value = append(v.value, `,"line":`...)
		v.value = cti.AppendLine(v.value, w.line)
	}
	v.value = append(v.value, '}')
	v.buf = append(append(v.buf[:0], bucket...), cti.LineKey(w.key.account)...)
	if w.call != nil {
		v.buf = append(append(v.buf, '.'), cti.Token(w.key.call)...)
	}
	v.posText[0] = strconv.FormatUint(w.position, 10)
	v.msg.Subject, v.msg.Reply, v.msg.Data = string(v.buf), reply, v.value
	return &v.msg
}

// onAck takes the confirmations of KV writes.
func (v *views) onAck(m *nats.Msg) {
	ok := v.okCalls
	if !bytes.HasPrefix(m.Data, ok) {
		ok = v.okLines
	}
	_, err := parseAck(m, ok)
	round, bad := strconv.ParseUint(m.Subject[len(v.inbox)+len(".v."):], 10, 64)
	if bad != nil {
		return
	}
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == codeTooLarge {
		v.log.Error("view too large for its bucket", "err", err)
		err = nil
	}
	v.confirm(round, err)
}

// confirm counts a confirmation, or ends the round with an error. One of a round
// that is over tells nothing of the next.
func (v *views) confirm(round uint64, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.done == nil || round != v.round {
		return
	}
	if err != nil {
		v.finishLocked(err)
	} else if v.missing--; v.missing == 0 {
		v.finishLocked(nil)
	}
}
