package webiteltest

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// The rights of the shipped roles (captures 01, 30, 04).
var acls = map[string]json.RawMessage{
	"user":  json.RawMessage(`{"kibana":["r"],"hotdesk":["*"],"metadata":["r"],"cc/tiers":["r"],"cdr/files":["ro"],"cdr":["ro"],"vmail":["ro"],"channels":["*"],"blacklist":["c","u","r"],"acl/roles":["r"],"account":["r","uo"]}`),
	"admin": json.RawMessage(`{"kibana":["*","r"],"hotdesk":["*"],"metadata":["*","r"],"callback/members":["*"],"callback":["*"],"widget":["*"],"account":["*","r","uo"],"domain":["ro","uo"],"domain/item":["*"],"gateway":["*"],"cdr/media":["*"],"cdr/files":["*","ro"],"cdr":["*","ro"],"vmail":["*","ro"],"hook":["*"],"dialer/templates":["*"],"dialer/members":["*"],"dialer":["*"],"cc/queue":["*"],"cc/members":["*"],"cc/tiers":["*","r"],"channels":["*"],"rotes/domain":["*"],"rotes/extension":["*"],"rotes/public":["*"],"rotes/default":["*"],"calendar":["*"],"blacklist":["*","c","u","r"],"acl/roles":["r"]}`),
	"root":  json.RawMessage(`{"kibana":["*"],"hotdesk":["*"],"metadata":["*"],"callback/members":["*"],"callback":["*"],"widget":["*"],"license":["*"],"system/reload":["*"],"account":["*"],"domain/item":["*"],"domain":["*"],"gateway/profile":["*"],"gateway":["*"],"cdr/media":["*"],"cdr/files":["*"],"cdr":["*"],"vmail":["*"],"hook":["*"],"dialer/templates":["*"],"dialer/members":["*"],"dialer":["*"],"cc/queue":["*"],"cc/members":["*"],"cc/tiers":["*"],"channels":["*"],"rotes/domain":["*"],"rotes/extension":["*"],"rotes/public":["*"],"rotes/default":["*"],"calendar":["*"],"blacklist":["*"],"acl/resource":["*"],"acl/roles":["*"]}`),
}

// accountDomain is the domain that a command about accounts speaks of.
func (c *command) accountDomain() string {
	if c.socket.user.role == "root" {
		return c.text("domain")
	}
	return c.socket.user.domain
}

func (s *Server) accountList(c *command) {
	type row struct {
		Name     string `json:"name"`
		Role     string `json:"role"`
		Agent    string `json:"agent"`
		Queue    string `json:"agent.status"`
		State    string `json:"state"`
		Status   string `json:"status"`
		Note     string `json:"descript"`
		ID       string `json:"id"`
		Online   bool   `json:"online"`
		CCLogged bool   `json:"cc_logged"`
		Domain   string `json:"domain"`
	}
	s.mu.Lock()
	domain := c.accountDomain()
	rows := make(map[string]row)
	for _, e := range s.accounts {
		if e.domain() == domain && domain != "" {
			u := s.users[e.Login]
			rows[e.number()] = row{
				Name: e.Name, Role: roleOf(e), Agent: "true", Queue: "Logged Out", State: e.state, Status: e.status, Note: e.note,
				ID: e.number(), Online: u != nil && u.logged, Domain: domain,
			}
		}
	}
	s.mu.Unlock()
	if domain == "" {
		c.fail("Domain is require.")
		return
	}
	c.ok(struct {
		Response string `json:"response"`
	}{jsonText(rows)})
}

func (s *Server) listUsers(c *command) {
	type row struct {
		ID     string `json:"id"`
		Domain string `json:"domain"`
		Name   string `json:"name"`
	}
	rows := make(map[string]row)
	domain := c.accountDomain()
	for _, a := range s.opts.Accounts {
		if a.domain() == domain && domain != "" {
			rows[a.number()] = row{a.number(), domain, a.Name}
		}
	}
	c.ok(rows)
}

// statusReply is what the directory answers about an account.
type statusReply struct {
	User   string `json:"user"`
	State  string `json:"state"`
	Status string `json:"status"`
	Note   string `json:"descript"`
}

func (e *directoryEntry) reply() statusReply {
	return statusReply{e.number(), e.state, e.status, e.note}
}

func (s *Server) accountShow(c *command) {
	s.mu.Lock()
	e := s.accounts[c.text("user")]
	var text string
	if e != nil {
		text = jsonText(e.reply())
	}
	s.mu.Unlock()
	if e == nil {
		c.fail("-ERR user not found!\n")
		return
	}
	c.ok(text)
}

type statusEvent struct {
	Name        string `json:"Event-Name"`
	Domain      string `json:"Account-Domain"`
	Role        string `json:"Account-Role"`
	Status      string `json:"Account-Status"`
	User        string `json:"Account-User"`
	State       string `json:"Account-User-State"`
	Account     string `json:"Event-Account"`
	Date        string `json:"Event-Date-Timestamp"`
	EventDomain string `json:"Event-Domain"`
	Note        string `json:"Account-Status-Descript"`
	AgentState  string `json:"Account-Agent-State"`
	AgentStatus string `json:"Account-Agent-Status"`
	UserName    string `json:"Account-User-Name"`
	Online      bool   `json:"Account-Online"`
	CCLogged    bool   `json:"cc_logged"`
	WS          bool   `json:"ws"`
	Presence    string `json:"presence_id"`
	CC          bool   `json:"cc"`
	Source      string `json:"webitel-event-name"`
}

// accountChange sets a status and raises ACCOUNT_STATUS.
func (s *Server) accountChange(c *command) {
	login := c.text("user")
	if login == "" {
		return // the handler throws: never answered
	}
	if c.socket.user.role == "user" && login != c.socket.user.login {
		c.fail("Permission denied!")
		return
	}
	status, note, _ := strings.Cut(c.text("value"), "('")
	s.mu.Lock()
	e := s.accounts[login]
	if e == nil || c.text("param") != "status" {
		s.mu.Unlock()
		c.fail("-ERR user not found!\n")
		return
	}
	e.note = strings.TrimSuffix(note, "')")
	if e.status = status; status == "ONHOOK" {
		e.status, e.state = "NONE", "ONHOOK"
	}
	reply, event, to := e.reply(), s.statusLocked(e), s.domainSocketsLocked(e.domain())
	s.mu.Unlock()
	c.ok(reply)
	s.pushAll(to, UserPath, event)
}

// SetState sets an account's state as the directory learns it from the phone
// (ONHOOK, ISBUSY, NONREG) and raises ACCOUNT_STATUS.
func (s *Server) SetState(login, state string) {
	s.mu.Lock()
	e := s.accounts[login]
	if e == nil {
		s.mu.Unlock()
		return
	}
	e.state = state
	event, to := s.statusLocked(e), s.domainSocketsLocked(e.domain())
	s.mu.Unlock()
	s.pushAll(to, UserPath, event)
}

func (s *Server) statusLocked(e *directoryEntry) statusEvent {
	online := s.users[e.Login] != nil
	return statusEvent{
		Name: "ACCOUNT_STATUS", Domain: e.domain(), Role: roleOf(e), Status: e.status, User: e.number(), State: e.state,
		Account: e.Login, Date: strconv.FormatInt(time.Now().UnixMicro(), 10), EventDomain: e.domain(), Note: e.note,
		AgentState: "Waiting", AgentStatus: "Logged Out", UserName: strings.ReplaceAll(e.Name, " ", "%20"),
		Online: online, WS: online, Presence: e.Login, Source: "ACCOUNT_STATUS",
	}
}
