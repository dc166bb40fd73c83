package natsbus_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events/cti"
)

// A server in the process, one CTI event on it, and what a consumer gets.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "natsbus")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	server, err := natsbus.StartServer(natsbus.ServerOptions{StoreDir: dir, Port: -1})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	bus, err := natsbus.New(natsbus.Options{URL: server.URL(), LogID: "log"})
	if err != nil {
		log.Fatal(err)
	}
	defer bus.Close()
	run, stop := context.WithCancel(ctx)
	done := make(chan error)
	go func() { done <- bus.Run(run) }()

	if err := bus.Ready(ctx); err != nil {
		log.Fatal(err)
	}
	e := cti.Event{
		Event: cti.CallStarted, Position: 1, Seq: 1, LineSeq: 1,
		Domain: "acme.example", Account: "1004@acme.example", CallID: "a2e6",
	}
	err = bus.Publish(ctx, []engine.Result{{
		Position: 1, Account: e.Account, CallID: e.CallID,
		Messages: []engine.Message{{ID: "log.1.0", Event: e, Payload: cti.AppendEvent(nil, &e)}},
	}})
	if err != nil {
		log.Fatal(err)
	}
	if err := bus.Flush(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("confirmed", bus.Confirmed())

	js, err := jetstream.New(bus.Conn())
	if err != nil {
		log.Fatal(err)
	}
	consumer, err := js.OrderedConsumer(ctx, "CTI", jetstream.OrderedConsumerConfig{})
	if err != nil {
		log.Fatal(err)
	}
	m, err := consumer.Next()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.Subject(), m.Headers().Get(natsbus.HeaderID))

	stop()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	// Output:
	// confirmed 1
	// cti.v1.acme_example.1004.callStarted.a2e6 log.1.0
}
