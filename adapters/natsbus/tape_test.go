package natsbus

import (
	"context"
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/callstate/callstate/events/cti"
)

// slowConsumer answers the first requests with nothing, as a server does that takes
// more than a second.
type slowConsumer struct {
	jetstream.Consumer

	empty int
}

func (c *slowConsumer) FetchNoWait(n int) (jetstream.MessageBatch, error) {
	if c.empty > 0 {
		c.empty--
		return noBatch{}, nil
	}
	return c.Consumer.FetchNoWait(n)
}

type noBatch struct{}

func (noBatch) Error() error { return nil }

func (noBatch) Messages() <-chan jetstream.Msg {
	c := make(chan jetstream.Msg)
	close(c)
	return c
}

// What a slow server does not send at once is not taken for gone.
func TestTapeOfASlowServer(t *testing.T) {
	s := startServer(t, ServerOptions{})
	b, _ := startBus(t, Options{URL: s.URL()})
	mustPublish(t, b, results(1, 50, "1004@acme.example", "a2e6"))
	want := len(streamIDs(t, b, cti.DefaultPrefix))
	stream, err := b.js.Stream(deadline(t), "CTI")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(deadline(t), uint64(want)); err != nil { // the end it looks for is not there
		t.Fatal(err)
	}
	read := func(empty int) (n int, err error) {
		tape, err := newTape(deadline(t), stream, jetstream.OrderedConsumerConfig{}, uint64(want))
		if err != nil {
			t.Fatal(err)
		}
		tape.c = &slowConsumer{tape.c, empty}
		for ; ; n++ {
			if m, err := tape.next(); m == nil {
				return n, err
			}
		}
	}
	if n, err := read(maxEmpty - 1); n != want-1 || err != nil {
		t.Errorf("%d messages, %v, want %d", n, err, want-1)
	}
	if _, err := read(maxEmpty); !errors.Is(err, errNoMessages) {
		t.Errorf("from a server that sends nothing: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	tape, err := newTape(ctx, stream, jetstream.OrderedConsumerConfig{}, uint64(want))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := tape.next(); !errors.Is(err, context.Canceled) {
		t.Errorf("after its context has ended: %v", err)
	}
}
