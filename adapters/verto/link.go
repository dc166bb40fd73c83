package verto

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/callstate/callstate/events"
)

// writeBuffer is above every message of ours: gorilla sends what does not fit in
// one frame as several, and behind the last of them FreeSWITCH's parser may see
// bytes of an earlier message. The buffers are pooled, one is held while a frame
// is written.
const writeBuffer = 64 << 10

var writeBuffers sync.Pool

// link is one connection.
type link struct {
	ws           *websocket.Conn
	host         string
	writeTimeout time.Duration
	gone         chan struct{} // closed when the connection is lost

	writeMu sync.Mutex // held while a frame is written

	mu      sync.Mutex         // guards pending
	pending map[string]pending // nil after the loss
}

// pending is a request that waits for its answer.
type pending struct {
	method string
	until  time.Time
	done   func(*Frame, error) // called once; must not wait
}

// connectTo opens the socket. It takes no sub-protocol and offers no compression:
// mod_verto has neither.
func connectTo(ctx context.Context, cfg *Config) (*link, error) {
	u, err := url.Parse(cfg.ConnectionString)
	if err != nil {
		return nil, errors.New("verto: webitelWebrtcConnectionString is not a URL") // the cause would quote it
	}
	d := websocket.Dialer{
		HandshakeTimeout: time.Duration(cfg.ProbeTimeout) + 7*time.Second, TLSClientConfig: cfg.TLS,
		ReadBufferSize: 4 << 10, WriteBufferSize: writeBuffer, WriteBufferPool: &writeBuffers,
	}
	ws, resp, err := d.DialContext(ctx, u.String(), nil)
	if err != nil {
		if resp != nil && resp.StatusCode < 500 {
			return nil, notVerto(u.Host, "it refused the WebSocket with "+resp.Status)
		}
		return nil, fmt.Errorf("dial %s: %w", u.Host, err)
	}
	return &link{
		ws: ws, host: u.Host, writeTimeout: time.Duration(cfg.WriteTimeout),
		gone: make(chan struct{}), pending: make(map[string]pending),
	}, nil
}

// notVerto says what to look at.
func notVerto(host, what string) error {
	return fmt.Errorf("%w: %s: %s; webitelWebrtcConnectionString must name mod_verto's own socket (by default 8081 for ws, 8082 for wss): 5066 and 7443 usually speak SIP", ErrNotVerto, host, what)
}

// write sends one message as one frame.
func (l *link) write(b []byte) error {
	if len(b) > writeBuffer {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, len(b))
	}
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	if err := l.ws.SetWriteDeadline(time.Now().Add(l.writeTimeout)); err != nil {
		return err
	}
	return l.ws.WriteMessage(websocket.TextMessage, b)
}

// read returns the next message, which holds until the next call. One above the
// limit comes cut, together with ErrTooLarge.
func (l *link) read(buf *bytes.Buffer) ([]byte, error) {
	_, r, err := l.ws.NextReader()
	if err != nil {
		return nil, err
	}
	buf.Reset()
	n, err := buf.ReadFrom(io.LimitReader(r, MaxFrame+1))
	if err != nil {
		return nil, err
	}
	if n > MaxFrame {
		return buf.Bytes()[:quarantinedPrefix], ErrTooLarge
	}
	return buf.Bytes(), nil
}

// quarantinedPrefix is how much is kept of a frame above the limit.
const quarantinedPrefix = 64 << 10

// await registers a request; false after the loss.
func (l *link) await(id string, p pending) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending == nil {
		return false
	}
	l.pending[id] = p
	return true
}

// settle gives the answer to whom it belongs.
func (l *link) settle(id string, f *Frame, err error) {
	l.mu.Lock()
	p, ok := l.pending[id]
	delete(l.pending, id)
	l.mu.Unlock()
	if ok {
		p.done(f, err)
	}
}

// expire gives up the requests whose time is over.
func (l *link) expire(now time.Time) {
	l.mu.Lock()
	var late []pending
	for id, p := range l.pending {
		if now.After(p.until) {
			late = append(late, p)
			delete(l.pending, id)
		}
	}
	l.mu.Unlock()
	for _, p := range late {
		p.done(nil, fmt.Errorf("%s: %w", p.method, ErrNoReply))
	}
}

// lost reports whether the connection is over.
func (l *link) lost() bool {
	select {
	case <-l.gone:
		return true
	default:
		return false
	}
}

// fail fails every request that waits, and all that follow.
func (l *link) fail() {
	l.mu.Lock()
	all := l.pending
	l.pending = nil
	l.mu.Unlock()
	close(l.gone)
	for _, p := range all {
		p.done(nil, fmt.Errorf("%s: %w", p.method, ErrDisconnected))
	}
}

// close ends the socket; when we leave on our own it says so first.
func (l *link) close(clean bool) {
	if clean {
		bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		_ = l.ws.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second)) // it closes in any case
	}
	_ = l.ws.Close() // nothing to do about it: the connection is over
}

// lossReason is the word for the end of a signed-in connection.
func lossReason(err error) string {
	if ne, ok := errors.AsType[net.Error](err); errors.Is(err, os.ErrDeadlineExceeded) || ok && ne.Timeout() {
		return events.SessionTimeout
	}
	return events.SessionClosed
}
