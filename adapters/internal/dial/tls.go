package dial

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
)

// TLS says how a server is known, and how it knows us. All files are PEM.
type TLS struct {
	CAFile     string `json:"caFile,omitempty" toml:"caFile,omitempty"`         // what the server's certificate may be signed by, in place of the system's authorities
	ServerName string `json:"serverName,omitempty" toml:"serverName,omitempty"` // in that certificate, where it is not the URL's host
	CertFile   string `json:"certFile,omitempty" toml:"certFile,omitempty"`     // our own certificate
	KeyFile    string `json:"keyFile,omitempty" toml:"keyFile,omitempty"`       // its key
}

// Config reads the files. It returns nil where nothing is set.
func (t TLS) Config() (*tls.Config, error) {
	if t == (TLS{}) {
		return nil, nil //nolint:nilnil // nil is the standard library's word for the defaults
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("caFile: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("caFile: no certificate in %s", t.CAFile)
		}
	}
	switch {
	case t.CertFile == "" && t.KeyFile == "":
		return cfg, nil
	case t.CertFile == "" || t.KeyFile == "":
		return nil, errors.New("certFile and keyFile go together")
	}
	cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("certFile, keyFile: %w", err)
	}
	cfg.Certificates = []tls.Certificate{cert}
	return cfg, nil
}

// ErrCertificate is matched by the error of a connection whose certificate was
// refused, by us or by the server.
var ErrCertificate = errors.New("certificate refused")

// ExplainTLS says what to do about a certificate that was refused; other errors
// are returned as they are.
func ExplainTLS(err error) error {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var remote *net.OpError
	var plain tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: %w; name the file with its authority's certificate as caFile", ErrCertificate, err)
	case errors.As(err, &host):
		return fmt.Errorf("%w: %w; if that is the right server, say the certificate's name as serverName", ErrCertificate, err)
	case errors.As(err, &invalid):
		return fmt.Errorf("%w: %w", ErrCertificate, err)
	case errors.As(err, &remote) && remote.Op == "remote error": // a TLS alert
		return fmt.Errorf("%w by the server: %w; it may want one of ours, certFile and keyFile", ErrCertificate, err)
	case errors.As(err, &plain):
		return fmt.Errorf("%w; the server does not speak TLS there", err)
	}
	return err
}
