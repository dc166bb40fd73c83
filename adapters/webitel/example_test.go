package webitel_test

import (
	"context"
	"fmt"
	"sync"

	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/engine"
)

// printer is a sink that shows what becomes of the link.
type printer struct{}

func (printer) Submit(_ context.Context, in engine.Input) error {
	if in.Link != nil && in.Link.Kind == engine.LinkUp {
		fmt.Println("signed in to", in.Link.Domain, "as", in.Link.Login)
	}
	return nil
}

// A client signs in, and sends a command once the connection has settled.
func ExampleClient() {
	server := webiteltest.New(webiteltest.Options{})
	defer server.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	user := webitel.User{Login: "1009@demo.local", Password: "secret"}
	cfg := webitel.Config{ConnectionString: server.URL(), Users: []webitel.User{user}}
	client := webitel.NewClient(cfg, user, webitel.ModeDomain, printer{}, nil)
	client.OnSettled(func(ctx context.Context) {
		reply, err := client.Do(ctx, webitel.Ping())
		text, _ := reply.Text()
		fmt.Println(text, err)
		cancel()
	})
	var wg sync.WaitGroup
	wg.Go(func() { fmt.Println("ended:", client.Run(ctx)) })
	wg.Wait()
	// Output:
	// signed in to demo.local as 1009@demo.local
	// pong <nil>
	// ended: <nil>
}
