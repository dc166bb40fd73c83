package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/bolt"
	"github.com/callstate/callstate/store/memory"
)

// TestBigPBX: more live calls than one message of NATS holds, groups of which began
// at one time.
func TestBigPBX(t *testing.T) {
	const n = 1100
	log, b := memory.New(), &events.Batch{}
	start := events.At(time.Now())
	for i := range n {
		at := start + events.Time(i/7)
		id := fmt.Sprintf("954e8d54-41db-4c55-baf8-%012d", i)
		for _, p := range []events.Payload{
			&events.CallNew{Direction: events.In, OtherLeg: id, Parties: events.Parties{CallerNumber: "+380671112233", CallerName: "Олена Коваленко", CalledNumber: "1001"}},
			&events.CallAccepted{}, &events.CallBridged{Partner: id},
			&events.WebRTCSessionNew{Session: id, Transport: "verto", State: events.DialogActive},
			&events.WebRTCStats{Session: id, Codec: "opus", PacketsReceived: 1000, PacketsSent: 1000, JitterMs: 1.25, RoundTripMs: 3.5, MOS: 4.4},
		} {
			b.Events = append(b.Events, events.Event{
				ID: fmt.Sprint(len(b.Events)), Version: 1, Domain: "acme.example", Account: fmt.Sprintf("%d@acme.example", 1001+i), Call: id, Leg: id, Conversation: id,
				OccurredAt: at, RecordedAt: at, Payload: p,
			})
		}
	}
	if err := log.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	url := engineOn(t, log)
	for _, verb := range []string{"agents", "at now"} {
		args := strings.Fields(verb)
		out, _ := runVerb(t, append([]string{args[0], "--nats", url}, args[1:]...)...)
		if got := strings.Count(out, "+380671112233"); got != n {
			t.Errorf("%s: %d calls of %d", verb, got, n)
		}
	}
}

// TestHistoryOfACallThatSaysMuch: each CTI event carries the variables of a
// click-to-call, so that a page of them may be larger than NATS carries.
func TestHistoryOfACallThatSaysMuch(t *testing.T) {
	b := &events.Batch{}
	add := func(p events.Payload) {
		at := events.At(time.Now())
		b.Events = append(b.Events, events.Event{
			ID: fmt.Sprint(len(b.Events)), Version: 1, Domain: "acme.example", Account: "1001@acme.example", Call: "c", Leg: "l", Conversation: "c",
			OccurredAt: at, RecordedAt: at, Payload: p,
		})
	}
	add(&events.CallNew{Direction: events.Out, Data: strings.Repeat("x", 20_000)})
	for range 120 {
		add(&events.CallDTMF{Digit: "5"})
	}
	log := memory.New()
	if err := log.Append(t.Context(), &events.Batch{Events: slices.Clone(b.Events)}); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	onDisk, err := bolt.Open(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(onDisk.Append(t.Context(), b), onDisk.Close()); err != nil {
		t.Fatal(err)
	}
	url := engineOn(t, log)
	for _, more := range []string{"--json", "--explain"} {
		want, _ := runVerb(t, "history", "--data", data, more, "c")
		if got, _ := runVerb(t, "history", "--nats", url, more, "c"); got != want {
			t.Errorf("%s: %d bytes, want %d", more, len(got), len(want))
		}
	}
}

// engineOn runs an engine without a link on a log, for the test's life, and returns
// where its NATS server is.
func engineOn(t *testing.T, log store.Store) string {
	t.Helper()
	cfg := defaultConfig()
	cfg.Data, cfg.Listen = t.TempDir(), "127.0.0.1:-1"
	a, err := openAppOn(cfg, log, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		a.close()
	})
	if err := a.engine.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return a.server.URL()
}
