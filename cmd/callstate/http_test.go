package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// page gets a page of the daemon's own HTTP server.
func (d *daemon) page(t *testing.T, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+d.health.listener.Addr().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// value is a sample of /metrics, with its labels as written, and -1 where there is none.
func value(text, name string) float64 {
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(text)
	if m == nil {
		return -1
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return -1
	}
	return v
}

func withHTTP(c *config) { c.HTTP = "127.0.0.1:0" }

// TestMetrics: a call, a frame that is none, a request that is refused and a
// reconnection show, and the figures reconcile with the log.
func TestMetrics(t *testing.T) {
	d := startDaemon(t, t.TempDir(), withHTTP)
	k := d.desk(t, agent)
	k.must("makeCall", `{"target":"380501234567"}`)
	k.awaitFlags(cti.TalkBridged)
	d.pbx.Garbage("", "hello")
	k.refused("answerCall", `{}`, engine.VerdictNotAllowed)
	k.must("dropCall", `{}`)
	k.await(cti.CallFinished)
	d.pbx.Drop("")

	var text string
	want := map[string]func(float64) bool{}
	is := func(name string, v float64) { want[name] = func(x float64) bool { return x == v } }
	above := func(name string, v float64) { want[name] = func(x float64) bool { return x > v } }
	is(`callstate_events_total{origin="live",type="call.new"}`, 1)
	is(`callstate_events_total{origin="live",type="call.hungup"}`, 1)
	is(`callstate_frames_quarantined_total{reason="not-json"}`, 1)
	is(`callstate_requests_total{method="answerCall"}`, 1)
	is(`callstate_request_outcomes_total{result="not-allowed"}`, 1)
	is(`callstate_request_outcomes_total{result="ok"}`, 2)
	is(`callstate_links{adapter="webitel",domain="demo.local",mode="domain",state="connected"}`, 1)
	is(`callstate_links{adapter="webitel",domain="demo.local",mode="domain",state="refused"}`, 0)
	is(`callstate_link_connects_total{domain="demo.local"}`, 2)
	is(`callstate_link_losses_total{domain="demo.local"}`, 1)
	is(`callstate_resync_corrections_total{domain="demo.local",kind="closed"}`, 0)
	above(`callstate_resyncs_total{domain="demo.local"}`, 0)
	is(`callstate_bus_ready`, 1)
	is(`callstate_bus_lag_events`, 0)
	is(`callstate_calls_live`, 0)
	is(`callstate_calls_doubtful`, 0)
	is(`callstate_log_segments`, 1)
	above(`callstate_lines`, 10)
	above(`callstate_log_bytes`, 1000)
	above(`callstate_views_written_total`, 0)
	above(`callstate_bus_messages_confirmed_total`, 0)
	above(`callstate_append_seconds_count`, 0)
	above(`callstate_append_events_sum`, 0)
	above(`callstate_build_info{version="`+version()+`"}`, 0)
	above(`go_goroutines`, 0)
	for end := time.Now().Add(30 * time.Second); ; {
		var code int
		if code, text = d.page(t, "/metrics"); code != http.StatusOK {
			t.Fatalf("%d\n%s", code, text)
		}
		var missing []string
		for name, ok := range want {
			if !ok(value(text, name)) {
				missing = append(missing, name+" is "+strconv.FormatFloat(value(text, name), 'g', -1, 64))
			}
		}
		if len(missing) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%s\n%s", strings.Join(missing, "\n"), text)
		}
	}
	sum := 0.0
	for _, became := range []string{"recorded", "no-op", "duplicate", "quarantined"} {
		sum += value(text, `callstate_frames_total{became="`+became+`"}`)
	}
	if got := value(text, "callstate_frames_received_total"); got != sum {
		t.Errorf("%g frames received, %g accounted for", got, sum)
	}
	appended, counted := value(text, "callstate_append_events_sum"), 0.0
	for _, m := range regexp.MustCompile(`(?m)^callstate_events_total\{.*\} (\d+)$`).FindAllStringSubmatch(text, -1) {
		n, _ := strconv.ParseFloat(m[1], 64)
		counted += n
	}
	if position := value(text, "callstate_log_position"); appended != counted || position != counted {
		t.Errorf("%g events appended, %g counted by type, position %g", appended, counted, position)
	}
	for _, number := range []string{"1001@", "380501234567", watcherLogin} {
		if strings.Contains(text, number) {
			t.Errorf("/metrics has the number %s", number)
		}
	}
}

func TestHealth(t *testing.T) {
	d := startDaemon(t, t.TempDir(), withHTTP)
	ready := func() (int, readiness) {
		code, text := d.page(t, "/readyz")
		var r readiness
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatal(err)
		}
		return code, r
	}
	awaitReady := func(what string, ok func(int, readiness) bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; {
			code, r := ready()
			if ok(code, r) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %d %+v", what, code, r)
			}
		}
	}
	awaitReady("ready", func(code int, r readiness) bool { return code == http.StatusOK && r.Ready && r.Links["connected"] == 1 })
	if code, text := d.page(t, "/healthz"); code != http.StatusOK || text != "ok\n" {
		t.Errorf("healthy: %d %s", code, text)
	}
	if code, _ := d.page(t, "/nothing"); code != http.StatusNotFound {
		t.Errorf("no such page: %d", code)
	}
	// A link that is down is tried again and makes nothing unready.
	d.pbx.Close()
	awaitReady("without a PBX", func(code int, r readiness) bool { return code == http.StatusOK && r.Links["retried"] == 1 })
	// Without NATS what is heard is kept, and not published.
	d.server.Close()
	awaitReady("without NATS", func(code int, r readiness) bool {
		return code == http.StatusServiceUnavailable && strings.Contains(strings.Join(r.Because, " "), "NATS")
	})
	if code, _ := d.page(t, "/healthz"); code != http.StatusOK {
		t.Errorf("healthy without NATS: %d", code)
	}
}

func TestHealthyUntilTheEngineEnds(t *testing.T) {
	h := &health{}
	for state, want := range map[int32]int{
		stateReading: http.StatusOK, stateWorking: http.StatusOK, stateStopping: http.StatusOK, stateEnded: http.StatusServiceUnavailable,
	} {
		h.state.Store(state)
		w := httptest.NewRecorder()
		if h.healthz(w, nil); w.Code != want {
			t.Errorf("state %d: healthz %d", state, w.Code)
		}
	}
}

func TestPortOfHealthIsTaken(t *testing.T) {
	d := startDaemon(t, t.TempDir(), withHTTP)
	_, err := openHealth(d.app, d.health.listener.Addr().String())
	if err == nil || !strings.Contains(err.Error(), "--http") {
		t.Errorf("a port that is taken: %v", err)
	}
}

// TestTracesOfTheDaemon: a call's trace comes to a receiver, and one that hangs
// stops neither call nor daemon.
func TestTracesOfTheDaemon(t *testing.T) {
	var received atomic.Int64
	got := make(chan struct{}, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if received.Add(int64(strings.Count(string(b), "callstate.call_id"))) > 0 {
			select {
			case got <- struct{}{}:
			default:
			}
		}
	}))
	defer s.Close()
	d := startDaemon(t, t.TempDir(), func(c *config) { c.Tracing.URL = s.URL })
	k := d.desk(t, agent)
	k.must("makeCall", `{"target":"380501234567"}`)
	k.awaitFlags(cti.TalkBridged)
	k.must("dropCall", `{}`)
	k.await(cti.CallFinished)
	if err := d.stop(); err != nil { // exports what is left
		t.Fatal(err)
	}
	select {
	case <-got:
	case <-time.After(20 * time.Second):
		t.Error("no trace came")
	}

	hung, release := context.WithCancel(t.Context())
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hung.Done():
		case <-r.Context().Done():
		}
	}))
	defer silent.Close()
	defer release()
	d = startDaemon(t, t.TempDir(), func(c *config) { c.Tracing.URL = silent.URL })
	k = d.desk(t, agent)
	for range 3 {
		k.must("makeCall", `{"target":"380501234567"}`)
		k.awaitFlags(cti.TalkBridged)
		k.must("dropCall", `{}`)
		k.await(cti.CallFinished)
		k.awaitFlags(cti.Idle)
	}
	if err := d.stop(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// BenchmarkTally is what the figures cost the fold, for each event.
func BenchmarkTally(b *testing.B) {
	t := newTally()
	var evs []events.Event
	for range 64 {
		evs = append(evs, events.Event{Payload: &events.CallNew{}}, events.Event{Payload: &events.CallLegAdded{}}, events.Event{Payload: &events.CallHungup{}}, events.Event{Payload: &events.CallDTMF{}})
	}
	b.ReportAllocs()
	for b.Loop() {
		t.Appended(len(evs), time.Millisecond)
		t.Folded(evs, nil)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(evs)), "ns/event")
}
