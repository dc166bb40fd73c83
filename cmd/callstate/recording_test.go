package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

const linkToken = "t0ken"

// recorded is what the servers below have: enough for several reads.
var recorded = func() []byte {
	b := make([]byte, 300_000)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}()

// fileServer is an HTTP server that may break off.
type fileServer struct {
	*httptest.Server
	ranges []string // what was asked for
}

func serveFile(t *testing.T, h func(n int, w http.ResponseWriter, r *http.Request)) *fileServer {
	t.Helper()
	s := &fileServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.ranges = append(s.ranges, r.Header.Get("Range"))
		if r.Header.Get("Referer") != "" {
			t.Errorf("the token is given away: Referer %s", r.Header.Get("Referer"))
		}
		h(len(s.ranges), w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func whole(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", `"1"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(recorded))
}

// breakOff sends n bytes of a body and drops the connection.
func breakOff(w http.ResponseWriter, status, from, n int) {
	w.Header().Set("Content-Length", strconv.Itoa(len(recorded)-from))
	if status == http.StatusPartialContent {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(recorded)-1, len(recorded)))
	}
	w.WriteHeader(status)
	_, _ = w.Write(recorded[from : from+n])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func fetch(t *testing.T, url, file string, pauses ...time.Duration) error {
	t.Helper()
	d := download{link: url + "/api/v2/files/x?access_token=" + linkToken, file: file, pauses: pauses, stall: 200 * time.Millisecond}
	_, err := d.run(t.Context())
	if err != nil && strings.Contains(err.Error(), linkToken) {
		t.Errorf("the error has the token: %v", err)
	}
	return err
}

// wantFile: it is whole and nothing else is left; or with whole false it is not
// there, and a part may be.
func wantFile(t *testing.T, file string, is bool, parts int) {
	t.Helper()
	got, err := os.ReadFile(file)
	if is && !bytes.Equal(got, recorded) {
		t.Errorf("%d bytes, %v, want the whole %d", len(got), err, len(recorded))
	}
	if !is && err == nil {
		t.Errorf("there is a file of %d bytes", len(got))
	}
	if left, _ := filepath.Glob(file + ".*.part"); len(left) != parts {
		t.Errorf("parts %v, want %d", left, parts)
	}
}

func TestDownload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "call.mp3")
	s := serveFile(t, func(_ int, w http.ResponseWriter, r *http.Request) { whole(w, r) })
	if err := fetch(t, s.URL, file); err != nil {
		t.Fatal(err)
	}
	wantFile(t, file, true, 0)
	if st, _ := os.Stat(file); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
}

// TestDownloadGoesOn: the server breaks off twice; what has come is not asked for again.
func TestDownloadGoesOn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "call.mp3")
	s := serveFile(t, func(n int, w http.ResponseWriter, r *http.Request) {
		switch n {
		case 1:
			breakOff(w, http.StatusOK, 0, 100_000)
		case 2:
			http.Error(w, "busy", http.StatusServiceUnavailable)
		case 3:
			breakOff(w, http.StatusPartialContent, 100_000, 50_000)
		default:
			whole(w, r)
		}
	})
	if err := fetch(t, s.URL, file, time.Millisecond, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	wantFile(t, file, true, 0)
	if got := strings.Join(s.ranges, " "); got != " bytes=100000- bytes=100000- bytes=150000-" {
		t.Errorf("asked for %q", got)
	}
}

// TestDownloadGoesOnInAnotherRun: what came stays, and the next run goes on.
func TestDownloadGoesOnInAnotherRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "call.mp3")
	s := serveFile(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if n == 1 {
			breakOff(w, http.StatusOK, 0, 100_000)
		}
		whole(w, r)
	})
	if err := fetch(t, s.URL, file); err == nil || !strings.Contains(err.Error(), "run it again") {
		t.Fatalf("broken off: %v", err)
	}
	wantFile(t, file, false, 1)
	if err := fetch(t, s.URL, file); err != nil {
		t.Fatal(err)
	}
	wantFile(t, file, true, 0)
	// A part of another recording under the same name is none of this one's.
	d := download{link: s.URL + "/api/v2/files/y", file: file, stall: time.Second}
	if _, err := d.run(t.Context()); err != nil || s.ranges[len(s.ranges)-1] != "" {
		t.Errorf("another: %v, asked for %q", err, s.ranges[len(s.ranges)-1])
	}
}

// TestDownloadWithoutRange: a server that does not know Range sends all of it again.
func TestDownloadWithoutRange(t *testing.T) {
	file := filepath.Join(t.TempDir(), "call.mp3")
	s := serveFile(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if n == 1 {
			breakOff(w, http.StatusOK, 0, 200_000)
		}
		_, _ = w.Write(recorded)
	})
	if err := fetch(t, s.URL, file, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	wantFile(t, file, true, 0)
}

// TestDownloadWhoseFileChanged: the rest of another file is not put behind the part.
func TestDownloadWhoseFileChanged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "call.mp3")
	s := serveFile(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if n == 1 {
			w.Header().Set("ETag", `"0"`)
			breakOff(w, http.StatusOK, 0, 10)
		}
		whole(w, r) // another ETag, so that If-Range makes it the whole
	})
	if err := fetch(t, s.URL, file, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	wantFile(t, file, true, 0)
}

func TestDownloadOfWhatIsThere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "call.mp3")
	s := serveFile(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if n == 1 { // all of it, and no end
			w.Header().Set("Content-Length", strconv.Itoa(len(recorded)+1))
			_, _ = w.Write(recorded)
			panic(http.ErrAbortHandler)
		}
		whole(w, r)
	})
	if err := fetch(t, s.URL, file, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	wantFile(t, file, true, 0)
}

func TestDownloadFollowsRedirections(t *testing.T) {
	file := filepath.Join(t.TempDir(), "call.mp3")
	storage := serveFile(t, func(_ int, w http.ResponseWriter, r *http.Request) { whole(w, r) })
	s := serveFile(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, storage.URL+r.RequestURI, http.StatusTemporaryRedirect)
	})
	if err := fetch(t, s.URL, file); err != nil {
		t.Fatal(err)
	}
	wantFile(t, file, true, 0)
}

func TestDownloadThatCannotBe(t *testing.T) {
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		want string
		part int
	}{
		"gone":            {http.NotFound, "has no such file", 0},
		"forbidden":       {func(w http.ResponseWriter, r *http.Request) { http.Error(w, r.URL.String(), http.StatusForbidden) }, "refuses the link", 0},
		"broken":          {func(w http.ResponseWriter, r *http.Request) { http.Error(w, r.URL.String(), http.StatusBadGateway) }, "502", 0},
		"round and round": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.RequestURI, http.StatusFound) }, "redirections", 0},
		"to a file": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "file:///etc/passwd?"+linkToken)
			w.WriteHeader(302)
		}, "redirects", 0},
		"to nowhere": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://%zz?"+linkToken)
			w.WriteHeader(302)
		}, "redirects", 0},
		"always breaks off": {func(w http.ResponseWriter, _ *http.Request) { breakOff(w, http.StatusOK, 0, 10) }, "broke off", 1},
		"falls silent": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "9")
			_, _ = w.Write([]byte("1"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, "nothing came", 1},
		"sends another part": {func(w http.ResponseWriter, _ *http.Request) { breakOff(w, http.StatusPartialContent, 7, 10) }, "another part", 0},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "call.mp3")
			s := serveFile(t, func(_ int, w http.ResponseWriter, r *http.Request) { c.h(w, r) })
			if err := fetch(t, s.URL, file, time.Millisecond); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			wantFile(t, file, false, c.part)
		})
	}
	for _, url := range []string{"http://127.0.0.1:1", "http://nowhere.invalid", "ftp://x", "%"} {
		if err := fetch(t, url, filepath.Join(t.TempDir(), "x")); err == nil {
			t.Errorf("%s: fetched", url)
		}
	}
}

func TestDownloadStopsWhenTold(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := serveFile(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(recorded[:1000])
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	})
	d := download{link: s.URL, file: filepath.Join(t.TempDir(), "x"), pauses: []time.Duration{time.Hour}, stall: time.Hour}
	if _, err := d.run(ctx); err == nil {
		t.Error("no error")
	}
}

// TestRecordingIsFetched: a call made over NATS, its recording uploaded after its
// end, and fetched by the verb; the link's token is in no event, message or log.
func TestRecordingIsFetched(t *testing.T) {
	data := t.TempDir()
	d := startDaemon(t, data, func(c *config) {})
	k := d.desk(t, agent)
	k.must("makeCall", `{"target":"380501234567"}`)
	started := k.await(cti.CallStarted)
	k.awaitFlags(cti.TalkBridged)
	file := filepath.Join(t.TempDir(), "call.mp3")
	name := agent + "/" + started.CallID
	run := func(code int, want string, args ...string) {
		t.Helper()
		var out, errw bytes.Buffer
		args = append(args, "--nats", d.server.URL())
		if got := realMain(args, func(string) string { return "" }, nil, &out, &errw); got != code || !strings.Contains(errw.String(), want) {
			t.Errorf("%v: exit %d, want %d and %q\n%s%s", args, got, code, want, &out, &errw)
		}
		if s := out.String() + errw.String(); strings.Contains(s, webiteltest.FileToken) || strings.Contains(s, webiteltest.FileKey) {
			t.Errorf("%v shows the link: %s", args, s)
		}
	}
	run(1, "no-recording", "recording", name, "-o", file, "--wait", "1s")
	k.must("dropCall", `{}`)
	ended := k.await(cti.CallFinished)
	id := ended.Call.ID
	if ended.Call.Recording != "" {
		id = ended.Call.Recording
	}
	d.pbx.Record(id, recorded)
	run(0, "300000 bytes", "recording", name, "-o", file)
	wantFile(t, file, true, 0)
	run(1, "--force", "recording", name, "-o", file)
	run(0, "300000 bytes", "recording", name, "-o", file, "--force")
	run(1, "no-call", "recording", "1050@"+demoDomain+"/"+started.CallID, "-o", file, "--force")
	run(2, "-o FILE", "recording", name)

	stream := streamText(t, d)
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	log := openLog(t, data)
	defer log.Close()
	var facts strings.Builder
	err := log.Read(t.Context(), 1, func(ev *events.Event) error {
		fmt.Fprintf(&facts, "%+v %+v\n", ev, ev.Payload)
		return nil
	})
	if err != nil || !strings.Contains(facts.String(), "queryCallRecords") {
		t.Errorf("%v: the requests are not in the log", err)
	}
	for where, text := range map[string]string{"the log": facts.String(), "the log lines": strings.Join(d.logs.lines, ""), "NATS": stream} {
		for _, secret := range []string{webiteltest.FileToken, webiteltest.FileKey, "/api/v2/files"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %s", where, secret)
			}
		}
	}
}
