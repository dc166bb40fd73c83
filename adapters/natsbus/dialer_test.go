package natsbus

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// TestOldConnectionSendsNothingMore closes a connection whose peer is slow to read.
func TestOldConnectionSendsNothingMore(t *testing.T) {
	for _, tt := range []struct {
		name    string
		closing bool
	}{
		{"given up", false},
		{"the bus closes", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			var closing atomic.Bool
			c, err := dialer{&closing}.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			server, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			// As much as the system takes: more than the peer's side of it holds.
			if err := c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			sent, _ := c.Write(make([]byte, 64<<20))
			closing.Store(tt.closing)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			got, err := io.Copy(io.Discard, server)
			if all := int(got) == sent && err == nil; all != tt.closing {
				t.Errorf("%d of %d bytes arrived, %v", got, sent, err)
			}
		})
	}
}
