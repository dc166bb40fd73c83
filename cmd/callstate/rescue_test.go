package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store/bolt"
)

// spoilEvent changes a byte of a stored event that no other has: of its leg.
func spoilEvent(t *testing.T, data string) (lost events.Event) {
	t.Helper()
	name := filepath.Join(data, bolt.FileName)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	log := openLog(t, data)
	err = log.Read(t.Context(), 1, func(ev *events.Event) error {
		if _, new := ev.Payload.(*events.CallBridged); new && lost.ID == "" {
			lost = *ev
		}
		return nil
	})
	if err := errors.Join(err, log.Close()); err != nil {
		t.Fatal(err)
	}
	// The record begins with its checksum; the event's own bytes are all over the
	// file where a leaf was written anew, so each copy is changed.
	body, err := events.AppendBinary(nil, &lost)
	if err != nil || bytes.Count(b, body) == 0 {
		t.Fatalf("event %d is not in the file, %v", lost.Position, err)
	}
	spoiled := bytes.Clone(body)
	spoiled[len(spoiled)-1] ^= 1
	if err := os.WriteFile(name, bytes.ReplaceAll(b, body, spoiled), 0o600); err != nil {
		t.Fatal(err)
	}
	return lost
}

// TestRescueOfADamagedLog: verify names the damage and the call, every verb fails
// clearly or answers, and what was rescued is a log like any other.
func TestRescueOfADamagedLog(t *testing.T) {
	data, to := capturesLog(t), filepath.Join(t.TempDir(), "rescued")
	run := func(code int, args ...string) string {
		t.Helper()
		var out, errw bytes.Buffer
		if got := realMain(args, func(string) string { return "" }, nil, &out, &errw); got != code {
			t.Errorf("%v: exit code %d, want %d\n%s%s", args, got, code, &out, &errw)
		}
		return out.String() + errw.String()
	}
	if out := run(1, "rescue", "--data", data, "--to", to); !strings.Contains(out, "nothing is damaged") {
		t.Errorf("rescue of a whole log says:\n%s", out)
	}
	lost := spoilEvent(t, data)
	wants := []string{
		fmt.Sprintf("damaged   callstate.db: event %d: checksum differs", lost.Position),
		fmt.Sprintf("lost      events %d to %d", lost.Position, lost.Position),
		fmt.Sprintf("affected  %s from event %d on: 1 lost", lost.Key(), lost.Position),
	}
	for _, out := range []string{
		run(1, "verify", "--data", data),
		run(0, "rescue", "--data", data, "--to", to),
	} {
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not in\n%s", want, out)
			}
		}
	}
	if out := run(1, "verify", "--data", data, "--json", "--mask"); !strings.Contains(out, `"damage":{"log":`) || strings.Contains(out, lost.Account) {
		t.Errorf("verify --json --mask prints\n%s", out)
	}
	if out := run(1, "calls", "--data", data); !strings.Contains(out, "callstate rescue") {
		t.Errorf("calls of a damaged log does not say what to do:\n%s", out)
	}
	if out := run(1, "rescue", "--data", data, "--to", to); !strings.Contains(out, "already") {
		t.Errorf("rescued twice:\n%s", out)
	}
	if out := run(0, "verify", "--data", to); !strings.Contains(out, "all is what the log says") {
		t.Errorf("verify of what was rescued:\n%s", out)
	}
	if out := run(0, "history", "--data", to, lost.Key().String()); !strings.Contains(out, "log.lost") {
		t.Errorf("the history does not tell of the lost event:\n%s", out)
	}
	for _, args := range [][]string{{"calls"}, {"export"}, {"export", "--events"}, {"at", "--", "-1m"}} {
		run(0, append([]string{args[0], "--data", to}, args[1:]...)...)
	}
	startsOn(t, to)
}

// startsOn starts an engine on a log.
func startsOn(t *testing.T, data string) {
	t.Helper()
	log, err := bolt.Open(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	e := engine.New(log, nullBus{}, nil, engine.Config{})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	if err := e.Ready(ctx); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
