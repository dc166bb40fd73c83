package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
	"github.com/callstate/callstate/store/bolt"
	"github.com/callstate/callstate/testdata/captures"
)

// capturesLog returns the folder of a log that holds the recordings of a switch,
// one after the other, as the offline engine understands them.
func capturesLog(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	writeCaptures(t, dir, captureNames(t))
	return dir
}

// captureNames are the recordings that the log holds: those of a switch but for
// the burst, whose 200 calls say nothing that the others do not.
func captureNames(t testing.TB) []string {
	t.Helper()
	all, err := captures.List("freeswitch/*.jsonl")
	if err != nil || len(all) == 0 {
		t.Fatalf("captures: %v", err)
	}
	var names []string
	for _, n := range all {
		if !strings.Contains(n, "verto-frames") && !strings.Contains(n, "burst") {
			names = append(names, n)
		}
	}
	return names
}

// TestExportWritesToWhatIsNoFile: a pipe gets the rows and stays a pipe, and a link
// stays a link.
func TestExportWritesToWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	pipe, file, link := filepath.Join(dir, "pipe"), filepath.Join(dir, "file"), filepath.Join(dir, "link")
	e := &env{}
	rows := func(w io.Writer) error {
		_, err := io.WriteString(w, "rows")
		return err
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(pipe, os.O_RDWR, 0) // so that nobody waits for the other end
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := e.writeOut(pipe, rows); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(pipe); err != nil || st.Mode()&fs.ModeNamedPipe == 0 {
		t.Fatalf("%v, %v: the pipe is gone", st.Mode(), err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(r, got); err != nil || string(got) != "rows" {
		t.Errorf("%q, %v", got, err)
	}

	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink(file, link), e.writeOut(link, rows)); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); err != nil || to != file {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "rows" {
		t.Errorf("%q, %v", got, err)
	}
}

func writeCaptures(t testing.TB, dir string, names []string) {
	t.Helper()
	log, err := bolt.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		rec := readCapture(t, name)
		p := play(t, rec, rec.Inputs())
		b := &events.Batch{Frames: log.Frames().Add(p.frames)}
		for i := range p.steps {
			ev := p.steps[i].Event
			ev.Position = 0
			b.Events = append(b.Events, ev)
		}
		if err := log.Append(t.Context(), b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

// runVerb runs callstate in this process.
func runVerb(t testing.TB, args ...string) (out, errw string) {
	t.Helper()
	var o, e bytes.Buffer
	if code := realMain(args, func(string) string { return "" }, strings.NewReader(""), &o, &e); code != 0 {
		t.Fatalf("callstate %s: exit code %d\n%s%s", strings.Join(args, " "), code, o.String(), e.String())
	}
	return o.String(), e.String()
}

// golden compares got with a file of testdata/golden.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs (-want +got):\n%s\nrewrite it with -update, and read the diff: others rely on it", file, d)
	}
}

// TestExportIsStable: the captures, as others import them.
func TestExportIsStable(t *testing.T) {
	data := capturesLog(t)
	for name, args := range map[string][]string{
		"calls.csv":        nil,
		"calls.jsonl":      {"--format", "jsonl", "--account", "1001@demo.local"},
		"calls-masked.csv": {"--mask"},
		"events.csv":       {"--events", "--account", "1001@demo.local", "--outcome", "transferred"},
		"events.jsonl":     {"--events", "--format", "jsonl", "--cause", "LOSE_RACE", "--mask"},
	} {
		t.Run(name, func(t *testing.T) {
			out, _ := runVerb(t, append([]string{"export", "--data", data}, args...)...)
			golden(t, "export/"+name, out)
		})
	}
}

// TestExportOfQuality: figures of a media session, and none where there is none.
func TestExportOfQuality(t *testing.T) {
	for _, c := range []struct {
		quality    *cti.Quality
		csv, lines string
	}{
		{nil, ",,,,,,,false,0,", "null,null"},
		{&cti.Quality{Codec: "opus", PacketsReceived: 500, PacketsSent: 501, PacketsLost: 2, JitterMs: 3.25, MOS: 4.31}, "opus,500,501,2,3.25,,4.31", `"opus",500,501,2,3.25,null,4.31`},
	} {
		for format, want := range map[string]string{"csv": c.csv, "jsonl": c.lines} {
			var b bytes.Buffer
			rows, err := newRowWriter(&b, format, callColumns[34:44]) // 35 to 44 of EXPORT.md
			if err == nil {
				err = rows.write(&engine.PastCall{View: cti.CallView{Call: cti.Call{WebRTC: &cti.WebRTC{Quality: c.quality}}}})
			}
			if err == nil {
				err = rows.flush()
			}
			got := regexp.MustCompile(`"webrtc_\w+":`).ReplaceAllString(b.String(), "")
			if err != nil || !strings.Contains(got, want) {
				t.Errorf("%s: %q, want %q, %v", format, b.String(), want, err)
			}
		}
	}
}

// TestExportColumnsAreDocumented: EXPORT.md names every column, in order.
func TestExportColumnsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("EXPORT.md")
	if err != nil {
		t.Fatal(err)
	}
	_, calls, _ := strings.Cut(string(doc), "## Calls")
	calls, evs, _ := strings.Cut(calls, "## Events")
	evs, _, _ = strings.Cut(evs, "## What is new")
	var callNames, eventNames []string
	for _, c := range callColumns {
		callNames = append(callNames, c.name)
	}
	for _, c := range eventColumns {
		eventNames = append(eventNames, c.name)
	}
	for _, c := range []struct {
		text  string
		names []string
	}{{calls, callNames}, {evs, eventNames}} {
		var got []string
		for line := range strings.Lines(c.text) {
			cells := strings.Split(line, "|")
			if len(cells) < 4 || !strings.Contains(cells[2], "`") {
				continue
			}
			for name := range strings.SplitSeq(cells[2], ",") {
				got = append(got, strings.Trim(name, " `"))
			}
		}
		if d := cmp.Diff(c.names, got); d != "" {
			t.Errorf("EXPORT.md differs (-columns +documented):\n%s", d)
		}
	}
}
