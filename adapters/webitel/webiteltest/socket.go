package webiteltest

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
)

// queueSize is how many frames wait for one socket. A full queue makes the
// sender wait: dropping would break the counts, and the real server's queue is
// its memory.
const queueSize = 4096

// socket is one WebSocket.
type socket struct {
	s    *Server
	ws   *websocket.Conn
	ip   string
	id   string // the session of the reply to auth
	out  chan outgoing
	gone chan struct{} // closed when the socket is to end
	once sync.Once
	mute chan struct{} // closed when the socket goes half open

	muted sync.Once

	writing sync.Mutex // held while a frame is written: a load goes past the queue

	// guarded by s.mu
	left  bool // forgotten by the server
	user  *user
	names []string // subscriptions in their order
	timer *time.Timer
}

type outgoing struct {
	b       []byte
	path    Path
	due     time.Time // not before; the zero time is now
	double  bool
	destroy bool // end the socket here
}

func newSocket(s *Server, ws *websocket.Conn, ip string) *socket {
	k := &socket{
		s: s, ws: ws, ip: ip, id: uuid.NewString(),
		out: make(chan outgoing, queueSize), gone: make(chan struct{}), mute: make(chan struct{}),
	}
	return k
}

// destroy ends the socket without a close frame.
func (k *socket) destroy() {
	k.once.Do(func() {
		close(k.gone)
		_ = k.ws.Close()
	})
}

func (k *socket) isMute() bool {
	select {
	case <-k.mute:
		return true
	default:
		return false
	}
}

// send queues a frame and waits while the queue is full. It reports whether the
// frame was queued. The caller must not hold s.mu.
func (k *socket) send(o outgoing) bool {
	select {
	case <-k.mute:
		return false
	case <-k.gone:
		return false
	default:
	}
	select {
	case k.out <- o:
		return true
	case <-k.mute:
		return false
	case <-k.gone:
		return false
	}
}

func (k *socket) writeLoop() {
	defer k.s.wg.Done()
	for {
		select {
		case <-k.gone:
			return
		case o := <-k.out:
			if !k.writeOne(o) {
				k.destroy()
				return
			}
		}
	}
}

// writeOne writes a frame and reports whether the socket goes on.
func (k *socket) writeOne(o outgoing) bool {
	if wait := time.Until(o.due); !o.due.IsZero() && wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-k.gone:
			return false
		}
	}
	if k.isMute() {
		return true
	}
	if o.destroy {
		return false
	}
	copies := 1
	if o.double {
		copies = 2
	}
	for range copies {
		k.writing.Lock()
		err := k.ws.WriteMessage(websocket.TextMessage, o.b)
		k.writing.Unlock()
		if err != nil {
			return false
		}
		k.s.sent[o.path].Add(1)
	}
	if o.double {
		k.s.doubled.Add(1)
	}
	return true
}

func (k *socket) readLoop() {
	s := k.s
	defer s.wg.Done()
	// A half-open socket answers nothing, not even a ping or a close.
	pong, bye := k.ws.PingHandler(), k.ws.CloseHandler()
	k.ws.SetPingHandler(func(data string) error {
		if k.isMute() {
			return nil
		}
		return pong(data)
	})
	k.ws.SetCloseHandler(func(code int, text string) error {
		if k.isMute() {
			return nil
		}
		s.leave(k) // before the answer: who has it finds the place free
		return bye(code, text)
	})
	s.startUnauthenticated(k)
	for {
		_, b, err := k.ws.ReadMessage()
		if k.isMute() {
			<-k.gone // the other side's end is not noticed
			break
		}
		if err != nil {
			break
		}
		s.handle(k, b)
	}
	s.end(k)
}

// end destroys a socket and forgets it.
func (s *Server) end(k *socket) {
	k.destroy()
	s.leave(k)
}

// startUnauthenticated arms the limit for a socket without auth.
func (s *Server) startUnauthenticated(k *socket) {
	if s.opts.UnauthenticatedTimeout < 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wg.Add(1)
	k.timer = time.AfterFunc(s.opts.UnauthenticatedTimeout, func() {
		defer s.wg.Done()
		s.mu.Lock()
		authenticated := k.user != nil
		s.mu.Unlock()
		if !authenticated {
			s.push(k, UserPath, json.RawMessage(`{"webitel-event-name":"account","Event-Name":"DISCONNECT"}`))
			k.send(outgoing{destroy: true})
		}
	})
}

// stopTimerLocked disarms it.
func (k *socket) stopTimerLocked() {
	if k.timer != nil && k.timer.Stop() {
		k.s.wg.Done()
	}
	k.timer = nil
}

// leave forgets a socket that ended, with what the real server forgets besides:
// the domain's bindings of every second name the socket held, for it changes the
// list while walking it.
func (s *Server) leave(k *socket) {
	s.mu.Lock()
	if k.left {
		s.mu.Unlock()
		return
	}
	k.left = true
	k.stopTimerLocked()
	delete(s.sockets, k)
	u := k.user
	if u == nil {
		s.mu.Unlock()
		return
	}
	for i := 0; i < len(k.names); i += 2 {
		delete(s.bound, binding{u.domain, k.names[i]})
	}
	k.names = nil
	last := u.removeLocked(k)
	if last {
		delete(s.users, u.login)
	}
	to := s.domainSocketsLocked(u.domain)
	s.mu.Unlock()
	if last {
		s.pushAll(to, UserPath, presence("ACCOUNT_OFFLINE", u))
	}
}

// push sends a frame that is not an event of a leg.
func (s *Server) push(k *socket, path Path, frame any) bool {
	b, err := json.Marshal(frame)
	if err != nil {
		panic("webiteltest: " + err.Error()) // our own types
	}
	s.mu.Lock()
	o := outgoing{b: b, path: path, due: s.faults.dueLocked()}
	s.mu.Unlock()
	return k.send(o)
}

func (s *Server) pushAll(to []*socket, path Path, frame any) {
	for _, k := range to {
		s.push(k, path, frame)
	}
}
