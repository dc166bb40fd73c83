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

// provision sees to it that the stream and the buckets are there.
func (b *Bus) provision(ctx context.Context) (jetstream.Stream, error) {
	stream, err := b.provisionStream(ctx)
	if err != nil {
		return nil, explain(err)
	}
	if err := b.provisionBucket(ctx, CallsBucket(b.o.Prefix), &b.made.calls); err != nil {
		return nil, explain(err)
	}
	if err := b.provisionBucket(ctx, LinesBucket(b.o.Prefix), &b.made.lines); err != nil {
		return nil, explain(err)
	}
	return stream, nil
}

// noteMade sets one of made's members.
func (b *Bus) noteMade(what *bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	*what = true
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
	if b.o.Server != nil && !b.o.Server.syncAlways {
		// Our own server ends when we do, and then the end of its stream decides from
		// where to publish: it need not write each message down by itself.
		want.PersistMode = jetstream.AsyncPersistMode
	}
	s, err := b.js.Stream(ctx, b.o.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s, err = b.js.CreateStream(ctx, want)
		if err == nil {
			b.noteMade(&b.made.stream)
			b.log.Info("stream created", "stream", b.o.Stream)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", b.o.Stream, err)
	}
	// Of a stream that is there we change what our options say and leave the
	// rest (replicas, placement, mirrors) to its operator. How it persists cannot be
	// changed.
	have := s.CachedInfo().Config
	if have.PersistMode == jetstream.AsyncPersistMode && b.o.Server != nil && b.o.Server.syncAlways {
		b.log.Warn("the stream was made without syncing each message, and stays so until it is made anew", "stream", b.o.Stream)
	}
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

func (b *Bus) provisionBucket(ctx context.Context, bucket string, made *bool) error {
	want := jetstream.KeyValueConfig{
		Bucket: bucket, Description: "latest views of callstate", History: 1, Storage: jetstream.FileStorage,
		Replicas: b.o.Replicas, LimitMarkerTTL: markerTTL,
	}
	kv, err := b.js.KeyValue(ctx, bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		if _, err = b.js.CreateKeyValue(ctx, want); err == nil {
			b.noteMade(made)
			b.log.Info("bucket created", "bucket", bucket)
		}
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

// floorDepth is how far viewFloor looks back for a write of ours among the marks
// of views that expired.
const floorDepth = 64

// viewFloor finds the position through which this log's views are in the bucket:
// views are written in order, so the last one's tells.
func (b *Bus) viewFloor(ctx context.Context, bucket string) (bucketHolding, error) {
	s, err := b.js.Stream(ctx, "KV_"+bucket)
	if err != nil {
		return bucketHolding{}, fmt.Errorf("bucket %s: %w", bucket, err)
	}
	st := s.CachedInfo().State
	h := bucketHolding{fresh: st.LastSeq == 0}
	for seq := st.LastSeq; seq > 0 && seq >= st.FirstSeq && st.LastSeq-seq < floorDepth; seq-- {
		m, err := s.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return h, fmt.Errorf("bucket %s: %w", bucket, err)
		}
		if floor, ok := floorOf(m.Header, b.o.LogID); ok {
			h.floor = floor
			break
		}
	}
	return h, nil
}

// floorOf reads a view's position, where it is one of our log's.
func floorOf(h nats.Header, log string) (uint64, bool) {
	if log == "" || h.Get(HeaderLog) != headerValue(log) {
		return 0, false
	}
	n, err := strconv.ParseUint(h.Get(HeaderPosition), 10, 64)
	return n, err == nil
}
