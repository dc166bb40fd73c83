package natsbus

import (
	"net"
	"sync/atomic"

	"github.com/nats-io/nats.go"
)

// dialer makes the bus's connections. One that is given up for another takes with
// it what the network has not carried yet: else the system would go on sending it,
// for minutes where a route is gone, and an old view could be written after a newer
// one, an old message stored when its id is forgotten.
type dialer struct {
	closing *atomic.Bool // the bus is: what was written is to arrive
}

// Dial implements [nats.CustomDialer].
func (d dialer) Dial(network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: nats.DefaultTimeout}).Dial(network, address)
	if err != nil {
		return nil, err
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		return &conn{tcp, d.closing}, nil
	}
	return c, nil
}

type conn struct {
	*net.TCPConn
	closing *atomic.Bool
}

func (c *conn) Close() error {
	if !c.closing.Load() {
		_ = c.SetLinger(0)
	}
	return c.TCPConn.Close()
}
