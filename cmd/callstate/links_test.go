package main

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// otherPBX starts a second PBX with one agent, 1001, in a domain of its own.
func otherPBX(t *testing.T) (pbx *webiteltest.Server, w webitel.Config) {
	t.Helper()
	pbx = webiteltest.New(webiteltest.Options{Accounts: append(
		webiteltest.Agents("other.example", 1001, 3, demoSecret), webiteltest.Account{Login: "9000@other.example", Secret: demoSecret, Role: "admin"},
	)})
	t.Cleanup(pbx.Close)
	return pbx, webitel.Config{
		ConnectionString: pbx.URL(), Settle: -1, BackoffMin: webitel.Duration(time.Millisecond),
		Users: []webitel.User{{Login: "9000@other.example", Password: demoSecret}},
	}
}

func (d *daemon) linkStatus(t *testing.T, login string) natsbus.LinkStatus {
	t.Helper()
	for _, l := range d.links.status() {
		if l.Login == login {
			return l
		}
	}
	t.Fatalf("no link of %s", login)
	return natsbus.LinkStatus{}
}

// TestLinksStopNobody: of three links one is refused, one goes to a PBX that is
// not there, and the third works; the status says so.
func TestLinksStopNobody(t *testing.T) {
	d := startDaemon(t, t.TempDir(), func(c *config) {
		_, wrong := otherPBX(t)
		wrong.Users[0].Password = "not-the-password"
		away, gone := otherPBX(t)
		away.Close()
		gone.Users[0].Login = "9000@third.example"
		c.Webitel = append(c.Webitel, wrong, gone)
	})
	ch := d.subscribe(t, agent)
	eventually(t, "the refusal", func() bool { return d.linkStatus(t, "9000@other.example").Refused })
	finished := d.playIncoming(t, 10)
	await(t, ch, cti.CallFinished)
	if err := <-finished; err != nil {
		t.Fatal(err)
	}
	if s := d.linkStatus(t, "9000@other.example"); s.Connected || !strings.Contains(s.Reason, "secret incorrect") || s.Since == 0 || s.PBX == "" {
		t.Errorf("the refused link: %+v", s)
	}
	if s := d.linkStatus(t, "9000@third.example"); s.Connected || s.Refused || s.Reason == "" {
		t.Errorf("the link to a PBX that is not there: %+v", s)
	}
	if s := d.linkStatus(t, watcherLogin); !s.Connected || s.Reason != "" || s.ComparedAt == 0 {
		t.Errorf("the link that works: %+v", s)
	}
	if d.logs.containing("link refused, the others go on") != 1 {
		t.Error("nobody was told")
	}
	if d.logs.containing("not-the-password") != 0 {
		t.Error("the secret is in the messages")
	}
	var out, errw bytes.Buffer
	if code := realMain([]string{"status", "--nats", d.server.URL()}, func(string) string { return "" }, nil, &out, &errw); code != 0 ||
		!strings.Contains(out.String(), "refused") || !strings.Contains(out.String(), "not connected") || !strings.Contains(out.String(), "secret incorrect") {
		t.Errorf("status: exit %d\n%s%s", code, &out, &errw)
	}
	if err := d.stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
}

// TestAllLinksRefused: nothing is left to do.
func TestAllLinksRefused(t *testing.T) {
	_, one := otherPBX(t)
	_, two := otherPBX(t)
	two.Name, one.Name = "one", "one"
	for _, w := range []*webitel.Config{&one, &two} {
		w.Users[0].Password = "not-the-password"
		w.Mode = webitel.ModeAccount
	}
	two.Users[0].Login = "1001@other.example"
	cfg := defaultConfig()
	cfg.Data, cfg.Listen, cfg.Webitel = t.TempDir(), "127.0.0.1:-1", []webitel.Config{one, two}
	if err := cfg.validate(); err != nil {
		t.Fatal(err)
	}
	a, err := openApp(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = a.run(ctx)
	if err == nil || !strings.Contains(err.Error(), "9000@other.example") || !strings.Contains(err.Error(), "1001@other.example") {
		t.Errorf("ended with %v", err)
	}
}

// TestConfigTellsPBXsApart refuses what could be mixed up.
func TestConfigTellsPBXsApart(t *testing.T) {
	w := func(name, url string, mode webitel.Mode, logins ...string) webitel.Config {
		c := webitel.Config{Name: name, ConnectionString: url, Mode: mode}
		for _, l := range logins {
			c.Users = append(c.Users, webitel.User{Login: l, Password: "secret"})
		}
		return c
	}
	const one, two = "ws://pbx1.example:871/", "wss://pbx2.example/"
	tests := map[string]struct {
		webitel []webitel.Config
		want    string   // in the error
		names   []string // after it
	}{
		"one":                                {[]webitel.Config{w("", one, "", "w@a.example")}, "", []string{""}},
		"two domains of one":                 {[]webitel.Config{w("", one, "", "w@a.example"), w("", one, "", "w@b.example")}, "", []string{"", ""}},
		"both paths to one domain":           {[]webitel.Config{w("", one, "", "w@a.example"), w("", one, webitel.ModeAccount, "1@a.example")}, "", []string{"", ""}},
		"two":                                {[]webitel.Config{w("", one, "", "w@a.example"), w("", two, "", "w@b.example")}, "", []string{"pbx1.example:871", "pbx2.example:443"}},
		"two with one domain":                {[]webitel.Config{w("", one, "", "w@a.example"), w("", two, webitel.ModeAccount, "1@a.example")}, "cannot be told apart", nil},
		"two addresses of one":               {[]webitel.Config{w("main", one, "", "w@a.example"), w("main", two, webitel.ModeAccount, "1@a.example")}, "", []string{"main", "main"}},
		"one account twice":                  {[]webitel.Config{w("", one, webitel.ModeAccount, "1@a.example", "1@a.example")}, "signs in already", nil},
		"an account and a technical account": {[]webitel.Config{w("", one, "", "1@a.example"), w("", one, webitel.ModeAccount, "1@a.example")}, "signs in already", nil},
		"root":                               {[]webitel.Config{w("", one, "", "root")}, "root belongs to no domain", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := defaultConfig()
			c.Webitel = tt.webitel
			err := c.validate()
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range tt.names {
				if got := c.Webitel[i].Name; got != want {
					t.Errorf("webitel %d is named %q, want %q", i+1, got, want)
				}
			}
		})
	}
}

// TestTwoPBXs: calls of both, at the same time, and one switch that dies and is
// started again ends only its own.
func TestTwoPBXs(t *testing.T) {
	var other *webiteltest.Server
	d := startDaemon(t, t.TempDir(), every(100*time.Millisecond), func(c *config) {
		var w webitel.Config
		other, w = otherPBX(t)
		c.Webitel = append(c.Webitel, w)
	})
	eventually(t, "the second link", func() bool { return d.links.clients[1].Connected() })
	here, there := d.subscribe(t, agent), d.subscribe(t, "1001@other.example")
	finished := d.playIncoming(t, 1)
	sc, err := webiteltest.Recorded("02-incoming-answered")
	if err != nil {
		t.Fatal(err)
	}
	played := make(chan error, 1)
	go func() {
		_, err := other.Play(t.Context(), sc, webiteltest.PlayOptions{Speed: 1, Domain: "other.example"})
		played <- err
	}()
	await(t, here, cti.CommutationStarted)
	await(t, there, cti.CommutationStarted)
	other.KillSwitch()
	other.StartSwitch()
	if ev := await(t, there, cti.CallFinished); ev.Call.Inferred == "" || ev.Call.Origin != events.Resync {
		t.Errorf("the call of the switch that died: %+v", ev.Call)
	}
	if ev := await(t, here, cti.CallFinished); ev.Call.Inferred != "" {
		t.Errorf("the other PBX's call ended too: %s", ev.Call.Inferred)
	}
	for _, ch := range []<-chan error{finished, played} {
		if err := <-ch; err != nil {
			t.Fatal(err)
		}
	}
}

// TestBothPathsAreOne: an agent's own connection beside the domain's tells the
// same, and nothing twice.
func TestBothPathsAreOne(t *testing.T) {
	data := t.TempDir()
	d := startDaemon(t, data, func(c *config) {
		own := c.Webitel[0]
		own.Mode = webitel.ModeAccount
		own.Users = []webitel.User{{Login: agent, Password: demoSecret}}
		c.Webitel = append(c.Webitel, own)
	})
	eventually(t, "the agent's own link", func() bool { return d.links.clients[1].Connected() })
	k := d.desk(t, agent)
	k.must("makeCall", `{"target":"380501234567"}`)
	k.awaitFlags(cti.TalkBridged)
	k.must("holdCall", `{}`)
	k.must("unholdCall", `{}`)
	k.must("sendDtmf", `{"digits":"12"}`)
	k.await(cti.DTMFEntered)
	k.await(cti.DTMFEntered) // the paths do not wait for one another, and a digit after the end is none
	k.must("dropCall", `{}`)
	k.await(cti.CallFinished)
	k.must("setUserState", `{"state":"ONBREAK"}`)
	k.await(cti.AgentStateChanged)
	// What is about the own connection goes over it; without it the domain's tells.
	k.must("closeConnection", `{}`)
	for k.await(cti.AgentStateChanged).UserState != cti.AgentNotReg {
		continue
	}
	if o := k.must("queryUserState", ``); o.Answer != cti.AgentNotReg {
		t.Errorf("state %+v", o)
	}
	k.must("reConnect", `{}`)
	eventually(t, "the own link", func() bool { return d.links.clients[1].Connected() })
	k.await(cti.Initialized)
	k.must("makeCall", `{"target":"380501234567"}`)
	k.awaitFlags(cti.TalkBridged)
	k.must("dropCall", `{}`)
	k.await(cti.CallFinished)
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	log := openLog(t, data)
	defer log.Close()
	err := log.Read(t.Context(), 1, func(ev *events.Event) error {
		if ev.Account == agent {
			count[string(ev.Type())]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for typ, want := range map[events.Type]int{
		events.TypeCallNew: 2, events.TypeCallAccepted: 2, events.TypeCallHeld: 1, events.TypeCallUnheld: 1,
		events.TypeCallDTMF: 2, events.TypeCallBridged: 2, events.TypeCallHungup: 2,
	} {
		if count[string(typ)] != want {
			t.Errorf("%d events %s, want %d", count[string(typ)], typ, want)
		}
	}
}

// TestAgentsAndDoubtfulVerbs shows them to a person.
func TestAgentsAndDoubtfulVerbs(t *testing.T) {
	d := startDaemon(t, t.TempDir(), every(50*time.Millisecond))
	k := d.desk(t, agent)
	verb := func(code int, want string, args ...string) {
		t.Helper()
		var out, errw bytes.Buffer
		args = append(args, "--nats", d.server.URL())
		got := realMain(args, func(string) string { return "" }, nil, &out, &errw)
		if text := out.String() + errw.String(); got != code || !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
			t.Errorf("%v: exit %d, want %d and %q\n%s", args, got, code, want, text)
		}
	}
	k.must("setUserState", `{"state":"ONBREAK","note":"lunch"}`)
	for k.await(cti.AgentStateChanged).UserState != "ONBREAK" {
		continue
	}
	verb(0, agent+" ONBREAK lunch", "agents")
	verb(0, `"account":"1002@demo.local"`, "agents", "--json", "--domain", demoDomain, "--state", "onhook,nonreg")
	k.must("makeCall", `{"target":"380501234567"}`)
	k.awaitFlags(cti.TalkBridged)
	verb(0, "connected 380501234567", "agents", "--state", "ONBREAK")
	verb(0, "no live call is doubtful", "doubtful")
	d.pbx.KillSwitch()
	eventually(t, "the silence to be noticed", func() bool { return d.linkStatus(t, watcherLogin).UnansweredSince != 0 })
	verb(0, "unanswered since", "doubtful")
	verb(0, `"reason":"unanswered"`, "doubtful", "--json", "--account", agent)
	verb(0, "PBX silent", "status")
	verb(0, "1 of them doubtful", "status")
	verb(2, "--unchecked", "doubtful", "--unchecked", "-1s")
	k.refused("holdCall", `{}`, engine.VerdictSwitchDown)
}
