package webiteltest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// fields is a flat JSON object with its members in order, each value as sent. A
// member that the switch wrote twice is there once, with its last value, as the
// engine's JSON reader leaves it.
type fields []field

type field struct {
	name  string
	value json.RawMessage
}

func parseFields(b []byte) (fields, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("webiteltest: event is no object: %.60q", b)
	}
	var out fields
	at := make(map[string]int)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("webiteltest: event: %w", err)
		}
		name, _ := t.(string)
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, fmt.Errorf("webiteltest: event: %w", err)
		}
		if i, again := at[name]; again {
			out[i].value = value
			continue
		}
		at[name] = len(out)
		out = append(out, field{name, value})
	}
	return out, nil
}

// get returns a text, "" if it is absent or no text.
func (f fields) get(name string) string {
	for i := range f {
		if f[i].name == name {
			return plainText(f[i].value)
		}
	}
	return ""
}

// plainText reads a JSON text; an array header is none.
func plainText(v []byte) (s string) {
	if len(v) >= 2 && v[0] == '"' && bytes.IndexByte(v, '\\') < 0 {
		return string(v[1 : len(v)-1])
	}
	_ = json.Unmarshal(v, &s)
	return s
}

// first returns the first of the texts that is not empty.
func (f fields) first(names ...string) string {
	for _, n := range names {
		if v := f.get(n); v != "" {
			return v
		}
	}
	return ""
}

func (f fields) has(name string) bool {
	return slices.ContainsFunc(f, func(x field) bool { return x.name == name })
}

// set changes or adds a text.
func (f fields) set(name, value string) fields {
	raw := json.RawMessage(jsonText(value))
	for i := range f {
		if f[i].name == name {
			f[i].value = raw
			return f
		}
	}
	return append(f, field{name, raw})
}

// without removes members, keeping f as it is.
func (f fields) without(drop func(name string) bool) fields {
	return slices.DeleteFunc(slices.Clone(f), func(x field) bool { return drop(x.name) })
}

func isVariable(name string) bool { return strings.HasPrefix(name, "variable_") }

func (f fields) hasVariables() bool {
	return slices.ContainsFunc(f, func(x field) bool { return isVariable(x.name) })
}

func (f fields) encode() []byte {
	b := []byte{'{'}
	for i, x := range f {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, jsonText(x.name)...)
		b = append(b, ':')
		b = append(b, x.value...)
	}
	return append(b, '}')
}

// serverFrame is a channel event as SE: subscribers get it: everything, renamed.
func (f fields) serverFrame() []byte {
	out := slices.Clone(f).set("Event-Name", "SE:"+f.get("Event-Name"))
	return out.set("webitel-event-name", "server").encode()
}

// accountHeaders is the whitelist of the account path (protocol 6.2), in its
// order: the name sent, and the headers it is taken from, the first that says
// something.
var accountHeaders = []struct {
	name string
	from []string
}{
	{"Event-Name", nil},
	{"Channel-Presence-ID", nil},
	{"Unique-ID", nil},
	{"Channel-Call-UUID", nil},
	{"Channel-Call-State", nil},
	{"Original-Channel-Call-State", nil},
	{"Channel-State-Number", nil},
	{"Channel-State", nil},
	{"Answer-State", nil},
	{"Channel-HIT-Dialplan", nil},
	{"Call-Direction", nil},
	{"Caller-Logical-Direction", nil},
	{"variable_sip_call_id", nil},
	{"Caller-Callee-ID-Name", nil},
	{"Caller-Callee-ID-Number", nil},
	{"Caller-Caller-ID-Name", nil},
	{"Caller-Caller-ID-Number", nil},
	{"Caller-Destination-Number", nil},
	{"variable_w_account_origination_uuid", []string{"variable_webitel_call_uuid"}},
	{"variable_w_jsclient_xtransfer", []string{"variable_w_jsclient_xtransfer", "variable_sip_h_X-WebitelXTransfer"}},
	{"variable_w_jsclient_originate_number", nil},
	{"variable_w_jsclient_auto_answer", nil},
	{"Call-Info", nil},
	{"Other-Leg-Unique-ID", []string{"Other-Leg-Unique-ID", "variable_originating_leg_uuid"}},
	{"variable_hangup_cause", []string{"variable_hangup_cause", "Hangup-Cause"}},
	{"Caller-Channel-Created-Time", nil},
	{"Caller-Channel-Answered-Time", nil},
	{"Caller-Channel-Hangup-Time", nil},
	{"DTMF-Digit", nil},
	{"Bridge-A-Unique-ID", nil},
	{"Bridge-B-Unique-ID", nil},
	{"variable_originating_leg_uuid", nil},
	{"variable_webitel_att_xfer", nil},
	{"variable_cc_queue", nil},
	{"variable_cc_member_session_uuid", nil},
	{"variable_w_transfer_result", nil},
	{"variable_signal_bond", nil},
	{"variable_dlr_session_id", nil},
	{"transfer_comment", []string{"variable_wbt_transfer_comment"}},
}

// accountFrame is the event as the account's own sockets get it.
func (f fields) accountFrame() []byte {
	out := fields{{"webitel-event-name", json.RawMessage(`"call"`)}}
	for _, h := range accountHeaders {
		from := h.from
		if from == nil {
			from = []string{h.name}
		}
		if v := f.first(from...); v != "" {
			out = append(out, field{h.name, json.RawMessage(jsonText(v))})
		}
	}
	billsec := f.get("variable_billsec")
	if billsec == "" || strings.Trim(billsec, "0123456789") != "" {
		billsec = "0"
	}
	out = append(out, field{"variable_billsec", json.RawMessage(billsec)}) // the only number
	if v := f.get("variable_webitel_data"); v != "" {
		out = append(out, field{"variable_webitel_data", json.RawMessage(jsonText("'" + v + "'"))})
	}
	return out.encode()
}

// accountNames are the events that the broker carried to accounts in the
// captures, and those that it is documented to carry.
var accountNames = map[string]bool{
	"CHANNEL_CREATE": true, "CHANNEL_DESTROY": true, "CHANNEL_STATE": true, "CHANNEL_CALLSTATE": true,
	"CHANNEL_ORIGINATE": true, "CHANNEL_PROGRESS": true, "CHANNEL_ANSWER": true, "CHANNEL_HANGUP": true,
	"CHANNEL_HANGUP_COMPLETE": true, "CHANNEL_HOLD": true, "CHANNEL_UNHOLD": true, "CHANNEL_BRIDGE": true,
	"CHANNEL_UNBRIDGE": true, "CHANNEL_UUID": true, "CHANNEL_DATA": true, "DTMF": true,
	"CHANNEL_PARK": true, "CHANNEL_UNPARK": true, "RECORD_START": true, "RECORD_STOP": true,
}

// routing says who gets an event.
type routing struct {
	name     string // Event-Name
	presence string // Channel-Presence-ID
	data     string // Channel-Presence-Data: the domain in the broker's routing key
	domain   string // the domain that the engine computes from the event
	custom   bool
}

func (f fields) routing() routing {
	r := routing{
		name: f.get("Event-Name"), presence: f.get("Channel-Presence-ID"), data: f.get("Channel-Presence-Data"),
		custom: f.get("Event-Subclass") != "",
	}
	tail := func(s string) string { return s[strings.IndexByte(s, '@')+1:] }
	for _, v := range []string{
		f.get("variable_domain_name"), f.get("variable_w_domain"), tail(r.presence), tail(r.data),
		tail(f.get("variable_presence_id")),
	} {
		if v != "" {
			r.domain = v
			break
		}
	}
	return r
}
