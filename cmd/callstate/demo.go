package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// demoOptions are what the demo can be told.
type demoOptions struct {
	data     string
	duration time.Duration
	rate     float64
	speed    float64
	agents   int
	phones   int
	port     int
	show     showOptions
}

func newDemo(e *env) *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "see it work: a PBX of our own, real frames, CTI events read back from NATS",
		Long: `Starts a Webitel server of our own on loopback, which plays recorded calls; connects
to it through the real adapter; stores what it says; publishes what follows on an
embedded NATS server; and prints the CTI events as it reads them back from there.
Some agents have a web phone: callstate is that phone, with real media to a Verto
server on loopback, and their calls are commanded as over NATS.

Nothing needs to be set up. Stop it with Ctrl-C, or give --duration. Start it again
on the same folder and it goes on where it was, also after kill -9.`,
		Example: `  callstate demo
  callstate demo --duration 10s --json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !(o.rate > 0) || !(o.speed > 0) || o.agents < 4 || o.agents > maxAgents || o.phones < 0 || o.phones > maxPhones || o.duration < 0 {
				return fmt.Errorf("%w: --rate and --speed must be above 0, --agents 4 to %d, --phones 0 to %d, --duration not negative", errUsage, maxAgents, maxPhones)
			}
			return e.demo(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.data, "data", defaultData("demo"), "folder of the log and of the NATS server's store")
	f.DurationVar(&o.duration, "duration", 0, "end after this time, with a summary (default: until Ctrl-C)")
	f.Float64Var(&o.rate, "rate", 2, "calls that begin each second")
	f.Float64Var(&o.speed, "speed", 3, "pace of the recorded calls; 1 is how they were recorded")
	f.IntVar(&o.agents, "agents", 30, "agents that take the calls")
	f.IntVar(&o.phones, "phones", 2, "agents beside them whose phone is a web phone, with real media on loopback")
	f.IntVar(&o.port, "port", -1, "port of the NATS server, so that others can subscribe (default: the system chooses)")
	f.BoolVar(&o.show.json, "json", false, "print the payloads as they are on NATS, one a line")
	f.BoolVar(&o.show.all, "all", false, "print also lineStateChanged, agentStateChanged and callDetails")
	f.BoolVar(&o.show.mask, "mask", false, maskUsage)
	return cmd
}

const (
	demoDomain = "demo.local"
	demoSecret = "demo"

	maxAgents = 5000 // their numbers end before 9000, the watcher's
	maxPhones = 500  // each with media of its own
)

func (e *env) demo(ctx context.Context, o demoOptions) error {
	if e.level.Level() == 0 { // info is for a daemon's diary; here the events are the story
		e.level.Set(4)
	}
	logger := e.logger()
	watcher := "9000@" + demoDomain
	pbx := webiteltest.New(webiteltest.Options{
		Accounts: slices.Concat(webiteltest.Agents(demoDomain, 1001, o.agents, demoSecret), webiteltest.Agents(demoDomain, o.firstPhone(), o.phones, demoSecret),
			[]webiteltest.Account{{Login: watcher, Secret: demoSecret, Name: "Watcher"}}),
		Logger: logger,
	})
	defer pbx.Close()

	cfg := defaultConfig()
	cfg.Data, cfg.Listen = o.data, fmt.Sprintf("127.0.0.1:%d", o.port)
	cfg.Webitel = []webitel.Config{{
		ConnectionString: pbx.URL(), Mode: webitel.ModeDomain,
		Users: []webitel.User{{Login: watcher, Password: demoSecret}},
	}}
	phones, err := startDemoPhones(&o, pbx, &cfg.Webitel[0])
	if err != nil {
		return err
	}
	defer phones.close()
	a, err := openApp(cfg, logger)
	if err != nil {
		return err
	}
	defer a.close()
	before := a.store.Frames()
	first := a.store.Last()

	rd, err := newReader(ctx, a.bus)
	if err != nil {
		return err
	}
	if !o.show.json {
		e.say("Webitel server of our own at %s, NATS at %s, log in %s", pbx.URL(), a.server.URL(), cfg.Data)
		if first > 0 {
			e.say("the log has %d events of earlier runs; calls that were live go on", first)
		}
		e.say("subscribe yourself:  nats sub --server %s 'cti.v1.>'", a.server.URL())
	}
	began := time.Now()
	runCtx, stop := context.WithCancel(ctx)
	if o.duration > 0 {
		runCtx, stop = context.WithTimeout(ctx, o.duration)
	}
	defer stop()
	show := func(ev *cti.Event, payload []byte) {
		if err := e.show(o.show, *ev, payload); err != nil {
			stop() // there is nobody to see it
		}
	}
	readCtx, stopReading := context.WithCancel(context.WithoutCancel(ctx))
	defer stopReading()

	settled := make(chan struct{})
	var once sync.Once
	a.links.clients[0].OnSettled(func(context.Context) { once.Do(func() { close(settled) }) })

	var parts sync.WaitGroup
	var made webiteltest.Counts
	var genErr, readErr error
	parts.Go(func() { readErr = rd.run(readCtx, show) })
	parts.Go(func() { made, genErr = e.demoCalls(runCtx, pbx, settled, o) })
	parts.Go(func() { phones.run(runCtx, a.engine) })
	err = a.run(runCtx)
	stop()
	// The bus has confirmed all; the reader has it when it has come as far as the stream.
	waitCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	waitErr := rd.wait(waitCtx)
	stopReading()
	parts.Wait()
	if genErr != nil && !errors.Is(genErr, context.Canceled) && !errors.Is(genErr, context.DeadlineExceeded) {
		err = errors.Join(err, genErr)
	}
	if err := errors.Join(err, readErr, waitErr); err != nil {
		return err
	}
	return e.demoSummary(a, rd, before, first, made, time.Since(began))
}

// demoCalls makes calls as soon as the link listens.
func (e *env) demoCalls(ctx context.Context, pbx *webiteltest.Server, settled <-chan struct{}, o demoOptions) (webiteltest.Counts, error) {
	select {
	case <-settled:
	case <-ctx.Done():
		return webiteltest.Counts{}, nil
	}
	return pbx.Generate(ctx, webiteltest.GenerateOptions{
		Agents: webiteltest.Numbers(1001, o.agents), Domain: demoDomain, Rate: o.rate, Speed: o.speed,
	})
}

// demoSummary says what came in and what came out, and fails if they do not
// reconcile.
func (e *env) demoSummary(a *app, rd *reader, before events.FrameCounts, first uint64, made webiteltest.Counts, took time.Duration) error {
	f := a.store.Frames()
	d := events.FrameCounts{
		Received: f.Received - before.Received, Recorded: f.Recorded - before.Recorded, NoOps: f.NoOps - before.NoOps,
		Duplicates: f.Duplicates - before.Duplicates, Quarantined: f.Quarantined - before.Quarantined,
	}
	st := a.bus.Stats()
	published := st.Confirmed - st.Duplicates
	e.say("%s: %d calls made, %d finished", took.Round(100*time.Millisecond), made.Calls, rd.finished)
	e.say("frames received %d = recorded as events %d + no-ops %d + duplicates %d + quarantined %d",
		d.Received, d.Recorded, d.NoOps, d.Duplicates, d.Quarantined)
	e.say("events stored %d, CTI events published %d = read back from NATS %d", a.store.Last()-first, published, rd.count)
	switch {
	case !d.Reconciles():
		return fmt.Errorf("frames do not reconcile: %d received, %d accounted for", d.Received, d.Disposed())
	case published != rd.count:
		return fmt.Errorf("CTI events do not reconcile: %d published, %d read back", published, rd.count)
	}
	return nil
}

// reader reads the stream of CTI events back from NATS, from where it stood.
type reader struct {
	stream jetstream.Stream
	from   uint64 // first sequence of the stream that is ours to read

	mu       sync.Mutex // guards what follows
	at       uint64     // last sequence read
	count    uint64
	finished uint64
	moved    chan struct{} // closed and renewed at each event
}

func newReader(ctx context.Context, bus *natsbus.Bus) (*reader, error) {
	rctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := bus.Ready(rctx); err != nil {
		return nil, fmt.Errorf("wait for NATS: %w", err)
	}
	js, err := jetstream.New(bus.Conn())
	if err != nil {
		return nil, err
	}
	s, err := js.Stream(rctx, natsbus.StreamName(cti.DefaultPrefix))
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	info, err := s.Info(rctx)
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	return &reader{stream: s, from: info.State.LastSeq + 1, at: info.State.LastSeq, moved: make(chan struct{})}, nil
}

func (r *reader) run(ctx context.Context, show func(*cti.Event, []byte)) error {
	c, err := r.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: r.from,
	})
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	it, err := c.Messages()
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	defer context.AfterFunc(ctx, it.Stop)()
	for {
		msg, err := it.Next()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("read back: %w", err)
		}
		var ev cti.Event
		if err := json.Unmarshal(msg.Data(), &ev); err != nil {
			return fmt.Errorf("read back %s: %w", msg.Subject(), err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		show(&ev, msg.Data())
		r.mu.Lock()
		r.at = meta.Sequence.Stream
		r.count++
		if ev.Event == cti.CallFinished {
			r.finished++
		}
		close(r.moved)
		r.moved = make(chan struct{})
		r.mu.Unlock()
	}
}

// wait waits until all of the stream is read.
func (r *reader) wait(ctx context.Context) error {
	info, err := r.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	for {
		r.mu.Lock()
		at, moved := r.at, r.moved
		r.mu.Unlock()
		if at >= info.State.LastSeq {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("read back %d of %d CTI events", at, info.State.LastSeq)
		}
	}
}
