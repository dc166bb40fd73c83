package vertotest

import (
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/callstate/callstate/adapters/verto"
)

// maxMessage is the size of the largest message that libks reads.
const maxMessage = 1_000_000

// socket is one WebSocket. Replies are written at once; what the server has to say
// of its own accord waits until the socket has been quiet for a tick.
type socket struct {
	s      *Server
	ws     *websocket.Conn
	gone   chan struct{} // closed when the socket is to end
	once   sync.Once
	frozen atomic.Bool

	serve  sync.Mutex // held while a request is handled, a hold's delay included, and while events are written
	quiet  time.Time  // when the last request was done; guarded by serve
	pinged time.Time  // when the server last asked for a sign of life; guarded by serve

	queueing sync.Mutex // guards queue
	queue    []pending
	wake     chan struct{} // full when the queue has changed

	// guarded by s.mu
	user   *User
	sessid string // named by the first request that has one
}

// pending is an event that waits.
type pending struct {
	text  []byte
	due   time.Time // not before
	close bool      // close the socket in its place
}

func newSocket(s *Server, ws *websocket.Conn) *socket {
	return &socket{s: s, ws: ws, gone: make(chan struct{}), wake: make(chan struct{}, 1), quiet: time.Now()}
}

// drop ends the socket without a close frame.
func (k *socket) drop() {
	k.once.Do(func() {
		close(k.gone)
		_ = k.ws.Close()
	})
}

func (k *socket) add(p pending) {
	k.queueing.Lock()
	k.queue = append(k.queue, p)
	k.queueing.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// request queues a request of the server that must not go before a time.
func (k *socket) request(method string, params verto.Object, due time.Time) {
	text, err := verto.EncodeRequest(k.s.requests.Add(1), method, params)
	if err != nil {
		panic("vertotest: " + err.Error()) // our own types
	}
	k.add(pending{text: text, due: due})
}

// eventLoop writes the events and keeps the socket alive.
func (k *socket) eventLoop() {
	defer k.s.wg.Done()
	timer := time.NewTimer(k.s.opts.KeepAlive)
	defer timer.Stop()
	for {
		select {
		case <-k.gone:
			return
		case <-k.wake:
		case <-timer.C:
		}
		next, ok := k.flush(time.Now())
		if !ok {
			k.drop()
			return
		}
		timer.Reset(next)
	}
}

// flush writes what is due and returns after what time to look again. FreeSWITCH
// looks at its queue whenever a read has waited for a tick in vain, and pings when
// nothing was read for long.
func (k *socket) flush(now time.Time) (next time.Duration, ok bool) {
	k.serve.Lock()
	defer k.serve.Unlock()
	if k.frozen.Load() {
		return k.s.opts.KeepAlive, true
	}
	tick, heard := k.s.opts.Tick, k.quiet
	if k.pinged.After(heard) {
		heard = k.pinged
	}
	next = k.s.opts.KeepAlive - now.Sub(heard)
	if next <= 0 {
		k.pinged = now
		next = k.s.opts.KeepAlive
		k.request(verto.MethodPing, &verto.Ping{Serno: verto.Number(now.Unix())}, now)
	}
	k.queueing.Lock()
	queued := k.queue
	k.queueing.Unlock()
	if len(queued) == 0 {
		return next, true
	}
	// The first tick since the socket fell quiet at which an event may go.
	at := k.quiet
	if tick > 0 {
		wait := max(queued[0].due.Sub(k.quiet), 1)
		at = k.quiet.Add((wait + tick - 1) / tick * tick)
	}
	if now.Before(at) {
		return min(next, at.Sub(now)), true
	}
	due := slices.IndexFunc(queued, func(p pending) bool { return p.due.After(now) })
	if due < 0 {
		due = len(queued)
	}
	k.queueing.Lock()
	k.queue = slices.Clone(k.queue[due:])
	left := len(k.queue)
	k.queueing.Unlock()
	for _, p := range queued[:due] {
		if p.close {
			k.closeWith(websocket.CloseNormalClosure)
			return 0, false
		}
		if !k.writeServing(p.text) {
			return 0, false
		}
	}
	if left > 0 {
		next = min(next, max(tick, time.Millisecond))
	}
	return next, true
}

// writeServing writes one message, and nothing to a socket that was dropped. The
// caller holds serve.
func (k *socket) writeServing(text []byte) bool {
	select {
	case <-k.gone:
		return false
	default:
	}
	k.s.opts.Trace(Frame{Sessid: k.sessionID(), Sent: true, Text: text})
	return k.ws.WriteMessage(websocket.TextMessage, text) == nil
}

func (k *socket) closeWith(code int) {
	_ = k.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(time.Second))
}

func (k *socket) sessionID() string {
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	return k.sessid
}

// readLoop handles the client's messages one after the other.
func (k *socket) readLoop() {
	defer k.s.wg.Done()
	// libks hands control frames to the JSON layer and returns no pong.
	control := func(data string) error {
		if data != "" {
			k.handle([]byte(data))
		}
		return nil
	}
	k.ws.SetPingHandler(control)
	k.ws.SetPongHandler(control)
	for {
		_, b, err := k.ws.ReadMessage()
		if err != nil {
			break
		}
		if len(b) > maxMessage {
			k.closeWith(websocket.CloseNormalClosure)
			break
		}
		if !k.handle(b) {
			break
		}
	}
	if k.frozen.Load() {
		<-k.s.done // a dead peer notices nothing
	}
	k.drop()
	k.s.leave(k)
}

// handle handles one message and reports whether the socket goes on.
func (k *socket) handle(b []byte) bool {
	if k.frozen.Load() {
		return true
	}
	k.serve.Lock()
	defer k.serve.Unlock()
	k.s.opts.Trace(Frame{Sessid: k.sessionID(), Text: b})
	ok := k.serveRequest(b)
	k.quiet = time.Now()
	select {
	case k.wake <- struct{}{}:
	default:
	}
	return ok
}

// reply writes the result of a request, with the sessid that the server adds and
// what echoParams asks for.
func (k *socket) reply(f *verto.Frame, result verto.Object) {
	text, err := verto.EncodeResult(f.ID, result)
	if err != nil {
		panic("vertotest: " + err.Error()) // our own types
	}
	var p struct {
		Echo json.RawMessage `json:"echoParams"`
	}
	if json.Unmarshal(f.Params, &p) == nil && p.Echo != nil {
		var m struct {
			Version string                     `json:"jsonrpc"`
			ID      json.RawMessage            `json:"id"`
			Result  map[string]json.RawMessage `json:"result"`
		}
		if json.Unmarshal(text, &m) == nil {
			m.Result["requestParams"] = f.Params
			if text, err = json.Marshal(m); err != nil {
				panic("vertotest: " + err.Error())
			}
		}
	}
	k.writeServing(text)
}

// refuse writes the error of a request.
func (k *socket) refuse(id json.RawMessage, e verto.Error) {
	text, err := verto.EncodeError(id, &e)
	if err != nil {
		panic("vertotest: " + err.Error()) // our own types
	}
	k.writeServing(text)
}

// leave forgets a socket that ended. Its calls are detached, unless another socket
// has taken them over.
func (s *Server) leave(k *socket) {
	s.mu.Lock()
	delete(s.sockets, k)
	owner := k.sessid != "" && s.bound[k.sessid] == k
	if owner {
		delete(s.bound, k.sessid)
	}
	user := k.user
	s.mu.Unlock()
	if user != nil {
		s.opts.Observe(Event{Kind: Disconnected, Login: user.Login, Sessid: k.sessid})
	}
	if owner {
		for _, l := range s.legsOf(k.sessid) {
			l.detach()
		}
	}
}

func (s *Server) legsOf(sessid string) []*Leg {
	s.mu.Lock()
	defer s.mu.Unlock()
	var of []*Leg
	for _, l := range s.legs {
		if l.sessid == sessid {
			of = append(of, l)
		}
	}
	slices.SortFunc(of, func(a, b *Leg) int { return int(a.number) - int(b.number) })
	return of
}
