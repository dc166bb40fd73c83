package main

import (
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
)

// TestNATSAwayUnderLoad: the NATS server goes, calls come and are recorded, the
// server is back, and its stream holds what follows from the log, each CTI event
// once, in order.
func TestNATSAwayUnderLoad(t *testing.T) {
	data := t.TempDir()
	opts := natsbus.ServerOptions{StoreDir: filepath.Join(data, "nats"), Port: -1}
	srv, err := natsbus.StartServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(srv.URL())
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		t.Fatal(err)
	}
	if opts.Port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	natsURL = srv.URL()
	defer func() { natsURL = "" }()
	d := startDaemon(t, data)
	calls := func(n int) {
		t.Helper()
		_, err := d.pbx.Generate(t.Context(), webiteltest.GenerateOptions{
			Agents: webiteltest.Numbers(1001, 50), Domain: demoDomain, Calls: n,
		})
		if err != nil {
			t.Fatal(err)
		}
		d.sync(t)
	}
	calls(10)
	srv.Close()
	before := d.store.Last()
	calls(40)
	for d.store.Last() == before {
		d.sync(t) // what was taken is being appended
	}
	if srv, err = natsbus.StartServer(opts); err != nil {
		t.Fatal(err)
	}
	calls(10)
	if err := d.bus.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	r := &witness{data: data, srv: srv, url: srv.URL(), want: map[string]uint64{}}
	r.recall(t, nil, &killTally{})
	r.complete(t)
	srv.Close()
}
