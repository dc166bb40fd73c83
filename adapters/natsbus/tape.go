package natsbus

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// fetchAtOnce bounds one request for messages while a stream is read.
const fetchAtOnce = 4096

// tape reads a stream as far as a sequence.
type tape struct {
	ctx   context.Context
	c     jetstream.Consumer
	batch jetstream.MessageBatch
	msgs  <-chan jetstream.Msg
	got   bool
	empty int // requests in a row that brought nothing
	end   uint64
	seq   uint64
}

// newTape reads as far as end, or where that is 0 to what is the stream's end now.
func newTape(ctx context.Context, s jetstream.Stream, cfg jetstream.OrderedConsumerConfig, end uint64) (*tape, error) {
	if end == 0 {
		info, err := s.Info(ctx)
		if err != nil {
			return nil, err
		}
		end = info.State.LastSeq
	}
	cfg.InactiveThreshold = time.Minute
	cfg.MaxResetAttempts = 2 // else it tries for ever, whatever ctx says
	c, err := s.OrderedConsumer(ctx, cfg)
	if err != nil {
		return nil, err
	}
	t := &tape{ctx: ctx, c: c, end: end}
	if cfg.OptStartSeq > 0 {
		t.seq = cfg.OptStartSeq - 1
	}
	return t, nil
}

// maxEmpty is how many requests in a row may bring nothing, each within a second,
// while the server says that there is more.
const maxEmpty = 10

var errNoMessages = errors.New("natsbus: the server does not send what the stream holds")

// next returns the next message, nil at the end.
func (t *tape) next() (jetstream.Msg, error) {
	for t.seq < t.end {
		if t.msgs == nil {
			if err := t.fetch(); err != nil {
				return nil, err
			}
		}
		var m jetstream.Msg
		var ok bool
		select {
		case m, ok = <-t.msgs:
		case <-t.ctx.Done():
			return nil, context.Cause(t.ctx)
		}
		if !ok {
			more, err := t.more()
			if !more {
				return nil, err
			}
			continue
		}
		meta, err := m.Metadata()
		if err != nil {
			continue // not a message of the stream
		}
		t.got, t.seq = true, meta.Sequence.Stream
		if t.seq > t.end {
			return nil, nil
		}
		return m, nil
	}
	return nil, nil
}

func (t *tape) fetch() error {
	if t.ctx.Err() != nil {
		return context.Cause(t.ctx)
	}
	n := fetchAtOnce
	if left := t.end - t.seq; left < fetchAtOnce {
		n = int(left)
	}
	batch, err := t.c.FetchNoWait(n)
	if err != nil {
		return err
	}
	t.batch, t.msgs, t.got = batch, batch.Messages(), false
	return nil
}

// more reports whether there is more behind a batch that has ended. One that is
// empty ended in silence, since the server was slow, or because what is left was
// deleted.
func (t *tape) more() (bool, error) {
	t.msgs = nil
	if err := t.batch.Error(); err != nil {
		return false, err
	}
	if t.got {
		t.empty = 0
		return true, nil
	}
	info, err := t.c.Info(t.ctx)
	if err != nil || info.NumPending == 0 {
		return false, err
	}
	if t.empty++; t.empty >= maxEmpty {
		return false, errNoMessages
	}
	return true, nil
}
