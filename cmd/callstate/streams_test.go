package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store/bolt"
)

var recordAs = flag.String("record-stream", "", "write a recorded log to testdata/streams/`release`; never over one that is there")

const streams = "../../testdata/streams"

// TestRecordedStreams replays the recorded log of every release: each must be
// read, give the events that it gave then, and fold into the CTI events of its
// golden. See testdata/streams/README.md.
func TestRecordedStreams(t *testing.T) {
	if *recordAs != "" {
		recordStream(t, filepath.Join(streams, *recordAs))
	}
	for _, dir := range glob(t, streams, "v*") {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			data := t.TempDir()
			for _, name := range glob(t, dir, "callstate*.gz") {
				to := filepath.Join(data, strings.TrimSuffix(filepath.Base(name), ".gz"))
				if err := os.WriteFile(to, unzip(t, name), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			evs, ctis := streamOf(t, data)
			if want := unzip(t, filepath.Join(dir, "events.jsonl.gz")); !bytes.Equal(evs, want) {
				t.Errorf("the events are not read as they were:%s", firstDifference(evs, want))
			}
			golden := filepath.Join(dir, "cti.jsonl.gz")
			if *update {
				zip(t, golden, ctis)
			}
			if want := unzip(t, golden); !bytes.Equal(ctis, want) {
				t.Errorf("the CTI events differ; where that is meant, go test ./cmd/callstate -run TestRecordedStreams -update:%s", firstDifference(ctis, want))
			}
		})
	}
}

// streamOf returns a log's events and the CTI events that follow, as JSON Lines.
func streamOf(t *testing.T, data string) (evs, ctis []byte) {
	t.Helper()
	log := openLog(t, data)
	defer log.Close()
	err := engine.Fold(t.Context(), log, func(ev *events.Event, r *engine.Result) error {
		b, err := json.Marshal(ev)
		evs = append(append(evs, b...), '\n')
		for i := range r.Messages {
			ctis = append(append(ctis, r.Messages[i].Payload...), '\n')
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return evs, ctis
}

func recordStream(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	data := shortenedLog(t)
	evs, ctis := streamOf(t, data)
	for _, name := range glob(t, data, "callstate*") {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		zip(t, filepath.Join(dir, filepath.Base(name)+".gz"), b)
	}
	zip(t, filepath.Join(dir, "events.jsonl.gz"), evs)
	zip(t, filepath.Join(dir, "cti.jsonl.gz"), ctis)
}

// shortenedLog is the log of the captures in small files, some of which retention has
// dropped: it begins with a state, in the middle of calls.
func shortenedLog(t *testing.T) string {
	t.Helper()
	whole := openLog(t, capturesLog(t))
	defer whole.Close()
	data := t.TempDir()
	log, err := bolt.Open(data, &bolt.Options{SegmentBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	var b events.Batch
	b.Frames = whole.Frames()
	add := func() {
		if err := log.Append(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		b.Events = nil
	}
	err = whole.Read(t.Context(), 1, func(ev *events.Event) error {
		e := *ev
		e.Position = 0
		if b.Events = append(b.Events, e); len(b.Events) == 16 {
			add()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	add()
	sealed, err := log.Segments()
	if err != nil || len(sealed) < 2 {
		t.Fatalf("%d files are sealed, %v", len(sealed), err)
	}
	last := sealed[len(sealed)/2-1].Last
	base, err := engine.BaseAt(t.Context(), log, last)
	if err == nil {
		err = log.Drop(last, base)
	}
	if err == nil {
		err = log.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func glob(t *testing.T, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("nothing in %s like %s: %v", dir, pattern, err)
	}
	return names
}

func zip(t *testing.T, name string, b []byte) {
	t.Helper()
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func unzip(t *testing.T, name string) []byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// firstDifference shows the first line that differs.
func firstDifference(got, want []byte) string {
	g, w := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range max(len(g), len(w)) {
		var x, y []byte
		if i < len(g) {
			x = g[i]
		}
		if i < len(w) {
			y = w[i]
		}
		if !bytes.Equal(x, y) {
			return "\n got " + string(x) + "\nwant " + string(y)
		}
	}
	return ""
}
