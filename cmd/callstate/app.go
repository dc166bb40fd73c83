package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/tracing"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/bolt"
)

// app is the daemon's parts, wired. They are opened in the order of the fields
// and closed in the reverse one.
type app struct {
	cfg    config
	logger *slog.Logger

	links  *links // to the PBXs
	phones *phones

	store   store.Store     // the folder's own, but in a measurement without it
	server  *natsbus.Server // nil with a NATS server of somebody else's
	bus     *natsbus.Bus
	engine  *engine.Engine
	service *natsbus.Service
	control *natsbus.Control
	tally   *tally
	tracer  *tracing.Tracer // nil where no traces are wanted
	health  *health         // nil where no metrics are wanted
}

// openApp opens what can fail at the start: the folder, the ports, the settings.
// The log first: another process that has the folder is found out before anything
// listens.
func openApp(cfg config, logger *slog.Logger) (*app, error) {
	log, err := bolt.Open(cfg.Data, cfg.logOptions(logger))
	if err != nil {
		return &app{cfg: cfg, logger: logger}, fmt.Errorf("open log: %w", err)
	}
	return openAppOn(cfg, log, logger)
}

// openAppOn is openApp with a log, which it owns.
func openAppOn(cfg config, log store.Store, logger *slog.Logger) (a *app, err error) {
	a = &app{cfg: cfg, logger: logger, store: log, links: &links{}, phones: &phones{}}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if cfg.NATS == "" {
		if a.server, err = startServer(cfg, logger); err != nil {
			return a, fmt.Errorf("start NATS: %w", err)
		}
	}
	a.bus, err = natsbus.New(natsbus.Options{
		URL: cfg.NATS, Access: cfg.NATSAccess.access(), Server: a.server, Prefix: cfg.Prefix, LogID: a.store.ID(), MaxAge: time.Duration(cfg.StreamMaxAge), NoRefill: cfg.NoRefill, Logger: logger,
	})
	if err != nil {
		return a, fmt.Errorf("connect to NATS: %w", err)
	}
	a.tally = newTally()
	watching := observers{a.tally}
	if cfg.Tracing.URL != "" {
		if a.tracer, err = tracing.New(tracing.Options{URL: cfg.Tracing.URL, Version: version(), Logger: logger}); err != nil {
			return a, err
		}
		watching = append(watching, a.tracer)
	}
	if cfg.observer != nil {
		watching = append(watching, cfg.observer)
	}
	a.engine = engine.New(a.store, a.bus, &commander{a.links, a.phones}, engine.Config{
		Rules: engine.Rules{Answerable: cfg.answerable()}, Policies: cfg.Policies.engine(), WebPhone: cfg.webPhone(), PhoneVideo: cfg.phoneVideo(),
		Shards: cfg.Shards, SnapshotEvery: cfg.snapshotEvery, Observer: watching, Logger: logger,
	})
	a.links.open(&cfg, a.engine, logger)
	if err = a.phones.open(&cfg, a.engine, logger); err != nil {
		return a, fmt.Errorf("open web phones: %w", err)
	}
	a.service, err = natsbus.StartService(a.bus.Conn(), &queries{engine: a.engine, store: a.store, bus: a.bus, links: a.links, phones: a.phones}, natsbus.ServiceOptions{Log: a.store, Logger: logger})
	if err != nil {
		return a, fmt.Errorf("start service: %w", err)
	}
	if a.control, err = natsbus.StartControl(a.bus.Conn(), a.engine, natsbus.ServiceOptions{Logger: logger}); err != nil {
		return a, fmt.Errorf("start control: %w", err)
	}
	if cfg.HTTP != "" {
		if a.health, err = openHealth(a, cfg.HTTP); err != nil {
			return a, err
		}
	}
	return a, nil
}

func (c *config) logOptions(logger *slog.Logger) *bolt.Options {
	o := &bolt.Options{Logger: logger}
	o.SegmentBytes, o.SegmentAge = c.Retention.segments()
	return o
}

func startServer(cfg config, logger *slog.Logger) (*natsbus.Server, error) {
	o, err := cfg.serverOptions()
	if err != nil {
		return nil, err
	}
	o.Logger = logger
	return natsbus.StartServer(o)
}

// serverOptions are those of the embedded NATS server.
func (c *config) serverOptions() (o natsbus.ServerOptions, err error) {
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return o, fmt.Errorf("%w: --listen %q: want host:port", errUsage, c.Listen)
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < -1 || n > 65535 {
		return o, fmt.Errorf("%w: --listen %q: want a port from 1 to 65535, or -1", errUsage, c.Listen)
	}
	if n == 0 { // the NATS server would take it for its usual port
		n = -1
	}
	return natsbus.ServerOptions{
		StoreDir: filepath.Join(c.Data, "nats"), Host: host, Port: n,
		CertFile: c.ListenTLS.CertFile, KeyFile: c.ListenTLS.KeyFile, Users: c.serverUsers(), Prefix: c.Prefix,
	}, nil
}

// run works until ctx is done or a part fails. It stops in order: the links, so
// that no more frames come; the engine, which appends, folds and publishes what
// it took; the bus.
func (a *app) run(ctx context.Context) error {
	engineCtx, stopEngine := context.WithCancel(context.WithoutCancel(ctx))
	defer stopEngine()
	busCtx, stopBus := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBus()
	traceCtx, stopTraces := context.WithCancel(context.WithoutCancel(ctx))
	defer stopTraces()

	sources, linkCtx := errgroup.WithContext(ctx)
	var engineErr, busErr error
	var parts sync.WaitGroup
	engineDone, busDone := make(chan struct{}), make(chan struct{})
	parts.Go(func() {
		defer close(busDone)
		busErr = a.bus.Run(busCtx)
	})
	parts.Go(func() {
		defer close(engineDone)
		engineErr = a.engine.Run(engineCtx)
	})
	if a.health != nil {
		parts.Go(func() { a.health.run(busCtx, linkCtx, engineDone) })
	}
	if a.tracer != nil {
		parts.Go(func() { a.tracer.Run(traceCtx) })
	}
	sources.Go(func() error { // an engine or a bus that fails takes the links with it
		select {
		case <-engineDone:
			return engineErr
		case <-busDone:
			return busErr
		case <-linkCtx.Done():
			return nil
		}
	})
	sources.Go(func() error {
		if err := a.engine.Ready(linkCtx); err != nil {
			return nil //nolint:nilerr // the engine says itself why it is not ready
		}
		return a.links.run(linkCtx)
	})
	sources.Go(func() error {
		if err := a.engine.Ready(linkCtx); err == nil {
			a.phones.run(linkCtx)
		}
		return nil
	})
	if log, ok := a.store.(droppable); ok && a.cfg.Retention.on() {
		r := retainer{retention: a.cfg.Retention, log: log, confirmed: a.bus.Confirmed, logger: a.logger, now: time.Now}
		sources.Go(func() error { return r.run(linkCtx) })
	}
	linkErr := sources.Wait()
	a.note("control", a.control.Close()) // while there is an engine to record outcomes
	stopEngine()
	<-engineDone
	stopTraces()
	stopBus()
	parts.Wait()
	if errors.Is(engineErr, linkErr) || errors.Is(busErr, linkErr) {
		linkErr = nil
	}
	return errors.Join(linkErr, engineErr, busErr)
}

// close gives everything back, last opened first.
func (a *app) close() {
	if a.health != nil {
		_ = a.health.listener.Close() // also where it never served
	}
	if a.control != nil {
		a.note("control", a.control.Close())
	}
	if a.service != nil {
		a.note("service", a.service.Close())
	}
	if a.bus != nil {
		a.note("bus", a.bus.Close())
	}
	if a.server != nil {
		a.server.Close()
	}
	if a.store != nil {
		a.note("log", a.store.Close())
	}
}

func (a *app) note(part string, err error) {
	if err != nil {
		a.logger.Warn("close", "part", part, "err", err)
	}
}
