package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/crypto/bcrypt"

	"github.com/callstate/callstate/adapters/secret"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events/cti"
)

const userPassword = "open sesame"

// house is a server with a user of each role, a bus and both services.
type house struct {
	t       *testing.T
	server  *Server
	bus     *Bus
	queries *slowQueries
	control *noted
}

// slowQueries answers about lines when it is let.
type slowQueries struct {
	fakeQueries
	begun, let chan struct{} // nil: at once
}

func (q *slowQueries) Line(ctx context.Context, account string) (cti.LineView, bool, error) {
	if q.let != nil {
		q.begun <- struct{}{}
		<-q.let
	}
	return q.fakeQueries.Line(ctx, account)
}

// noted keeps what was asked for.
type noted struct {
	mu   sync.Mutex
	done []engine.Request
}

func (n *noted) Do(_ context.Context, r engine.Request) engine.Outcome {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.done = append(n.done, r)
	return engine.Outcome{Request: r.ID, Result: engine.VerdictOK}
}

func (n *noted) take() []engine.Request {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.done
	n.done = nil
	return out
}

func newHouse(t *testing.T) *house {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(userPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, control: &noted{}}
	h.server = startServer(t, ServerOptions{Users: []User{
		{Name: "desk1004", Password: userPassword, Role: RoleAgent, Accounts: []string{"1004@acme.example"}},
		{Name: "desk1005", Password: secret.Text(hash), Role: RoleAgent, Accounts: []string{"1005@acme.example"}, Recordings: true},
		{Name: "sam", Password: userPassword, Role: RoleSupervisor, Domains: []string{"acme.example"}},
		{Name: "ann", Password: userPassword, Role: RoleAnalyst},
		{Name: "dan", Password: userPassword, Role: RoleAnalyst, Domains: []string{"acme.example"}},
		{Name: "root", Password: userPassword, Role: RoleAdmin},
		{Name: "star", Password: userPassword, Role: RoleAgent, Accounts: []string{">@acme.example", "*@acme.example"}},
	}})
	h.bus, _ = startBus(t, Options{Server: h.server})
	h.queries = &slowQueries{}
	svc, err := StartService(h.bus.Conn(), h.queries, ServiceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = svc.Close() })
	control, err := StartControl(h.bus.Conn(), h.control, ServiceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = control.Close() })
	return h
}

// guest is a user's connection, with what the server refused it.
type guest struct {
	*nats.Conn
	t       *testing.T
	refused chan string
}

func (h *house) enter(user string) *guest {
	h.t.Helper()
	g := &guest{t: h.t, refused: make(chan string, 16)}
	a := Access{User: user, Password: userPassword, InboxPrefix: UserInbox(user)}
	var err error
	g.Conn, err = a.Connect(h.server.URL(), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			g.refused <- err.Error()
		}
	}))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(g.Close)
	return g
}

// mayNot expects a refusal, and nothing else, of each subscription and each message.
func (g *guest) mayNot(what string, subscribe, publish []string) {
	g.t.Helper()
	expect := func(doing, subject string, do func() error) {
		g.t.Helper()
		if err := do(); err != nil {
			g.t.Fatal(err)
		}
		if err := g.FlushWithContext(deadline(g.t)); err != nil {
			g.t.Fatal(err)
		}
		select {
		case text := <-g.refused:
			if !strings.Contains(text, `"`+subject+`"`) {
				g.t.Errorf("%s: %s %s: refused was %s", what, doing, subject, text)
			}
		case <-time.After(10 * time.Second):
			g.t.Errorf("%s may %s %s", what, doing, subject)
		}
	}
	for _, s := range subscribe {
		expect("subscribe to", s, func() error { _, err := g.SubscribeSync(s); return err })
		expect("subscribe to", s, func() error { _, err := g.QueueSubscribeSync(s, serviceName); return err })
	}
	for _, s := range publish {
		expect("publish to", s, func() error { return g.PublishRequest(s, UserInbox("desk1004")+".x", []byte(`{}`)) })
	}
}

// may asks, and expects an answer that is no error.
func (g *guest) may(subjects ...string) {
	g.t.Helper()
	for _, s := range subjects {
		body := `{}`
		if strings.HasSuffix(s, "calls.get") || strings.HasSuffix(s, "calls.history") {
			body = `{"callId":"a2e6"}`
		}
		if strings.HasSuffix(s, ".at") {
			body = `{"time":"2026-01-01T00:00:00Z"}`
		}
		m, err := g.RequestWithContext(deadline(g.t), s, []byte(body))
		if err != nil {
			g.t.Errorf("%s: %v", s, err)
		} else if e := m.Header.Get("Nats-Service-Error"); e != "" {
			g.t.Errorf("%s: %s", s, e)
		}
	}
}

// everywhere are subjects that nobody but an admin may subscribe to or publish to.
var (
	nobodyHears = []string{
		">", "*", "*.*", "_INBOX.>", "_INBOX.*", "_INBOX_desk1005.>", "_INBOX_desk1005.*", "_INBOX.callstate-acks.>", "$SYS.>", "$JS.>", "$JS.API.>", "$JS.ACK.>", "$JS.EVENT.>",
		"$SRV.>", "$KV.>", "$KV.*.acme_example.1004", "callstate.>", "callstate.v1.>", "callstate.v1.control.>", "callstate.v1.control.acme_example.1004.*",
		"callstate.v1.of.acme_example.1004.calls.list", "callstate.v1.status",
	}
	nobodySays = []string{
		"cti.v1.acme_example.1004.callStarted.x", "cti.v1.acme_example.1005.callFinished.x", "$KV.cti-lines.acme_example.1004", "$KV.cti-calls.acme_example.1005.x",
		"_INBOX.x", "_INBOX_desk1005.x", "_INBOX_desk1004.x", "_INBOX.callstate-acks.x.m.1.1", "$SYS.REQ.USER.INFO", "$SYS.REQ.SERVER.PING", "$SRV.PING", "$SRV.INFO.callstate", "$SRV.STATS.callstate-control",
		"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.INFO.CTI", "$JS.API.STREAM.CREATE.X", "$JS.API.STREAM.UPDATE.CTI", "$JS.API.STREAM.PURGE.CTI",
		"$JS.API.STREAM.DELETE.CTI", "$JS.API.STREAM.DELETE.KV_cti-lines", "$JS.API.STREAM.MSG.GET.CTI", "$JS.API.STREAM.MSG.DELETE.CTI", "$JS.API.STREAM.SNAPSHOT.CTI",
		"$JS.API.CONSUMER.CREATE.CTI", "$JS.API.CONSUMER.CREATE.CTI.x", "$JS.API.CONSUMER.CREATE.CTI.x.cti.v1.acme_example.1004.>", "$JS.API.CONSUMER.DURABLE.CREATE.CTI.x",
		"$JS.API.CONSUMER.CREATE.KV_cti-lines.x.$KV.cti-lines.acme_example.1004", "$JS.API.CONSUMER.MSG.NEXT.CTI.x", "$JS.API.CONSUMER.LIST.CTI",
		"$JS.API.DIRECT.GET.CTI", "$JS.API.DIRECT.GET.CTI.cti.v1.acme_example.1004.callStarted.x", "$JS.API.DIRECT.GET.KV_cti-lines.$KV.cti-lines.acme_example.1004", "$JS.ACK.CTI.x.1.1.1.1.1",
		"callstate.v1.control.acme_example.1004.queryCallRecords", "callstate.v1.control.other_example.1.dropCall",
		"callstate.v1.log.events", "callstate.v1.log.base",
	}
	wide = []string{
		"callstate.v1.calls.get", "callstate.v1.calls.list", "callstate.v1.calls.history", "callstate.v1.calls.doubtful", "callstate.v1.calls.at", "callstate.v1.events.since",
		"callstate.v1.lines.get", "callstate.v1.lines.list", "callstate.v1.lines.at", "callstate.v1.status",
	}
)

func TestAgentStaysWithinItsAccount(t *testing.T) {
	h := newHouse(t)
	g := h.enter("desk1004")
	g.mayNot("an agent", append([]string{
		"cti.>", "cti.v1.>", "cti.v1.acme_example.>", "cti.v1.acme_example.*.>", "cti.v1.*.1004.>", "cti.v1.acme_example.1005.>", "cti.v1.acme_example.1005.callStarted.x",
		"cti.v1.acme_example.10.>", "cti.v1.other_example.1004.>", "$KV.cti-lines.>", "$KV.cti-lines.acme_example.*", "$KV.cti-lines.acme_example.1005", "$KV.cti-calls.acme_example.1005.>",
	}, nobodyHears...), append([]string{
		"callstate.v1.control.acme_example.1005.dropCall", "callstate.v1.control.acme_example.10=304.dropCall", "callstate.v1.control.other_example.1004.dropCall",
		"callstate.v1.of.acme_example.1005.calls.list", "callstate.v1.of.acme_example.-.calls.list", "callstate.v1.of.acme_example.-.events.since", "callstate.v1.of.other_example.1004.lines.get",
	}, append(nobodySays, wide...)...))

	g.may("callstate.v1.control.acme_example.1004.dropCall")
	for _, verb := range queryVerbs {
		g.may("callstate.v1.of.acme_example.1004." + verb)
	}
	if got := h.control.take(); len(got) != 1 || got[0].Account != "1004@acme.example" {
		t.Errorf("carried out: %+v", got)
	}
	h.enter("desk1005").may("callstate.v1.control.acme_example.1005.queryCallRecords")
}

func TestRequestNamesNobodyElse(t *testing.T) {
	h := newHouse(t)
	g := h.enter("desk1004")
	for verb, body := range map[string]string{
		"calls.get":     `{"callId":"a2e6","account":"1005@acme.example"}`,
		"calls.list":    `{"account":"1005@acme.example"}`,
		"calls.history": `{"callId":"a2e6","account":"1005@acme.example"}`,
		"calls.at":      `{"time":"2026-01-01T00:00:00Z","account":"1005@acme.example"}`,
		"events.since":  `{"account":"1005@acme.example"}`,
		"lines.get":     `{"account":"1005@acme.example"}`,
		"lines.list":    `{"domain":"other.example"}`,
		"lines.at":      `{"time":"2026-01-01T00:00:00Z","domain":"other.example"}`,
	} {
		m, err := g.RequestWithContext(deadline(t), "callstate.v1.of.acme_example.1004."+verb, []byte(body))
		if err != nil || m.Header.Get("Nats-Service-Error-Code") != CodeBadRequest {
			t.Errorf("%s %s: %s, %v", verb, body, m.Data, err)
		}
	}
	for _, body := range []string{`{"account":"1005@acme.example"}`, `{"account":"1004@acme.example","method":"makeCall"}`} {
		m, err := g.RequestWithContext(deadline(t), "callstate.v1.control.acme_example.1004.dropCall", []byte(body))
		if err != nil || m.Header.Get("Nats-Service-Error-Code") != string(engine.VerdictBadArgument) {
			t.Errorf("control %s: %s, %v", body, m.Data, err)
		}
	}
	if got := h.control.take(); len(got) != 0 {
		t.Errorf("carried out: %+v", got)
	}
}

// TestNobodyBorrowsOurRights: an answer goes where the request says, with the
// rights of the one who answers. So it goes to inboxes alone, and an answer, an
// event or a view is no request.
func TestNobodyBorrowsOurRights(t *testing.T) {
	h := newHouse(t)
	g := h.enter("desk1004")
	own, err := g.SubscribeSync("cti.v1.acme_example.1004.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Flush(); err != nil {
		t.Fatal(err)
	}
	publish(t, h.bus, []engine.Result{result(1, "1004@acme.example", "c1", 1)})
	ev, err := own.NextMsgWithContext(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(ev.Reply, "."+acksToken+".") {
		t.Fatalf("confirmations come to %s, which the services do not know", ev.Reply)
	}
	stream := streamState(t, h.bus)
	for _, reply := range []string{
		"callstate.v1.control.acme_example.1005.dropCall", "cti.v1.acme_example.1005.callFinished.x", "$KV.cti-lines.acme_example.1005",
		"$JS.API.STREAM.PURGE.CTI", ev.Reply, "_INBOX", "",
	} {
		for _, subject := range []string{"callstate.v1.of.acme_example.1004.calls.get", "callstate.v1.of.acme_example.1004.status", "callstate.v1.control.acme_example.1004.holdCall"} {
			for _, body := range []string{`{}`, `garbage`} {
				m := &nats.Msg{Subject: subject, Reply: reply, Data: []byte(body)}
				if err := g.PublishMsg(m); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, verb := range []string{"calls.get", "status"} { // each endpoint answers in order
		g.may("callstate.v1.of.acme_example.1004." + verb)
	}
	g.may("callstate.v1.control.acme_example.1004.dropCall")
	if got := h.control.take(); len(got) != 1 || got[0].Method != "dropCall" || got[0].Account != "1004@acme.example" {
		t.Errorf("carried out: %+v", got)
	}
	if got := streamState(t, h.bus); got != stream {
		t.Errorf("stream and buckets have %v messages, had %v", got, stream)
	}
	if err := h.bus.Err(); err != nil {
		t.Errorf("the bus: %v", err)
	}
}

func publish(t *testing.T, b *Bus, rs []engine.Result) {
	t.Helper()
	if err := b.Publish(deadline(t), rs); err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(deadline(t)); err != nil {
		t.Fatal(err)
	}
}

func streamState(t *testing.T, b *Bus) (last [3]uint64) {
	t.Helper()
	js, err := jetstream.New(b.Conn())
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"CTI", "KV_cti-calls", "KV_cti-lines"} {
		s, err := js.Stream(deadline(t), name)
		if err != nil {
			t.Fatal(err)
		}
		last[i] = s.CachedInfo().State.LastSeq
	}
	return last
}

func TestSupervisorStaysWithinItsDomain(t *testing.T) {
	h := newHouse(t)
	g := h.enter("sam")
	g.mayNot("a supervisor", append([]string{"cti.v1.>", "cti.v1.*.1004.>", "cti.v1.other_example.>", "$KV.cti-lines.>", "$KV.cti-lines.other_example.>"}, nobodyHears...),
		append([]string{"callstate.v1.of.other_example.-.calls.list", "callstate.v1.of.other_example.1.calls.list"}, append(nobodySays, wide...)...))
	g.may("callstate.v1.control.acme_example.1004.holdCall", "callstate.v1.control.acme_example.1005.dropCall")
	for _, verb := range queryVerbs {
		if verb != "lines.get" { // which takes an account
			g.may("callstate.v1.of.acme_example.-." + verb)
		}
		g.may("callstate.v1.of.acme_example.1004." + verb)
	}
	// No spelling of an account within the domain is one outside of it.
	for _, number := range []string{"1=40other_example", "=31005", "1005=40acme_example"} {
		for _, subject := range []string{"callstate.v1.control.acme_example." + number + ".dropCall", "callstate.v1.of.acme_example." + number + ".calls.list"} {
			m, err := g.RequestWithContext(deadline(t), subject, nil)
			if err != nil || !strings.HasPrefix(m.Header.Get("Nats-Service-Error-Code"), "bad-") {
				t.Errorf("%s: %s, %v", subject, m.Data, err)
			}
		}
	}
	if got := h.control.take(); len(got) != 2 {
		t.Errorf("carried out: %+v", got)
	}
}

func TestAnalystOnlyReads(t *testing.T) {
	h := newHouse(t)
	control := []string{"callstate.v1.control.acme_example.1004.dropCall", "callstate.v1.control.acme_example.1004.queryLineState"}
	g := h.enter("ann")
	g.mayNot("an analyst", nobodyHears, append(control, nobodySays...))
	for _, verb := range queryVerbs {
		if verb != "lines.get" {
			g.may("callstate.v1."+verb, "callstate.v1.of.other_example.-."+verb)
		}
	}
	all, err := g.SubscribeSync("cti.v1.>")
	if err != nil {
		t.Fatal(err)
	}
	lines, err := g.SubscribeSync("$KV.cti-lines.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Flush(); err != nil {
		t.Fatal(err)
	}
	publish(t, h.bus, []engine.Result{result(1, "1004@acme.example", "c1", 1)})
	for _, sub := range []*nats.Subscription{all, lines} {
		if _, err := sub.NextMsgWithContext(deadline(t)); err != nil {
			t.Errorf("%s: %v", sub.Subject, err)
		}
	}
	g = h.enter("dan")
	g.mayNot("a domain's analyst", append([]string{"cti.v1.>", "cti.v1.other_example.>", "$KV.cti-calls.>"}, nobodyHears...), append(control, append(nobodySays, wide...)...))
	g.may("callstate.v1.of.acme_example.-.calls.list", "callstate.v1.of.acme_example.1005.lines.list")
}

func TestAdminMayEverything(t *testing.T) {
	h := newHouse(t)
	g := h.enter("root")
	g.may("callstate.v1.calls.list", "callstate.v1.control.acme_example.1004.queryCallRecords", "$SRV.INFO.callstate")
	js, err := jetstream.New(g.Conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Stream(deadline(t), "CTI"); err != nil {
		t.Error(err)
	}
}

// TestOddNumbersAreNoWildcards: an account that is called like a wildcard is one
// account.
func TestOddNumbersAreNoWildcards(t *testing.T) {
	g := newHouse(t).enter("star")
	g.mayNot("an odd agent", []string{"cti.v1.acme_example.>", "cti.v1.acme_example.1004.>"}, []string{"callstate.v1.of.acme_example.1004.calls.list", "callstate.v1.control.acme_example.1004.dropCall"})
	g.may("callstate.v1.of.acme_example.=3E.calls.list", "callstate.v1.control.acme_example.=2A.dropCall")
}

func TestStrangersStayOutside(t *testing.T) {
	h := newHouse(t)
	for name, a := range map[string]Access{
		"nobody": {}, "a wrong password": {User: "desk1004", Password: "x"}, "an unknown user": {User: "stranger", Password: userPassword},
		"our own user": {User: ownUser, Password: ""}, "a bcrypt hash as password": {User: "desk1005", Password: "$2a$04$abcdefghijklmnopqrstuu"},
	} {
		nc, err := a.Connect(h.server.URL())
		if err == nil {
			nc.Close()
		}
		var hint *HintError
		if !errors.Is(err, nats.ErrAuthorization) || !errors.As(err, &hint) || strings.Contains(err.Error(), userPassword) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBadUsers(t *testing.T) {
	for want, u := range map[string]User{
		"name":              {Password: "x", Role: RoleAdmin},
		"password or an":    {Name: "a", Role: RoleAdmin},
		"public key":        {Name: "a", NKey: "SUAXXX", Role: RoleAdmin},
		"role":              {Name: "a", Password: "x", Role: "boss"},
		"at least one":      {Name: "a", Password: "x", Role: RoleAgent},
		"accounts go":       {Name: "a", Password: "x", Role: RoleSupervisor, Domains: []string{"d"}, Accounts: []string{"1@d"}},
		"domains go":        {Name: "a", Password: "x", Role: RoleSupervisor},
		"with the roles":    {Name: "a", Password: "x", Role: RoleAgent, Accounts: []string{"1@d"}, Domains: []string{"d"}},
		`account "@d"`:      {Name: "a", Password: "x", Role: RoleAgent, Accounts: []string{"@d"}},
		`account "-@d"`:     {Name: "a", Password: "x", Role: RoleAgent, Accounts: []string{"-@d"}},
		`account "1"`:       {Name: "a", Password: "x", Role: RoleAgent, Accounts: []string{"1"}},
		`account "1@-"`:     {Name: "a", Password: "x", Role: RoleAgent, Accounts: []string{"1@-"}},
		`domain "-"`:        {Name: "a", Password: "x", Role: RoleAnalyst, Domains: []string{"-"}},
		`domain ""`:         {Name: "a", Password: "x", Role: RoleSupervisor, Domains: []string{""}},
		"want a name of it": {Name: ownUser, Password: "x", Role: RoleAdmin},
	} {
		if err := u.Validate(); !errors.Is(err, ErrUser) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", u, err, want)
		}
	}
	twice := User{Name: "a", Password: "x", Role: RoleAdmin}
	if _, err := StartServer(ServerOptions{StoreDir: t.TempDir(), Port: -1, Users: []User{twice, twice}}); !errors.Is(err, ErrUser) {
		t.Errorf("two of one name: %v", err)
	}
}

func TestNoNetworkWithoutUsers(t *testing.T) {
	for _, host := range []string{"0.0.0.0", "::", "192.0.2.1", "pbx.example"} {
		_, err := StartServer(ServerOptions{StoreDir: t.TempDir(), Host: host, Port: -1})
		var hint *HintError
		if !errors.Is(err, ErrOpen) || !errors.As(err, &hint) {
			t.Errorf("%s: %v", host, err)
		}
	}
	for _, host := range []string{"127.0.0.1", "localhost"} {
		startServer(t, ServerOptions{Host: host})
	}
	startServer(t, ServerOptions{Host: "0.0.0.0", Users: []User{{Name: "a", Password: "x", Role: RoleAdmin}}})
}

func TestScopeStatusHasNobodysFigures(t *testing.T) {
	h := newHouse(t)
	m, err := h.enter("desk1004").RequestWithContext(deadline(t), "callstate.v1.of.acme_example.1004.status", nil)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]json.RawMessage
	if err := json.Unmarshal(m.Data, &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"frames", "bus", "live", "lines"} {
		if _, ok := got[name]; ok {
			t.Errorf("an agent is told %s: %s", name, m.Data)
		}
	}
	if string(got["position"]) != "12" {
		t.Errorf("position %s", got["position"])
	}
}

// TestOneUserKeepsNobodyWaiting: an account's slow queries are bounded, and others
// are answered meanwhile.
func TestOneUserKeepsNobodyWaiting(t *testing.T) {
	h := newHouse(t)
	h.queries.begun, h.queries.let = make(chan struct{}, 16), make(chan struct{})
	g := h.enter("desk1004")
	answers, err := g.SubscribeSync(UserInbox("desk1004") + ".slow")
	if err != nil {
		t.Fatal(err)
	}
	for range queriesOfOneScope + 1 {
		if err := g.PublishRequest("callstate.v1.of.acme_example.1004.lines.get", UserInbox("desk1004")+".slow", nil); err != nil {
			t.Fatal(err)
		}
	}
	refused, err := answers.NextMsgWithContext(deadline(t))
	if err != nil || refused.Header.Get("Nats-Service-Error-Code") != CodeUnavailable {
		t.Fatalf("%+v, %v", refused, err)
	}
	for range queriesOfOneScope {
		<-h.queries.begun
	}
	c := h.enter("desk1005")
	c.may("callstate.v1.of.acme_example.1005.calls.list") // another query
	desk1005, err := c.SubscribeSync(UserInbox("desk1005") + ".slow")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.PublishRequest("callstate.v1.of.acme_example.1005.lines.get", UserInbox("desk1005")+".slow", nil); err != nil {
		t.Fatal(err)
	}
	<-h.queries.begun // the same query of another account is under way beside
	close(h.queries.let)
	for range queriesOfOneScope {
		if m, err := answers.NextMsgWithContext(deadline(t)); err != nil || m.Header.Get("Nats-Service-Error") != "" {
			t.Errorf("%+v, %v", m, err)
		}
	}
	if _, err := desk1005.NextMsgWithContext(deadline(t)); err != nil {
		t.Error(err)
	}
}
