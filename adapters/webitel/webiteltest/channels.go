package webiteltest

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"
)

// channel is a live leg.
type channel struct {
	id       string
	presence string
	data     string
	last     []byte // its last event
	vars     []byte // its last event with variables; nil if there was none
	held     bool
	set      map[string]string // by setvar
	playing  *playing
}

// trackLocked keeps the legs. A leg exists from its first event to its DESTROY.
func (s *Server) trackLocked(ev *event, p *playing) {
	if ev.leg == "" || ev.custom {
		return
	}
	c := s.channels[ev.leg]
	if ev.ending {
		if c != nil {
			delete(s.channels, ev.leg)
			s.order = slices.DeleteFunc(s.order, func(id string) bool { return id == ev.leg })
		}
		return
	}
	if c == nil {
		if !strings.HasPrefix(ev.name, "CHANNEL_") {
			return
		}
		c = &channel{id: ev.leg, playing: p}
		s.channels[ev.leg] = c
		s.order = append(s.order, ev.leg)
	}
	if c.last = ev.full; ev.vars {
		c.vars = ev.full
	}
	if ev.presence != "" {
		c.presence = ev.presence
	}
	if ev.data != "" {
		c.data = ev.data
	}
	switch ev.name {
	case "CHANNEL_HOLD":
		c.held = true
	case "CHANNEL_UNHOLD":
		c.held = false
	}
}

// Channels returns the ids of the live legs, oldest first.
func (s *Server) Channels() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.order)
}

// headersLocked is what is known of a leg: its last event with variables, brought
// up to date by its last event.
func (c *channel) headersLocked() fields {
	last, err := parseFields(c.last)
	if err != nil {
		return nil
	}
	out := last
	if c.vars != nil && !bytes.Equal(c.vars, c.last) {
		if with, err := parseFields(c.vars); err == nil {
			out = with.without(func(name string) bool { return !isVariable(name) || last.has(name) })
			out = append(slices.Clone(last), out...)
		}
	}
	for k, v := range c.set {
		out = out.set("variable_"+k, v)
	}
	return out
}

// find returns the headers of the leg named by an argument.
func (s *Server) find(id string) (fields, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channels[id]
	if c == nil {
		return nil, false
	}
	return c.headersLocked(), true
}

type channelRow struct {
	UUID           string `json:"uuid"`
	Direction      string `json:"direction"`
	Created        string `json:"created"`
	CreatedEpoch   string `json:"created_epoch"`
	Name           string `json:"name"`
	State          string `json:"state"`
	CIDName        string `json:"cid_name"`
	CIDNum         string `json:"cid_num"`
	IPAddr         string `json:"ip_addr"`
	Dest           string `json:"dest"`
	App            string `json:"application"`
	AppData        string `json:"application_data"`
	Dialplan       string `json:"dialplan"`
	Context        string `json:"context"`
	ReadCodec      string `json:"read_codec"`
	ReadRate       string `json:"read_rate"`
	ReadBitRate    string `json:"read_bit_rate"`
	WriteCodec     string `json:"write_codec"`
	WriteRate      string `json:"write_rate"`
	WriteBitRate   string `json:"write_bit_rate"`
	Secure         string `json:"secure"`
	Hostname       string `json:"hostname"`
	PresenceID     string `json:"presence_id"`
	PresenceData   string `json:"presence_data"`
	AccountCode    string `json:"accountcode"`
	CallState      string `json:"callstate"`
	CalleeName     string `json:"callee_name"`
	CalleeNum      string `json:"callee_num"`
	CalleeDir      string `json:"callee_direction"`
	CallUUID       string `json:"call_uuid"`
	SentCalleeName string `json:"sent_callee_name"`
	SentCalleeNum  string `json:"sent_callee_num"`
	InitialName    string `json:"initial_cid_name"`
	InitialNum     string `json:"initial_cid_num"`
	InitialIP      string `json:"initial_ip_addr"`
	InitialDest    string `json:"initial_dest"`
	InitialPlan    string `json:"initial_dialplan"`
	InitialContext string `json:"initial_context"`
}

func (c *channel) rowLocked() channelRow {
	h := c.headersLocked()
	created, _ := strconv.ParseInt(h.get("Caller-Channel-Created-Time"), 10, 64)
	at := time.UnixMicro(created).UTC()
	r := channelRow{
		UUID: c.id, Direction: h.get("Call-Direction"),
		Created: at.Format(dateLayout), CreatedEpoch: strconv.FormatInt(at.Unix(), 10),
		Name: h.get("Channel-Name"), State: h.get("Channel-State"),
		CIDName: h.get("Caller-Caller-ID-Name"), CIDNum: h.get("Caller-Caller-ID-Number"),
		IPAddr: h.get("Caller-Network-Addr"), Dest: h.get("Caller-Destination-Number"),
		App: h.get("variable_current_application"), AppData: h.get("variable_current_application_data"),
		Dialplan: h.get("Caller-Dialplan"), Context: h.get("Caller-Context"),
		ReadCodec: "PCMU", ReadRate: "8000", ReadBitRate: "64000", WriteCodec: "PCMU", WriteRate: "8000", WriteBitRate: "64000",
		Hostname: h.get("FreeSWITCH-Switchname"), PresenceID: c.presence, PresenceData: c.data,
		CallState:  h.get("Channel-Call-State"),
		CalleeName: h.get("Caller-Callee-ID-Name"), CalleeNum: h.get("Caller-Callee-ID-Number"), CalleeDir: "SEND",
		CallUUID: h.get("Channel-Call-UUID"),
	}
	r.SentCalleeName, r.SentCalleeNum = r.CalleeName, r.CalleeNum
	r.InitialName, r.InitialNum, r.InitialIP = r.CIDName, r.CIDNum, r.IPAddr
	r.InitialDest, r.InitialPlan, r.InitialContext = r.Dest, r.Dialplan, r.Context
	return r
}

// showChannel lists legs. FreeSWITCH takes the domain as a substring of several
// columns, so that a leg of another domain can be among them.
func (s *Server) showChannel(c *command) {
	var answer struct {
		Count int          `json:"row_count"`
		Rows  []channelRow `json:"rows"`
	}
	answer.Rows = []channelRow{}
	s.mu.Lock()
	like := c.text("domain")
	if u := c.socket.user; u == nil {
		like = "" // before auth: all domains
	} else if u.role != "root" {
		like = u.domain
	}
	for _, id := range s.order {
		r := s.channels[id].rowLocked()
		if slices.ContainsFunc([]string{r.UUID, r.Name, r.CIDName, r.CIDNum, r.PresenceData}, func(v string) bool {
			return strings.Contains(v, like)
		}) {
			answer.Rows = append(answer.Rows, r)
		}
	}
	s.mu.Unlock()
	answer.Count = len(answer.Rows)
	c.ok(answer)
}

func (s *Server) channelDump(c *command) {
	h, ok := s.find(c.text("uuid"))
	if !ok {
		c.fail("-ERR No such channel!\n")
		return
	}
	now := strconv.FormatInt(time.Now().UnixMicro(), 10)
	h = h.set("Event-Name", "CHANNEL_DATA").set("Event-Date-Timestamp", now).
		set("Event-Sequence", strconv.FormatUint(s.sequence.Add(1), 10))
	c.ok(string(h.encode()))
}

func (s *Server) getVar(c *command) {
	h, ok := s.find(c.text("channel-uuid"))
	if !ok {
		c.fail("-ERR No such channel!\n")
		return
	}
	if v := h.get("variable_" + c.text("variable")); v != "" {
		c.ok(v)
		return
	}
	c.ok("_undef_")
}

func (s *Server) setVar(c *command) {
	s.mu.Lock()
	ch := s.channels[c.text("channel-uuid")]
	if ch != nil {
		if ch.set == nil {
			ch.set = make(map[string]string)
		}
		ch.set[c.text("variable")] = c.text("value")
	}
	s.mu.Unlock()
	if ch == nil {
		c.fail("-ERR No such channel!\n")
		return
	}
	c.ok("+OK\n")
}

func (s *Server) displace(c *command) {
	switch _, ok := s.find(c.text("channel-uuid")); {
	case !ok:
		c.fail("-ERR Cannot locate session!\n")
	case c.text("record") == "start":
		c.fail("-ERR Cannot displace session!\n") // as in capture 20
	default:
		c.fail("-ERR Cannot stop displace session!\n")
	}
}

func (s *Server) videoRefresh(c *command) {
	if _, ok := s.find(c.text("uuid")); !ok {
		c.fail("-ERR Operation Failed\n")
		return
	}
	c.ok("+OK Success\n")
}
