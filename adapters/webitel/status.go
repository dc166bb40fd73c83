package webitel

import (
	"time"
)

// Status is how a client's connection is.
type Status struct {
	PBX       string // its name, where there are several
	Login     string
	Domain    string
	Mode      Mode
	Connected bool
	Refused   bool      // the server says that the password is wrong; nothing more is tried
	Since     time.Time // of the last change of the two
	Reason    string    // why it is not connected
}

// Status returns how the connection is.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Status{
		PBX: c.cfg.Name, Login: c.user.Login, Domain: c.user.Domain(), Mode: c.mode,
		Connected: c.link != nil, Refused: c.refused != nil, Since: c.since, Reason: c.reason,
	}
}

// refuse notes that the server wants no more of us.
func (c *Client) refuse(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused, c.reason, c.since = err, err.Error(), time.Now()
	return err
}

// final returns the server's last word, nil while it is not spoken.
func (c *Client) final() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

// shadowFor is how long a socket that we lost without a word may live on at the
// server: it writes to it until its system gives up, after a quarter of an hour.
const shadowFor = 20 * time.Minute

// lost notes why a connection ended, or was not made.
func (c *Client) lost(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reason = "stopped"
	if err != nil {
		c.reason = err.Error()
	}
	if c.since.IsZero() {
		c.since = time.Now()
	}
}

// shadow notes that a connection was lost so that the server may not know it. Its
// socket lives on there, and takes every second name of its successor with it
// when it dies (protocol 6.5, capture 24).
func (c *Client) shadow(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if reason == lossSilent || reason == lossFailed {
		c.shadowed = time.Now().Add(shadowFor)
	}
}

// mayBeShadowed reports whether a former socket of ours may still die.
func (c *Client) mayBeShadowed(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Before(c.shadowed)
}

// setMute notes that we signed the account out ourselves.
func (c *Client) setMute(mute bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mute = mute
}

func (c *Client) muted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mute
}
