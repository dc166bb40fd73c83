package webiteltest

import (
	"encoding/json"
	"slices"
	"strings"
)

// command is one request of a socket.
type command struct {
	s      *Server
	socket *socket
	id     json.RawMessage
	fn     string
	args   map[string]any
}

type reply struct {
	ID       json.RawMessage `json:"exec-uuid"`
	Complete string          `json:"exec-complete"`
	Response any             `json:"exec-response,omitempty"`
}

func (c *command) reply(complete string, response any) {
	c.s.push(c.socket, ReplyPath, reply{c.id, complete, response})
}

func (c *command) ok(response any)  { c.reply("+OK", response) }
func (c *command) fail(text string) { c.reply("-ERR", text) }

// bad is the answer of a handler that rejects its arguments; the reason is lost.
func (c *command) bad() { c.reply("-ERR: bad response", nil) }

// text returns an argument if it is a text.
func (c *command) text(name string) string {
	v, _ := c.args[name].(string)
	return v
}

// access says what a command needs.
type access uint8

const (
	public  access = iota // also before auth
	private               // before auth its handler throws: never answered
)

type handler struct {
	access access
	run    func(*Server, *command)
}

// switched are the commands that the switch carries out.
var switched = []string{
	"hangup", "hold", "unhold", "toggle_hold", "dtmf", "transfer", "bridge", "att_xfer", "att_xfer_bridge", "att_xfer_cancel",
	"att_xfer2", "attended_transfer", "call", "eavesdrop", "displace", "video_refresh", "channel_dump", "getvar", "setvar",
	"show_channel", "chat_send",
}

var handlers map[string]handler

// The table is filled here since the handlers, through the playing of calls,
// come back to it.
func init() {
	text := func(s string) func(*Server, *command) {
		return func(_ *Server, c *command) { c.fail(s) }
	}
	denied := handler{private, text("Permission denied!")}
	noCallCentre := handler{private, func(_ *Server, c *command) {
		c.ok("-ERR: -ERR callcenter_config Command not found!\n") // reported as success: form 8
	}}
	silent := handler{public, func(*Server, *command) {}}
	handlers = map[string]handler{
		"auth":           {public, (*Server).auth},
		"ping":           {public, func(_ *Server, c *command) { c.ok("pong") }},
		"login":          {private, func(s *Server, c *command) { s.setLogged(c, true) }},
		"logout":         {private, func(s *Server, c *command) { s.setLogged(c, false) }},
		"api whoami":     {public, (*Server).whoami},
		"token_generate": {private, (*Server).tokenGenerate},
		"list_sockets":   {private, (*Server).listSockets},
		"subscribe":      {public, (*Server).subscribe},
		"unsubscribe":    {public, (*Server).unsubscribe},

		"api account list":   {private, (*Server).accountList},
		"api list_users":     {private, (*Server).listUsers},
		"api account":        {private, (*Server).accountShow},
		"api account change": {private, (*Server).accountChange},
		"api account remove": {private, func(_ *Server, c *command) {
			if c.text("user") != "" {
				c.fail("Permission denied!")
			}
		}},
		"api account create":  denied,
		"api domain list":     denied,
		"license_list":        denied,
		"cc login":            noCallCentre,
		"cc logout":           noCallCentre,
		"cc tier from user":   {private, func(_ *Server, c *command) { c.ok([]string{}) }},
		"cdr_get_record_link": {private, (*Server).recordLink},
		"hotdesk_signout":     {private, text("Address is required")},
		"sys_msg":             {private, (*Server).sysMsg},
		"broadcast":           silent,

		"hangup":            {public, (*Server).hangup},
		"hold":              {public, (*Server).hold},
		"unhold":            {public, (*Server).hold},
		"toggle_hold":       {public, (*Server).hold},
		"dtmf":              {public, (*Server).dtmf},
		"transfer":          {public, (*Server).transfer},
		"bridge":            {public, (*Server).bridge},
		"att_xfer":          {public, (*Server).attXfer},
		"att_xfer_bridge":   {public, (*Server).attXferBridge},
		"att_xfer_cancel":   {public, (*Server).hangup},
		"att_xfer2":         {private, (*Server).originate},
		"attended_transfer": {private, (*Server).originate},
		"call":              {private, (*Server).originate},
		"eavesdrop":         {private, (*Server).eavesdrop},
		"displace":          {public, (*Server).displace},
		"video_refresh":     {public, (*Server).videoRefresh},
		"channel_dump":      {public, (*Server).channelDump},
		"getvar":            {public, (*Server).getVar},
		"setvar":            {public, (*Server).setVar},
		"show_channel":      {public, (*Server).showChannel},
		"chat_send":         {public, func(_ *Server, c *command) { c.ok("Sent\n") }},
	}
}

// handle takes one frame of a client. What is not JSON is never answered.
func (s *Server) handle(k *socket, b []byte) {
	var f struct {
		ID   json.RawMessage `json:"exec-uuid"`
		Func string          `json:"exec-func"`
		Args map[string]any  `json:"exec-args"`
	}
	if json.Unmarshal(b, &f) != nil {
		return
	}
	if f.ID == nil {
		f.ID = json.RawMessage("null")
	}
	c := &command{s: s, socket: k, id: f.ID, fn: f.Func, args: f.Args}
	h, known := handlers[f.Func]
	s.mu.Lock()
	s.commands[f.Func]++
	s.mu.Unlock()
	switch {
	case !known:
		c.reply("+ERR", f.Func+" - not found.")
	case h.access == private && !s.authenticated(k):
	case slices.Contains(switched, f.Func) && !s.runs(s.Core()):
		if f.Func == "show_channel" {
			c.bad() // capture 42
			return
		}
		c.fail("-ERR: FreeSWITCH server connect close!")
	default:
		h.run(s, c)
	}
}

func (s *Server) authenticated(k *socket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return k.user != nil
}

// serverNames are the channel events one can subscribe to.
var serverNames = []string{
	"SE:CHANNEL_CREATE", "SE:CHANNEL_DESTROY", "SE:CHANNEL_CALLSTATE", "SE:CHANNEL_STATE",
	"SE:CHANNEL_ANSWER", "SE:CHANNEL_HANGUP_COMPLETE", "SE:CHANNEL_HANGUP", "SE:CHANNEL_HOLD",
	"SE:CHANNEL_UNHOLD", "SE:CHANNEL_BRIDGE", "SE:CHANNEL_UNBRIDGE", "SE:DTMF",
}

// otherNames can be subscribed to and never come.
var otherNames = []string{
	"SE:HEARTBEAT", "SE::BROADCAST", "CC::AGENT-OFFERING", "CC::BRIDGE-AGENT-START", "CC::BRIDGE-AGENT-END",
	"CC::BRIDGE-AGENT-FAIL", "CC::MEMBER-QUEUE-START", "CC::MEMBER-QUEUE-END", "CC::MEMBER-QUEUE-RESUME",
	"CC::MEMBERS-COUNT", "CC::AGENT-STATUS-CHANGE", "CC::AGENT-STATE-CHANGE",
}

// eventName is the name a command is about; ok is false if it was refused.
func (s *Server) eventName(c *command) (name string, ok bool) {
	name = c.text("event")
	switch {
	case !s.authenticated(c.socket):
		c.fail("-ERR: Authentication required!")
	case name == "":
		c.fail("-ERR: Bad parameters.")
	case !slices.Contains(serverNames, name) && !slices.Contains(otherNames, name):
		c.fail("-ERR: Event unregistered")
	default:
		return name, true
	}
	return "", false
}

// subscribe answers before the binding is in force, and a socket that has the
// name already is refused and not bound again.
func (s *Server) subscribe(c *command) {
	name, ok := s.eventName(c)
	if !ok {
		return
	}
	s.mu.Lock()
	if slices.Contains(c.socket.names, name) {
		s.mu.Unlock()
		c.fail("-ERR: event subscribed!")
		return
	}
	c.socket.names = append(c.socket.names, name)
	domain := c.socket.user.domain
	s.mu.Unlock()
	s.bind(func() { s.bound[binding{domain, name}] = true }, func() { c.ok("+OK: subscribe " + name) })
}

// unsubscribe takes the name from the whole domain, and says so to none of the
// others.
func (s *Server) unsubscribe(c *command) {
	name, ok := s.eventName(c)
	if !ok {
		return
	}
	s.mu.Lock()
	if slices.Contains(c.socket.names, name) {
		c.socket.names = slices.DeleteFunc(slices.Clone(c.socket.names), func(n string) bool { return n == name })
		delete(s.bound, binding{c.socket.user.domain, name})
	}
	s.mu.Unlock()
	c.ok("+OK: unsubscribe " + name)
}

func (s *Server) recordLink(c *command) {
	id := c.text("uuid")
	switch {
	case id == "":
		c.fail("-ERR: UUID is required.")
	case !s.recorded(id):
		c.ok("+OK: Not found.")
	default:
		c.ok("http://cdr:10023" + filesPath + id + "?x_key=" + FileKey + "&access_token=" + FileToken)
	}
}

// sysMsg relays a text to the sockets of an account of the own domain.
func (s *Server) sysMsg(c *command) {
	number, _, _ := strings.Cut(c.text("to"), "@")
	to := number + "@" + c.socket.user.domain
	s.mu.Lock()
	var sockets []*socket
	if u := s.users[to]; u != nil {
		sockets = slices.Clone(u.sockets)
	}
	s.mu.Unlock()
	s.pushAll(sockets, UserPath, map[string]string{
		"to": to, "from": c.socket.user.login, "body": c.text("body"),
		"webitel-event-name": "WEBITEL-CUSTOM", "Event-Name": "WEBITEL-CUSTOM-MESSAGE",
	})
	c.ok("+OK: Message send.")
}
