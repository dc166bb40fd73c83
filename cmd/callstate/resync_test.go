package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/callstate/callstate/adapters/webitel/webiteltest"
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
	for call, n := range ends(t, d.cfg.Data) {
		if n != 1 {
			t.Errorf("call %s has %d ends", call, n)
		}
	}
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
	for call, n := range ends(t, d.cfg.Data) {
		if n != 1 {
			t.Errorf("call %s has %d ends", call, n)
		}
	}
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
