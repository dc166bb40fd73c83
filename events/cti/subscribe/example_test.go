package subscribe_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/nats-io/nats.go"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
	"github.com/callstate/callstate/events/cti/subscribe"
	"github.com/callstate/callstate/store/memory"
)

// Every CTI event of one agent, once and in order, also those that the network
// lost: here the first of three.
func Example() {
	url, lose, stop := exampleEngine()
	defer stop()

	nc, err := nats.Connect(url)
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	done := make(chan struct{})
	s, err := subscribe.Start(context.Background(), nc, subscribe.Options{Account: "1004@acme.example"}, func(ev *cti.Event) {
		fmt.Println(ev.LineSeq, ev.Event)
		if ev.Event == cti.AgentStateChanged {
			close(done)
		}
	})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()

	lose(nc, 1)
	<-done
	// Output:
	// 1 callStarted
	// 2 lineStateChanged
	// 3 agentStateChanged
}

// exampleEngine stands for a running engine. lose makes a call happen and
// publishes what follows, but for the first n messages.
func exampleEngine() (url string, lose func(nc *nats.Conn, n int), stop func()) {
	dir, err := os.MkdirTemp("", "callstate-example")
	if err != nil {
		log.Fatal(err)
	}
	srv, err := natsbus.StartServer(natsbus.ServerOptions{StoreDir: dir, Port: -1})
	if err != nil {
		log.Fatal(err)
	}
	own, err := nats.Connect(srv.URL())
	if err != nil {
		log.Fatal(err)
	}
	calls := exampleLog{Store: memory.New()}
	svc, err := natsbus.StartService(own, calls, natsbus.ServiceOptions{})
	if err != nil {
		log.Fatal(err)
	}
	lose = func(nc *nats.Conn, n int) {
		b := &events.Batch{Events: []events.Event{{Account: "1004@acme.example", Call: "c1", Leg: "c1", Version: 1, Payload: &events.CallNew{Direction: events.In}}}}
		if err := calls.Append(context.Background(), b); err != nil {
			log.Fatal(err)
		}
		for i, m := range engine.NewProjection(calls.ID()).Apply(&b.Events[0]).Messages {
			if i >= n {
				_ = nc.Publish(cti.Subject(cti.DefaultPrefix, m.Event.Account, m.Event.Event, m.Event.CallID), m.Payload)
			}
		}
	}
	return srv.URL(), lose, func() {
		_ = svc.Close()
		own.Close()
		srv.Close()
		_ = os.RemoveAll(dir)
	}
}

// exampleLog answers from a log in memory.
type exampleLog struct {
	natsbus.Queries
	*memory.Store
}

func (l exampleLog) Since(ctx context.Context, f natsbus.SinceFilter) (engine.Missed, error) {
	return engine.Since(ctx, l.Store, f)
}

func (l exampleLog) Status(context.Context) (natsbus.Status, error) {
	return natsbus.Status{Folded: l.Last()}, nil
}

func (l exampleLog) Lines(context.Context, natsbus.LineFilter) ([]cti.LineView, error) {
	return nil, nil
}

func (l exampleLog) Calls(context.Context, natsbus.CallFilter) ([]cti.CallView, error) {
	return nil, nil
}
