// Package dial has what every adapter needs to reach its server: settings that
// can be written down and shown, and the wait before another attempt.
package dial

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/callstate/callstate/adapters/secret"
)

// Secret is a password, which no verb of fmt and no log shows.
type Secret = secret.Text

// Duration is a [time.Duration] that is written as text ("25s") in JSON and TOML.
type Duration time.Duration

// MarshalText is the inverse of UnmarshalText.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what [time.ParseDuration] reads.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return err
	}
	*d = Duration(v)
	return nil
}

// CheckURL says what is wrong with the address of a WebSocket. It does not quote
// the address: it may hold a password.
func CheckURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case u.Scheme != "ws" && u.Scheme != "wss":
		return fmt.Errorf("scheme %q is neither ws nor wss", u.Scheme)
	case u.Host == "":
		return errors.New("no host")
	}
	return nil
}
