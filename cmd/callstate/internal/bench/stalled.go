package bench

import (
	"context"
	"fmt"
	"net"
	"strings"
)

// pathStalled is P14: a subscriber that is connected, has subscribed to everything
// and reads nothing.
func (b *Bench) pathStalled(ctx context.Context) ([]Row, error) {
	with, err := b.newPath(ctx, DaemonOptions{})
	if err != nil {
		return nil, err
	}
	defer with.close()
	without, err := b.newPath(ctx, DaemonOptions{})
	if err != nil {
		return nil, err
	}
	defer without.close()
	conn, err := stall(with.daemon.NATS, with.daemon.Prefix)
	if err != nil {
		return nil, err
	}
	defer func() { conn.Close() }()
	mb := b.loadMegabytes()
	loads := pick(b, 1, 4)
	r, err := rounds(ctx, pick(b, 3, 7), false,
		func() (float64, error) {
			// The server closes the connection of one who does not read, after ten
			// seconds or when too much waits for it: it comes back and stalls again.
			conn.Close()
			if conn, err = stall(with.daemon.NATS, with.daemon.Prefix); err != nil {
				return 0, err
			}
			return with.passes(ctx, loads, mb)
		},
		func() (float64, error) { return without.passes(ctx, loads, mb) },
	)
	if err != nil {
		return nil, err
	}
	return r.row("P14", "whole path with one stalled subscriber / without", perSecond, 0.95, false, ""), nil
}

// passes is the mean of several passes in a row.
func (p *path) passes(ctx context.Context, n, megabytes int) (float64, error) {
	sum := 0.0
	for range n {
		v, err := p.pass(ctx, megabytes)
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum / float64(n), nil
}

// stall subscribes and reads no more than the server's greeting.
func stall(url, prefix string) (net.Conn, error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "nats://"))
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(4 << 10) // so that little is taken off the server's hands
	}
	if _, err := conn.Read(make([]byte, 4<<10)); err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(conn, "CONNECT {\"verbose\":false}\r\nSUB %s.> 1\r\nPING\r\n", prefix)
	if err != nil {
		return nil, err
	}
	_, err = conn.Read(make([]byte, 64)) // PONG: it has subscribed
	return conn, err
}
