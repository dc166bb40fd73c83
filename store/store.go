// Package store is the contract of the log: what is appended in one step is
// durable when Append returns, is read back in order of position or of one call,
// and is never changed.
//
// [Store] is implemented by store/memory and store/bolt; store/storetest is the
// one suite that both must pass.
package store

import (
	"context"

	"github.com/callstate/callstate/events"
)

// Store is one log with its checkpoints and its quarantine. All methods are safe
// for concurrent use.
type Store interface {
	// ID is the log's own UUID, made with it and never changed. It begins the
	// message ids on NATS, so that a new log is not taken for a repeat.
	ID() string

	// Append stores a batch in one step and returns when it is durable. It
	// assigns consecutive positions, from Last()+1, to b.Events in place, and
	// numbers to b.Quarantine.
	//
	// Append is all or nothing. After [ErrFull] nothing was stored and the same
	// batch may be appended again once there is space; any other error leaves
	// the outcome unknown until the store is opened anew.
	Append(ctx context.Context, b *events.Batch) error

	// Last is the position of the last durable event, 0 for an empty log.
	Last() uint64

	// Read calls fn for each event from position from (at least 1) to the last
	// one stored when Read was called, in order. An error of fn ends the reading
	// and is returned as it is. The event and what it refers to belong to fn.
	Read(ctx context.Context, from uint64, fn func(*events.Event) error) error

	// ReadCall is Read for the events of one call, all of them.
	ReadCall(ctx context.Context, key events.CallKey, fn func(*events.Event) error) error

	// HasCall reports whether the log holds an event of that call.
	HasCall(key events.CallKey) (bool, error)

	// Calls calls fn for every call of the log with the positions of its first
	// and last event, in order of account and call id. An empty account means all.
	Calls(ctx context.Context, account string, fn func(key events.CallKey, first, last uint64) error) error

	// Frames returns the totals that the last batch stored.
	Frames() events.FrameCounts

	// Checkpoint returns how far the named reader has come, 0 if it is unknown.
	Checkpoint(name string) (uint64, error)

	// SetCheckpoint notes how far the named reader has come. It needs no sync of
	// its own: after a crash an earlier value may come back, never a later one.
	SetCheckpoint(name string, position uint64) error

	// SetSnapshot keeps a state that the events through position add up to. Those
	// before are kept too, as many as there is room for. Appends do not wait for it.
	SetSnapshot(position uint64, state []byte) error

	// Snapshot returns the latest state kept of a position that is not after most.
	// The position is 0 where there is none that can be used: a snapshot spares
	// reading, the log does without.
	Snapshot(most uint64) (position uint64, state []byte, err error)

	// ForgetSnapshots removes all of them.
	ForgetSnapshots() error

	// Base is the state that the events which retention dropped add up to, and the
	// position of the last of those: 0 where none was dropped.
	Base() (position uint64, state []byte, err error)

	// Quarantine calls fn for each frame kept there, from number from, in order.
	Quarantine(ctx context.Context, from uint64, fn func(*events.Quarantined) error) error

	// Close ends the store. It waits for calls under way; later ones return [ErrClosed].
	Close() error
}
