package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// health is the HTTP server for machines that watch over this one: /metrics,
// /healthz, /readyz.
//
// Healthy is a process whose engine works, or is reading its log; who is not is to
// be started again. Ready is one that keeps and publishes what it hears: the log is
// read, NATS can be published to, and it is not stopping. Links are reported and
// make nothing unready: one that is down is tried again, and to start another
// process would not bring it up.
type health struct {
	a        *app
	listener net.Listener
	server   *http.Server

	state atomic.Int32 // one of the below
}

const (
	stateReading int32 = iota // the engine reads its log
	stateWorking
	stateStopping
	stateEnded // the engine does nothing any more
)

// openHealth listens, so that a port that is taken is found out at the start.
func openHealth(a *app, addr string) (*health, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--http: %w", err)
	}
	h := &health{a: a, listener: l}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.metrics(), promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(a.logger.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
	}))
	mux.HandleFunc("GET /healthz", h.healthz)
	mux.HandleFunc("GET /readyz", h.readyz)
	h.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(a.logger.Handler(), slog.LevelDebug), // of clients that go away
	}
	return h, nil
}

// run serves until ctx ends, and then finishes what it answers. working ends when
// the daemon is told to stop, and ended is closed when the engine has.
func (h *health) run(ctx, working context.Context, ended <-chan struct{}) {
	var watch sync.WaitGroup
	defer watch.Wait()
	watch.Go(func() {
		if h.a.engine.Ready(working) == nil {
			h.state.Store(stateWorking)
		}
		select {
		case <-working.Done():
			h.state.Store(stateStopping)
		case <-ended:
		}
		<-ended
		h.state.Store(stateEnded)
	})
	stop := context.AfterFunc(ctx, func() {
		short, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if h.server.Shutdown(short) != nil {
			_ = h.server.Close()
		}
	})
	defer stop()
	if err := h.server.Serve(h.listener); !errors.Is(err, http.ErrServerClosed) {
		h.a.logger.Error("metrics and health are not served any more", "err", err)
	}
}

func (h *health) healthz(w http.ResponseWriter, _ *http.Request) {
	if h.state.Load() == stateEnded {
		http.Error(w, "the engine has ended", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// readiness is what /readyz says.
type readiness struct {
	Ready   bool           `json:"ready"`
	Because []string       `json:"because,omitempty"` // why not
	Links   map[string]int `json:"links"`             // how many are connected, retried and refused
}

func (h *health) readyz(w http.ResponseWriter, _ *http.Request) {
	r := readiness{Links: map[string]int{"connected": 0, "retried": 0, "refused": 0}}
	because := func(is bool, why string) {
		if is {
			r.Because = append(r.Because, why)
		}
	}
	state := h.state.Load()
	because(state == stateReading, "the log is being read")
	because(state == stateStopping || state == stateEnded, "stopping")
	if err := h.a.bus.Err(); err != nil {
		because(true, "NATS cannot be published to: "+err.Error())
	}
	for _, l := range connections(h.a.links, h.a.phones) {
		switch {
		case l.Refused:
			r.Links["refused"]++
		case l.Connected:
			r.Links["connected"]++
		default:
			r.Links["retried"]++
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if r.Ready = len(r.Because) == 0; !r.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(r)
}
