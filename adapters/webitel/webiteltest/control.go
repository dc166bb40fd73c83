package webiteltest

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// q850 are the numbers of the causes that commands use.
var q850 = map[string]string{
	"NORMAL_CLEARING": "16", "USER_BUSY": "17", "NO_ANSWER": "19", "CALL_REJECTED": "21", "ORIGINATOR_CANCEL": "0",
}

// act runs fn, which raises events of the leg, while its playing stands still. It
// reports false if there is no such leg.
func (s *Server) act(leg string, fn func(c *channel)) bool {
	s.mu.Lock()
	c := s.channels[leg]
	s.mu.Unlock()
	if c == nil {
		return false
	}
	if c.playing != nil {
		c.playing.mu.Lock()
		defer c.playing.mu.Unlock()
	}
	fn(c)
	return true
}

// raiseFor raises an event made of what is known of a leg, with changes given as
// name, value, name, value.
func (s *Server) raiseFor(c *channel, name string, changes ...string) {
	s.mu.Lock()
	if s.channels[c.id] == nil && name != "CHANNEL_STATE" {
		s.mu.Unlock()
		return // it has ended meanwhile
	}
	f := c.headersLocked()
	s.mu.Unlock()
	switch name {
	case "CHANNEL_STATE", "CHANNEL_CALLSTATE", "DTMF":
		f = f.without(isVariable)
	}
	f = f.set("Event-Name", name).
		set("Event-Date-Timestamp", strconv.FormatInt(time.Now().UnixMicro(), 10)).
		set("Event-Sequence", strconv.FormatUint(s.sequence.Add(1), 10))
	for i := 0; i+1 < len(changes); i += 2 {
		f = f.set(changes[i], changes[i+1])
	}
	s.raise(eventOf(f), c.playing)
}

// hold answers hold, unhold and toggle_hold. A leg that does not exist is
// answered as if it were held: the real server says so too.
func (s *Server) hold(c *command) {
	var on, done bool
	known := s.act(c.text("channel-uuid"), func(ch *channel) {
		s.mu.Lock()
		held := ch.held
		s.mu.Unlock()
		on = c.fn == "hold" || c.fn == "toggle_hold" && !held
		if done = on != held; !done {
			return
		}
		c.ok("+OK Success\n")
		if on {
			s.raiseFor(ch, "CHANNEL_CALLSTATE", "Original-Channel-Call-State", "ACTIVE", "Channel-Call-State", "HELD")
			s.raiseFor(ch, "CHANNEL_HOLD", "Channel-Call-State", "HELD")
			return
		}
		s.raiseFor(ch, "CHANNEL_CALLSTATE", "Original-Channel-Call-State", "HELD", "Channel-Call-State", "UNHELD")
		s.raiseFor(ch, "CHANNEL_UNHOLD", "Channel-Call-State", "UNHELD")
		s.raiseFor(ch, "CHANNEL_CALLSTATE", "Original-Channel-Call-State", "UNHELD", "Channel-Call-State", "ACTIVE")
	})
	switch {
	case !known:
		c.ok("+OK Success\n")
	case !done:
		c.fail("-ERR Operation failed\n")
	}
}

func (s *Server) dtmf(c *command) {
	leg, digits := c.text("channel-uuid"), c.text("digits")
	if !s.act(leg, func(ch *channel) {
		c.ok("+OK " + leg + " received DTMF " + digits + ".\n")
		for _, d := range digits {
			s.raiseFor(ch, "DTMF", "DTMF-Digit", string(d), "DTMF-Duration", "2000", "DTMF-Source", "APP")
		}
	}) {
		c.fail("-ERR Cannot locate session!\n")
	}
}

// hangup answers hangup and att_xfer_cancel.
func (s *Server) hangup(c *command) {
	leg := c.text("channel-uuid")
	if c.fn == "att_xfer_cancel" {
		leg = c.text("channel-uuid-leg-c")
	}
	cause := c.text("cause")
	if cause == "" {
		cause = "NORMAL_CLEARING"
	}
	if !s.act(leg, func(ch *channel) {
		c.ok("+OK\n")
		s.endAll(ch, cause)
	}) {
		c.fail("-ERR No such channel!\n")
	}
}

func (s *Server) transfer(c *command) {
	if !s.act(c.text("channel-uuid"), func(ch *channel) {
		c.ok("+OK\n")
		s.endAll(ch, "NORMAL_CLEARING")
	}) {
		c.fail("-ERR No such channel!\n")
	}
}

// endAll ends the leg and whatever else its playing keeps up. The caller holds
// the playing.
func (s *Server) endAll(c *channel, cause string) {
	legs := []*channel{c}
	if c.playing != nil {
		c.playing.ended = true
		s.mu.Lock()
		for _, id := range s.order {
			if o := s.channels[id]; o != c && o.playing == c.playing {
				legs = append(legs, o)
			}
		}
		s.mu.Unlock()
	}
	for _, l := range legs {
		s.endLeg(l, cause)
	}
}

// endLeg raises the end of one leg, in the order of the captures.
func (s *Server) endLeg(c *channel, cause string) {
	s.mu.Lock()
	h := c.headersLocked()
	s.mu.Unlock()
	now := time.Now().UnixMicro()
	billsec := "0"
	if answered, err := strconv.ParseInt(h.get("Caller-Channel-Answered-Time"), 10, 64); err == nil && answered > 0 {
		billsec = strconv.FormatInt(max(0, now-answered)/1_000_000, 10)
	}
	was := h.get("Channel-Call-State")
	at := []string{"Answer-State", "hangup", "Hangup-Cause", cause, "Caller-Channel-Hangup-Time", strconv.FormatInt(now, 10)}
	s.raiseFor(c, "CHANNEL_HANGUP", append(at, "Channel-State", "CS_HANGUP", "Channel-State-Number", "10")...)
	s.raiseFor(c, "CHANNEL_CALLSTATE", append(at, "Original-Channel-Call-State", was, "Channel-Call-State", "HANGUP")...)
	s.raiseFor(c, "CHANNEL_STATE", append(at, "Channel-State", "CS_REPORTING", "Channel-State-Number", "11")...)
	final := append(slices.Clone(at), "variable_hangup_cause", cause, "variable_billsec", billsec)
	if n := q850[cause]; n != "" {
		final = append(final, "variable_hangup_cause_q850", n)
	}
	s.raiseFor(c, "CHANNEL_HANGUP_COMPLETE", final...)
	s.raiseFor(c, "CHANNEL_DESTROY", final...)
	s.raiseFor(c, "CHANNEL_STATE", append(at, "Channel-State", "CS_DESTROY", "Channel-State-Number", "12")...)
}

func (s *Server) bridge(c *command) {
	_, a := s.find(c.text("channel_uuid_A"))
	_, b := s.find(c.text("channel_uuid_B"))
	if !a || !b {
		c.fail("-ERR Invalid uuid\n")
		return
	}
	c.ok("+OK " + c.text("channel_uuid_B") + "\n")
}

func (s *Server) attXfer(c *command) {
	if c.text("user") == "" {
		return // the handler throws: never answered
	}
	if _, ok := s.find(c.text("channel-uuid")); !ok {
		c.fail("-ERR invalid uuid\n")
		return
	}
	c.ok("+OK Message sent\n")
}

// attXferBridge marks the own legs with the outcome and, where both remote legs
// exist, ends both calls.
func (s *Server) attXferBridge(c *command) {
	leg := func(x string) string { return c.text("channel-uuid-leg-" + x) }
	_, b := s.find(leg("b"))
	_, cc := s.find(leg("c"))
	result := map[bool]string{true: "confirmed", false: "error"}[b && cc]
	s.mu.Lock()
	for _, x := range []string{leg("a"), leg("d")} {
		if ch := s.channels[x]; ch != nil {
			if ch.set == nil {
				ch.set = make(map[string]string)
			}
			ch.set["w_transfer_result"] = result
		}
	}
	s.mu.Unlock()
	if !b || !cc {
		c.fail("-ERR Invalid uuid\n")
		return
	}
	c.ok("+OK " + leg("c") + "\n")
	for _, x := range []string{leg("a"), leg("d"), leg("b"), leg("c")} {
		s.act(x, func(ch *channel) {
			s.mu.Lock()
			held := ch.held
			s.mu.Unlock()
			if held {
				s.raiseFor(ch, "CHANNEL_UNHOLD", "Channel-Call-State", "UNHELD")
			}
			s.endAll(ch, "NORMAL_CLEARING")
		})
	}
}

func (s *Server) eavesdrop(c *command) {
	leg := c.text("channel-uuid")
	if leg == "all" && c.socket.user.role != "root" {
		c.bad()
		return
	}
	if _, ok := s.find(leg); !ok {
		c.fail("-ERR No such channel!\n")
		return
	}
	c.ok("+OK " + uuid.NewString() + "\n")
}

// originate answers call, att_xfer2 and attended_transfer by playing a recorded
// click-to-call; the reply comes when the first leg answers.
func (s *Server) originate(c *command) {
	extension, login := c.text("extension"), c.text("user")
	if c.fn == "attended_transfer" {
		extension = c.text("destination")
	}
	if extension == "" || login == "" {
		c.bad()
		return
	}
	extension, _, _ = strings.Cut(extension, "@")
	number, domain, _ := strings.Cut(login, "@")
	s.mu.Lock()
	known := s.accounts[login] != nil
	isAccount := s.accounts[extension+"@"+domain] != nil
	s.mu.Unlock()
	if !known {
		c.fail("-ERR SUBSCRIBER_ABSENT\n")
		return
	}
	parent := c.text("parent_call_uuid")
	if c.fn == "attended_transfer" {
		parent = c.text("call_uuid")
	}
	sc, err := clickToCall(parent, c.args["variables"], isAccount)
	if err != nil {
		panic("webiteltest: " + err.Error()) // our own recording
	}
	opts := PlayOptions{
		Speed: s.opts.originateSpeed(), Domain: domain, keep: parent, stay: s.opts.KeepOriginated,
		Numbers: map[string]string{"1001": number, "1002": extension},
	}
	s.run(func() {
		first, answered := "", false
		_, _ = s.play(context.Background(), sc, opts, func(name, leg string) {
			if first == "" {
				first = leg
			}
			if name == "CHANNEL_ANSWER" && leg == first && !answered {
				answered = true
				c.ok("+OK " + leg + "\n")
			}
		})
		if !answered {
			c.fail("-ERR NORMAL_CLEARING\n") // killed while it rang
		}
	})
}

// clickToCall prepares recording 10: 1001's phone rings and, answered, 1002's.
// Where the destination is no account its leg becomes a trunk's, without presence.
func clickToCall(parent string, variables any, account bool) (*Scenario, error) {
	lines, err := recording("10-callback-originate")
	if err != nil {
		return nil, err
	}
	vars, _ := variables.(map[string]any)
	agent, far := "", ""
	return parseScenario("click-to-call", lines, func(f fields) fields {
		leg := f.get("Unique-ID")
		if agent == "" && strings.HasPrefix(f.get("Channel-Presence-ID"), "1001@") {
			agent = leg
		}
		if far == "" && strings.HasPrefix(f.get("Channel-Presence-ID"), "1002@") {
			far = leg
		}
		if leg == "" {
			return f
		}
		if leg == far && !account {
			f = f.without(func(name string) bool {
				return name == "Channel-Presence-ID" || name == "variable_presence_id" || name == "variable_domain_name"
			})
		}
		if leg != agent || !f.hasVariables() {
			return f
		}
		if parent != "" {
			f = f.set("variable_w_jsclient_xtransfer", parent)
		}
		for k, v := range vars {
			if text, ok := v.(string); ok {
				f = f.set("variable_"+k, text)
			}
		}
		if len(vars) > 0 {
			f = f.set("variable_webitel_data", jsonText(vars))
		}
		return f
	})
}
