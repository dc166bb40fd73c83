package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/secret"
)

// natsAccess is how a NATS server that is not ours is signed in to: by the daemon
// from its configuration, by the other verbs from flags and environment.
type natsAccess struct {
	User            string      `toml:"user"`
	Password        secret.Text `toml:"password"`
	PasswordFile    string      `toml:"passwordFile"`
	Token           secret.Text `toml:"token"`
	TokenFile       string      `toml:"tokenFile"`
	CredentialsFile string      `toml:"credentialsFile"` // .creds: JWT and seed
	NKeyFile        string      `toml:"nkeyFile"`        // seed
	CAFile          string      `toml:"caFile"`
	ServerName      string      `toml:"serverName"`
	CertFile        string      `toml:"certFile"`
	KeyFile         string      `toml:"keyFile"`
	InboxPrefix     string      `toml:"inboxPrefix"`
}

// Secrets that have no flag: a command line is seen by everybody on the machine.
const (
	envNATSPassword = "CALLSTATE_NATS_PASSWORD"
	envNATSToken    = "CALLSTATE_NATS_TOKEN"
)

func natsAccessFlags(fs *pflag.FlagSet) {
	fs.String("nats-user", "", "user of the NATS server")
	fs.String("nats-password-file", "", "file with that user's password (or the environment's "+envNATSPassword+")")
	fs.String("nats-token-file", "", "file with a token for the NATS server (or the environment's "+envNATSToken+")")
	fs.String("nats-creds", "", "credentials file (.creds) for the NATS server")
	fs.String("nats-nkey", "", "file with the seed of an nkey for the NATS server")
	fs.String("nats-ca", "", "PEM file with the certificate of the NATS server's authority (default: the system's)")
	fs.String("nats-server-name", "", "name in the NATS server's certificate, where it is not the URL's host")
	fs.String("nats-cert", "", "PEM file with a client certificate for the NATS server, with --nats-key")
	fs.String("nats-key", "", "PEM file with that certificate's key")
	fs.String("nats-inbox", "", "what the subjects of answers begin with (default: _INBOX)")
}

// load reads the secrets that are in files or in the environment.
func (a *natsAccess) load(getenv func(string) string) error {
	source := func(text secret.Text, file, env string) secret.Source {
		if text != "" || file != "" || getenv(env) == "" {
			env = ""
		}
		return secret.Source{Text: text, File: file, Env: env}
	}
	var err error
	if a.Password, err = source(a.Password, a.PasswordFile, envNATSPassword).Read("natsAccess.password", getenv); err == nil {
		a.Token, err = source(a.Token, a.TokenFile, envNATSToken).Read("natsAccess.token", getenv)
	}
	return err
}

// access is what the settings come to, with their secrets loaded.
func (a *natsAccess) access() natsbus.Access {
	x := natsbus.Access{
		User: a.User, Password: a.Password, Token: a.Token,
		CredentialsFile: a.CredentialsFile, NKeyFile: a.NKeyFile, InboxPrefix: a.InboxPrefix,
	}
	x.TLS.CAFile, x.TLS.ServerName, x.TLS.CertFile, x.TLS.KeyFile = a.CAFile, a.ServerName, a.CertFile, a.KeyFile
	return x
}

// listenTLS is the embedded NATS server's certificate.
type listenTLS struct {
	CertFile string `toml:"certFile"`
	KeyFile  string `toml:"keyFile"`
}

// natsUser is one who may connect to the embedded NATS server.
type natsUser struct {
	User         string      `toml:"user"`
	Password     secret.Text `toml:"password"` // or its bcrypt hash
	PasswordFile string      `toml:"passwordFile"`
	PasswordEnv  string      `toml:"passwordEnv"`
	NKey         string      `toml:"nkey"` // public key, in place of a password
	Role         string      `toml:"role"`
	Accounts     []string    `toml:"accounts"`
	Domains      []string    `toml:"domains"`
	Recordings   bool        `toml:"recordings"`
}

func (u *natsUser) load(getenv func(string) string) (err error) {
	from := secret.Source{Text: u.Password, File: u.PasswordFile, Env: u.PasswordEnv}
	u.Password, err = from.Read("password", getenv)
	return err
}

func (c *config) serverUsers() []natsbus.User {
	var users []natsbus.User
	for _, u := range c.NATSUsers {
		users = append(users, natsbus.User{
			Name: u.User, Password: u.Password, NKey: u.NKey, Role: natsbus.Role(u.Role),
			Accounts: u.Accounts, Domains: u.Domains, Recordings: u.Recordings,
		})
	}
	return users
}

// validateNATS finds settings of NATS that contradict each other.
func (c *config) validateNATS() error {
	access := c.NATSAccess.access()
	if err := (natsbus.Options{URL: c.NATS, Access: access, Prefix: c.Prefix, MaxAge: time.Duration(c.StreamMaxAge)}).Validate(); err != nil {
		return err
	}
	switch {
	case c.NATS == "" && access != natsbus.Access{}:
		return fmt.Errorf("%w: natsAccess is for the NATS server that nats names; the embedded one has natsUsers and listenTLS", errUsage)
	case c.NATS != "" && len(c.NATSUsers)+len(c.ListenTLS.CertFile+c.ListenTLS.KeyFile) > 0:
		return fmt.Errorf("%w: natsUsers and listenTLS are for the embedded NATS server; %s has users of its own", errUsage, "the one that nats names")
	}
	for _, u := range c.serverUsers() {
		if err := u.Validate(); err != nil {
			return err
		}
	}
	if c.NATS != "" {
		return nil
	}
	o, err := c.serverOptions()
	if err != nil {
		return err
	}
	return o.CheckOpen()
}

// natsFlags are those of every verb that asks a running engine.
type natsFlags struct {
	url    string
	fs     *pflag.FlagSet
	getenv func(string) string
}

// add adds what a connection takes.
func (f *natsFlags) add(e *env, cmd *cobra.Command, url, usage string) {
	f.fs, f.getenv = cmd.Flags(), e.getenv
	f.fs.StringVar(&f.url, "nats", url, usage)
	natsAccessFlags(f.fs)
}

// access is what flags and environment say.
func (f *natsFlags) access() (natsbus.Access, error) {
	var a natsAccess
	for name, to := range map[string]*string{
		"nats-user": &a.User, "nats-password-file": &a.PasswordFile, "nats-token-file": &a.TokenFile, "nats-creds": &a.CredentialsFile,
		"nats-nkey": &a.NKeyFile, "nats-ca": &a.CAFile, "nats-server-name": &a.ServerName, "nats-cert": &a.CertFile, "nats-key": &a.KeyFile,
		"nats-inbox": &a.InboxPrefix,
	} {
		*to, _ = f.fs.GetString(name)
		if v := f.getenv(envName(name)); v != "" && !f.fs.Changed(name) {
			*to = v
		}
	}
	if err := a.load(f.getenv); err != nil {
		return natsbus.Access{}, err
	}
	if a.InboxPrefix == "" && a.User != "" {
		a.InboxPrefix = natsbus.UserInbox(a.User) // the only one that a user of the embedded server may have
	}
	return a.access(), nil
}

// connect connects as flags and environment say.
func (f *natsFlags) connect() (*nats.Conn, error) {
	x, err := f.access()
	if err != nil {
		return nil, err
	}
	return x.Connect(f.url, nats.Name("callstate"), nats.MaxReconnects(-1))
}

// natsRequest asks, and gives up at once where the server does not let the user ask.
func natsRequest(nc *nats.Conn, subject string, body []byte, wait time.Duration) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	ctx, stop := refusable(ctx, nc)
	defer stop()
	m, err := nc.RequestWithContext(ctx, subject, body)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return m, err
}

// refusable returns a context that ends when the server refuses the connection a
// subject, with what it says as the cause.
func refusable(ctx context.Context, nc *nats.Conn) (context.Context, func()) {
	ctx, refuse := context.WithCancelCause(ctx)
	nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			refuse(notAllowed(err))
		}
	})
	return ctx, func() { refuse(nil) }
}

// notAllowed says what a user can do about a subject that is not among its own.
func notAllowed(err error) error {
	hint := "the user may not do that, or may do it with an account or domain of its own alone: --account, --domain, or <account>/<call id>"
	if strings.Contains(err.Error(), `Subscription to "_INBOX`) {
		hint = "answers come to an inbox that the user may not read: say its own with --nats-inbox"
	}
	return &natsbus.HintError{Err: err, Hint: hint}
}
