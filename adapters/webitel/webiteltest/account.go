package webiteltest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Account is an entry of the directory.
type Account struct {
	Login  string // number@domain, or "root"
	Secret string
	Name   string
	Role   string // "user" if empty, "admin" or "root"
}

// DemoAccounts are those of the captures, in the domain demo.local, each with the
// secret "secret": agents 1001 to 1003, 1009 the watcher, 1010 the supervisor,
// 1011 the spare, and root.
func DemoAccounts() []Account {
	var out []Account
	for _, a := range []struct{ number, name, role string }{
		{"1001", "Agent 1001", "user"},
		{"1002", "Agent 1002", "user"},
		{"1003", "Agent 1003", "user"},
		{"1009", "Monitor", "user"},
		{"1010", "Supervisor", "admin"},
		{"1011", "Spare agent", "user"},
	} {
		out = append(out, Account{Login: a.number + "@demo.local", Secret: "secret", Name: a.name, Role: a.role})
	}
	return append(out, Account{Login: "root", Secret: "secret", Name: "root", Role: "root"})
}

// Agents are n accounts from number first on.
func Agents(domain string, first, n int, secret string) []Account {
	out := make([]Account, n)
	for i := range out {
		number := strconv.Itoa(first + i)
		out[i] = Account{Login: number + "@" + domain, Secret: secret, Name: "Agent " + number, Role: "user"}
	}
	return out
}

func (a *Account) number() string {
	number, _, _ := strings.Cut(a.Login, "@")
	return number
}

// domain is empty for root.
func (a *Account) domain() string {
	_, domain, _ := strings.Cut(a.Login, "@")
	return domain
}

// directoryEntry is an account with what the directory keeps of it.
type directoryEntry struct {
	Account

	state, status, note string
}

// user is an account with sockets on this server.
type user struct {
	login, number, domain, role string

	byToken bool // the record was made by a token, which knows less
	logged  bool // of the account, not of the socket: shared by all and gone with the last
	bound   bool // the broker delivers its call events
	sockets []*socket
}

func (u *user) removeLocked(k *socket) (last bool) {
	u.sockets = slices.DeleteFunc(u.sockets, func(o *socket) bool { return o == k })
	return len(u.sockets) == 0
}

// token is what token_generate gave out.
type token struct {
	key, token, login string
	expires           time.Time
}

type loginRefusal struct {
	Login struct {
		Status  int    `json:"status"`
		Message string `json:"message"`
	} `json:"login"`
}

func refusal(message string) loginRefusal {
	var r loginRefusal
	r.Login.Status, r.Login.Message = 401, message
	return r
}

type authReply struct {
	Login    string          `json:"login"`
	Role     string          `json:"role"`
	Domain   string          `json:"domain,omitempty"`
	State    *string         `json:"state,omitempty"` // root has none of the three
	Status   *string         `json:"status,omitempty"`
	CCAgent  *string         `json:"cc-agent,omitempty"`
	Session  string          `json:"session"`
	Sockets  int             `json:"ws-count"`
	CCLogged bool            `json:"cc-logged"`
	ACL      json.RawMessage `json:"acl"`
}

// auth signs a socket in.
func (s *Server) auth(c *command) {
	s.mu.Lock()
	if f := &s.faults; f.refusals > 0 {
		f.refusals--
		msg := f.refusalMsg
		s.mu.Unlock()
		c.reply("+ERR", refusal(msg))
		return
	}
	entry, byToken, complete, refused := s.checkLocked(c)
	if refused != nil {
		s.mu.Unlock()
		c.reply(complete, refused)
		return
	}
	if c.socket.user != nil {
		s.mu.Unlock()
		return // a second auth with valid credentials is never answered
	}
	u := s.users[entry.Login]
	if u != nil && len(u.sockets) >= s.opts.MaxSocketPerUser && entry.Role != "root" {
		s.mu.Unlock()
		c.reply("-ERR", fmt.Sprintf("Maximum opened socket %d", s.opts.MaxSocketPerUser))
		c.socket.send(outgoing{destroy: true})
		return
	}
	first := u == nil
	if first {
		u = &user{login: entry.Login, number: entry.number(), domain: entry.domain(), role: roleOf(entry), byToken: byToken}
		s.users[u.login] = u
	}
	c.socket.user = u
	c.socket.stopTimerLocked()
	u.sockets = append(u.sockets, c.socket)
	reply := authReply{
		Login: u.login, Role: u.role, Domain: u.domain, Session: c.socket.id,
		Sockets: len(u.sockets), ACL: acls[u.role],
	}
	if u.role != "root" {
		state, status, agent := entry.state, entry.status, "true"
		if byToken {
			state, status, agent = "", "", ""
		}
		reply.State, reply.Status, reply.CCAgent = &state, &status, &agent
	}
	to := s.domainSocketsLocked(u.domain)
	s.mu.Unlock()
	if first {
		// Announced before the reply, to this socket too (capture 01).
		s.pushAll(to, UserPath, presence("ACCOUNT_ONLINE", u))
	}
	s.bind(func() { u.bound = true }, func() { c.ok(reply) })
}

// checkLocked finds the account of an auth, or the refusal.
func (s *Server) checkLocked(c *command) (entry *directoryEntry, byToken bool, complete string, refused any) {
	if key, tok := c.text("key"), c.text("token"); key != "" && tok != "" {
		t, ok := s.tokens[key]
		switch {
		case !ok || t.token != tok:
			return nil, false, "-ERR", "Invalid Token or Key"
		case time.Now().After(t.expires):
			return nil, false, "-ERR", "Token Expired"
		}
		return s.accounts[t.login], true, "", nil
	}
	account := c.text("account")
	entry = s.accounts[account]
	switch {
	case account == "root" && (entry == nil || entry.Secret != c.text("secret")):
		return nil, false, "+ERR", refusal("secret incorrect")
	case account != "root" && !strings.Contains(account, "@"):
		return nil, false, "+ERR", refusal("-ERR command not found!\n")
	case entry == nil:
		return nil, false, "+ERR", refusal("-ERR user not found!\n")
	case entry.Secret != c.text("secret"):
		return nil, false, "+ERR", refusal("secret incorrect")
	}
	return entry, false, "", nil
}

func roleOf(e *directoryEntry) string {
	if e.Role == "" {
		return "user"
	}
	return e.Role
}

// domainSocketsLocked returns the sockets that hear what concerns a domain: its
// own accounts' and root's.
func (s *Server) domainSocketsLocked(domain string) []*socket {
	var out []*socket
	for k := range s.sockets {
		if k.user != nil && (k.user.domain == domain || k.user.role == "root") {
			out = append(out, k)
		}
	}
	return out
}

type presenceEvent struct {
	Name        string `json:"Event-Name"`
	Domain      string `json:"Event-Domain"`
	UserID      string `json:"User-ID"`
	UserDomain  string `json:"User-Domain"`
	UserScheme  string `json:"User-Scheme"`
	ContentType string `json:"Content-Type"`
	Source      string `json:"webitel-event-name"`
}

func presence(name string, u *user) presenceEvent {
	domain := u.domain
	if u.role == "root" {
		domain = "root"
	}
	return presenceEvent{name, domain, u.number, domain, "account", "text/event-json", "user"}
}

func (s *Server) setLogged(c *command, logged bool) {
	s.mu.Lock()
	c.socket.user.logged = logged
	s.mu.Unlock()
	c.ok(fmt.Sprintf("+OK: logged: %t", logged))
}

// whoami answers with JSON text in a string.
func (s *Server) whoami(c *command) {
	s.mu.Lock()
	u := c.socket.user
	if u == nil {
		s.mu.Unlock()
		c.fail("-ERR: user not auth.")
		return
	}
	var r struct {
		ID          string          `json:"id"`
		Domain      string          `json:"domain,omitempty"`
		Logged      bool            `json:"logged"`
		Sockets     int             `json:"sessionLength"`
		Role        string          `json:"roleName"`
		State       string          `json:"state"`
		Status      string          `json:"status"`
		Description *string         `json:"description,omitempty"`
		ACL         json.RawMessage `json:"acl"`
	}
	e := s.accounts[u.login]
	r.ID, r.Domain, r.Logged, r.Sockets, r.Role, r.ACL = u.login, u.domain, u.logged, len(u.sockets), u.role, acls[u.role]
	if !u.byToken {
		r.State, r.Status, r.Description = e.state, e.status, &e.note
	}
	text := jsonText(r)
	s.mu.Unlock()
	c.ok(text)
}

// tokenGenerate gives the account's token, which lives a hundred days.
func (s *Server) tokenGenerate(c *command) {
	s.mu.Lock()
	u := c.socket.user
	var t token
	for _, have := range s.tokens {
		if have.login == u.login {
			t = have
		}
	}
	if t.key == "" {
		t = token{uuid.NewString(), rand.Text(), u.login, time.Now().AddDate(0, 0, 100)}
		s.tokens[t.key] = t
	}
	s.mu.Unlock()
	c.ok(jsonText(struct {
		Key      string          `json:"key"`
		Domain   string          `json:"domain"`
		Username string          `json:"username"`
		Expires  int64           `json:"expires"`
		Token    string          `json:"token"`
		Role     int             `json:"role"`
		RoleName string          `json:"roleName"`
		ACL      json.RawMessage `json:"acl"`
	}{t.key, u.domain, u.login, t.expires.UnixMilli(), t.token, map[string]int{"admin": 1, "root": 2}[u.role], u.role, acls[u.role]}))
}

func (s *Server) listSockets(c *command) {
	type row struct {
		ID      string   `json:"id"`
		Sockets int      `json:"sockets"`
		IPs     []string `json:"ips"`
	}
	var body struct {
		Body []row `json:"body"`
	}
	s.mu.Lock()
	if c.socket.user.role != "root" {
		s.mu.Unlock()
		c.fail("Forbidden")
		return
	}
	for _, u := range s.users {
		r := row{ID: u.login, Sockets: len(u.sockets)}
		for _, k := range u.sockets {
			r.IPs = append(r.IPs, k.ip)
		}
		body.Body = append(body.Body, r)
	}
	s.mu.Unlock()
	slices.SortFunc(body.Body, func(a, b row) int { return strings.Compare(a.ID, b.ID) })
	c.ok(body)
}

// jsonText is v as JSON, for replies that carry JSON in a string.
func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("webiteltest: " + err.Error()) // our own types
	}
	return string(b)
}
