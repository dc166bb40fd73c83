// Package vertotest is a Verto server: what mod_verto of FreeSWITCH 1.10.12 says
// and does to a web phone, with real ICE, DTLS and RTP on loopback. It is for
// tests, the demo and the benchmarks, on a port that the system chooses.
//
// A call that a client places goes where the dialplan says; one to a client is
// begun by [Server.Originate]. Either is a [Leg], whose methods are what FreeSWITCH
// or the far end does: answer, hang up, send digits, fall silent. What the client
// does is told to [Options.Observe], which may call those methods at once: that is
// how a test hangs up between an invite and its answer.
//
// It is held against every recording of mod_verto in testdata/captures. What it does not
// have: conferences, event channels beyond the reply to a subscription, the
// speed test, and batches of requests.
package vertotest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/pion/transport/v5/stdnet"
	"github.com/pion/webrtc/v4"
)

// ErrClosed is returned when the server is closed.
var ErrClosed = errors.New("vertotest: server closed")

// User is an entry of the directory.
type User struct {
	Login    string // number@domain
	Password string
	// AuthExpires is after what time a login ends, and the server closes its socket;
	// 0 means never.
	AuthExpires time.Duration
}

// Ready says what a server sends when a login is accepted. Builds differ.
type Ready uint8

// The ways.
const (
	ReadyListed Ready = iota // verto.attach for each call, then clientReady that lists them
	ReadyFirst               // clientReady that lists them, then verto.attach for each
	ReadySessid              // the list holds the sessid once per call, as before May 2021
	ReadyEmpty               // the list is empty
	ReadyNever               // there is no clientReady
)

// Options configures a server. The zero value is a server with the users and the
// dialplan of the recordings.
type Options struct {
	Users  []User // default [DemoUsers]
	Domain string // of a login without one; default demo.local
	// Dialplan says what becomes of a client's call; default [DemoDialplan]. It is
	// called once a call and must not block.
	Dialplan func(*Leg) Route
	Codecs   []Codec // default PCMU, PCMA
	Video    bool    // the server has VP8: video that a client offers is taken
	Ready    Ready
	// EventChannels are what a user may subscribe to, with everything under their
	// names; default demo, conference, presence. No event ever comes of it.
	EventChannels []string
	// Strict refuses the sessid of another user, as versions from May 2026 do;
	// 1.10.12 lets the newcomer have it.
	Strict bool

	Tick          time.Duration // how long events wait for a quiet socket; default 50 ms, negative not at all
	KeepAlive     time.Duration // silence after which the server pings; default 30 s
	DetachTimeout time.Duration // how long a call waits for its lost socket; default 120 s, negative not at all
	HoldDelay     time.Duration // how long hold and unhold stall a socket; default 250 ms, negative not at all

	// Observe is told what happens, in order for each leg. It is called without
	// locks, from the goroutine that made it happen, which waits: it may call the
	// methods of a leg, and must not close the server.
	Observe func(Event)
	// Trace is given every message, as it is read or written. It must not block.
	Trace  func(Frame)
	Logger *slog.Logger // nil discards
}

// Frame is one message of a socket.
type Frame struct {
	Sessid string // empty until the client has named it
	Sent   bool   // by the server
	Text   []byte
}

func (o *Options) defaults() {
	if o.Users == nil {
		o.Users = DemoUsers()
	}
	if o.Domain == "" {
		o.Domain = "demo.local"
	}
	if o.Dialplan == nil {
		o.Dialplan = DemoDialplan
	}
	if o.Codecs == nil {
		o.Codecs = []Codec{PCMU, PCMA}
	}
	for d, usual := range map[*time.Duration]time.Duration{
		&o.Tick: 50 * time.Millisecond, &o.KeepAlive: 30 * time.Second,
		&o.DetachTimeout: 120 * time.Second, &o.HoldDelay: 250 * time.Millisecond,
	} {
		if *d == 0 {
			*d = usual
		}
		*d = max(*d, 0)
	}
	if o.EventChannels == nil {
		o.EventChannels = []string{"demo", "conference", "presence"}
	}
	if o.Observe == nil {
		o.Observe = func(Event) {}
	}
	if o.Trace == nil {
		o.Trace = func(Frame) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Server is a running server.
type Server struct {
	opts         Options
	log          *slog.Logger
	http         *httptest.Server
	core         string // Core-UUID
	net          *stdnet.Net
	certificates []webrtc.Certificate // one for all legs, as FreeSWITCH has
	requests     atomic.Uint64        // ids of the server's own requests, one counter for all sockets

	done chan struct{} // closed by Close
	wg   sync.WaitGroup

	mu      sync.Mutex // guards what follows; taken while a leg is locked, never the reverse
	closed  bool
	sockets map[*socket]struct{}
	bound   map[string]*socket // by sessid
	legs    map[string]*Leg    // live ones, by callID
	paced   map[*media]struct{}
}

// New starts a server on a port of its own. [Server.Close] ends it.
func New(opts Options) (*Server, error) {
	opts.defaults()
	n, err := stdnet.NewNet()
	if err != nil {
		return nil, fmt.Errorf("vertotest: list the network's interfaces: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("vertotest: make a key: %w", err)
	}
	certificate, err := webrtc.GenerateCertificate(key)
	if err != nil {
		return nil, fmt.Errorf("vertotest: make a certificate: %w", err)
	}
	s := &Server{
		opts: opts, log: opts.Logger, core: uuid.NewString(), net: n,
		certificates: []webrtc.Certificate{*certificate},
		done:         make(chan struct{}),
		sockets:      make(map[*socket]struct{}),
		bound:        make(map[string]*socket),
		legs:         make(map[string]*Leg),
		paced:        make(map[*media]struct{}),
	}
	s.http = httptest.NewServer(http.HandlerFunc(s.accept))
	return s, nil
}

// URL returns the address for a client's webitelWebrtcConnectionString.
func (s *Server) URL() string { return "ws" + strings.TrimPrefix(s.http.URL, "http") + "/" }

// Close drops every socket, ends every leg without a word, and waits for all
// goroutines.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	for k := range s.sockets {
		k.drop()
	}
	legs := make([]*Leg, 0, len(s.legs))
	for _, l := range s.legs {
		legs = append(legs, l)
	}
	s.mu.Unlock()
	s.http.Close()
	s.wg.Wait()
	for _, l := range legs {
		l.abandon()
	}
}

// Sockets returns the number of sockets that are logged in as a user, or as any if
// login is empty.
func (s *Server) Sockets(login string) int { return len(s.socketsOf(login)) }

// socketsOf returns those that would ring.
func (s *Server) socketsOf(login string) []*socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	var of []*socket
	for _, k := range s.bound {
		if k.user != nil && (login == "" || k.user.Login == login) {
			of = append(of, k)
		}
	}
	return of
}

// Leg returns the live leg with that callID, nil if there is none.
func (s *Server) Leg(callID string) *Leg {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.legs[callID]
}

// Legs returns the live legs of a user, of all if login is empty.
func (s *Server) Legs(login string) []*Leg {
	s.mu.Lock()
	defer s.mu.Unlock()
	var of []*Leg
	for _, l := range s.legs {
		if login == "" || l.login == login {
			of = append(of, l)
		}
	}
	return of
}

// Drop breaks the connections of a user's sockets, of all if login is empty,
// without a close frame, and returns how many they were.
func (s *Server) Drop(login string) int {
	of := s.socketsOf(login)
	for _, k := range of {
		k.drop()
	}
	return len(of)
}

// Settled reports whether all events for a user have been written. What is queued goes
// at the next tick.
func (s *Server) Settled(login string) bool {
	return !slices.ContainsFunc(s.socketsOf(login), func(k *socket) bool {
		k.serve.Lock()
		defer k.serve.Unlock()
		k.queueing.Lock()
		defer k.queueing.Unlock()
		return len(k.queue) > 0
	})
}

// Freeze makes the sockets of a user dead peers: they read nothing, answer nothing
// and stay open until the server closes.
func (s *Server) Freeze(login string) int {
	of := s.socketsOf(login)
	for _, k := range of {
		k.frozen.Store(true)
	}
	return len(of)
}

// Send queues a text as it is for the sockets of a user, as an event.
func (s *Server) Send(login, text string) int {
	of := s.socketsOf(login)
	for _, k := range of {
		k.add(pending{text: []byte(text), due: time.Now()})
	}
	return len(of)
}

var upgrader = websocket.Upgrader{
	ReadBufferSize: 4 << 10, WriteBufferSize: 16 << 10,
	CheckOrigin: func(*http.Request) bool { return true }, // the real one checks none either
}

func (s *Server) accept(w http.ResponseWriter, r *http.Request) {
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	k := newSocket(s, ws)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		_ = ws.Close()
		return
	}
	s.sockets[k] = struct{}{}
	s.wg.Add(2)
	s.mu.Unlock()
	go k.readLoop()
	go k.eventLoop()
}

// run starts a goroutine that Close waits for; nothing if it is too late.
func (s *Server) run(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.wg.Go(fn)
}

// runOrDo is run, but never nothing.
func (s *Server) runOrDo(fn func()) {
	s.mu.Lock()
	if !s.closed {
		s.wg.Go(fn)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	fn()
}

// sleep waits, and reports whether it may go on: neither the server nor what
// else was given has ended.
func (s *Server) sleep(d time.Duration, ended <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ended:
	case <-s.done:
	}
	return false
}

// loopback is pion's filter for the only addresses in use.
func loopback(ip net.IP) bool { return ip.IsLoopback() }
