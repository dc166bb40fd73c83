package webitel

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Command is one request to the server. Build it with the functions of this
// file: the server concatenates arguments into the switch's command line without
// escaping (protocol 4), so they check every argument and return an error that
// matches [ErrArgument] for one that could mean more than itself.
type Command struct {
	ID   string         // exec-uuid; [Client.Do] chooses one if it is empty
	Func string         // exec-func
	Args map[string]any // exec-args; nil is left out
}

// Encode returns the frame of c.
func (c Command) Encode() ([]byte, error) {
	return json.Marshal(struct {
		ID   string         `json:"exec-uuid"`
		Func string         `json:"exec-func"`
		Args map[string]any `json:"exec-args,omitempty"`
	}{c.ID, c.Func, c.Args})
}

// long reports whether the reply waits until somebody answers a phone.
func (c Command) long() bool {
	switch c.Func {
	case "call", "att_xfer2", "attended_transfer", "eavesdrop":
		return true
	}
	return false
}

var (
	uuidPattern      = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	digitsPattern    = regexp.MustCompile(`^[0-9A-Da-d*#]{1,128}$`)
	extensionPattern = regexp.MustCompile(`^[0-9A-Za-z+*#._]{1,64}$`)
	domainPattern    = regexp.MustCompile(`^[0-9A-Za-z]([0-9A-Za-z.-]{0,252}[0-9A-Za-z])?$`)
	accountPattern   = regexp.MustCompile(`^[0-9A-Za-z+*#._-]{1,64}$`)
	namePattern      = regexp.MustCompile(`^[0-9A-Za-z_][0-9A-Za-z_.-]{0,127}$`)
	causePattern     = regexp.MustCompile(`^[A-Z][A-Z0-9_]{1,63}$`)
	statusPattern    = regexp.MustCompile(`^[A-Z]{2,32}$`)
)

// checker collects the first argument that is wrong, so that a builder reads as
// the list of its arguments.
type checker struct {
	fn  string
	err error
}

func (c *checker) bad(name string) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: %s: %s", ErrArgument, c.fn, name)
	}
}

func (c *checker) match(name, v string, p *regexp.Regexp) string {
	if !p.MatchString(v) {
		c.bad(name)
	}
	return v
}

func (c *checker) uuid(name, v string) string { return c.match(name, v, uuidPattern) }

// extension drops what people put between digits (client quirk 33) and checks
// the rest. A "@domain" is kept where the server cuts it itself.
func (c *checker) extension(name, v string, withDomain bool) string {
	number, domain, has := strings.Cut(v, "@")
	number = strings.Map(func(r rune) rune {
		if r == ' ' || r == '\u00a0' || r == '-' || r == '(' || r == ')' {
			return -1
		}
		return r
	}, number)
	c.match(name, number, extensionPattern)
	if !has {
		return number
	}
	if c.match(name, domain, domainPattern); !withDomain {
		c.bad(name)
	}
	return number + "@" + domain
}

func (c *checker) account(name, v string) string {
	number, domain, has := strings.Cut(v, "@")
	c.match(name, number, accountPattern)
	if !has {
		c.bad(name)
	} else {
		c.match(name, domain, domainPattern)
	}
	return v
}

// value accepts printable text that is one word for the switch and nothing for a
// shell, a dial string or a JSON text.
func (c *checker) value(name, v string) string {
	if len(v) > 1024 || !utf8.ValidString(v) || strings.ContainsAny(v, "\"'`\\;&|,<>(){}[]$^") ||
		strings.ContainsFunc(v, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		c.bad(name)
	}
	return v
}

// assignment accepts "name=value", a channel variable of a dial string.
func (c *checker) assignment(name, v string) string {
	k, val, has := strings.Cut(v, "=")
	if !has || forbiddenVariable(k) {
		c.bad(name)
	}
	c.match(name, k, namePattern)
	c.value(name, val)
	return v
}

// forbiddenVariable knows the variables that run something, which the server
// drops too, and domain_name, which would move the call into another domain.
func forbiddenVariable(name string) bool {
	name = strings.ToLower(name)
	return name == "domain_name" || startsAny(
		name, "api_on_", "execute_on_", "exec_", "api_after_bridge", "api_before_bridge", "api_hangup_hook",
		"api_reporting_hook", "record_post_process_exec_api", "session_in_hangup_hook",
	)
}

func (c *checker) command(args map[string]any) (Command, error) {
	if c.err != nil {
		return Command{}, c.err
	}
	return Command{Func: c.fn, Args: args}, nil
}

// channelCommand is a command whose only argument is a leg.
func channelCommand(fn, leg string) (Command, error) {
	c := checker{fn: fn}
	return c.command(map[string]any{"channel-uuid": c.uuid("channel-uuid", leg)})
}

// Hangup ends a leg with a cause such as USER_BUSY; an empty one leaves the
// choice to the switch.
func Hangup(leg, cause string) (Command, error) {
	c := checker{fn: "hangup"}
	args := map[string]any{"channel-uuid": c.uuid("channel-uuid", leg)}
	if cause != "" {
		args["cause"] = c.match("cause", cause, causePattern)
	}
	return c.command(args)
}

// Hold puts a leg on hold. The reply proves nothing, only the HOLD event does.
func Hold(leg string) (Command, error) { return channelCommand("hold", leg) }

// Unhold takes a leg back. The reply proves nothing, only the UNHOLD event does.
func Unhold(leg string) (Command, error) { return channelCommand("unhold", leg) }

// ToggleHold does whichever of the two applies.
func ToggleHold(leg string) (Command, error) { return channelCommand("toggle_hold", leg) }

// DTMF makes the switch take digits as if they had come from the leg.
func DTMF(leg, digits string) (Command, error) {
	c := checker{fn: "dtmf"}
	return c.command(map[string]any{
		"channel-uuid": c.uuid("channel-uuid", leg),
		"digits":       c.match("digits", digits, digitsPattern),
	})
}

// Transfer sends the named leg to a destination; to move the other party of a
// call name the other party's leg. The comment may be empty.
func Transfer(leg, destination, comment string) (Command, error) {
	c := checker{fn: "transfer"}
	args := map[string]any{
		"channel-uuid": c.uuid("channel-uuid", leg),
		"destination":  c.extension("destination", destination, false),
	}
	if comment != "" {
		args["comment"] = c.value("comment", comment)
	}
	return c.command(args)
}

// Call rings user's own device first and, answered, the extension. autoAnswer is
// one "name=value" or empty; variables are set on the first leg.
func Call(user, extension, autoAnswer string, variables map[string]string) (Command, error) {
	c := checker{fn: "call"}
	args := map[string]any{
		"extension":         c.extension("extension", extension, false),
		"user":              c.account("user", user),
		"auto_answer_param": nil,
	}
	if autoAnswer != "" {
		args["auto_answer_param"] = c.assignment("auto_answer_param", autoAnswer)
	}
	if len(variables) > 0 {
		for k, v := range variables {
			c.assignment("variables", k+"="+v)
		}
		args["variables"] = variables
	}
	return c.command(args)
}

// AttXfer2 begins a consult call of user with extension beside the call parent;
// leg is the own leg of that call.
func AttXfer2(leg, user, extension, parent string, autoAnswer []string) (Command, error) {
	c := checker{fn: "att_xfer2"}
	for _, p := range autoAnswer {
		c.assignment("auto_answer_param", p)
	}
	return c.command(map[string]any{
		"channel-uuid":      c.uuid("channel-uuid", leg),
		"user":              c.account("user", user),
		"extension":         c.extension("extension", extension, true),
		"parent_call_uuid":  c.uuid("parent_call_uuid", parent),
		"auto_answer_param": autoAnswer,
	})
}

// AttXferBridge completes a consult transfer: a and b are the own and the remote
// leg of the first call, c and d the remote and the own leg of the consult call.
// An empty d is left out.
func AttXferBridge(a, b, c, d string) (Command, error) {
	ch := checker{fn: "att_xfer_bridge"}
	args := map[string]any{
		"channel-uuid-leg-a": ch.uuid("channel-uuid-leg-a", a),
		"channel-uuid-leg-b": ch.uuid("channel-uuid-leg-b", b),
		"channel-uuid-leg-c": ch.uuid("channel-uuid-leg-c", c),
	}
	if d != "" {
		args["channel-uuid-leg-d"] = ch.uuid("channel-uuid-leg-d", d)
	}
	return ch.command(args)
}

// AttXferCancel ends the consult call's leg c. The server reads c alone; a and b,
// the legs of the first call, are sent as the browser client sends them.
func AttXferCancel(a, b, c string) (Command, error) {
	ch := checker{fn: "att_xfer_cancel"}
	args := map[string]any{"channel-uuid-leg-c": ch.uuid("channel-uuid-leg-c", c)}
	if a != "" {
		args["channel-uuid-leg-a"] = ch.uuid("channel-uuid-leg-a", a)
	}
	if b != "" {
		args["channel-uuid-leg-b"] = ch.uuid("channel-uuid-leg-b", b)
	}
	return ch.command(args)
}

// Bridge connects two legs.
func Bridge(a, b string) (Command, error) {
	c := checker{fn: "bridge"}
	return c.command(map[string]any{
		"channel_uuid_A": c.uuid("channel_uuid_A", a), "channel_uuid_B": c.uuid("channel_uuid_B", b),
	})
}

// Eavesdrop lets user listen to a leg.
func Eavesdrop(leg, user string) (Command, error) {
	c := checker{fn: "eavesdrop"}
	return c.command(map[string]any{
		"channel-uuid": c.uuid("channel-uuid", leg), "user": c.account("user", user),
	})
}

// ChangeStatus sets an account's status: ONHOOK (ready), DND, ONBREAK,
// CALLFORWARD or VOICEMAIL. The note may hold spaces, for it goes to the
// directory inside quotes, but nothing that could end them.
func ChangeStatus(user, status, note string) (Command, error) {
	c := checker{fn: "api account change"}
	value := c.match("value", status, statusPattern)
	if note != "" {
		c.value("value", strings.ReplaceAll(note, " ", "_"))
		value += "('" + note + "')"
	}
	return c.command(map[string]any{"user": c.account("user", user), "param": "status", "value": value})
}

// RecordLink asks for the recording of a call by the id of its CDR. The reply
// holds a live token: do not log it.
func RecordLink(id string) (Command, error) {
	c := checker{fn: "cdr_get_record_link"}
	return c.command(map[string]any{"uuid": c.uuid("uuid", id)})
}

// ChannelDump asks for all headers and variables of a leg.
func ChannelDump(leg string) (Command, error) {
	c := checker{fn: "channel_dump"}
	return c.command(map[string]any{"uuid": c.uuid("uuid", leg)})
}

// VideoRefresh asks the leg's device for a key frame.
func VideoRefresh(leg string) (Command, error) {
	c := checker{fn: "video_refresh"}
	return c.command(map[string]any{"uuid": c.uuid("uuid", leg)})
}

// GetVar reads a channel variable.
func GetVar(leg, variable string) (Command, error) {
	c := checker{fn: "getvar"}
	return c.command(map[string]any{
		"channel-uuid": c.uuid("channel-uuid", leg), "variable": c.match("variable", variable, namePattern),
	})
}

// SetVar sets a channel variable.
func SetVar(leg, variable, value string) (Command, error) {
	c := checker{fn: "setvar"}
	if forbiddenVariable(variable) {
		c.bad("variable")
	}
	return c.command(map[string]any{
		"channel-uuid": c.uuid("channel-uuid", leg),
		"variable":     c.match("variable", variable, namePattern),
		"value":        c.value("value", value),
	})
}

// ShowChannel lists the legs of a domain; only root may name one, all others get
// their own. The answer also matches by substring: filter it.
func ShowChannel(domain string) (Command, error) {
	c := checker{fn: "show_channel"}
	if domain == "" {
		return c.command(nil)
	}
	return c.command(map[string]any{"domain": c.match("domain", domain, domainPattern)})
}

// ListAccounts asks for the accounts of a domain.
func ListAccounts(domain string) Command {
	return Command{Func: "api account list", Args: map[string]any{"domain": domain}}
}

// Subscribe asks for a server event; the name must be one of the server's.
func Subscribe(event string) Command {
	return Command{Func: "subscribe", Args: map[string]any{"event": event}}
}

// Unsubscribe gives it up. It takes the name from every other socket of the
// domain as well, until somebody subscribes again (protocol 6.5).
func Unsubscribe(event string) Command {
	return Command{Func: "unsubscribe", Args: map[string]any{"event": event}}
}

// Login signs the socket's account in as an agent; its state follows as an event.
func Login() Command { return Command{Func: "login"} }

// QueueLogin makes the socket's account available in its call centre's queues.
func QueueLogin() Command {
	return Command{Func: "cc login", Args: map[string]any{"status": "Available"}}
}

// QueueLogout takes it out of them.
func QueueLogout() Command { return Command{Func: "cc logout"} }

// Logout makes all sockets of the account deaf for call events. Never send it
// where others share the account.
func Logout() Command { return Command{Func: "logout"} }

// Ping asks for "pong".
func Ping() Command { return Command{Func: "ping"} }
