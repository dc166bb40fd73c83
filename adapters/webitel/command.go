package webitel

import (
	"fmt"

	"github.com/callstate/callstate/engine"
)

// EncodeCommand turns the wish of a policy into the server's command. It returns
// an error that matches [ErrArgument] for an argument that the server must not see.
func EncodeCommand(c engine.Command) (Command, error) {
	switch c.Method {
	case engine.MethodHangup:
		return Hangup(c.Leg, c.Cause)
	case engine.MethodUnhold:
		return Unhold(c.Leg)
	default:
		return Command{}, fmt.Errorf("%w: method %q", ErrArgument, c.Method)
	}
}
