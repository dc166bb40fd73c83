package natsbus

import "errors"

// Errors of the bus.
var (
	// ErrNotReady is matched by the error that Publish and Flush return while the
	// bus is away: what was not confirmed is to be published again, from where
	// Resume says.
	ErrNotReady = errors.New("natsbus: not ready")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("natsbus: closed")
	// ErrConnectionClosed is matched when the server has closed the connection and the
	// client does not connect again.
	ErrConnectionClosed = errors.New("natsbus: the server has closed the connection for good")
	// ErrAckTimeout is the cause when the server confirms nothing for AckTimeout.
	ErrAckTimeout = errors.New("natsbus: no confirmation from JetStream in time")
)

// Errors of the embedded server.
var (
	// ErrPortInUse is matched when another process listens on the port.
	ErrPortInUse = errors.New("natsbus: port in use")
	// ErrStoreDir is matched when the store folder cannot be made or written.
	ErrStoreDir = errors.New("natsbus: store folder not writable")
	// ErrOpen is matched when a server without users would listen for others than
	// this machine: everybody there could command the PBX.
	ErrOpen = errors.New("natsbus: not listening for the network without users")
)

// HintError is an error with advice for the operator.
type HintError struct {
	Err  error
	Hint string // one sentence: what to do
}

func (e *HintError) Error() string { return e.Err.Error() + " (" + e.Hint + ")" }

func (e *HintError) Unwrap() error { return e.Err }
