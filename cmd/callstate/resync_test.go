package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
	"github.com/callstate/callstate/store/bolt"
)

// subscribe hands the CTI events of an account, as they are published, to a channel.
func (d *daemon) subscribe(t *testing.T, account string) <-chan cti.Event {
	t.Helper()
	nc, err := nats.Connect(d.server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	ch := make(chan cti.Event, 256) // a test's calls raise a few dozen
	number, domain := cti.SplitAccount(account)
	_, err = nc.Subscribe(cti.DefaultPrefix+"."+cti.Token(domain)+"."+cti.Token(number)+".>", func(m *nats.Msg) {
		var ev cti.Event
		if err := json.Unmarshal(m.Data, &ev); err != nil {
			t.Errorf("%s: %v", m.Subject, err)
		}
		ch <- ev
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return ch
}

// await returns the next event of that name.
func await(t *testing.T, ch <-chan cti.Event, name cti.Name) cti.Event {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case ev := <-ch:
			if ev.Event == name {
				return ev
			}
		case <-limit:
			t.Fatalf("no %s came", name)
		}
	}
}

// playIncoming plays one answered call to 1001 and returns what ends the waiting
// for it.
func (d *daemon) playIncoming(t *testing.T, speed float64) (finished <-chan error) {
	t.Helper()
	sc, err := webiteltest.Recorded("02-incoming-answered")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := d.pbx.Play(t.Context(), sc, webiteltest.PlayOptions{Speed: speed, Domain: demoDomain})
		done <- err
	}()
	return done
}

const agent = "1001@" + demoDomain

// ends counts the ends of an account's calls, by call: hangups less reinstatements.
func ends(t *testing.T, data string) map[string]int {
	t.Helper()
	log, err := bolt.Open(data, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	n := map[string]int{}
	err = log.Read(t.Context(), 1, func(ev *events.Event) error {
		switch ev.Type() {
		case events.TypeCallNew:
			n[ev.Key().String()] += 0
		case events.TypeCallHungup:
			n[ev.Key().String()]++
		case events.TypeCallReinstated:
			n[ev.Key().String()]--
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// oneEnd checks that each call of a log has one end.
func oneEnd(t *testing.T, data string) {
	t.Helper()
	for call, n := range ends(t, data) {
		if n != 1 {
			t.Errorf("call %s has %d ends", call, n)
		}
	}
}

// TestCallEndedWhileAway: the link goes while the call is up and comes back when
// it is over. The end that nobody sent is found out, and says so.
func TestCallEndedWhileAway(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	ch := d.subscribe(t, agent)
	finished := d.playIncoming(t, 4)
	await(t, ch, cti.CommutationStarted)
	d.pbx.RefuseAuth(1<<30, "-ERR: Console connect error")
	d.pbx.Drop(watcherLogin)
	if err := <-finished; err != nil {
		t.Fatal(err)
	}
	d.pbx.RefuseAuth(0, "")
	ev := await(t, ch, cti.CallFinished)
	if ev.Call.Inferred == "" || ev.Call.Origin != events.Resync || ev.Call.Outcome != cti.OutcomeAnswered {
		t.Errorf("finished with origin %s, outcome %s, inferred %q", ev.Call.Origin, ev.Call.Outcome, ev.Call.Inferred)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	oneEnd(t, d.cfg.Data)
}

// TestCallBeganWhileAway: the call is found by the snapshot, with its state, and
// its end comes as always.
func TestCallBeganWhileAway(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	ch := d.subscribe(t, agent)
	d.pbx.RefuseAuth(1<<30, "-ERR: Console connect error")
	d.pbx.Drop(watcherLogin)
	finished := d.playIncoming(t, 0.5)
	for len(d.pbx.Channels()) < 2 {
		time.Sleep(5 * time.Millisecond) // the server has no other way to say that the call is up
	}
	d.pbx.RefuseAuth(0, "")
	ev := await(t, ch, cti.CallStarted)
	if ev.Call.Direction != events.In || ev.Call.CallerID == "" {
		t.Errorf("found as %+v", ev.Call)
	}
	await(t, ch, cti.CommutationStarted)
	ev = await(t, ch, cti.CallFinished)
	if ev.Call.Inferred != "" || ev.Call.Outcome != cti.OutcomeAnswered {
		t.Errorf("finished as %s, inferred %q", ev.Call.Outcome, ev.Call.Inferred)
	}
	if err := <-finished; err != nil {
		t.Fatal(err)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	oneEnd(t, d.cfg.Data)
}

// TestSilentStreamIsCured: every SE: name falls silent, the socket stays and is
// answered. The comparison notices, the names are taken anew, and calls are seen.
func TestSilentStreamIsCured(t *testing.T) {
	d := startDaemon(t, t.TempDir(), every(100*time.Millisecond))
	ch := d.subscribe(t, agent)
	d.pbx.SilenceSE(false)
	finished := d.playIncoming(t, 0.5)
	await(t, ch, cti.CallStarted)
	ev := await(t, ch, cti.CallFinished)
	if ev.Call.Cause == "" {
		t.Errorf("the end was not seen but inferred: %s", ev.Call.Inferred)
	}
	if err := <-finished; err != nil {
		t.Fatal(err)
	}
	if d.logs.containing("subscriptions are renewed") == 0 {
		t.Error("nobody was told")
	}
}

// cured waits until the PBX's broker delivers all that the daemon subscribed to.
func (d *daemon) cured(t *testing.T) {
	t.Helper()
	eventually(t, "every server event to be delivered", func() bool { return len(d.pbx.Delivers(demoDomain)) == 12 })
}

// toldWhole checks that nothing of the calls that began after a position had to be
// inferred.
func toldWhole(t *testing.T, data string, after uint64) {
	t.Helper()
	log := openLog(t, data)
	defer log.Close()
	err := log.Read(t.Context(), after+1, func(ev *events.Event) error {
		switch p := ev.Payload.(type) {
		case *events.CallNew:
			if p.Discovered {
				t.Errorf("call %s was found late: its CREATE did not come", ev.Key())
			}
		case *events.CallHungup:
			if p.Inferred != "" {
				t.Errorf("the end of call %s was inferred", ev.Key())
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestHalfSilentStreamIsCured: every second SE: name falls silent, and calls go
// by. A leg's events tell which of them never came, long before the next
// comparison; the names are taken anew.
func TestHalfSilentStreamIsCured(t *testing.T) {
	data := t.TempDir()
	d := startDaemon(t, data, every(time.Hour))
	ch := d.subscribe(t, agent)
	d.pbx.SilenceSE(true)
	finished := d.playIncoming(t, 10)
	if ev := await(t, ch, cti.CallFinished); ev.Call.Outcome != cti.OutcomeAnswered || ev.Call.Inferred != "" {
		t.Errorf("half told, the call ended as %s, inferred %q", ev.Call.Outcome, ev.Call.Inferred)
	}
	if err := <-finished; err != nil {
		t.Fatal(err)
	}
	d.cured(t)
	if d.logs.containing("fallen silent while others go on") != 1 {
		t.Error("nobody was told, or more than once")
	}
	eventually(t, "the comparison after it", func() bool { return d.pbx.Commands()["show_channel"] >= 2 })
	d.sync(t)
	before := d.store.Last()
	finished = d.playIncoming(t, 10)
	await(t, ch, cti.CallFinished)
	if err := <-finished; err != nil {
		t.Fatal(err)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	oneEnd(t, data)
	toldWhole(t, data, before)
}

// TestOwnOldSocketDiesLate: a connection is lost in silence and made anew; the old
// socket lives on at the server until it dies and takes every second name with it
// (capture 24). The names are renewed for some time after such a loss.
func TestOwnOldSocketDiesLate(t *testing.T) {
	data := t.TempDir()
	d := startDaemon(t, data, every(200*time.Millisecond), func(c *config) {
		c.Webitel[0].PingInterval, c.Webitel[0].PingDeadline = webitel.Duration(100*time.Millisecond), webitel.Duration(400*time.Millisecond)
	})
	d.pbx.HalfOpen(watcherLogin)
	eventually(t, "the second connection", func() bool { return d.pbx.Sockets(watcherLogin) == 2 && d.links.clients[0].Connected() })
	d.cured(t)
	if d.pbx.Reap() != 1 {
		t.Fatal("no old socket")
	}
	d.cured(t) // though no call tells of it
	ch := d.subscribe(t, agent)
	finished := d.playIncoming(t, 2)
	await(t, ch, cti.CallFinished)
	if err := <-finished; err != nil {
		t.Fatal(err)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	oneEnd(t, data)
}

// TestDeadSwitch: the switch behind the server dies in a call: nothing comes, pings
// are answered (capture 42). That is noticed and the calls are doubtful; when it is
// back they end, by what it has, or by the first word of its new core.
func TestDeadSwitch(t *testing.T) {
	tests := map[string]struct {
		interval time.Duration
		reason   string
		back     func(t *testing.T, d *daemon)
	}{
		"it has no such channels": {100 * time.Millisecond, "absent-from-snapshot", func(*testing.T, *daemon) {}},
		"its new core is seen": {time.Hour, "switch-restarted", func(t *testing.T, d *daemon) {
			sc, err := webiteltest.Recorded("02-incoming-answered")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.pbx.Play(t.Context(), sc, webiteltest.PlayOptions{Domain: demoDomain, Numbers: map[string]string{"1001": "1002"}}); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			data := t.TempDir()
			d := startDaemon(t, data, every(tt.interval))
			ch := d.subscribe(t, agent)
			finished := d.playIncoming(t, 1)
			await(t, ch, cti.CommutationStarted)
			d.pbx.KillSwitch()
			if err := <-finished; err != nil {
				t.Fatal(err)
			}
			d.sync(t) // the server answers all the same
			if tt.interval < time.Hour {
				eventually(t, "the silence to be noticed", func() bool { return d.linkStatus(t, watcherLogin).UnansweredSince != 0 })
				ds, err := d.engine.Doubtful(t.Context(), engine.DoubtFilter{})
				if err != nil || len(ds) != 1 || ds[0].Reasons[0].Reason != engine.DoubtUnanswered {
					t.Errorf("doubtful calls: %+v, %v", ds, err)
				}
			}
			d.pbx.StartSwitch()
			tt.back(t, d)
			ev := await(t, ch, cti.CallFinished)
			if ev.Call.Inferred != tt.reason || ev.Call.Origin != events.Resync || ev.Call.Outcome != cti.OutcomeAnswered {
				t.Errorf("finished as %s, origin %s, inferred %q", ev.Call.Outcome, ev.Call.Origin, ev.Call.Inferred)
			}
			if tt.interval < time.Hour {
				eventually(t, "the answer", func() bool { return d.linkStatus(t, watcherLogin).UnansweredSince == 0 })
			}
			d.sync(t) // the other call's end may be on its way
			if err := d.stop(); err != nil {
				t.Fatal(err)
			}
			oneEnd(t, data)
			if c := commandsOf(d.pbx); len(c) > 0 {
				t.Errorf("commanded: %v", c)
			}
		})
	}
}

// commandsOf returns the commands that a PBX received besides those of signing in
// and asking.
func commandsOf(pbx *webiteltest.Server) map[string]int {
	c := pbx.Commands()
	for _, asks := range []string{
		"auth", "login", "api account list", "subscribe", "unsubscribe", "ping", "show_channel", "channel_dump",
	} {
		delete(c, asks)
	}
	return c
}

// linkGoroutines counts the goroutines of clients.
func linkGoroutines() int {
	b := make([]byte, 8<<20)
	n := 0
	for stack := range bytes.SplitSeq(b[:runtime.Stack(b, true)], []byte("\n\n")) {
		if bytes.Contains(stack, []byte("/adapters/webitel.")) {
			n++
		}
	}
	return n
}

var storm = flag.Duration("storm", 3*time.Second, "how long the connection is dropped every few milliseconds")

// TestReconnectStorm: the connection is dropped every few milliseconds while calls
// go on. Nothing leaks, nothing is told twice, nobody is commanded, and in the
// end every call has its one end.
func TestReconnectStorm(t *testing.T) {
	data := t.TempDir()
	d := startDaemon(t, data, every(50*time.Millisecond), func(c *config) {
		c.Webitel[0].BackoffMin, c.Webitel[0].BackoffMax = webitel.Duration(time.Millisecond), webitel.Duration(3*time.Millisecond)
	})
	d.sync(t)
	goroutines := linkGoroutines()
	ctx, cancel := context.WithTimeout(t.Context(), *storm)
	defer cancel()
	calls := make(chan error, 1)
	go func() {
		_, err := d.pbx.Generate(ctx, webiteltest.GenerateOptions{Agents: webiteltest.Numbers(1001, 50), Domain: demoDomain, Rate: 10, Speed: 2})
		calls <- err
	}()
	drops := 0
	for ctx.Err() == nil {
		if rand.IntN(2) == 0 { // else it may still be signing in
			for ctx.Err() == nil && !d.links.clients[0].Connected() {
				time.Sleep(time.Millisecond)
			}
		}
		time.Sleep(time.Duration(1+rand.IntN(15)) * time.Millisecond)
		drops += d.pbx.Drop(watcherLogin)
	}
	if err := <-calls; err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	live := func() int {
		st, err := d.engine.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st.LiveCalls
	}
	// The calls that are up are found, and when the PBX has them no more they end.
	if len(d.pbx.Channels()) > 0 {
		eventually(t, "the calls that are up to be found", func() bool { return live() > 0 })
	}
	d.pbx.KillSwitch()
	d.pbx.StartSwitch()
	eventually(t, "every call's end", func() bool { return live() == 0 && d.links.clients[0].Connected() })
	eventually(t, "the goroutines of the lost connections to end", func() bool { return linkGoroutines() <= goroutines })
	if n := d.pbx.Sockets(watcherLogin); n != 1 {
		t.Errorf("%d sockets, want 1", n)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if c := commandsOf(d.pbx); len(c) > 0 {
		t.Errorf("commanded: %v", c)
	}
	began := ends(t, data)
	oneEnd(t, data)
	log := openLog(t, data)
	defer log.Close()
	ids := map[string]uint64{}
	err := log.Read(t.Context(), 1, func(ev *events.Event) error {
		if p := ids[ev.ID]; p != 0 {
			t.Errorf("events %d and %d are one: %s", p, ev.Position, ev.ID)
		}
		ids[ev.ID] = ev.Position
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if f := log.Frames(); !f.Reconciles() {
		t.Errorf("frames do not reconcile: %+v", f)
	}
	t.Logf("%d drops, %d calls, %d events", drops, len(began), len(ids))
	if drops < 10 {
		t.Error("there was no storm")
	}
}
