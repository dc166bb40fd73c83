package natsbus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/callstate/callstate/adapters/internal/dial"
	"github.com/callstate/callstate/adapters/tlstest"
	"github.com/callstate/callstate/engine"
)

// outside starts a nats-server that is not ours.
func outside(t *testing.T, o *server.Options) string {
	t.Helper()
	o.Host, o.Port, o.NoSigs, o.NoLog = "127.0.0.1", -1, true, true
	o.JetStream, o.StoreDir, o.DisableJetStreamBanner = true, t.TempDir(), true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server does not serve")
	}
	return s.ClientURL()
}

func newUserKey(t *testing.T) (kp nkeys.KeyPair, public, seedFile string) {
	t.Helper()
	kp, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, _ = kp.PublicKey()
	seed, _ := kp.Seed()
	return kp, public, writeFile(t, "seed", seed)
}

func writeFile(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// withJWT is a server with an operator, and the credentials of a user.
func withJWT(t *testing.T) (*server.Options, Access) {
	t.Helper()
	fail := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	operator, err := nkeys.CreateOperator()
	fail(err)
	account, err := nkeys.CreateAccount()
	fail(err)
	user, userKey, _ := newUserKey(t)
	operatorKey, _ := operator.PublicKey()
	accountKey, _ := account.PublicKey()
	ac := jwt.NewAccountClaims(accountKey)
	ac.Limits.DiskStorage, ac.Limits.MemoryStorage = -1, -1
	accountJWT, err := ac.Encode(operator)
	fail(err)
	userJWT, err := jwt.NewUserClaims(userKey).Encode(account)
	fail(err)
	seed, _ := user.Seed()
	creds, err := jwt.FormatUserConfig(userJWT, seed)
	fail(err)
	system, err := nkeys.CreateAccount()
	fail(err)
	systemKey, _ := system.PublicKey()
	systemJWT, err := jwt.NewAccountClaims(systemKey).Encode(operator)
	fail(err)
	resolver := &server.MemAccResolver{}
	fail(resolver.Store(accountKey, accountJWT))
	fail(resolver.Store(systemKey, systemJWT))
	return &server.Options{TrustedKeys: []string{operatorKey}, AccountResolver: resolver, SystemAccount: systemKey},
		Access{CredentialsFile: writeFile(t, "user.creds", creds)}
}

// TestEveryWayIn publishes to servers that ask for each kind of proof.
func TestEveryWayIn(t *testing.T) {
	ca := tlstest.New(t)
	_, public, seed := newUserKey(t)
	jwtServer, jwtAccess := withJWT(t)
	certFile, keyFile := ca.Issue("client.example", time.Time{})
	for name, c := range map[string]struct {
		server *server.Options
		access Access
	}{
		"user and password": {&server.Options{Username: "u", Password: userPassword}, Access{User: "u", Password: userPassword}},
		"an inbox of its own": {
			&server.Options{Users: []*server.User{{Username: "u", Password: userPassword, Permissions: &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: []string{">"}},
				Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX_u.>"}},
			}}}}, Access{User: "u", Password: userPassword, InboxPrefix: UserInbox("u")},
		},
		"token":       {&server.Options{Authorization: "s3cret"}, Access{Token: "s3cret"}},
		"nkey":        {&server.Options{Nkeys: []*server.NkeyUser{{Nkey: public}}}, Access{NKeyFile: seed}},
		"credentials": {jwtServer, jwtAccess},
		"TLS":         {&server.Options{TLSConfig: ca.Server("127.0.0.1", false)}, Access{TLS: dial.TLS{CAFile: ca.CAFile}}},
		"another name": {
			&server.Options{TLSConfig: ca.Server("nats.example", false)}, Access{TLS: dial.TLS{CAFile: ca.CAFile, ServerName: "nats.example"}},
		},
		"a client's certificate": {
			&server.Options{TLSConfig: ca.Server("127.0.0.1", true), TLSVerify: true},
			Access{TLS: dial.TLS{CAFile: ca.CAFile, CertFile: certFile, KeyFile: keyFile}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := startBus(t, Options{URL: outside(t, c.server), Access: c.access})
			publish(t, b, []engine.Result{result(1, "1004@acme.example", "c1", 1)})
		})
	}
}

// warnings keeps log lines.
type warnings struct {
	mu   sync.Mutex
	text strings.Builder
	line chan struct{}
}

func (w *warnings) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case w.line <- struct{}{}:
	default:
	}
	return w.text.Write(b)
}

func (w *warnings) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// await waits for a line with a text in it.
func (w *warnings) await(t *testing.T, want string) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for !strings.Contains(w.String(), want) {
		select {
		case <-w.line:
		case <-limit:
			t.Fatalf("no %q in\n%s", want, w)
		}
	}
}

// TestRefusedAtTheDoor: what is refused is said, with a hint and without the
// secret, and tried again until it is not refused any more.
func TestRefusedAtTheDoor(t *testing.T) {
	ca, other := tlstest.New(t), tlstest.New(t)
	tlsURL := outside(t, &server.Options{TLSConfig: ca.Server("127.0.0.1", false)})
	named := outside(t, &server.Options{TLSConfig: ca.Server("nats.example", false)})
	certFile, keyFile := ca.Issue("127.0.0.1", time.Now().Add(-time.Minute))
	expired, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	old := outside(t, &server.Options{TLSConfig: &tls.Config{Certificates: []tls.Certificate{expired}, MinVersion: tls.VersionTLS12}})
	user := outside(t, &server.Options{Username: "u", Password: userPassword})
	for _, c := range []struct {
		name, url string
		access    Access
		want      string
		is        error
	}{
		{"unknown authority", tlsURL, Access{}, "caFile", dial.ErrCertificate},
		{"another authority", tlsURL, Access{TLS: dial.TLS{CAFile: other.CAFile}}, "caFile", dial.ErrCertificate},
		{"another host", named, Access{TLS: dial.TLS{CAFile: ca.CAFile}}, "serverName", dial.ErrCertificate},
		{"out of date", old, Access{TLS: dial.TLS{CAFile: ca.CAFile}}, "expired", dial.ErrCertificate},
		{"wrong password", user, Access{User: "u", Password: "wr0ng"}, "the password, token or key is another", nats.ErrAuthorization},
		{"wrong token", user, Access{Token: "wr0ng"}, "the password, token or key is another", nats.ErrAuthorization},
		{"no TLS there", user, Access{User: "u", Password: "wr0ng", TLS: dial.TLS{CAFile: ca.CAFile}}, "secure connection not available", nats.ErrSecureConnWanted},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := c.access.Connect(c.url); !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "wr0ng") {
				t.Errorf("a tool is told: %v", err)
			}
			w := &warnings{line: make(chan struct{}, 1)}
			b, err := New(Options{URL: c.url, Access: c.access, LogID: testLog, Logger: slog.New(slog.NewTextHandler(w, nil))})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			w.await(t, c.want)
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if err := b.Ready(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("ready: %v", err)
			}
			if strings.Contains(w.String(), "wr0ng") {
				t.Errorf("the secret is in the log:\n%s", w)
			}
		})
	}
}

func TestAccessThatCannotBeMeant(t *testing.T) {
	for want, a := range map[string]Access{
		"want one of them": {User: "u", Token: "t"},
		"without a user":   {Password: "p"},
		"go together":      {TLS: dial.TLS{CertFile: "x"}},
		"inbox prefix":     {InboxPrefix: "answers"},
		"no such file":     {CredentialsFile: "/nowhere/x.creds"},
		"nkeyFile":         {NKeyFile: "/nowhere/seed"},
		"caFile":           {TLS: dial.TLS{CAFile: "/nowhere/ca.pem"}},
		"no certificate":   {TLS: dial.TLS{CAFile: writeFile(t, "ca.pem", []byte("nothing"))}},
	} {
		if b, err := New(Options{Access: a}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
			if err == nil {
				b.Close()
			}
		}
	}
	_, err := (&Access{}).Connect("nats://u:hunter2@[x")
	if err == nil || strings.Contains(fmt.Sprint(err), "hunter2") {
		t.Errorf("a URL with a password: %v", err)
	}
}

// TestEmbeddedServerWithCertificate: users come over TLS or not at all; we ourselves
// do without.
func TestEmbeddedServerWithCertificate(t *testing.T) {
	ca := tlstest.New(t)
	certFile, keyFile := ca.Issue("127.0.0.1", time.Time{})
	s := startServer(t, ServerOptions{CertFile: certFile, KeyFile: keyFile, Users: []User{
		{Name: "desk1004", Password: userPassword, Role: RoleAgent, Accounts: []string{"1004@acme.example"}},
	}})
	b, _ := startBus(t, Options{Server: s})
	a := Access{User: "desk1004", Password: userPassword, TLS: dial.TLS{CAFile: ca.CAFile}}
	nc, err := a.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync("cti.v1.acme_example.1004.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	publish(t, b, []engine.Result{result(1, "1004@acme.example", "c1", 1)})
	if _, err := sub.NextMsgWithContext(deadline(t)); err != nil {
		t.Error(err)
	}
	plain := Access{User: "desk1004", Password: userPassword}
	if _, err := plain.Connect(strings.Replace(s.URL(), "tls://", "nats://", 1)); !errors.Is(err, dial.ErrCertificate) {
		t.Errorf("without the authority: %v", err)
	}
	if _, err := StartServer(ServerOptions{StoreDir: t.TempDir(), Port: -1, CertFile: certFile}); err == nil {
		t.Error("a certificate without a key is taken")
	}
}
