package store

import (
	"errors"

	"github.com/callstate/callstate/events"
)

// Errors of opening.
var (
	// ErrInUse is returned when another process has the folder open.
	ErrInUse = errors.New("store: data folder is in use by another process")
	// ErrForeign is returned when the folder holds a file that is no log of ours.
	ErrForeign = errors.New("store: not a callstate log")
	// ErrVersion is returned when a newer version wrote the log.
	ErrVersion = errors.New("store: log was written by a newer version")
	// ErrDenied is returned when the folder cannot be read or written.
	ErrDenied = errors.New("store: no permission")
	// ErrMissing is returned when a log is opened for reading only and there is none.
	ErrMissing = errors.New("store: no log")
	// ErrDamaged is returned when what is read is not what was written.
	ErrDamaged = errors.New("store: log is damaged")
)

// Errors of use.
var (
	// ErrFull is returned by Append when the disk is full. Nothing was stored.
	ErrFull = events.ErrLogFull
	// ErrInvalid is returned by Append for a batch that cannot be stored at any
	// time: an event without a registered payload, or one too large. Nothing was
	// stored. Where the batch as a whole is too large, ErrTooLarge matches as well.
	ErrInvalid = errors.New("store: batch cannot be stored")
	// ErrTooLarge is returned by Append for a batch of more than MaxBatch bytes.
	ErrTooLarge = events.ErrBatchTooLarge
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("store: closed")
	// ErrReadOnly is returned when a log opened for reading is written.
	ErrReadOnly = errors.New("store: opened for reading only")
)

// HintError is an error that tells the operator what to do. It matches the
// error that it wraps.
type HintError struct {
	Err  error
	Hint string // what to do, one sentence
}

func (e *HintError) Error() string { return e.Err.Error() + ": " + e.Hint }

func (e *HintError) Unwrap() error { return e.Err }
