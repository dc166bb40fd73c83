package natsbus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// markerTTL is how long a bucket keeps the mark of a view that expired, for
// watchers that were away.
const markerTTL = 10 * time.Minute

// errOverlap is JetStream's refusal of a stream whose subjects another one has
// (JSStreamSubjectOverlapErr).
const errOverlap jetstream.ErrorCode = 10065

// provision sees to it that the stream and the buckets are there, and reads back
// which messages after the position are stored already.
func (b *Bus) provision(ctx context.Context, after uint64) (map[storedID]struct{}, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	stream, err := b.provisionStream(ctx)
	if err != nil {
		return nil, explain(err)
	}
	calls, lines := CallsBucket(b.o.Prefix), LinesBucket(b.o.Prefix)
	for _, bucket := range []string{calls, lines} {
		if err := b.provisionBucket(ctx, bucket); err != nil {
			return nil, explain(err)
		}
	}
	if !b.views.knowsFloor() {
		c, err := b.viewFloor(ctx, calls)
		if err != nil {
			return nil, err
		}
		l, err := b.viewFloor(ctx, lines)
		if err != nil {
			return nil, err
		}
		b.views.setFloor(c, l)
	}
	return b.recall(ctx, stream, after)
}

func (b *Bus) provisionStream(ctx context.Context) (jetstream.Stream, error) {
	want := jetstream.StreamConfig{
		Name:        b.o.Stream,
		Description: "CTI events of callstate",
		Subjects:    []string{b.o.Prefix + ".>"},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardOld,
		Storage:     jetstream.FileStorage,
		Replicas:    b.o.Replicas,
		MaxAge:      max(b.o.MaxAge, 0),
		MaxBytes:    -1,
		Duplicates:  duplicateWindow,
		AllowDirect: true,
	}
	if b.o.MaxBytes > 0 {
		want.MaxBytes = b.o.MaxBytes
	}
	s, err := b.js.Stream(ctx, b.o.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s, err = b.js.CreateStream(ctx, want)
		if err == nil {
			b.log.Info("stream created", "stream", b.o.Stream)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", b.o.Stream, err)
	}
	// Of a stream that is there we change what our options say and leave the
	// rest (replicas, placement, mirrors) to its operator.
	have := s.CachedInfo().Config
	if len(have.Subjects) == 1 && have.Subjects[0] == want.Subjects[0] && have.MaxAge == want.MaxAge &&
		have.MaxBytes == want.MaxBytes && have.Duplicates == want.Duplicates && have.Discard == want.Discard {
		return s, nil
	}
	have.Subjects, have.MaxAge, have.MaxBytes = want.Subjects, want.MaxAge, want.MaxBytes
	have.Duplicates, have.Discard = want.Duplicates, want.Discard
	if s, err = b.js.UpdateStream(ctx, have); err != nil {
		return nil, fmt.Errorf("stream %s: update: %w", b.o.Stream, err)
	}
	return s, nil
}

func (b *Bus) provisionBucket(ctx context.Context, bucket string) error {
	want := jetstream.KeyValueConfig{
		Bucket: bucket, Description: "latest views of callstate", History: 1, Storage: jetstream.FileStorage,
		Replicas: b.o.Replicas, LimitMarkerTTL: markerTTL,
	}
	kv, err := b.js.KeyValue(ctx, bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		if b.views.knowsFloor() {
			b.log.Warn("bucket vanished and is made again; views return as they change", "bucket", bucket)
		}
		_, err = b.js.CreateKeyValue(ctx, want)
	} else if err == nil {
		var st jetstream.KeyValueStatus
		if st, err = kv.Status(ctx); err == nil && st.LimitMarkerTTL() == 0 {
			_, err = b.js.UpdateKeyValue(ctx, want) // an ended call's own TTL needs it
		}
	}
	if err != nil {
		return fmt.Errorf("bucket %s: %w", bucket, err)
	}
	return nil
}

// explain adds a hint to the errors that an operator can do something about.
func explain(err error) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return &HintError{err, "start nats-server with -js, or give the account JetStream limits"}
	case errors.Is(err, jetstream.ErrLimitMarkerTTLNotSupported):
		return &HintError{err, "nats-server 2.11 or later is needed"}
	case errors.As(err, &api) && api.ErrorCode == errOverlap:
		return &HintError{err, "another stream has subjects under this prefix: choose another prefix or stream name"}
	}
	return err
}

// recall reads the ids of the last messages of the stream, so that what is
// there is not sent again however long the bus was away; JetStream itself knows
// an id for two minutes only. It looks back over twice the window, which holds
// all that can be unconfirmed unless other logs wrote as much in between.
func (b *Bus) recall(ctx context.Context, s jetstream.Stream, after uint64) (map[storedID]struct{}, error) {
	if b.o.LogID == "" {
		return nil, nil
	}
	info, err := s.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", b.o.Stream, err)
	}
	st := info.State
	if st.Msgs == 0 {
		return nil, nil
	}
	back := uint64(2 * b.o.Window)
	from := st.FirstSeq
	if st.LastSeq > back {
		from = max(from, st.LastSeq-back+1)
	}
	c, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from, HeadersOnly: true,
		InactiveThreshold: time.Minute,
	})
	if err != nil {
		return nil, fmt.Errorf("read back from stream %s: %w", b.o.Stream, err)
	}
	stored := map[storedID]struct{}{}
	for seq := from - 1; seq < st.LastSeq; {
		batch, err := c.FetchNoWait(int(min(back, st.LastSeq-seq)))
		if err != nil {
			return nil, fmt.Errorf("read back from stream %s: %w", b.o.Stream, err)
		}
		got := false
		for m := range batch.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				continue
			}
			got, seq = true, meta.Sequence.Stream
			if id, ok := parseID(m.Headers().Get(jetstream.MsgIDHeader), b.o.LogID); ok && id.position > after {
				stored[id] = struct{}{}
			}
		}
		if err := batch.Error(); err != nil {
			return nil, fmt.Errorf("read back from stream %s: %w", b.o.Stream, err)
		}
		if !got { // the last messages were deleted meanwhile
			break
		}
	}
	return stored, nil
}

// floorDepth is how far viewFloor looks back for a write of ours among the marks
// of views that expired.
const floorDepth = 64

// viewFloor is the position through which an earlier run of this log wrote the
// bucket's views: views are written in order, so the last one's tells. 0 means
// that none is known, and views are written as they come.
func (b *Bus) viewFloor(ctx context.Context, bucket string) (uint64, error) {
	s, err := b.js.Stream(ctx, "KV_"+bucket)
	if err != nil {
		return 0, fmt.Errorf("bucket %s: %w", bucket, err)
	}
	st := s.CachedInfo().State
	for seq := st.LastSeq; seq > 0 && seq >= st.FirstSeq && st.LastSeq-seq < floorDepth; seq-- {
		m, err := s.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("bucket %s: %w", bucket, err)
		}
		if floor, ok := floorOf(m.Header, b.o.LogID); ok {
			return floor, nil
		}
	}
	return 0, nil
}

// floorOf reads a view's position; one of another log is none of ours.
func floorOf(h nats.Header, log string) (uint64, bool) {
	if h.Get(HeaderPosition) == "" {
		return 0, false
	}
	if log == "" || h.Get(HeaderLog) != headerValue(log) {
		return 0, true
	}
	n, err := strconv.ParseUint(h.Get(HeaderPosition), 10, 64)
	return n, err == nil
}

func (v *views) knowsFloor() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.lowKnown
}

func (v *views) setFloor(calls, lines uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.callsLow, v.linesLow, v.lowKnown = calls, lines, true
}
