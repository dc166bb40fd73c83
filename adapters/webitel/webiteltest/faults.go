package webiteltest

import (
	"time"

	"github.com/google/uuid"
)

// faults are the misbehaviours that are switched on.
type faults struct {
	delay      time.Duration
	duplicate  int // every nth event frame twice; 0: none
	events     int // event frames since duplicate was set
	window     int // events that may overtake each other; 0 and 1: none
	refusals   int // auths still to refuse
	refusalMsg string
}

func (f *faults) dueLocked() time.Time {
	if f.delay <= 0 {
		return time.Time{}
	}
	return time.Now().Add(f.delay)
}

// doubleLocked reports whether the next event frame goes out twice.
func (f *faults) doubleLocked() bool {
	if f.duplicate <= 0 {
		return false
	}
	f.events++
	return f.events%f.duplicate == 0
}

// of returns the sockets of an account, all if login is empty.
func (s *Server) of(login string) []*socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*socket
	for k := range s.sockets {
		if login == "" || k.user != nil && k.user.login == login {
			out = append(out, k)
		}
	}
	return out
}

// Drop ends the sockets of an account, of all if login is empty, without a close
// frame. It returns how many.
func (s *Server) Drop(login string) int {
	to := s.of(login)
	for _, k := range to {
		s.end(k)
	}
	return len(to)
}

// HalfOpen leaves the TCP connections of an account, of all if login is empty, but
// neither reads nor writes them any more. Such sockets still count, hold their
// names and end with [Server.Reap] or [Server.Close] only.
func (s *Server) HalfOpen(login string) int {
	to := s.of(login)
	for _, k := range to {
		k.muted.Do(func() { close(k.mute) })
	}
	return len(to)
}

// Reap ends the half-open sockets, as the system does when its timers give up.
func (s *Server) Reap() int {
	n := 0
	for _, k := range s.of("") {
		if k.isMute() {
			s.end(k)
			n++
		}
	}
	return n
}

// Delay sends every frame d later. Zero ends it.
func (s *Server) Delay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.delay = d
}

// Duplicate sends every nth event frame twice. Zero ends it.
func (s *Server) Duplicate(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.duplicate, s.faults.events = n, 0
}

// Reorder lets events of different legs of one playing overtake each other within
// a window of n events; the order of one leg holds. It counts for playings that
// begin later. Zero ends it.
func (s *Server) Reorder(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.window = n
}

// KillSwitch kills the switch behind the server, which lives on and tells nobody
// (capture 42): its legs are gone without a word, and what takes a switch fails.
func (s *Server) KillSwitch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = true
	s.channels, s.order = make(map[string]*channel), nil
}

// StartSwitch starts it again, with a new Core-UUID and no legs. Playings of
// before play no more.
func (s *Server) StartSwitch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down, s.core = false, uuid.NewString()
	s.sequence.Store(0)
}

// SilenceSE drops the broker's bindings of all SE: names in use, or of every
// second one in the order a socket subscribed. Sockets, subscriptions and pings
// live on; unsubscribe and subscribe cures it, name by name.
func (s *Server) SilenceSE(everySecond bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.sockets {
		if k.user == nil {
			continue
		}
		for i, name := range k.names {
			if !everySecond || i%2 == 0 {
				delete(s.bound, binding{k.user.domain, name})
			}
		}
	}
}

// The kinds of garbage.
const (
	NotJSON   = "this is not json"
	Truncated = `{"webitel-event-name":"server","Event-Name":"SE:CHANNEL_ANSWER","Unique-ID":"11111111-2222`
	NotFrame  = `{"hello":["world"]}`
)

// Garbage sends a text as it is to the sockets of an account, to all if login is
// empty, and returns to how many.
func (s *Server) Garbage(login, text string) int {
	n := 0
	for _, k := range s.of(login) {
		if k.send(outgoing{b: []byte(text), path: GarbagePath}) {
			n++
		}
	}
	return n
}

// ConsoleError is the message of a 401 while the engine's directory is down.
const ConsoleError = "-ERR: Console connect error"

// RefuseAuth refuses the next n auths with status 401 and a message such as
// [ConsoleError].
func (s *Server) RefuseAuth(n int, message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.refusals, s.faults.refusalMsg = n, message
}
