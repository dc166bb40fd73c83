package verto

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/callstate/callstate/adapters/internal/dial"
)

// Duration is written as text ("20s") in JSON and TOML.
type Duration = dial.Duration

// Protocol is the only Config.Protocol. An address does not show what is spoken
// there: 5066, for one, is mod_sofia's SIP by default.
const Protocol = "verto"

// AnswerPolicy says who answers the calls of a phone. Calls that the account asked
// for itself (click-to-call) are always answered at once; see [Phone.AutoAnswer].
type AnswerPolicy string

// The policies.
const (
	AnswerOnCommand AnswerPolicy = "command" // [Phone.Answer]; the default
	AnswerAlways    AnswerPolicy = "always"  // at once
	AnswerNever     AnswerPolicy = "never"   // not here: another phone of the account rings too
)

// User is an account and what its phone does.
type User struct {
	Login    string       `json:"login" toml:"login"` // number@domain
	Password Secret       `json:"password" toml:"password"`
	Answer   AnswerPolicy `json:"answer,omitempty" toml:"answer,omitempty"`
	Audio    string       `json:"audio,omitempty" toml:"audio,omitempty"`   // AudioSilence, AudioEcho, or a .wav, .ogg or .opus file
	Video    string       `json:"video,omitempty" toml:"video,omitempty"`   // an .ivf file of VP8, which is sent over and over; empty: no video
	Record   string       `json:"record,omitempty" toml:"record,omitempty"` // folder for what comes in; empty: not kept
	SessID   Secret       `json:"sessId,omitempty" toml:"sessId,omitempty"` // see [LoadSessID]; empty: a new one
}

// Config is how to reach a Verto server. A zero duration means its default.
type Config struct {
	ConnectionString string `json:"webitelWebrtcConnectionString" toml:"webitelWebrtcConnectionString"` // ws:// or wss://host:port/path
	Protocol         string `json:"protocol,omitempty" toml:"protocol,omitempty"`                       // default, and only, Protocol
	UserAgent        string `json:"userAgent,omitempty" toml:"userAgent,omitempty"`                     // verto_user_agent of our channels; default "callstate"

	// ProbeTimeout is how long the server may take to say a first word, default 3 s.
	ProbeTimeout Duration `json:"probeTimeout,omitempty" toml:"probeTimeout,omitempty"`
	// PingInterval is between two verto.ping, default 20 s. Two of them without any
	// frame are the loss of the connection.
	PingInterval Duration `json:"pingInterval,omitempty" toml:"pingInterval,omitempty"`
	ReplyTimeout Duration `json:"replyTimeout,omitempty" toml:"replyTimeout,omitempty"` // default 15 s
	WriteTimeout Duration `json:"writeTimeout,omitempty" toml:"writeTimeout,omitempty"` // default 10 s
	BackoffMin   Duration `json:"backoffMin,omitempty" toml:"backoffMin,omitempty"`     // default 1 s
	BackoffMax   Duration `json:"backoffMax,omitempty" toml:"backoffMax,omitempty"`     // default 15 s
	// SettleTime is from the login until a call that the server has not offered again
	// counts as gone, default 2 s.
	SettleTime Duration `json:"settleTime,omitempty" toml:"settleTime,omitempty"`
	// RecoveryTime is how long a call waits for a new connection, default 120 s,
	// which is the server's default.
	RecoveryTime Duration `json:"recoveryTime,omitempty" toml:"recoveryTime,omitempty"`
	// RingTimeout is how long a call that we place may go unanswered, default 60 s;
	// negative: for ever. Early media ends it.
	RingTimeout   Duration `json:"ringTimeout,omitempty" toml:"ringTimeout,omitempty"`
	StatsInterval Duration `json:"statsInterval,omitempty" toml:"statsInterval,omitempty"` // default 10 s

	TLS *tls.Config `json:"-" toml:"-"` // for wss; nil means the system's roots
}

// withDefaults fills what is zero.
func (c Config) withDefaults() Config {
	def := func(d *Duration, v time.Duration) {
		if *d == 0 {
			*d = Duration(v)
		}
	}
	if c.UserAgent == "" {
		c.UserAgent = "callstate"
	}
	def(&c.ProbeTimeout, 3*time.Second)
	def(&c.PingInterval, 20*time.Second)
	def(&c.ReplyTimeout, 15*time.Second)
	def(&c.WriteTimeout, 10*time.Second)
	def(&c.BackoffMin, time.Second)
	def(&c.BackoffMax, 15*time.Second)
	def(&c.SettleTime, 2*time.Second)
	def(&c.RecoveryTime, 120*time.Second)
	def(&c.RingTimeout, 60*time.Second)
	def(&c.StatsInterval, 10*time.Second)
	return c
}

// Validate reports every setting that cannot work.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("verto: "+format, args...)) }
	if err := dial.CheckURL(c.ConnectionString); err != nil {
		bad("webitelWebrtcConnectionString: %w", err)
	}
	if c.Protocol != "" && c.Protocol != Protocol {
		bad("protocol %q is not %s", c.Protocol, Protocol)
	}
	for name, d := range map[string]Duration{
		"probeTimeout": c.ProbeTimeout, "pingInterval": c.PingInterval, "replyTimeout": c.ReplyTimeout,
		"writeTimeout": c.WriteTimeout, "backoffMin": c.BackoffMin, "backoffMax": c.BackoffMax,
		"settleTime": c.SettleTime, "recoveryTime": c.RecoveryTime, "statsInterval": c.StatsInterval,
	} {
		if d < 0 {
			bad("%s is negative", name)
		}
	}
	return errors.Join(errs...)
}

// Validate reports every setting of a user that cannot work.
func (u User) Validate() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("verto: %s: "+format, append([]any{u.Login}, args...)...))
	}
	if number, domain, ok := strings.Cut(u.Login, "@"); !ok || number == "" || domain == "" {
		bad("login is not number@domain")
	}
	if u.Password == "" {
		bad("no password")
	}
	switch u.Answer {
	case "", AnswerOnCommand, AnswerAlways, AnswerNever:
	default:
		bad("answer %q is none of command, always, never", u.Answer)
	}
	if u.Record != "" {
		if info, err := os.Stat(u.Record); err != nil || !info.IsDir() {
			bad("record: %q is not a folder", u.Record)
		}
	}
	return errors.Join(errs...)
}
