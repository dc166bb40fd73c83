package vertotest

import (
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"
)

// network is what a leg's media goes through: the machine's own network, but with
// one port for the life of the leg, as FreeSWITCH keeps it, and with a switch that
// lets nothing pass.
type network struct {
	*stdnet.Net

	port int         // 0 until the first socket is open
	cut  atomic.Bool // nothing goes out, nothing that comes in is seen
}

// ListenUDP opens the leg's port again. Another program may have taken it in the
// meantime: then the leg moves to a new one.
func (n *network) ListenUDP(netw string, addr *net.UDPAddr) (transport.UDPConn, error) {
	at := *addr
	at.Port = n.port
	c, err := net.ListenUDP(netw, &at)
	if err != nil && n.port != 0 {
		c, err = net.ListenUDP(netw, addr)
	}
	if err != nil {
		return nil, err
	}
	n.port = c.LocalAddr().(*net.UDPAddr).Port
	return &udpConn{c, n}, nil
}

// udpConn has the methods by which ICE reads and writes; the others are those of
// the socket.
type udpConn struct {
	*net.UDPConn
	n *network
}

// ReadFromAddrPort reads the next packet that the leg may see.
func (c *udpConn) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil || !c.n.cut.Load() {
			return n, from, err
		}
	}
}

// WriteToAddrPort writes a packet, or loses it.
func (c *udpConn) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if c.n.cut.Load() {
		return len(b), nil
	}
	return c.WriteToUDPAddrPort(b, to)
}
