package webitel

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/callstate/callstate/adapters/internal/dial"
	"github.com/callstate/callstate/adapters/tlstest"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/engine"
)

func noEnv(string) string { return "" }

// TestSecureWebSocket signs in over wss to a server whose authority only the
// settings know, that has another name, and that wants a certificate of ours.
func TestSecureWebSocket(t *testing.T) {
	ca := tlstest.New(t)
	certFile, keyFile := ca.Issue("client.example", time.Time{})
	for name, c := range map[string]struct {
		server *tls.Config
		tls    dial.TLS
	}{
		"own authority":        {ca.Server("127.0.0.1", false), dial.TLS{CAFile: ca.CAFile}},
		"another name":         {ca.Server("pbx.example", false), dial.TLS{CAFile: ca.CAFile, ServerName: "pbx.example"}},
		"a client certificate": {ca.Server("127.0.0.1", true), dial.TLS{CAFile: ca.CAFile, CertFile: certFile, KeyFile: keyFile}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := fast(server(t, webiteltest.Options{TLS: c.server}).URL())
			cfg.TLS, cfg.Users = c.tls, []User{user("1001")}
			if err := cfg.Load(noEnv); err != nil {
				t.Fatal(err)
			}
			sink := newRecorder()
			cl := NewClient(cfg, user("1001"), ModeAccount, sink, nil)
			start(t, cl)
			sink.links(t, 1)
		})
	}
}

// lines hands log lines to a channel.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	select {
	case l <- string(b):
	default: // the test reads no more
	}
	return len(b), nil
}

// TestRefusedCertificate: the log says what is wrong and what to do, and it is
// tried again.
func TestRefusedCertificate(t *testing.T) {
	ca := tlstest.New(t)
	certFile, keyFile := ca.Issue("127.0.0.1", time.Now().Add(-time.Minute))
	expired, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		server *tls.Config
		tls    dial.TLS
		want   string
	}{
		"unknown authority":     {ca.Server("127.0.0.1", false), dial.TLS{}, "name the file with its authority's certificate as caFile"},
		"another host":          {ca.Server("pbx.example", false), dial.TLS{CAFile: ca.CAFile}, "say the certificate's name as serverName"},
		"out of date":           {&tls.Config{Certificates: []tls.Certificate{expired}, MinVersion: tls.VersionTLS12}, dial.TLS{CAFile: ca.CAFile}, "expired"},
		"no client certificate": {ca.Server("127.0.0.1", true), dial.TLS{CAFile: ca.CAFile}, "certFile and keyFile"},
		"no TLS there":          {nil, dial.TLS{CAFile: ca.CAFile}, "does not speak TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			url := server(t, webiteltest.Options{TLS: c.server}).URL()
			cfg := fast(strings.Replace(url, "ws://", "wss://", 1))
			cfg.TLS, cfg.Users = c.tls, []User{user("1001")}
			if err := cfg.Load(noEnv); err != nil {
				t.Fatal(err)
			}
			log := make(lines, 16)
			start(t, NewClient(cfg, user("1001"), ModeAccount, newRecorder(), slog.New(slog.NewTextHandler(log, nil))))
			for range 2 {
				if line := wait(t, "log line", log); !strings.Contains(line, c.want) || strings.Contains(line, "secret") {
					t.Errorf("logged: %s", line)
				}
			}
		})
	}
}

func TestSettingsThatCannotBeLoaded(t *testing.T) {
	ca := tlstest.New(t)
	for want, cfg := range map[string]Config{
		"are for wss":             {ConnectionString: "ws://pbx/", TLS: dial.TLS{CAFile: ca.CAFile}},
		"caFile":                  {ConnectionString: "wss://pbx/", TLS: dial.TLS{CAFile: "/nowhere/ca.pem"}},
		"go together":             {ConnectionString: "wss://pbx/", TLS: dial.TLS{KeyFile: "x"}},
		"users[0]: secret: read ": {ConnectionString: "wss://pbx/", Users: []User{{Login: "1@d", PasswordFile: "/nowhere/p"}}},
		"no SUCH":                 {ConnectionString: "wss://pbx/", Users: []User{{Login: "1@d", PasswordEnv: "SUCH"}}},
	} {
		if err := cfg.Load(noEnv); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for _, bad := range []string{"pbx:4004", "ftp://pbx", "http://", "%"} {
		cfg := Config{ConnectionString: "wss://pbx/", Users: []User{user("1")}, RecordingURL: bad}
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "recordingURL") {
			t.Errorf("recordingURL %s: %v", bad, err)
		}
	}
}

// TestRecordLink asks until the upload after the call is there, and puts the
// configured address into the link.
func TestRecordLink(t *testing.T) {
	const id = "11111111-2222-4333-8444-66666666aaaa"
	defer func(was []time.Duration) { recordPauses = was }(recordPauses)
	recordPauses = []time.Duration{time.Millisecond, time.Hour}

	s := server(t, webiteltest.Options{})
	cfg := fast(s.URL())
	cfg.RecordingURL = "https://pbx.example:4004"
	c, _ := connected(t, s, cfg)
	ask := func(ctx context.Context) (string, error) {
		return c.Command(ctx, engine.Command{Account: "1001@demo.local", Action: engine.ActionRecord, Leg: id})
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var refused *engine.RequestError
	if _, err := ask(short); !asRequestError(err, &refused) || refused.Result != engine.VerdictNoRecording {
		t.Errorf("before the upload: %v", err)
	}
	s.Record(id, []byte("ID3"))
	got, err := ask(t.Context())
	if want := "https://pbx.example:4004/api/v2/files/" + id + "?x_key=test-key&access_token=test-token"; got != want || err != nil {
		t.Errorf("link %s, %v", got, err)
	}
	plain := Client{}
	for _, bad := range []string{"", "+OK", "cdr:10023/x", "ftp://cdr/x", "http://"} {
		if _, err := plain.recordURL(bad); !asRequestError(err, &refused) || refused.Result != engine.VerdictRefused || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("link %q: %v", bad, err)
		}
	}
	if got, err := plain.recordURL("http://cdr:10023/x?y=z"); got != "http://cdr:10023/x?y=z" || err != nil {
		t.Errorf("without an address: %s, %v", got, err)
	}
}

func asRequestError(err error, to **engine.RequestError) bool {
	return errors.As(err, to)
}
