package natsbus

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/callstate/callstate/events/cti"
)

// DefaultPort is where NATS clients look for a server.
const DefaultPort = 4222

// ServerOptions configure the embedded server.
type ServerOptions struct {
	StoreDir string // folder of the JetStream store; made if it is not there
	Host     string // "" means 127.0.0.1: nobody else on the network sees it
	Port     int    // 0 means DefaultPort, -1 a port that the system chooses
	// SyncAlways makes JetStream sync every message to disk. Off, a power loss can
	// cost the copy its last two minutes, and the end of this process, where that is
	// not clean, the last messages; the log has them and republishing heals.
	SyncAlways bool
	// CertFile and KeyFile, both PEM, make every client use TLS.
	CertFile, KeyFile string
	// Users are who may connect, and what each may do. Without any everybody who
	// reaches the port may do everything: Host must then be this machine's own.
	Users  []User
	Prefix string // of the CTI events that the users may see; "" means cti.v1

	MaxStore  int64         // bytes that JetStream may use; 0 means as the server decides
	StartWait time.Duration // how long to wait for it to serve; 0 means 10 s
	Logger    *slog.Logger  // nil means discard
}

// Server is a nats-server with JetStream inside this process. It installs no
// signal handlers and never exits the process.
type Server struct {
	s         *server.Server
	own       Access // of callstate itself
	encrypted bool
	// syncAlways is of its options.
	syncAlways bool
}

// StartServer starts a server and returns when it accepts clients.
func StartServer(o ServerOptions) (*Server, error) {
	if o.StoreDir == "" {
		return nil, errors.New("natsbus: start server: StoreDir is empty")
	}
	if o.Host == "" {
		o.Host = "127.0.0.1"
	}
	if o.Port == 0 {
		o.Port = DefaultPort
	}
	if o.StartWait <= 0 {
		o.StartWait = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := checkStoreDir(o.StoreDir); err != nil {
		return nil, err
	}
	if err := checkPort(o.Host, o.Port); err != nil {
		return nil, err
	}
	so := &server.Options{
		ServerName: "callstate",
		Host:       o.Host, Port: o.Port,
		NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: o.StoreDir, JetStreamMaxStore: o.MaxStore, SyncAlways: o.SyncAlways,
		DisableJetStreamBanner: true,
		// A subscriber for whom three quarters of what the server keeps for one wait would
		// hold up whoever publishes, and so all other subscribers: its own loss it can heal.
		NoFastProducerStall: true,
	}
	own, err := o.secure(so)
	if err != nil {
		return nil, err
	}
	s, err := server.NewServer(so)
	if err != nil {
		return nil, fmt.Errorf("natsbus: start server: %w", err)
	}
	log := &serverLog{o.Logger.With("part", "nats-server")}
	s.SetLogger(log, o.Logger.Enabled(context.Background(), slog.LevelDebug), false)
	s.Start()
	if !s.ReadyForConnections(o.StartWait) || !s.JetStreamEnabled() {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, &HintError{
			fmt.Errorf("natsbus: the embedded nats-server does not serve within %v", o.StartWait),
			"its own log lines at warn say why; a store folder of another server, or a full disk, are the usual reasons",
		}
	}
	return &Server{s: s, own: own, encrypted: so.TLSConfig != nil, syncAlways: o.SyncAlways}, nil
}

// CheckOpen returns an error that matches [ErrOpen] where everybody could connect.
func (o *ServerOptions) CheckOpen() error {
	if len(o.Users) > 0 || o.Host == "" || isLoopback(o.Host) {
		return nil
	}
	return &HintError{
		fmt.Errorf("%w: %s", ErrOpen, net.JoinHostPort(o.Host, strconv.Itoa(o.Port))),
		"configure users, or listen on 127.0.0.1",
	}
}

// secure gives the server its users and its certificate, and returns how callstate
// itself signs in.
func (o *ServerOptions) secure(so *server.Options) (own Access, err error) {
	if err := o.CheckOpen(); err != nil {
		return own, err
	}
	password, err := setUsers(so, o.Users, cmp.Or(o.Prefix, cti.DefaultPrefix))
	if err != nil {
		return own, err
	}
	if password != "" {
		own = Access{User: ownUser, Password: password}
	}
	if o.CertFile == "" && o.KeyFile == "" {
		if len(o.Users) > 0 && !isLoopback(o.Host) {
			o.Logger.Warn("passwords and calls go over the network in clear: the embedded NATS server has no certificate", "host", o.Host)
		}
		return own, nil
	}
	cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
	if err != nil {
		return own, fmt.Errorf("natsbus: certificate of the embedded server: %w", err)
	}
	so.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	so.TLSTimeout = 5
	return own, nil
}

// isLoopback reports whether nobody else on the network reaches a host's ports.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// URL is what clients connect to.
func (s *Server) URL() string { return s.s.ClientURL() }

// Close stops the server and waits until its store is closed.
func (s *Server) Close() {
	s.s.Shutdown()
	s.s.WaitForShutdown()
}

// checkStoreDir finds out before the server does, whose own error is a log line.
func checkStoreDir(dir string) error {
	fail := func(err error) error {
		return &HintError{
			fmt.Errorf("%w: %s: %w", ErrStoreDir, dir, err),
			"choose another data folder or give this user the right to write there",
		}
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fail(err)
	}
	probe := filepath.Join(dir, ".writable")
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		return fail(err)
	}
	return os.Remove(probe)
}

// checkPort finds a taken port before the server does, which would log it and
// try no further.
func checkPort(host string, port int) error {
	if port < 0 {
		return nil
	}
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	l, err := net.Listen("tcp", addr)
	switch {
	case err == nil:
		return l.Close()
	case errors.Is(err, syscall.EADDRINUSE):
		return &HintError{
			fmt.Errorf("%w: %s", ErrPortInUse, addr),
			"another nats-server may run there: connect to it by its URL, or choose another port",
		}
	default:
		return fmt.Errorf("natsbus: listen on %s: %w", addr, err)
	}
}

// serverLog carries the server's log lines to slog. Its notices are debug lines
// here: what an operator wants to know of the embedded server, we say ourselves.
type serverLog struct{ l *slog.Logger }

func (s *serverLog) Noticef(format string, v ...any) { s.log(slog.LevelDebug, format, v) }
func (s *serverLog) Warnf(format string, v ...any)   { s.log(slog.LevelWarn, format, v) }
func (s *serverLog) Fatalf(format string, v ...any)  { s.log(slog.LevelError, format, v) }
func (s *serverLog) Errorf(format string, v ...any)  { s.log(slog.LevelWarn, format, v) }
func (s *serverLog) Debugf(format string, v ...any)  { s.log(slog.LevelDebug, format, v) }
func (s *serverLog) Tracef(format string, v ...any)  { s.log(slog.LevelDebug, format, v) }

func (s *serverLog) log(level slog.Level, format string, v []any) {
	if s.l.Enabled(context.Background(), level) {
		s.l.Log(context.Background(), level, "nats-server", "text", fmt.Sprintf(format, v...))
	}
}
