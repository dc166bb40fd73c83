package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/callstate/callstate/store/bolt"
)

// TestExportFromARunningEngine is what is exported from its folder afterwards.
func TestExportFromARunningEngine(t *testing.T) {
	data := t.TempDir()
	b, err := os.ReadFile(filepath.Join(capturesLog(t), bolt.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, bolt.FileName), b, 0o600); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, data)
	url := d.server.URL()
	calls, said := runVerb(t, "export", "--nats", url)
	evs, _ := runVerb(t, "export", "--nats", url, "--events", "--format", "jsonl", "--from", "100")
	if !strings.Contains(said, "next position") {
		t.Errorf("said %q", said)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	// What came after may have changed the order of rows.
	sorted := func(s string) []string { return slices.Sorted(strings.Lines(s)) }
	if want, _ := runVerb(t, "export", "--data", data); !slices.Equal(sorted(want), sorted(calls)) {
		t.Error("other calls over NATS than from the folder")
	}
	if want, _ := runVerb(t, "export", "--data", data, "--events", "--format", "jsonl", "--from", "100"); evs == "" || !strings.HasPrefix(want, evs) {
		t.Error("other events over NATS than from the folder")
	}
}
