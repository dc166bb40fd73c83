package webitel

import (
	"encoding/json"
	"errors"
	"testing"
)

// TestClassify has a row for each failure form of protocol 2.3, most of them in
// the words of captures 01, 02, 20 and 42. The tenth is no reply at all: see
// TestDoWithoutReply.
func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		name, fn, complete, response string
		want                         error
		form                         string
	}{
		{"success, text", "hangup", "+OK", `"+OK\n"`, nil, ""},
		{"success, object", "api account change", "+OK", `{"user":"1001"}`, nil, ""},
		{"success, array", "cc tier from user", "+OK", `[]`, nil, ""},
		{"success, no response", "ping", "+OK", ``, nil, ""},
		{"1 wrong password", "auth", "+ERR", `{"login":{"status":401,"message":"secret incorrect"}}`, ErrSecret, "1"},
		{"1 directory down", "auth", "+ERR", `{"login":{"status":401,"message":"-ERR: Console connect error"}}`, ErrAuth, "1"},
		{"1 unknown account", "auth", "+ERR", `{"login":{"status":401,"message":"-ERR user not found!\n"}}`, ErrAuth, "1"},
		{"1 second factor", "auth", "+ERR", `{"login":{"status":301,"message":"secret incorrect"}}`, ErrAuth, "1"},
		{"1 internal", "auth", "+ERR", `{"login":{}}`, ErrAuth, "1"},
		{"1 odd", "auth", "+ERR", `{"login":"no"}`, ErrAuth, "1"},
		{"1 nothing", "auth", "+ERR", ``, ErrAuth, "1"},
		{"2 bad token", "auth", "-ERR", `"Invalid Token or Key"`, ErrAuth, "2"},
		{"2 old token", "auth", "-ERR", `"Token Expired"`, ErrAuth, "2"},
		{"3 sockets", "auth", "-ERR", `"Maximum opened socket 10"`, ErrTooMany, "3"},
		{"3 licences", "auth", "-ERR", `"Maximum license connections"`, ErrTooMany, "3"},
		{"4 unknown command", "park", "+ERR", `"park - not found."`, ErrUnknown, "4"},
		{"5 no channel", "hangup", "-ERR", `"-ERR No such channel!\n"`, ErrNoChannel, "5"},
		{"5 no bridge", "bridge", "-ERR", `"-ERR Invalid uuid\n"`, ErrNoChannel, "5"},
		{"5 no digits", "dtmf", "-ERR", `"-ERR Cannot locate session!\n"`, ErrNoChannel, "5"},
		{"5 useless hold", "hold", "-ERR", `"-ERR Operation failed\n"`, ErrRefused, "5"},
		{"5 usage", "hold", "-ERR", `"-USAGE: <uuid>\n"`, ErrRefused, "5"},
		{"5 busy phone", "call", "-ERR", `"-ERR USER_BUSY\n"`, ErrRefused, "5"},
		{"5 switch gone", "hangup", "-ERR", `"-ERR: FreeSWITCH server connect close!"`, ErrSwitchDown, "5"},
		{"5 not signed in", "subscribe", "-ERR", `"-ERR: Authentication required!"`, ErrAuth, "5"},
		{"5 subscribed", "subscribe", "-ERR", `"-ERR: event subscribed!"`, ErrSubscribed, "5"},
		{"6 arguments", "call", "-ERR: bad response", ``, ErrBadResponse, "6"},
		{"6 switch gone", "show_channel", "-ERR: bad response", ``, ErrBadResponse, "6"},
		{"7 rights", "api account change", "-ERR", `"Permission denied!"`, ErrPermission, "7"},
		{"7 rights", "list_sockets", "-ERR", `"Forbidden"`, ErrPermission, "7"},
		{"7 other", "api account list", "-ERR", `"Domain is require."`, ErrRefused, "7"},
		{"8 reported as success", "cc login", "+OK", `"-ERR: -ERR callcenter_config Command not found!\n"`, ErrRefused, "8"},
		{"8 usage as success", "cc login", "+OK", `"-USAGE: ...\n"`, ErrRefused, "8"},
		{"8a hold of nothing", "hold", "+OK", `"+OK Success\n"`, nil, ""},
		{"8b unset variable", "getvar", "+OK", `"_undef_"`, ErrUndefined, "8b"},
		{"9 no recording", "cdr_get_record_link", "+OK", `"+OK: Not found."`, ErrNoRecording, "9"},
		{"neither", "ping", "?", `"what"`, ErrRefused, "7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Reply{Complete: tt.complete}
			if tt.response != "" {
				r.Response = json.RawMessage(tt.response)
			}
			err := Classify(tt.fn, r)
			if tt.want == nil {
				if err != nil {
					t.Errorf("got %v, want success", err)
				}
				return
			}
			var re *ReplyError
			if !errors.Is(err, tt.want) || !errors.As(err, &re) || re.Form != tt.form || re.Func != tt.fn {
				t.Errorf("got %#v, want form %s of %v", err, tt.form, tt.want)
			}
		})
	}
}
