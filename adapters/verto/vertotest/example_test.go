package vertotest_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/callstate/callstate/adapters/verto"
	"github.com/callstate/callstate/adapters/verto/vertotest"
	"github.com/callstate/callstate/engine"
)

// nothing is a sink that forgets.
type nothing struct{}

func (nothing) Submit(context.Context, engine.Input) error { return nil }

// A web phone that answers everything is called, hears a tone, and is hung up on.
func Example() {
	ready := make(chan struct{})
	server, err := vertotest.New(vertotest.Options{Observe: func(e vertotest.Event) {
		if e.Kind == vertotest.LoggedIn {
			close(ready)
		}
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()

	media, err := verto.NewMedia(netip.MustParseAddr("127.0.0.1"), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	phone, err := verto.NewPhone(verto.Config{ConnectionString: server.URL()}, verto.User{
		Login: "1001@demo.local", Password: "1001", Answer: verto.AnswerAlways,
	}, media, nothing{}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = media.Run(ctx) })
	running.Go(func() { _ = phone.Run(ctx) })

	<-ready
	legs, err := server.Originate("1001@demo.local", vertotest.Call{CallerNumber: "1002", Far: vertotest.Tone})
	if err != nil {
		fmt.Println(err)
		return
	}
	leg := legs[0]
	<-leg.Answered()
	for leg.Counts().Sent < 50 || leg.Counts().Received < 50 {
		time.Sleep(20 * time.Millisecond)
	}
	leg.Hangup("NORMAL_CLEARING")
	fmt.Println(leg.Login(), "was called and talked; then", leg.Cause())
	// Output: 1001@demo.local was called and talked; then NORMAL_CLEARING
}
