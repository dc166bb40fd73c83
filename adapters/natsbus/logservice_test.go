package natsbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/callstate/callstate/events"
)

// fakeLog holds events from base+1 on.
type fakeLog struct {
	base  uint64
	state []byte
	evs   []events.Event
}

func (l *fakeLog) ID() string                    { return testLog }
func (l *fakeLog) Base() (uint64, []byte, error) { return l.base, l.state, nil }
func (l *fakeLog) Last() uint64                  { return l.base + uint64(len(l.evs)) }

func (l *fakeLog) Read(_ context.Context, from uint64, fn func(*events.Event) error) error {
	for i := range l.evs {
		if ev := l.evs[i]; ev.Position >= from {
			if err := fn(&ev); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestRemoteLogIsTheLog: all events and the whole state, however large, page by page.
func TestRemoteLogIsTheLog(t *testing.T) {
	log := &fakeLog{base: 40, state: bytes.Repeat([]byte("state"), 300_000)}
	for p := uint64(41); p <= 3000; p++ {
		log.evs = append(log.evs, events.Event{
			Position: p, ID: fmt.Sprint("e", p), Version: 1, Account: "1004@acme.example", Call: "a2e6", OccurredAt: events.Time(p),
			Payload: &events.CallPartiesChanged{Parties: events.Parties{CallerName: strings.Repeat("я", int(p%900))}},
		})
	}
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL()})
	svc, err := StartService(b.Conn(), &fakeQueries{}, ServiceOptions{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Close()
	remote, err := OpenRemoteLog(deadline(t), b.Conn())
	if err != nil {
		t.Fatal(err)
	}
	base, state, err := remote.Base()
	if remote.ID() != testLog || remote.Last() != 3000 || base != 40 || !bytes.Equal(state, log.state) || err != nil {
		t.Errorf("log %s to %d, base %d of %d bytes, %v", remote.ID(), remote.Last(), base, len(state), err)
	}
	log.evs = append(log.evs, events.Event{Position: 3001, ID: "e3001", Version: 1, Payload: &events.CallParked{}}) // after it was opened
	var got []events.Event
	if err := remote.Read(deadline(t), 1, func(ev *events.Event) error { got = append(got, *ev); return nil }); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(log.evs[:2960], got); d != "" {
		t.Errorf("read (-log +got):\n%.2000s", d)
	}
	stop := errors.New("stop")
	if err := remote.Read(deadline(t), 100, func(*events.Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of the reader's gives %v", err)
	}
	for request, code := range map[string]string{
		`{"from":40}`: CodeGone, `{}`: CodeBadRequest, `{"from":41,"limit":1001}`: CodeBadRequest, `{"from":9999}`: "",
	} {
		if body, got := ask(t, b.Conn(), "log.events", request); got != code {
			t.Errorf("%s: code %q, want %q: %.200s", request, got, code, body)
		}
	}
	if _, code := ask(t, b.Conn(), "log.base", `{"offset":-1}`); code != CodeBadRequest {
		t.Errorf("offset -1: %q", code)
	}
}
