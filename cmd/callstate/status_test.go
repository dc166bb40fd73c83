package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store/memory"
)

// TestAgentsOfABigPBX: more live calls than one message of NATS holds, groups of
// which began at one time.
func TestAgentsOfABigPBX(t *testing.T) {
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
	cfg := defaultConfig()
	cfg.Data, cfg.Listen = t.TempDir(), "127.0.0.1:-1"
	a, err := openAppOn(cfg, log, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	if err := a.engine.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	out, _ := runVerb(t, "agents", "--nats", a.server.URL())
	if got := strings.Count(out, "+380671112233"); got != n {
		t.Errorf("whom %d of %d agents talk with is said", got, n)
	}
}
