package natsbus

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/callstate/callstate/events/cti"
)

// Options configure a [Bus]. The zero value of a field means its default.
type Options struct {
	URL    string  // one or more server URLs, comma-separated; "" means nats://127.0.0.1:4222
	Access Access  // to that server
	Server *Server // in this process, in place of a URL; needs no access
	Name   string  // of the connection, seen by operators; "" means callstate

	Prefix string // begins every subject; "" means cti.v1. Letters, digits, '-' and '_', in tokens
	Stream string // "" means CTI, followed by the prefix where that is not the default
	Source string // ce-source; "" means callstate
	LogID  string // id of the log; begins every message id and tells our views from those of another log

	// NoRefill publishes to a stream and buckets without a history what follows the
	// checkpoint. Without it they are filled from the log's start.
	NoRefill bool

	MaxAge   time.Duration // of messages in the stream; 0 means 7 days, negative no limit
	MaxBytes int64         // of the stream; 0 means no limit
	Replicas int           // of the stream and the buckets; 0 means 1. Existing ones are left as they are
	// EndedTTL is how long the view of an ended call stays; 0 means 24 h, negative
	// for ever. The view of a live call does not expire.
	EndedTTL time.Duration

	FlushInterval time.Duration // of the views; 0 means 50 ms
	// Window bounds the unconfirmed messages; Publish waits when it is full. 0
	// means 4096, about 4 MiB of payload: more gains nothing, the server confirms
	// some 100,000 a second.
	Window     int
	AckTimeout time.Duration // without any confirmation; then the bus is not ready. 0 means 10 s

	Logger *slog.Logger // nil means discard

	dial     []nats.Option // more of the connection
	patience time.Duration // with one request to JetStream; 0 means 10 s
}

// duplicateWindow is how long JetStream knows a message id.
const duplicateWindow = 2 * time.Minute

// Validate says what [New] would not take.
func (o Options) Validate() error {
	_, err := o.withDefaults()
	return err
}

// withDefaults validates o and fills what was left unset.
func (o Options) withDefaults() (Options, error) {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&o.URL, nats.DefaultURL)
	def(&o.Name, "callstate")
	def(&o.Prefix, cti.DefaultPrefix)
	def(&o.Source, "callstate")
	if o.MaxAge == 0 {
		o.MaxAge = 7 * 24 * time.Hour
	}
	if o.EndedTTL == 0 {
		o.EndedTTL = 24 * time.Hour
	}
	if o.FlushInterval == 0 {
		o.FlushInterval = 50 * time.Millisecond
	}
	if o.Window == 0 {
		o.Window = 4096
	}
	if o.AckTimeout == 0 {
		o.AckTimeout = 10 * time.Second
	}
	if o.patience == 0 {
		o.patience = 10 * time.Second
	}
	if o.Replicas == 0 {
		o.Replicas = 1
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Server != nil {
		o.URL, o.Access = o.Server.URL(), o.Server.own
		if o.Server.encrypted {
			// To ourselves we go past TLS, over a pipe; it takes a quarter fewer messages
			// a second than a socket without TLS.
			o.URL = strings.Replace(o.URL, "tls://", "nats://", 1)
			o.dial = append(o.dial, nats.InProcessServer(o.Server.s))
		}
	}
	errs := []error{o.Access.Validate()}
	bad := func(format string, v ...any) { errs = append(errs, fmt.Errorf("natsbus: "+format, v...)) }
	if !validPrefix(o.Prefix) {
		bad("prefix %q: want tokens of letters, digits, '-' and '_', joined by dots", o.Prefix)
	}
	def(&o.Stream, "CTI"+suffix(o.Prefix, "_"))
	if strings.Trim(o.Stream, tokenBytes) != "" {
		bad("stream name %q: want letters, digits, '-' and '_'", o.Stream)
	}
	if strings.ContainsFunc(o.Source, func(r rune) bool { return r <= ' ' || r > '~' }) {
		bad("source %q: want printable ASCII without blanks", o.Source)
	}
	if o.FlushInterval < time.Millisecond || o.FlushInterval > time.Minute {
		bad("flush interval %v: want 1ms to 1m", o.FlushInterval)
	}
	if o.Window < 1 || o.Window > 1<<20 {
		bad("window %d: want 1 to %d", o.Window, 1<<20)
	}
	if o.MaxAge > 0 && o.MaxAge < duplicateWindow {
		bad("max age %v: want at least the duplicate window, %v", o.MaxAge, duplicateWindow)
	}
	if o.EndedTTL > 0 && o.EndedTTL < time.Second {
		bad("ended TTL %v: want at least 1s", o.EndedTTL)
	}
	if o.MaxBytes < 0 {
		bad("max bytes %d: want 0 or more", o.MaxBytes)
	}
	if o.AckTimeout < 0 {
		bad("ack timeout %v: want more than 0", o.AckTimeout)
	}
	if o.Replicas < 1 || o.Replicas > 5 {
		bad("replicas %d: want 1 to 5", o.Replicas)
	}
	return o, errors.Join(errs...)
}

const tokenBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

func validPrefix(p string) bool {
	for t := range strings.SplitSeq(p, ".") {
		if t == "" || strings.Trim(t, tokenBytes) != "" {
			return false
		}
	}
	return true
}

// suffix is what a name gets where the prefix is not the default, so that a
// replay never meets the live stream and views. Different prefixes give
// different suffixes: '.' becomes '_', and '_' and '-' become "-u" and "--".
func suffix(prefix, sep string) string {
	if prefix == cti.DefaultPrefix {
		return ""
	}
	return sep + strings.NewReplacer("-", "--", "_", "-u", ".", "_").Replace(prefix)
}

// CallsBucket is the KV bucket of calls that belongs to prefix: cti-calls for
// the default one.
func CallsBucket(prefix string) string { return "cti-calls" + suffix(prefix, "-") }

// LinesBucket is the KV bucket of lines that belongs to prefix.
func LinesBucket(prefix string) string { return "cti-lines" + suffix(prefix, "-") }

// StreamName is the JetStream stream that belongs to prefix: CTI for the default one.
func StreamName(prefix string) string { return "CTI" + suffix(prefix, "_") }
