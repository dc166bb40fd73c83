package store

import (
	"fmt"

	"github.com/callstate/callstate/events"
)

// Limits of what [Encode] accepts, so that the stores refuse the same batches.
const (
	MaxRecord = 16 << 20 // bytes of one event or one quarantined frame
	MaxBatch  = 64 << 20 // bytes of one batch
	MaxKey    = 8 << 10  // bytes of account and call id together
)

// Records are a batch in stored form, for implementations of [Store].
type Records struct {
	buf  []byte
	ends []int // of each record in buf: the events, then the quarantine
	n    int   // events
}

// Encode fills r with b's records, using r's memory again. An error matches
// [ErrInvalid].
func (r *Records) Encode(b *events.Batch) error {
	r.buf, r.ends, r.n = r.buf[:0], r.ends[:0], len(b.Events)
	for i := range b.Events {
		e := &b.Events[i]
		if n := len(e.Account) + len(e.Call); n > MaxKey {
			return fmt.Errorf("%w: event %s: account and call id of %d bytes", ErrInvalid, e.ID, n)
		}
		buf, err := events.AppendBinary(r.buf, e)
		if err != nil {
			return fmt.Errorf("%w: event %s: %w", ErrInvalid, e.ID, err)
		}
		if err := r.end(buf); err != nil {
			return fmt.Errorf("%w: event %s", err, e.ID)
		}
	}
	for i := range b.Quarantine {
		if err := r.end(events.AppendQuarantined(r.buf, &b.Quarantine[i])); err != nil {
			return fmt.Errorf("%w: quarantined frame", err)
		}
	}
	return nil
}

func (r *Records) end(buf []byte) error {
	if n := len(buf) - len(r.buf); n > MaxRecord {
		return fmt.Errorf("%w: record of %d bytes", ErrInvalid, n)
	}
	if len(buf) > MaxBatch {
		return fmt.Errorf("%w: %w: %d bytes", ErrInvalid, ErrTooLarge, len(buf))
	}
	r.buf, r.ends = buf, append(r.ends, len(buf))
	return nil
}

// Event returns the stored form of the batch's event i. It is valid until the
// next call of Encode.
func (r *Records) Event(i int) []byte { return r.at(i) }

// Quarantined returns the stored form of the batch's quarantined frame i. It is
// valid until the next call of Encode.
func (r *Records) Quarantined(i int) []byte { return r.at(r.n + i) }

// Size is the number of bytes of all records.
func (r *Records) Size() int { return len(r.buf) }

func (r *Records) at(i int) []byte {
	from := 0
	if i > 0 {
		from = r.ends[i-1]
	}
	return r.buf[from:r.ends[i]:r.ends[i]]
}
