package main

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/events/cti"
)

// TestNewStreamIsFilled: a stream that was deleted is filled from the log's start,
// and with --no-refill gets what follows only. verify has nothing against either.
func TestNewStreamIsFilled(t *testing.T) {
	r := newWitness(t)
	r.serve(t)
	pbx := webiteltest.New(webiteltest.Options{
		Accounts: append(webiteltest.Agents(demoDomain, 1001, 20, demoSecret), webiteltest.Account{Login: watcherLogin, Secret: demoSecret, Role: "admin"}),
	})
	defer pbx.Close()
	run := func(noRefill bool) {
		t.Helper()
		l := &loaded{pbx: pbx, child: startChild(t, childConfig{Data: r.data, NATS: r.url, PBX: pbx.URL(), Unlisted: true, NoRefill: noRefill})}
		if l.hello() == "" {
			t.Fatal(l.child.stop())
		}
		l.until(t, "it is connected", func(st childStats) bool { return st.Settled })
		_, err := pbx.Generate(t.Context(), webiteltest.GenerateOptions{Agents: webiteltest.Numbers(1001, 20), Domain: demoDomain, Calls: 10})
		if err != nil {
			t.Fatal(err)
		}
		l.settle(t)
		l.stop(t)
		r.recall(t, <-l.acked, &killTally{})
	}
	lose := func() {
		t.Helper()
		nc, err := nats.Connect(r.url)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		if err := js.DeleteStream(t.Context(), natsbus.StreamName(cti.DefaultPrefix)); err != nil {
			t.Fatal(err)
		}
	}
	run(false)
	lose()
	run(false)
	r.complete(t)

	before := len(r.ids)
	lose()
	run(true)
	if r.ids = r.ids[before:]; len(r.ids) == 0 {
		t.Fatal("nothing followed")
	}
	r.complete(t)
}
