package webitel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/callstate/callstate/events"
)

// link is one connection.
type link struct {
	ws           *websocket.Conn
	id           string // events.Source.Connection
	pbx          string // its name, where there are several
	login        string // of the signed-in account
	domain       string // that the connection watches; both set before the link is the client's
	writeTimeout time.Duration
	gone         chan struct{} // closed when the connection is lost
	names        *nameWatch    // of a domain's connection; set with its domain

	writeMu sync.Mutex // held while a frame is written

	mu      sync.Mutex // guards pending
	pending map[string]chan Reply
}

func (l *link) write(cmd Command) error {
	b, err := cmd.Encode()
	if err != nil {
		return fmt.Errorf("encode %s: %w", cmd.Func, err)
	}
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	if err := l.ws.SetWriteDeadline(time.Now().Add(l.writeTimeout)); err != nil {
		return err
	}
	return l.ws.WriteMessage(websocket.TextMessage, b)
}

// await registers a command; the channel holds its reply, so that the reader
// never waits for the caller.
func (l *link) await(id string) <-chan Reply {
	ch := make(chan Reply, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending[id] = ch
	return ch
}

func (l *link) forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, id)
}

func (l *link) deliver(r Reply) {
	l.mu.Lock()
	ch := l.pending[r.ID]
	delete(l.pending, r.ID)
	l.mu.Unlock()
	if ch != nil {
		ch <- r
	}
}

// close ends the socket. When we leave on our own it says so first and waits a
// moment for the answer: a socket that the server believes alive silences half of
// our next subscriptions when it dies (protocol 6.5, capture 24).
func (l *link) close(clean bool, readerDone <-chan struct{}) {
	if clean {
		bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		if l.ws.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second)) == nil {
			timer := time.NewTimer(time.Second)
			defer timer.Stop()
			select {
			case <-readerDone:
			case <-timer.C:
			}
		}
	}
	_ = l.ws.Close() // nothing to do about it: the connection is over
}

// Two of the reasons, after which the server may not know that the socket is gone.
const (
	lossSilent = "silent"
	lossFailed = "failed"
)

// lossReason is the short constant word for the end of a connection.
func lossReason(err error) string {
	closed, isClose := errors.AsType[*websocket.CloseError](err)
	netErr, isNet := errors.AsType[net.Error](err)
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "stopped"
	case errors.Is(err, ErrTooLarge):
		return ReasonTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded), isNet && netErr.Timeout():
		return lossSilent
	case isClose:
		return fmt.Sprintf("closed-%d", closed.Code)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed-1006"
	default:
		return lossFailed
	}
}

// source names the frame numbered n of the connection; 0 for what is no frame.
func (l *link) source(n uint64) events.Source {
	return events.Source{Adapter: adapterName, PBX: l.pbx, Connection: l.id, Sequence: n}
}
