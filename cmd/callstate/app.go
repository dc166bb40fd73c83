package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/bolt"
)

// app is the daemon's parts, wired. They are opened in the order of the fields
// and closed in the reverse one.
type app struct {
	cfg    config
	logger *slog.Logger

	store   store.Store     // the folder's own, but in a measurement without it
	server  *natsbus.Server // nil with a NATS server of somebody else's
	bus     *natsbus.Bus
	engine  *engine.Engine
	clients []*webitel.Client
	resyncs []*webitel.Resync
	service *natsbus.Service
	control *natsbus.Control
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
	a = &app{cfg: cfg, logger: logger, store: log}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	url := cfg.NATS
	if url == "" {
		if a.server, err = startServer(cfg, logger); err != nil {
			return a, fmt.Errorf("start NATS: %w", err)
		}
		url = a.server.URL()
	}
	a.bus, err = natsbus.New(natsbus.Options{
		URL: url, Prefix: cfg.Prefix, LogID: a.store.ID(), MaxAge: time.Duration(cfg.StreamMaxAge), Logger: logger,
	})
	if err != nil {
		return a, fmt.Errorf("connect to NATS: %w", err)
	}
	commander := &commander{}
	a.engine = engine.New(a.store, a.bus, commander, engine.Config{
		Rules: engine.Rules{Answerable: cfg.answerable()}, Policies: cfg.Policies.engine(),
		Shards: cfg.Shards, SnapshotEvery: cfg.snapshotEvery, Logger: logger,
	})
	for _, w := range cfg.Webitel {
		watched := map[string]bool{}
		for _, u := range w.Users {
			_, domain, _ := strings.Cut(u.Login, "@")
			if w.Mode != webitel.ModeAccount && watched[domain] {
				logger.Warn("a second account for the same domain is not needed and not used", "login", u.Login)
				continue
			}
			watched[domain] = true
			c := webitel.NewClient(w, u, "", a.engine, logger.With("login", u.Login))
			a.clients = append(a.clients, c)
			a.resyncs = append(a.resyncs, webitel.NewResync(c, a.engine, time.Duration(cfg.ResyncInterval), logger.With("login", u.Login)))
			commander.add(u.Login, c)
		}
	}
	a.service, err = natsbus.StartService(a.bus.Conn(), &queries{engine: a.engine, store: a.store, bus: a.bus, clients: a.clients, domains: commander}, natsbus.ServiceOptions{Logger: logger})
	if err != nil {
		return a, fmt.Errorf("start service: %w", err)
	}
	if a.control, err = natsbus.StartControl(a.bus.Conn(), a.engine, natsbus.ServiceOptions{Logger: logger}); err != nil {
		return a, fmt.Errorf("start control: %w", err)
	}
	return a, nil
}

func (c *config) logOptions(logger *slog.Logger) *bolt.Options {
	o := &bolt.Options{Logger: logger}
	o.SegmentBytes, o.SegmentAge = c.Retention.segments()
	return o
}

func startServer(cfg config, logger *slog.Logger) (*natsbus.Server, error) {
	host, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("%w: --listen %q: want host:port", errUsage, cfg.Listen)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("%w: --listen %q: port is no number", errUsage, cfg.Listen)
	}
	return natsbus.StartServer(natsbus.ServerOptions{
		StoreDir: filepath.Join(cfg.Data, "nats"), Host: host, Port: n, Logger: logger,
	})
}

// run works until ctx is done or a part fails. It stops in order: the links, so
// that no more frames come; the engine, which appends, folds and publishes what
// it took; the bus.
func (a *app) run(ctx context.Context) error {
	engineCtx, stopEngine := context.WithCancel(context.WithoutCancel(ctx))
	defer stopEngine()
	busCtx, stopBus := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBus()

	links, linkCtx := errgroup.WithContext(ctx)
	var engineErr, busErr error
	var parts sync.WaitGroup
	engineDone := make(chan struct{})
	parts.Go(func() { busErr = a.bus.Run(busCtx) })
	parts.Go(func() {
		defer close(engineDone)
		engineErr = a.engine.Run(engineCtx)
	})
	links.Go(func() error { // an engine that fails takes the links with it
		select {
		case <-engineDone:
			return engineErr
		case <-linkCtx.Done():
			return nil
		}
	})
	for _, c := range a.clients {
		links.Go(func() error {
			if err := a.engine.Ready(linkCtx); err != nil {
				return nil //nolint:nilerr // the engine says itself why it is not ready
			}
			if err := c.Run(linkCtx); err != nil && !errors.Is(err, engine.ErrStopped) {
				return err
			}
			return nil
		})
	}
	for _, r := range a.resyncs {
		links.Go(func() error { return r.Run(linkCtx) })
	}
	if log, ok := a.store.(droppable); ok && a.cfg.Retention.on() {
		r := retainer{retention: a.cfg.Retention, log: log, confirmed: a.bus.Confirmed, logger: a.logger, now: time.Now}
		links.Go(func() error { return r.run(linkCtx) })
	}
	linkErr := links.Wait()
	a.note("control", a.control.Close()) // while there is an engine to record outcomes
	stopEngine()
	<-engineDone
	stopBus()
	parts.Wait()
	if errors.Is(engineErr, linkErr) {
		linkErr = nil
	}
	return errors.Join(linkErr, engineErr, busErr)
}

// close gives everything back, last opened first.
func (a *app) close() {
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

// commander gives a policy's command to the link that the account is seen by.
type commander struct {
	mu      sync.Mutex // guards what follows
	account map[string]*webitel.Client
	domain  map[string]*webitel.Client
}

func (c *commander) add(login string, client *webitel.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.account == nil {
		c.account, c.domain = map[string]*webitel.Client{}, map[string]*webitel.Client{}
	}
	c.account[login] = client
	if _, domain, ok := strings.Cut(login, "@"); ok && c.domain[domain] == nil {
		c.domain[domain] = client
	}
}

// client returns the link that sees an account: its own, else its domain's.
func (c *commander) client(account string) (*webitel.Client, error) {
	_, domain, _ := strings.Cut(account, "@")
	c.mu.Lock()
	defer c.mu.Unlock()
	client := c.account[account]
	if client == nil {
		client = c.domain[domain]
	}
	if client == nil {
		return nil, &engine.RequestError{Result: engine.VerdictNotConnected, Text: "no link is configured for the account"}
	}
	return client, nil
}

// Check implements engine.Commander.
func (c *commander) Check(cmd engine.Command) error {
	client, err := c.client(cmd.Account)
	if err != nil {
		return err
	}
	return client.Check(cmd)
}

// Command implements engine.Commander.
func (c *commander) Command(ctx context.Context, cmd engine.Command) (string, error) {
	client, err := c.client(cmd.Account)
	if err != nil {
		return "", err
	}
	return client.Command(ctx, cmd)
}
