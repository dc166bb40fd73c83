package events

import "errors"

// ErrLogFull is matched by a store's refusal to append because the disk is full.
// Nothing was stored; the same batch may be appended again once there is space.
var ErrLogFull = errors.New("log: disk full")

// ErrBatchTooLarge is matched by a store's refusal of a batch that is more than it
// takes at once. Nothing was stored; the batch may be appended in parts.
var ErrBatchTooLarge = errors.New("log: batch too large")

// ErrLogDropped is matched by what a log answers about events that retention has
// dropped, also while they were read.
var ErrLogDropped = errors.New("log: dropped by retention")

// Batch is what is stored in one step: the events of a number of frames, the
// frames that could not be understood, and how every frame so far was disposed
// of. It is durable as a whole or not at all, so that the counters reconcile
// with the log at every moment (invariant I2).
type Batch struct {
	Events     []Event
	Quarantine []Quarantined
	// Frames are the totals of the whole log after this batch. A batch that
	// leaves them zero keeps the stored totals.
	Frames FrameCounts
}

// Empty reports whether the batch holds nothing to store.
func (b *Batch) Empty() bool {
	return len(b.Events) == 0 && len(b.Quarantine) == 0 && b.Frames == FrameCounts{}
}

// Quarantined is a frame that could not be understood, kept verbatim.
type Quarantined struct {
	Number     uint64 `json:"number"` // from 1, assigned by the store
	ReceivedAt Time   `json:"receivedAt"`
	Source     Source `json:"source"`
	Reason     string `json:"reason"` // a short constant word, such as "not-json"
	Detail     string `json:"detail,omitempty"`
	Frame      []byte `json:"frame"`
}

// FrameCounts says what became of the frames received. Received equals the sum
// of the others once no frame is under way (invariant I2).
type FrameCounts struct {
	Received    uint64 `json:"received"`
	Recorded    uint64 `json:"recorded"`  // gave at least one event
	NoOps       uint64 `json:"noOps"`     // known to mean nothing for the model
	Duplicates  uint64 `json:"duplicate"` // the same frame seen before
	Quarantined uint64 `json:"quarantined"`
}

// Disposed is the number of frames whose fate is known.
func (c FrameCounts) Disposed() uint64 {
	return c.Recorded + c.NoOps + c.Duplicates + c.Quarantined
}

// Reconciles reports whether every frame received is accounted for.
func (c FrameCounts) Reconciles() bool { return c.Received == c.Disposed() }

// Add returns the sums of c and d.
func (c FrameCounts) Add(d FrameCounts) FrameCounts {
	return FrameCounts{
		Received:    c.Received + d.Received,
		Recorded:    c.Recorded + d.Recorded,
		NoOps:       c.NoOps + d.NoOps,
		Duplicates:  c.Duplicates + d.Duplicates,
		Quarantined: c.Quarantined + d.Quarantined,
	}
}
