package webitel

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/callstate/callstate/adapters/internal/dial"
	"github.com/callstate/callstate/adapters/secret"
)

// Mode says what one connection watches.
type Mode string

// The modes.
const (
	// ModeDomain is a technical account that subscribes to the SE: names and so
	// sees every leg of its domain.
	ModeDomain Mode = "domain"
	// ModeAccount is an agent's own account and sees the agent's own legs.
	ModeAccount Mode = "account"
)

type (
	// Secret is a password, which no verb of fmt and no log shows.
	Secret = dial.Secret
	// Duration is written as text ("25s") in JSON and TOML.
	Duration = dial.Duration
)

// User is one account of the PBX.
type User struct {
	Login        string `json:"login" toml:"login"` // number@domain, or "root"
	Password     Secret `json:"password" toml:"password"`
	PasswordFile string `json:"passwordFile,omitempty" toml:"passwordFile,omitempty"` // the file that has it
	PasswordEnv  string `json:"passwordEnv,omitempty" toml:"passwordEnv,omitempty"`   // the environment's variable that has it

	// UseWebPhone says that the account's phone is a web phone, which signs in at
	// WebRTCConnectionString. The rest is what that phone does; package verto
	// documents the values.
	UseWebPhone bool   `json:"useWebPhone,omitempty" toml:"useWebPhone,omitempty"`
	Answer      string `json:"answer,omitempty" toml:"answer,omitempty"`
	Audio       string `json:"audio,omitempty" toml:"audio,omitempty"`
	Video       string `json:"video,omitempty" toml:"video,omitempty"`
	Record      string `json:"record,omitempty" toml:"record,omitempty"`
}

// Domain is that of the login; root has none.
func (u User) Domain() string {
	_, domain, _ := strings.Cut(u.Login, "@")
	return domain
}

// Config is how to reach a Webitel server. A zero duration means its default. The
// connection strings, the users and what they hold have the names that the
// Creatio connector gives them.
type Config struct {
	// Name tells this PBX from others. Connections with the same name, or the same
	// host and port, are of one PBX.
	Name                   string `json:"name,omitempty" toml:"name,omitempty"`
	ConnectionString       string `json:"webitelConnectionString" toml:"webitelConnectionString"`                                 // ws:// or wss://host:port/path
	WebRTCConnectionString string `json:"webitelWebrtcConnectionString,omitempty" toml:"webitelWebrtcConnectionString,omitempty"` // where web phones sign in
	Protocol               string `json:"protocol,omitempty" toml:"protocol,omitempty"`                                           // what is spoken there: "verto"
	Users                  []User `json:"users" toml:"users"`
	Mode                   Mode   `json:"mode,omitempty" toml:"mode,omitempty"` // of every user; default domain

	PingInterval Duration `json:"pingInterval,omitempty" toml:"pingInterval,omitempty"` // default 25 s; negative: no ping
	PingDeadline Duration `json:"pingDeadline,omitempty" toml:"pingDeadline,omitempty"` // silence after a ping that is a loss; default 10 s
	BackoffMin   Duration `json:"backoffMin,omitempty" toml:"backoffMin,omitempty"`     // default 1 s
	BackoffMax   Duration `json:"backoffMax,omitempty" toml:"backoffMax,omitempty"`     // default 30 s
	// Settle is from the last reply of the sign-in until the connection counts as
	// settled: the server answers before its broker delivers, and lost everything
	// raised in the first 100 ms (captures 12, 16). Default 500 ms; negative: none.
	Settle Duration `json:"settle,omitempty" toml:"settle,omitempty"`
	// ReplyTimeout is how long a command waits for its reply, default 15 s;
	// LongReplyTimeout is for the commands whose reply waits until somebody
	// answers a phone, default 90 s.
	ReplyTimeout     Duration `json:"replyTimeout,omitempty" toml:"replyTimeout,omitempty"`
	LongReplyTimeout Duration `json:"longReplyTimeout,omitempty" toml:"longReplyTimeout,omitempty"`
	WriteTimeout     Duration `json:"writeTimeout,omitempty" toml:"writeTimeout,omitempty"` // default 10 s
	// MaxFrame is the largest frame that is read, in bytes; default, and at most,
	// [MaxFrame]. A larger one is quarantined and ends the connection.
	MaxFrame int `json:"maxFrame,omitempty" toml:"maxFrame,omitempty"`

	// RecordingURL replaces scheme, host and port of the links to recordings, which
	// the PBX makes with a name of its own network: http://pbx.example:4004.
	RecordingURL string `json:"recordingURL,omitempty" toml:"recordingURL,omitempty"`

	dial.TLS

	TLSConfig *tls.Config `json:"-" toml:"-"` // made by Load of TLS; nil means the system's roots
}

// withDefaults fills what is zero.
func (c Config) withDefaults() Config {
	def := func(d *Duration, v time.Duration) {
		if *d == 0 {
			*d = Duration(v)
		}
	}
	if c.Mode == "" {
		c.Mode = ModeDomain
	}
	def(&c.PingInterval, 25*time.Second)
	def(&c.PingDeadline, 10*time.Second)
	def(&c.BackoffMin, time.Second)
	def(&c.BackoffMax, 30*time.Second)
	def(&c.Settle, 500*time.Millisecond)
	def(&c.ReplyTimeout, 15*time.Second)
	def(&c.LongReplyTimeout, 90*time.Second)
	def(&c.WriteTimeout, 10*time.Second)
	if c.MaxFrame == 0 || c.MaxFrame > MaxFrame {
		c.MaxFrame = MaxFrame
	}
	return c
}

// Load reads the files that the settings name: passwords and certificates.
func (c *Config) Load(getenv func(string) string) error {
	c.Users = slices.Clone(c.Users)
	for i := range c.Users {
		u := &c.Users[i]
		var err error
		from := secret.Source{Text: u.Password, File: u.PasswordFile, Env: u.PasswordEnv}
		if u.Password, err = from.Read("password", getenv); err != nil {
			return fmt.Errorf("webitel: users[%d]: %w", i, err)
		}
		u.PasswordFile, u.PasswordEnv = "", ""
	}
	cfg, err := c.TLS.Config() //nolint:staticcheck // Config of a Config says nothing
	switch {
	case err != nil:
		return fmt.Errorf("webitel: %w", err)
	case cfg != nil && strings.HasPrefix(c.ConnectionString, "ws:"):
		return errors.New("webitel: caFile, serverName, certFile and keyFile are for wss, and webitelConnectionString is ws")
	case cfg != nil:
		c.TLSConfig = cfg
	}
	return nil
}

// Validate reports every setting that cannot work.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("webitel: "+format, args...)) }
	if err := dial.CheckURL(c.ConnectionString); err != nil {
		bad("webitelConnectionString: %w", err)
	}
	if c.WebRTCConnectionString != "" {
		if err := dial.CheckURL(c.WebRTCConnectionString); err != nil {
			bad("webitelWebrtcConnectionString: %w", err)
		}
	}
	if u, err := url.Parse(c.RecordingURL); c.RecordingURL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		bad("recordingURL: want http(s)://host:port")
	}
	switch c.Mode {
	case "", ModeDomain, ModeAccount:
	default:
		bad("mode %q is neither domain nor account", c.Mode)
	}
	switch {
	case len(c.Users) == 0:
		bad("users is empty")
	case c.Mode != ModeAccount && !slices.ContainsFunc(c.Users, func(u User) bool { return !u.UseWebPhone }):
		bad("users has no technical account: one with useWebPhone is an agent's")
	}
	for i, u := range c.Users {
		number, domain, ok := strings.Cut(u.Login, "@")
		if u.Login != "root" && (!ok || number == "" || domain == "") {
			bad("users[%d]: login %q is not number@domain", i, u.Login)
		}
		if u.Password == "" {
			bad("users[%d]: no password", i)
		}
		if u.UseWebPhone && c.WebRTCConnectionString == "" {
			bad("users[%d]: useWebPhone without webitelWebrtcConnectionString", i)
		}
	}
	for name, d := range map[string]Duration{
		"pingDeadline": c.PingDeadline, "backoffMin": c.BackoffMin, "backoffMax": c.BackoffMax,
		"replyTimeout": c.ReplyTimeout, "longReplyTimeout": c.LongReplyTimeout, "writeTimeout": c.WriteTimeout,
	} {
		if d < 0 {
			bad("%s is negative", name)
		}
	}
	if c.MaxFrame < 0 {
		bad("maxFrame is negative")
	}
	return errors.Join(errs...)
}
