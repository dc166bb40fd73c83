package natsbus_test

import (
	"encoding/json"
	"fmt"
	"log"

	"github.com/nats-io/nats.go"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/events/cti"
)

// A subscriber needs nats.go and events/cti, and nothing else of callstate.
func Example_subscribe() {
	url, stop := exampleServer()
	defer stop()

	nc, err := nats.Connect(url)
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	done := make(chan struct{})
	_, err = nc.Subscribe(cti.DefaultPrefix+".>", func(m *nats.Msg) {
		var ev cti.Event
		if err := json.Unmarshal(m.Data, &ev); err != nil {
			return
		}
		fmt.Println(ev.Account, ev.Event, ev.Call.CallerID, "to", ev.Call.CalledID)
		close(done)
	})
	if err != nil {
		log.Fatal(err)
	}

	exampleCall(nc)
	<-done
	// Output:
	// 1004@acme.example callStarted 380501234567 to 1004
}

// exampleServer stands for a running engine's NATS server.
func exampleServer() (url string, stop func()) {
	dir, remove := exampleDir()
	srv, err := natsbus.StartServer(natsbus.ServerOptions{StoreDir: dir, Port: -1})
	if err != nil {
		log.Fatal(err)
	}
	return srv.URL(), func() { srv.Close(); remove() }
}

// exampleCall publishes what an engine would.
func exampleCall(nc *nats.Conn) {
	ev := cti.Event{
		Event: cti.CallStarted, Position: 1, Seq: 1, LineSeq: 1, Domain: "acme.example", Account: "1004@acme.example", CallID: "c1",
		Call: &cti.Call{ID: "c1", Direction: "in", CallerID: "380501234567", CalledID: "1004", State: cti.StateAlerting},
	}
	if err := nc.Publish(cti.Subject(cti.DefaultPrefix, ev.Account, ev.Event, ev.CallID), cti.AppendEvent(nil, &ev)); err != nil {
		log.Fatal(err)
	}
}
