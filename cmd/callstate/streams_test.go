package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
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
	dirs, err := filepath.Glob(filepath.Join(streams, "v*"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no recorded streams: %v", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			data := t.TempDir()
			if err := os.WriteFile(filepath.Join(data, bolt.FileName), unzip(t, filepath.Join(dir, "callstate.db.gz")), 0o600); err != nil {
				t.Fatal(err)
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
	data := capturesLog(t)
	log, err := os.ReadFile(filepath.Join(data, bolt.FileName))
	if err != nil {
		t.Fatal(err)
	}
	evs, ctis := streamOf(t, data)
	zip(t, filepath.Join(dir, "callstate.db.gz"), log)
	zip(t, filepath.Join(dir, "events.jsonl.gz"), evs)
	zip(t, filepath.Join(dir, "cti.jsonl.gz"), ctis)
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
