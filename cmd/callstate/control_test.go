package main

import (
	"bytes"
	"context"
	"encoding/json"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
	"github.com/callstate/callstate/store/memory"
)

// desk asks for things over NATS and nothing else, as an agent's client does.
type desk struct {
	t       *testing.T
	nc      *nats.Conn
	account string
	events  <-chan cti.Event
}

func (d *daemon) desk(t *testing.T, account string) *desk {
	t.Helper()
	nc, err := nats.Connect(d.server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return &desk{t: t, nc: nc, account: account, events: d.subscribe(t, account)}
}

// ask sends a request and returns its outcome.
func (k *desk) ask(method, body string) engine.Outcome {
	k.t.Helper()
	m, err := k.nc.Request(natsbus.ControlPrefix+"."+cti.LineKey(k.account)+"."+method, []byte(body), 30*time.Second)
	if err != nil {
		k.t.Fatalf("%s: %v", method, err)
	}
	var o engine.Outcome
	if err := json.Unmarshal(m.Data, &o); err != nil {
		k.t.Fatalf("%s: %q: %v", method, m.Data, err)
	}
	if code := m.Header.Get("Nats-Service-Error-Code"); code != "" && code != string(o.Result) || code == "" && o.Result != engine.VerdictOK {
		k.t.Errorf("%s: result %s, error code %q", method, o.Result, code)
	}
	return o
}

func (k *desk) must(method, body string) engine.Outcome {
	k.t.Helper()
	o := k.ask(method, body)
	if o.Result != engine.VerdictOK {
		k.t.Fatalf("%s: %+v", method, o)
	}
	return o
}

func (k *desk) refused(method, body string, want engine.Verdict) engine.Outcome {
	k.t.Helper()
	o := k.ask(method, body)
	if o.Result != want || o.Answer == "" {
		k.t.Errorf("%s %s: %+v, want %s", method, body, o, want)
	}
	return o
}

func (k *desk) await(name cti.Name) cti.Event {
	k.t.Helper()
	return await(k.t, k.events, name)
}

// awaitFlags waits until the line's flags are those.
func (k *desk) awaitFlags(want cti.Features) {
	k.t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case ev := <-k.events:
			if ev.Event == cti.LineStateChanged && *ev.CallFeaturesSet == want {
				return
			}
		case <-limit:
			k.t.Fatalf("the line's flags did not become %d", want)
		}
	}
}

// TestCallControlOverNATS is the seed's example and more, over real sockets: a
// call to a subscriber, held and taken back, digits, and its end.
func TestCallControlOverNATS(t *testing.T) {
	data := t.TempDir()
	d := startDaemon(t, data)
	k := d.desk(t, agent)

	o := k.must("makeCall", `{"target":"(380) 50-1234567","id":"one","by":"crm"}`)
	started := k.await(cti.CallStarted)
	if o.Call != started.CallID {
		t.Errorf("the outcome is of call %q, the call is %s", o.Call, started.CallID)
	}
	k.awaitFlags(cti.TalkBridged)
	if again := k.must("makeCall", `{"target":"(380) 50-1234567","id":"one"}`); !again.Repeat || again.Request != o.Request || again.Call != o.Call {
		t.Errorf("the same request again: %+v", again)
	}
	held := k.must("holdCall", `{}`)
	if ev := k.await(cti.Hold); ev.CallID != held.Call || held.Call != started.CallID {
		t.Errorf("held %s, the outcome is of %s, the call is %s", ev.CallID, held.Call, started.CallID)
	}
	k.refused("blindTransferCall", `{"target":"1 0;0"}`, engine.VerdictBadArgument)
	k.refused("dropCall", `{}`, engine.VerdictNotAllowed) // 1568 has no CAN_DROP
	k.must("unholdCall", `{}`)
	k.await(cti.Unhold)
	if o := k.must("queryActiveCallSnapshot", `{}`); o.View == nil || o.View.ID != started.CallID {
		t.Errorf("the active call: %+v", o)
	}
	k.must("sendDtmf", `{"digits":"12#"}`)
	for _, want := range []string{"1", "2", "#"} {
		if ev := k.await(cti.DTMFEntered); ev.Digits != want {
			t.Errorf("digit %q, want %q", ev.Digits, want)
		}
	}
	k.refused("answerCall", `{}`, engine.VerdictNotAllowed)
	k.refused("transferCall", `{}`, engine.VerdictNoCall)
	k.refused("closeConnection", `{}`, engine.VerdictNotAllowed)
	k.must("dropCall", `{"callId":"`+started.CallID+`"}`)
	if ev := k.await(cti.CallFinished); ev.Call.Cause != "NORMAL_CLEARING" {
		t.Errorf("ended with %s", ev.Call.Cause)
	}
	k.refused("unholdCall", `{}`, engine.VerdictNoCall)
	k.refused("holdCall", `{"callId":"`+started.CallID+`"}`, engine.VerdictNoCall)
	k.refused("closeConnection", `{}`, engine.VerdictNotSupported) // the socket is the domain's
	k.refused("queryActiveCallSnapshot", `{}`, engine.VerdictNoCall)
	if o := k.must("queryLineState", ``); o.Answer != "2" || o.Line == nil {
		t.Errorf("line state %+v", o)
	}

	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	facts := requestFacts(t, data)
	if got := facts["one"]; got != "requested makeCall by crm, completed ok" {
		t.Errorf("facts of the first request: %s", got)
	}
	for id, f := range facts {
		if strings.Count(f, "requested") != 1 || strings.Count(f, "completed") != 1 {
			t.Errorf("facts of request %s: %s", id, f)
		}
	}
	// After a restart the log still knows what was asked for.
	d = startDaemon(t, data)
	k = d.desk(t, agent)
	if again := k.must("makeCall", `{"target":"100","id":"one"}`); !again.Repeat {
		t.Errorf("the same request after a restart: %+v", again)
	}
}

// requestFacts reads the facts of each request from a log.
func requestFacts(t *testing.T, data string) map[string]string {
	t.Helper()
	log := openLog(t, data)
	defer log.Close()
	facts := map[string]string{}
	err := log.Read(t.Context(), 1, func(ev *events.Event) error {
		switch p := ev.Payload.(type) {
		case *events.CommandRequested:
			facts[p.Request] += "requested " + p.Method + " by " + p.By
		case *events.CommandCompleted:
			facts[p.Request] += ", completed " + p.Result
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return facts
}

// TestBlindTransferOverNATS: the caller goes to another number, and the call's
// end says so.
func TestBlindTransferOverNATS(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	k := d.desk(t, agent)
	k.must("makeCall", `{"target":"380501234567"}`)
	k.awaitFlags(cti.TalkBridged)
	k.must("blindTransferCall", `{"target":"1007"}`)
	ev := k.await(cti.CallTransferred)
	for ev.Call.Outcome == "" {
		ev = k.await(cti.CallDetails) // it was said before the end
	}
	if tr := ev.Call.Transfer; tr == nil || tr.Kind != "blind" || tr.Target != "1007" || ev.Call.Outcome != cti.OutcomeTransferred {
		t.Errorf("the call ended as %s, transfer %+v", ev.Call.Outcome, tr)
	}
}

// TestConsultationOverNATS completes one consultation and cancels another.
func TestConsultationOverNATS(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	k := d.desk(t, agent)
	begin := func() (mainCall string) {
		k.must("makeCall", `{"target":"380501234567"}`)
		mainCall = k.await(cti.CallStarted).CallID
		k.awaitFlags(cti.TalkBridged)
		k.must("makeConsultCall", `{"target":"1007"}`)
		k.awaitFlags(cti.CompleteTransfer)
		return mainCall
	}
	first := begin()
	k.must("transferCall", `{}`)
	for {
		if ev := k.await(cti.CallFinished); ev.CallID == first {
			if ev.Call.Transfer == nil || ev.Call.Transfer.Result != "confirmed" {
				t.Errorf("transfer %+v", ev.Call.Transfer)
			}
			break
		}
	}
	k.awaitFlags(cti.Idle)
	second := begin()
	if second == first {
		t.Fatal("no second call")
	}
	k.must("cancelTransfer", `{}`)
	if ev := k.await(cti.CallFinished); ev.CallID == second {
		t.Error("the main call was ended, not the consultation")
	}
	k.must("unholdCall", `{}`)
	k.await(cti.Unhold)
	k.must("dropCall", `{}`)
}

// TestAgentStateOverNATS: on a break and back, over the technical account.
func TestAgentStateOverNATS(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	k := d.desk(t, agent)
	awaitState := func(want string) {
		t.Helper()
		for k.await(cti.AgentStateChanged).UserState != want {
			continue
		}
	}
	k.must("setUserState", `{"state":"onbreak","note":"back at two"}`)
	awaitState("ONBREAK")
	if o := k.must("queryUserState", ``); o.Answer != "ONBREAK" {
		t.Errorf("state %+v", o)
	}
	k.must("setUserState", `{"state":"ONHOOK"}`)
	awaitState(cti.AgentOnHook)
	k.refused("setUserState", `{"state":"PARTY"}`, engine.VerdictBadArgument)
	k.refused("setUserState", `{"state":"DND","note":"it's; late"}`, engine.VerdictBadArgument)
	k.refused("setUserState", `{"state":"NONREG"}`, engine.VerdictNotSupported)
}

// TestControlWhileDisconnected: an error, not silence.
func TestControlWhileDisconnected(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	k := d.desk(t, agent)
	d.pbx.Close()
	for end := time.Now().Add(10 * time.Second); d.links.clients[0].Connected(); runtime.Gosched() { // until the client has noticed
		if time.Now().After(end) {
			t.Fatal("the client does not notice that the PBX is gone")
		}
	}
	k.refused("makeCall", `{"target":"100"}`, engine.VerdictNotConnected)
	other := &desk{t: t, nc: k.nc, account: "1@nowhere.example"}
	other.refused("makeCall", `{"target":"100"}`, engine.VerdictNotConnected)
	k.refused("makeCall", `{"taget":"100"}`, engine.VerdictBadArgument)
	k.refused("makeCall", `{"target":"100","timeoutMs":-1}`, engine.VerdictBadArgument)
	k.refused("makeCall", `{"target":"100","account":"1002@demo.local"}`, engine.VerdictBadArgument)
	k.refused("makeCall", `{"target":"100","id":"a b"}`, engine.VerdictBadArgument)
}

// TestHoldOfNothing: the PBX says "+OK Success" to hold and unhold of a channel
// that does not exist. The outcome is the event, or that it did not come.
func TestHoldOfNothing(t *testing.T) {
	d := startDaemon(t, t.TempDir(), every(time.Hour))
	k := d.desk(t, agent)
	k.must("makeCall", `{"target":"380501234567"}`)
	k.awaitFlags(cti.TalkBridged)
	d.pbx.KillSwitch()
	d.pbx.StartSwitch() // the channel is gone, and nobody has heard of it
	k.refused("holdCall", `{"timeoutMs":200,"id":"hold"}`, engine.VerdictNotConfirmed)
	if again := k.ask("holdCall", `{"id":"hold"}`); !again.Repeat || again.Result != engine.VerdictNotConfirmed {
		t.Errorf("asked again: %+v", again)
	}
	k.refused("dropCall", `{}`, engine.VerdictNoChannel)
	data := d.cfg.Data
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if got := requestFacts(t, data)["hold"]; got != "requested holdCall by unknown, completed not-confirmed" {
		t.Errorf("facts: %s", got)
	}
}

// TestQueryOfNobody: asking of an account that nobody ever heard of makes no line.
func TestQueryOfNobody(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	const nobody = "9999@other.local"
	var out, errw bytes.Buffer
	if code := realMain([]string{"state", nobody, "--nats", d.server.URL()}, func(string) string { return "" }, nil, &out, &errw); code != 1 || out.Len() > 0 || !strings.Contains(errw.String(), "no state of "+nobody) {
		t.Errorf("exit %d\n%s%s", code, &out, &errw)
	}
	d.desk(t, nobody).must("queryLineState", ``)
	if _, known, err := d.engine.Line(t.Context(), nobody); known || err != nil {
		t.Errorf("known %t, %v", known, err)
	}
}

// TestControlVerbs types what the other tests ask for.
func TestControlVerbs(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	k := d.desk(t, agent)
	verb := func(code int, want string, args ...string) {
		t.Helper()
		var out, errw bytes.Buffer
		args = append(args, "--nats", d.server.URL())
		if got := realMain(args, func(string) string { return "" }, nil, &out, &errw); got != code || !strings.Contains(out.String()+errw.String(), want) {
			t.Errorf("%v: exit %d, want %d and %q\n%s%s", args, got, code, want, &out, &errw)
		}
	}
	verb(0, "ok", "call", agent, "+380 50 1234567", "--by", "a test")
	k.awaitFlags(cti.TalkBridged)
	verb(0, "ok", "hold", agent)
	k.await(cti.Hold)
	verb(1, "not-allowed: the call is on hold", "hold", agent)
	verb(0, "ok", "unhold", agent)
	k.await(cti.Unhold)
	verb(0, `"result":"ok"`, "dtmf", agent, "5", "--json")
	verb(0, "ok", "consult", agent, "1007")
	k.awaitFlags(cti.CompleteTransfer)
	verb(0, "ok", "transfer", agent, "--cancel")
	k.awaitFlags(cti.Held)
	verb(1, "no-call: there is no consultation", "transfer", agent, "--complete")
	verb(0, "ok", "unhold", agent)
	k.await(cti.Unhold)
	verb(0, "ok", "hangup", agent)
	k.await(cti.CallFinished)
	verb(0, "ok", "state", agent, "DND", "--note", "until noon")
	for k.await(cti.AgentStateChanged).UserState != "DND" {
		continue
	}
	verb(0, "ok DND", "state", agent)
	verb(2, "usage", "transfer", agent)
	verb(2, "want number@domain", "hangup", "1001")
	verb(2, "usage", "call", agent)
}

// sentCommands checks as a link does and keeps what would go to the PBX.
type sentCommands struct {
	mu   sync.Mutex
	sent []engine.Command
}

func (s *sentCommands) Check(c engine.Command) error {
	_, err := webitel.EncodeCommand(c)
	return err
}

func (s *sentCommands) Command(_ context.Context, c engine.Command) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, c)
	return "+OK", nil
}

// TestHostileArgumentsNeverReachTheWire puts what a shell, a dial string or the
// switch's command line would take for more than a word into every field of
// every method.
func TestHostileArgumentsNeverReachTheWire(t *testing.T) {
	const leg, far = "b1e60000-0000-4000-8000-000000000001", "a1e60000-0000-4000-8000-000000000001"
	hostile := []string{
		"1;system reboot", "1&1", "1|2", "1\n2", "1\r\nexec-func", "'1", "1\"2", "`id`", "$(id)", "${uuid}", "1 2,3", "{a=b}1", "[a=b]1", "<1>",
		"1\x00", "1\u2028", "\xff", strings.Repeat("1", 5000), "hangup: inline,", "1@a;b", "1\t2",
	}
	for _, talking := range []bool{false, true} {
		sent := &sentCommands{}
		e := engine.New(memory.New(), nullBus{}, sent, engine.Config{Rules: engine.Rules{AllDomains: true}})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()
		if err := e.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		if talking {
			for i, kind := range []engine.LegKind{engine.LegCreated, engine.LegAnswered, engine.LegBridged} {
				o := &engine.LegObservation{Kind: kind, Leg: leg, Presence: agent, ChannelCall: far, Vars: true, OtherLeg: far, BridgeA: leg, BridgeB: far, CallerNumber: "1", CalleeNumber: "2", At: events.Time(i + 1)}
				if err := e.Submit(ctx, engine.Input{Leg: o, ReceivedAt: o.At, Source: events.Source{Core: "c", Sequence: uint64(i + 1)}}); err != nil {
					t.Fatal(err)
				}
			}
			for line := (cti.LineView{}); line.Line.CallFeaturesSet != cti.TalkBridged; {
				var err error
				if line, _, err = e.Line(ctx, agent); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, method := range engine.Methods() {
			for _, bad := range hostile {
				for field, r := range map[string]engine.Request{
					"target": {Target: bad}, "digits": {Digits: bad}, "state": {State: bad}, "note": {State: "DND", Target: "100", Note: bad},
					"callId": {Call: bad, Target: "100", Digits: "1"}, "id": {ID: bad, Target: "100"}, "account": {Account: bad, Target: "100"},
					"by": {By: bad, Target: "\n"},
				} {
					if r.Account == "" {
						r.Account = agent
					}
					r.Method, r.Timeout = method, 30*time.Millisecond
					before := len(sent.sent)
					o := e.Do(ctx, r)
					for _, c := range sent.sent[before:] {
						for _, v := range []string{c.Account, c.Leg, c.OtherLeg, c.ThirdLeg, c.Parent, c.Target, c.Digits, c.State, c.Note, c.Cause} {
							if v != "" && strings.Contains(v, bad) {
								t.Fatalf("%s with %s %q: sent %+v, outcome %+v", method, field, bad, c, o)
							}
						}
					}
				}
			}
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
