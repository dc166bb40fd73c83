package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// downloadPauses are how long to wait before a download goes on after it broke off,
// as long as nothing comes; what comes begins them anew.
var downloadPauses = []time.Duration{500 * time.Millisecond, 2 * time.Second, 5 * time.Second, 15 * time.Second}

// download fetches a file by a link that must not be shown: it carries a token.
type download struct {
	link   string
	file   string
	pauses []time.Duration
	stall  time.Duration // without a byte, then the connection counts as broken
	at     func(have, total int64)

	transport http.RoundTripper
	validator string // of the file that the part is of, for If-Range
}

// errFinal is matched by what trying again cannot mend.
var errFinal = errors.New("not tried again")

// run downloads, goes on where it breaks off, and gives the file its name when it
// is whole. What came before an error stays, for another run.
func (d *download) run(ctx context.Context) (size int64, err error) {
	u, err := url.Parse(d.link)
	if err != nil || u.Host == "" {
		return 0, errors.New("the link is no URL")
	}
	// The PBX is on one's own network; a proxy would see the token.
	transport := &http.Transport{ResponseHeaderTimeout: d.stall, DisableCompression: true}
	defer transport.CloseIdleConnections()
	d.transport = transport

	// The part belongs to this recording and to no other that gets the same name.
	name := fmt.Sprintf("%s.%08x.part", d.file, crc32.ChecksumIEEE([]byte(u.Path)))
	part, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	defer part.Close()
	for broken := 0; ; {
		have, _ := part.Seek(0, io.SeekEnd)
		err := d.once(ctx, part)
		now, _ := part.Seek(0, io.SeekEnd)
		if err == nil {
			return now, d.finish(part, name)
		}
		if now > have {
			broken = 0
		}
		if errors.Is(err, errFinal) || ctx.Err() != nil || broken == len(d.pauses) {
			if now == 0 {
				return 0, errors.Join(err, os.Remove(name))
			}
			return now, fmt.Errorf("%w; %d bytes are in %s, run it again to go on", err, now, name)
		}
		timer := time.NewTimer(d.pauses[broken])
		broken++
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// finish makes the part the file.
func (d *download) finish(part *os.File, name string) error {
	if err := part.Sync(); err != nil {
		return err
	}
	if err := os.Rename(name, d.file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(d.file))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// once asks for what is missing and returns nil when nothing is any more.
func (d *download) once(ctx context.Context, part *os.File) error {
	have, err := part.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := d.get(ctx, have)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	total := resp.ContentLength
	switch resp.StatusCode {
	case http.StatusPartialContent:
		from, size, ok := contentRange(resp.Header.Get("Content-Range"))
		if !ok || from != have {
			return errors.Join(fmt.Errorf("%w: the server sent another part than was asked for", errFinal), part.Truncate(0))
		}
		total = size
	case http.StatusOK: // it does not know Range, or the file is another now
		if err := part.Truncate(0); err != nil {
			return err
		}
		if have, err = part.Seek(0, io.SeekStart); err != nil {
			return err
		}
	case http.StatusRequestedRangeNotSatisfiable:
		if _, size, ok := contentRange(resp.Header.Get("Content-Range")); ok && size == have {
			return nil // the part is all of it
		}
		return errors.Join(errors.New("what has come is more than there is, it is fetched anew"), part.Truncate(0))
	default:
		return statusError(resp)
	}
	d.validator = resp.Header.Get("ETag")
	if d.validator == "" || strings.HasPrefix(d.validator, "W/") {
		d.validator = resp.Header.Get("Last-Modified")
	}
	body := &watchedBody{r: resp.Body, d: d, have: have, total: total, cancel: cancel}
	defer body.stop()
	n, err := io.Copy(part, body)
	switch {
	case err != nil && context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("broke off after %d bytes: %w", have+n, err)
	case total >= 0 && have+n < total:
		return fmt.Errorf("broke off after %d of %d bytes", have+n, total)
	}
	return nil
}

// maxRedirects is how often a server may send us elsewhere.
const maxRedirects = 5

// get sends the request, and follows redirections itself: the errors of
// http.Client would quote a location, and its Referer give the token away.
func (d *download) get(ctx context.Context, have int64) (*http.Response, error) {
	link := d.link
	for range maxRedirects {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, link, nil)
		if err != nil {
			return nil, fmt.Errorf("%w: the link is no URL", errFinal)
		}
		if have > 0 {
			req.Header.Set("Range", "bytes="+strconv.FormatInt(have, 10)+"-")
			if d.validator != "" {
				req.Header.Set("If-Range", d.validator)
			}
		}
		resp, err := d.transport.RoundTrip(req)
		if err != nil {
			return nil, fmt.Errorf("get from %s: %w", req.URL.Host, err)
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			return resp, nil
		}
		_ = resp.Body.Close()
		next, err := resp.Location()
		if err != nil || next.Scheme != "http" && next.Scheme != "https" || req.URL.Scheme == "https" && next.Scheme == "http" {
			return nil, fmt.Errorf("%w: %s redirects to where we do not go", errFinal, req.URL.Host)
		}
		link = next.String()
	}
	return nil, fmt.Errorf("%w: more than %d redirections", errFinal, maxRedirects)
}

// statusError says what a status means for a recording (reference/ports.md, 4004).
func statusError(resp *http.Response) error {
	switch code := resp.StatusCode; {
	case code == http.StatusNotFound:
		return fmt.Errorf("%w: %s has no such file", errFinal, resp.Request.URL.Host)
	case code == http.StatusForbidden || code == http.StatusUnauthorized:
		return fmt.Errorf("%w: %s refuses the link (%d): the file belongs to another domain, or the link is too old", errFinal, resp.Request.URL.Host, code)
	case code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
		return fmt.Errorf("%s answers %s", resp.Request.URL.Host, resp.Status)
	default:
		return fmt.Errorf("%w: %s answers %s", errFinal, resp.Request.URL.Host, resp.Status)
	}
}

// contentRange reads "bytes 5-9/10", "bytes 5-9/*" and "bytes */10"; a size that
// is not known is -1.
func contentRange(s string) (from, size int64, ok bool) {
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, sizeText, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 {
		return 0, 0, false
	}
	size = -1
	var err error
	if sizeText != "*" {
		if size, err = strconv.ParseInt(sizeText, 10, 64); err != nil || size < 0 {
			return 0, 0, false
		}
	}
	if span == "*" {
		return -1, size, size >= 0
	}
	fromText, _, _ := strings.Cut(span, "-")
	from, err = strconv.ParseInt(fromText, 10, 64)
	return from, size, err == nil
}

// watchedBody tells how far it is, and gives up on a server that falls silent.
type watchedBody struct {
	r           io.Reader
	d           *download
	have, total int64
	cancel      context.CancelCauseFunc
	timer       *time.Timer
}

func (b *watchedBody) Read(p []byte) (int, error) {
	if b.timer == nil {
		b.timer = time.AfterFunc(b.d.stall, func() { b.cancel(fmt.Errorf("nothing came for %s", b.d.stall)) })
	}
	n, err := b.r.Read(p)
	b.timer.Reset(b.d.stall)
	b.have += int64(n)
	if b.d.at != nil {
		b.d.at(b.have, b.total)
	}
	return n, err
}

func (b *watchedBody) stop() {
	if b.timer != nil {
		b.timer.Stop()
	}
}
