package natsbus

import (
	"errors"
	"fmt"
	neturl "net/url"
	"os"

	"github.com/nats-io/nats.go"

	"github.com/callstate/callstate/adapters/internal/dial"
	"github.com/callstate/callstate/adapters/secret"
	"github.com/callstate/callstate/events/cti"
)

// Access is how a client proves who it is to a NATS server, and how it knows the
// server. The zero value is a server without users, over TLS only where its URL
// says tls:// or the server demands it.
type Access struct {
	User     string      // with Password
	Password secret.Text // of User
	Token    secret.Text
	// CredentialsFile is a .creds file (JWT and seed), NKeyFile a file with the seed
	// of an nkey. They are read again at each connect.
	CredentialsFile string
	NKeyFile        string

	TLS dial.TLS // with anything in it the connection is encrypted or fails

	// InboxPrefix begins the subjects that answers come to; "" means _INBOX, or of a
	// user that it has a prefix of its own, see [UserInbox]. It begins with _INBOX.
	InboxPrefix string
}

// UserInbox is the inbox prefix that a configured user of the embedded server may
// subscribe to, so that nobody sees another's answers.
func UserInbox(user string) string { return "_INBOX_" + cti.Token(user) }

// Validate finds settings that contradict each other.
func (a *Access) Validate() error {
	var ways []string
	for way, given := range map[string]bool{
		"user": a.User != "", "token": a.Token != "", "credentialsFile": a.CredentialsFile != "", "nkeyFile": a.NKeyFile != "",
	} {
		if given {
			ways = append(ways, way)
		}
	}
	switch {
	case len(ways) > 1:
		return errors.New("natsbus: user, token, credentialsFile and nkeyFile: want one of them")
	case a.Password != "" && a.User == "":
		return errors.New("natsbus: a password without a user")
	case a.InboxPrefix != "" && !isInbox(a.InboxPrefix+".x"):
		return fmt.Errorf("natsbus: inbox prefix %q: want _INBOX, or a token that begins with it", a.InboxPrefix)
	}
	return nil
}

// Connect connects a client, for tools beside a [Bus]; a Bus does it by itself.
func (a *Access) Connect(url string, more ...nats.Option) (*nats.Conn, error) {
	opts, err := a.options()
	if err != nil {
		return nil, err
	}
	nc, err := nats.Connect(url, append(opts, more...)...)
	var bad *neturl.Error
	if errors.As(err, &bad) && bad.Op == "parse" {
		err = bad.Err // the error would quote a password in the URL
	}
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", redacted(url), explainConnect(err))
	}
	return nc, nil
}

func (a *Access) options() ([]nats.Option, error) {
	if err := a.Validate(); err != nil {
		return nil, err
	}
	var opts []nats.Option
	switch {
	case a.User != "":
		opts = append(opts, nats.UserInfo(a.User, string(a.Password)))
	case a.Token != "":
		opts = append(opts, nats.Token(string(a.Token)))
	case a.CredentialsFile != "":
		if _, err := os.Stat(a.CredentialsFile); err != nil { // else it is tried for ever
			return nil, fmt.Errorf("natsbus: credentialsFile: %w", err)
		}
		opts = append(opts, nats.UserCredentials(a.CredentialsFile))
	case a.NKeyFile != "":
		o, err := nats.NkeyOptionFromSeed(a.NKeyFile)
		if err != nil {
			return nil, fmt.Errorf("natsbus: nkeyFile: %w", err)
		}
		opts = append(opts, o)
	}
	if a.InboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(a.InboxPrefix))
	}
	cfg, err := a.TLS.Config()
	if err != nil {
		return nil, fmt.Errorf("natsbus: %w", err)
	}
	if cfg != nil {
		opts = append(opts, nats.Secure(cfg))
	}
	return opts, nil
}

// explainConnect adds a hint to what a server or its certificate refuses.
func explainConnect(err error) error {
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired):
		return &HintError{err, "the server knows no such user, or the password, token or key is another"}
	case errors.Is(err, nats.ErrSecureConnRequired):
		return &HintError{err, "the server wants TLS: say tls:// in its URL, or name its authority's certificate as caFile"}
	}
	return dial.ExplainTLS(err)
}
