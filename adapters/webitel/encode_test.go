package webitel

import (
	"encoding/json"
	"errors"
	"testing"
)

const (
	legA = "b1e60000-0000-4000-8000-000000000001"
	legB = "a1e60000-0000-4000-8000-000000000001"
	legC = "c3e60000-0000-4000-8000-000000000001"
)

// TestCommands compares with the arguments that the reference sends; see the
// goldens.
func TestCommands(t *testing.T) {
	must := func(c Command, err error) Command {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, tt := range []struct {
		cmd  Command
		want string
	}{
		{Command{Func: "login"}, `{"exec-uuid":"1","exec-func":"login"}`},
		{must(Hangup(legA, "")), `{"exec-uuid":"1","exec-func":"hangup","exec-args":{"channel-uuid":"` + legA + `"}}`},
		{must(Hangup(legA, "USER_BUSY")), `{"exec-uuid":"1","exec-func":"hangup","exec-args":{"cause":"USER_BUSY","channel-uuid":"` + legA + `"}}`},
		{must(Hold(legA)), `{"exec-uuid":"1","exec-func":"hold","exec-args":{"channel-uuid":"` + legA + `"}}`},
		{must(DTMF(legA, "5#")), `{"exec-uuid":"1","exec-func":"dtmf","exec-args":{"channel-uuid":"` + legA + `","digits":"5#"}}`},
		{must(Transfer(legB, "1007", "")), `{"exec-uuid":"1","exec-func":"transfer","exec-args":{"channel-uuid":"` + legB + `","destination":"1007"}}`},
		{must(Transfer(legB, "+38 (067) 111-22-33", "")), `{"exec-uuid":"1","exec-func":"transfer","exec-args":{"channel-uuid":"` + legB + `","destination":"+380671112233"}}`},
		{must(Call("1004@acme.example", "380501234567", "", nil)), `{"exec-uuid":"1","exec-func":"call","exec-args":{"auto_answer_param":null,"extension":"380501234567","user":"1004@acme.example"}}`},
		{must(Call("1004@acme.example", "1007", "sip_auto_answer=true", map[string]string{"crm_id": "42"})), `{"exec-uuid":"1","exec-func":"call","exec-args":{"auto_answer_param":"sip_auto_answer=true","extension":"1007","user":"1004@acme.example","variables":{"crm_id":"42"}}}`},
		{must(AttXfer2(legA, "1004@acme.example", "1007@acme.example", legB, []string{"sip_h_Call-Info=answer-after=0"})), `{"exec-uuid":"1","exec-func":"att_xfer2","exec-args":{"auto_answer_param":["sip_h_Call-Info=answer-after=0"],"channel-uuid":"` + legA + `","extension":"1007@acme.example","parent_call_uuid":"` + legB + `","user":"1004@acme.example"}}`},
		{must(AttXferBridge(legA, legB, legC, "")), `{"exec-uuid":"1","exec-func":"att_xfer_bridge","exec-args":{"channel-uuid-leg-a":"` + legA + `","channel-uuid-leg-b":"` + legB + `","channel-uuid-leg-c":"` + legC + `"}}`},
		{must(AttXferCancel(legA, legB, legC)), `{"exec-uuid":"1","exec-func":"att_xfer_cancel","exec-args":{"channel-uuid-leg-a":"` + legA + `","channel-uuid-leg-b":"` + legB + `","channel-uuid-leg-c":"` + legC + `"}}`},
		{must(ChangeStatus("1004@acme.example", "ONHOOK", "")), `{"exec-uuid":"1","exec-func":"api account change","exec-args":{"param":"status","user":"1004@acme.example","value":"ONHOOK"}}`},
		{must(ChangeStatus("1004@acme.example", "ONBREAK", "обід 100%")), `{"exec-uuid":"1","exec-func":"api account change","exec-args":{"param":"status","user":"1004@acme.example","value":"ONBREAK('обід 100%')"}}`},
		{must(VideoRefresh(legA)), `{"exec-uuid":"1","exec-func":"video_refresh","exec-args":{"uuid":"` + legA + `"}}`},
		{must(ShowChannel("")), `{"exec-uuid":"1","exec-func":"show_channel"}`},
		{must(GetVar(legA, "sip_call_id")), `{"exec-uuid":"1","exec-func":"getvar","exec-args":{"channel-uuid":"` + legA + `","variable":"sip_call_id"}}`},
	} {
		tt.cmd.ID = "1"
		got, err := tt.cmd.Encode()
		if err != nil || string(got) != tt.want {
			t.Errorf("got  %s, %v\nwant %s", got, err, tt.want)
		}
	}
}

// TestNothingHostileGetsThrough tries to end an argument early, or to be none.
func TestNothingHostileGetsThrough(t *testing.T) {
	const account = "1004@acme.example"
	builders := map[string]func(string) (Command, error){
		"hangup leg":          func(v string) (Command, error) { return Hangup(v, "") },
		"hangup cause":        func(v string) (Command, error) { return Hangup(legA, v+"A") },
		"hold":                Hold,
		"unhold":              Unhold,
		"toggle":              ToggleHold,
		"dtmf leg":            func(v string) (Command, error) { return DTMF(v, "1") },
		"dtmf digits":         func(v string) (Command, error) { return DTMF(legA, v+"1") },
		"transfer leg":        func(v string) (Command, error) { return Transfer(v, "1007", "") },
		"transfer comment":    func(v string) (Command, error) { return Transfer(legA, "1007", v+"x") },
		"call user":           func(v string) (Command, error) { return Call(v, "1007", "", nil) },
		"call auto answer":    func(v string) (Command, error) { return Call(account, "1007", "a=b"+v, nil) },
		"call variable":       func(v string) (Command, error) { return Call(account, "1007", "", map[string]string{"a": "b" + v}) },
		"call variable name":  func(v string) (Command, error) { return Call(account, "1007", "", map[string]string{v + "a": "b"}) },
		"consult leg":         func(v string) (Command, error) { return AttXfer2(v, account, "1007", legB, nil) },
		"consult parent":      func(v string) (Command, error) { return AttXfer2(legA, account, "1007", v, nil) },
		"consult domain":      func(v string) (Command, error) { return AttXfer2(legA, account, "1007@a"+v, legB, nil) },
		"consult auto answer": func(v string) (Command, error) { return AttXfer2(legA, account, "1007", legB, []string{"a=b" + v}) },
		"bridge a":            func(v string) (Command, error) { return AttXferBridge(v, legB, legC, "") },
		"bridge d":            func(v string) (Command, error) { return AttXferBridge(legA, legB, legC, v+"x") },
		"cancel":              func(v string) (Command, error) { return AttXferCancel("", "", v) },
		"two legs":            func(v string) (Command, error) { return Bridge(legA, v) },
		"eavesdrop":           func(v string) (Command, error) { return Eavesdrop(v, account) },
		"status":              func(v string) (Command, error) { return ChangeStatus(account, v, "") },
		"status user":         func(v string) (Command, error) { return ChangeStatus(v, "DND", "") },
		"recording":           RecordLink,
		"dump":                ChannelDump,
		"refresh":             VideoRefresh,
		"getvar":              func(v string) (Command, error) { return GetVar(legA, v) },
		"setvar":              func(v string) (Command, error) { return SetVar(legA, "a", "b"+v) },
		"show":                func(v string) (Command, error) { return ShowChannel(v + "x ") },
	}
	hostile := []string{
		" x", "\nuuid_kill all", "\r", "\t", "'", `"`, ";", "&", "|x", "`id`", "$(id)", "${x}", "{a=b}", "\\", "\x00", "\u2028", ",x", "<x>",
	}
	for name, build := range builders {
		for _, h := range hostile {
			for _, v := range []string{h, legA + h, "1007" + h} {
				if cmd, err := build(v); !errors.Is(err, ErrArgument) {
					b, _ := json.Marshal(cmd.Args)
					t.Errorf("%s with %q gave %s, %v", name, v, b, err)
				}
			}
		}
	}
	for _, h := range []string{"", "\nx", "'", `"`, ";", "&", "1 2;", "a b&", "@acme.example", "1007@acme.example", "..\\"} {
		if _, err := Transfer(legA, h, ""); !errors.Is(err, ErrArgument) {
			t.Errorf("destination %q: %v", h, err)
		}
	}
	for _, h := range []string{"')", "a'b", "a\nb", "a;b", "a&b", `a"b`, "a\\b"} {
		if _, err := ChangeStatus(account, "DND", h); !errors.Is(err, ErrArgument) {
			t.Errorf("note %q: %v", h, err)
		}
	}
	for _, v := range []string{"execute_on_answer", "api_hangup_hook", "domain_name", "API_ON_ANSWER"} {
		if _, err := Call(account, "1007", "", map[string]string{v: "x"}); !errors.Is(err, ErrArgument) {
			t.Errorf("variable %s: %v", v, err)
		}
	}
}
