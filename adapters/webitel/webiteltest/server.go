package webiteltest

import (
	"crypto/tls"
	"log/slog"
	"maps"
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
)

// Options configures a server. The zero value is a server with the accounts of
// the captures.
type Options struct {
	Accounts []Account // default [DemoAccounts]
	// UnauthenticatedTimeout is how long a socket may stay without a successful
	// auth; default 5 s, as shipped. Negative means no limit.
	UnauthenticatedTimeout time.Duration
	MaxSocketPerUser       int           // default 10; root has no limit
	BindDelay              time.Duration // from a reply to auth or subscribe until the events flow; default none
	// Recordings are the ids that cdr_get_record_link knows; default that of
	// capture 01. [Server.Record] adds one with a file.
	Recordings []string
	// TLS makes it a wss server.
	TLS *tls.Config
	// OriginateSpeed is the pace of the calls that commands begin; default 1, the
	// recording's. Negative means as fast as possible.
	OriginateSpeed float64
	// KeepOriginated leaves those calls up until a command ends them; without it
	// they end where the recording does.
	KeepOriginated bool
	Logger         *slog.Logger // nil discards
}

func (o *Options) originateSpeed() float64 {
	switch {
	case o.OriginateSpeed < 0:
		return 0
	case o.OriginateSpeed == 0:
		return 1
	}
	return o.OriginateSpeed
}

// Server is a running server.
type Server struct {
	opts     Options
	log      *slog.Logger
	http     *httptest.Server
	sequence atomic.Uint64 // Event-Sequence of the switch
	sent     [numPaths]atomic.Uint64
	doubled  atomic.Uint64

	done chan struct{} // closed by Close
	wg   sync.WaitGroup

	mu       sync.Mutex // guards what follows
	closed   bool
	accounts map[string]*directoryEntry // by login
	users    map[string]*user           // accounts with sockets, by login
	sockets  map[*socket]struct{}
	tokens   map[string]token    // by key
	bound    map[binding]bool    // SE: names that the broker delivers
	channels map[string]*channel // live legs, by Unique-ID
	order    []string            // of the legs, for show_channel
	core     string              // Core-UUID of the switch
	down     bool                // the switch is
	commands map[string]int      // received, by name
	faults   faults
	files    map[string][]byte // recordings, by id
}

// binding is one SE: name of one domain.
type binding struct{ domain, name string }

// Path is the way of a frame to a client.
type Path uint8

// The paths.
const (
	ServerPath  Path = iota // SE: events
	AccountPath             // call events
	UserPath                // accounts, presence, notices
	ReplyPath               // replies
	GarbagePath             // what is no frame
	numPaths
)

// Counts are frames by path.
type Counts struct {
	Server, Account, User, Replies, Garbage uint64
	// Doubled is how many of them were the second copy of a frame.
	Doubled uint64
	Calls   uint64 // playings that began
}

// Frames is the number of all frames.
func (c Counts) Frames() uint64 { return c.Server + c.Account + c.User + c.Replies + c.Garbage }

func (c *Counts) add(d Counts) {
	c.Server += d.Server
	c.Account += d.Account
	c.User += d.User
	c.Replies += d.Replies
	c.Garbage += d.Garbage
	c.Doubled += d.Doubled
	c.Calls += d.Calls
}

// New starts a server on a port of its own. [Server.Close] ends it.
func New(opts Options) *Server {
	if opts.Accounts == nil {
		opts.Accounts = DemoAccounts()
	}
	if opts.UnauthenticatedTimeout == 0 {
		opts.UnauthenticatedTimeout = 5 * time.Second
	}
	if opts.MaxSocketPerUser == 0 {
		opts.MaxSocketPerUser = 10
	}
	if opts.Recordings == nil {
		opts.Recordings = []string{"11111111-2222-4333-8444-555555555555"}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		opts: opts, log: opts.Logger, core: uuid.NewString(),
		done:     make(chan struct{}),
		accounts: make(map[string]*directoryEntry),
		users:    make(map[string]*user),
		sockets:  make(map[*socket]struct{}),
		tokens:   make(map[string]token),
		bound:    make(map[binding]bool),
		channels: make(map[string]*channel),
		commands: make(map[string]int),
		files:    make(map[string][]byte),
	}
	for _, id := range opts.Recordings {
		s.files[id] = nil
	}
	for _, a := range opts.Accounts {
		s.accounts[a.Login] = &directoryEntry{Account: a, state: "ONHOOK", status: "NONE"}
	}
	s.http = httptest.NewUnstartedServer(s.routes())
	if opts.TLS != nil {
		s.http.TLS = opts.TLS
		s.http.Config.ErrorLog = slog.NewLogLogger(opts.Logger.Handler(), slog.LevelDebug) // of refused handshakes
		s.http.StartTLS()
	} else {
		s.http.Start()
	}
	return s
}

// URL returns the address for a client's webitelConnectionString.
func (s *Server) URL() string { return "ws" + strings.TrimPrefix(s.http.URL, "http") + "/" }

// Core returns the Core-UUID of the switch.
func (s *Server) Core() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core
}

// Delivers returns the SE: names that the broker delivers to a domain, sorted.
func (s *Server) Delivers(domain string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for b := range s.bound {
		if b.domain == domain {
			names = append(names, b.name)
		}
	}
	slices.Sort(names)
	return names
}

// Commands returns how often each command was received.
func (s *Server) Commands() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.commands)
}

// Close ends every socket and playing and waits for all goroutines.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	for k := range s.sockets {
		k.destroy()
	}
	s.mu.Unlock()
	s.http.Close()
	s.wg.Wait()
}

// Sent returns the frames written to sockets so far.
func (s *Server) Sent() Counts {
	return Counts{
		Server: s.sent[ServerPath].Load(), Account: s.sent[AccountPath].Load(), User: s.sent[UserPath].Load(),
		Replies: s.sent[ReplyPath].Load(), Garbage: s.sent[GarbagePath].Load(), Doubled: s.doubled.Load(),
	}
}

// Sockets returns the number of authenticated sockets of an account, or of all
// accounts if login is empty.
func (s *Server) Sockets(login string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for k := range s.sockets {
		if k.user != nil && (login == "" || k.user.login == login) {
			n++
		}
	}
	return n
}

var upgrader = websocket.Upgrader{
	ReadBufferSize: 4 << 10, WriteBufferSize: 32 << 10,
	CheckOrigin: func(*http.Request) bool { return true }, // the real one checks none either
}

func (s *Server) accept(w http.ResponseWriter, r *http.Request) {
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	k := newSocket(s, ws, host)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		_ = ws.Close()
		return
	}
	s.sockets[k] = struct{}{}
	s.wg.Add(2)
	s.mu.Unlock()
	go k.writeLoop()
	go k.readLoop()
}

// bind makes the broker deliver something: before the reply is sent or, with a
// BindDelay, that much later. set runs with s.mu held.
func (s *Server) bind(set, reply func()) {
	locked := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		set()
	}
	if s.opts.BindDelay <= 0 {
		locked()
		reply()
		return
	}
	reply()
	s.run(func() {
		timer := time.NewTimer(s.opts.BindDelay)
		defer timer.Stop()
		select {
		case <-timer.C:
			locked()
		case <-s.done:
		}
	})
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
