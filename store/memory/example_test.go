package memory_test

import (
	"context"
	"fmt"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store/memory"
)

func Example() {
	ctx := context.Background()
	log := memory.New()
	defer log.Close()

	call := events.Event{Version: 1, Account: "1004@acme.example", Call: "c-17"}
	call.Payload = &events.CallNew{Direction: events.In}
	end := call
	end.Payload = &events.CallHungup{Hangup: events.Hangup{Cause: "USER_BUSY", CauseCode: events.CauseCode("USER_BUSY")}}
	if err := log.Append(ctx, &events.Batch{Events: []events.Event{call, end}}); err != nil {
		fmt.Println(err)
		return
	}
	err := log.ReadCall(ctx, call.Key(), func(e *events.Event) error {
		fmt.Println(e.Position, e.Key(), e.Type())
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// 1 1004@acme.example/c-17 call.new
	// 2 1004@acme.example/c-17 call.hungup
}
