package webitel

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/callstate/callstate/engine"
)

// recordPauses are how long to wait before a recording that is not there is asked
// for again: it is uploaded after the call, and a failed upload is repeated every
// 30 s (reference/ports.md, 4004).
var recordPauses = []time.Duration{5 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute}

// recordLink asks for the link to a recording until there is one, the pauses are
// used up, or ctx ends. The link has a live token: it is returned and nothing else.
func (c *Client) recordLink(ctx context.Context, cmd Command) (string, error) {
	for n := 0; ; n++ {
		r, err := c.Do(ctx, cmd)
		if err == nil {
			text, _ := r.Text()
			return c.recordURL(strings.TrimSpace(text))
		}
		if !errors.Is(err, ErrNoRecording) || n == len(recordPauses) {
			return "", requestError(err)
		}
		timer := time.NewTimer(recordPauses[n])
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return "", requestError(err)
		}
	}
}

// recordURL puts the configured address into a link.
func (c *Client) recordURL(link string) (string, error) {
	u, err := url.Parse(link)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", &engine.RequestError{Result: engine.VerdictRefused, Text: "the PBX's answer is no link to a recording"}
	}
	if base, err := url.Parse(c.cfg.RecordingURL); err == nil && base.Host != "" {
		u.Scheme, u.Host = base.Scheme, base.Host
	}
	return u.String(), nil
}
