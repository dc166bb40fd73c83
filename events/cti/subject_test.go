package cti

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestToken(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "-"},
		{"-", "-"}, // no domain, number or call id of a PBX is a lone hyphen
		{"1004", "1004"},
		{"acme.example", "acme_example"},
		{"acme_example", "acme=5Fexample"},
		{"a=b", "a=3Db"},
		{"+380671112233", "=2B380671112233"},
		{"a b*c>d", "a=20b=2Ac=3Ed"},
		{"\x00\r\n", "=00=0D=0A"},
		{"ї", "=D1=97"},
		{"$SYS", "=24SYS"},
		{"..", "__"},
	} {
		if got := Token(c.in); got != c.want {
			t.Errorf("Token(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestSubjectAndKeys(t *testing.T) {
	const call = "a2e60000-0000-4000-8000-000000000001"
	for _, c := range []struct {
		account string
		name    Name
		call    string
		want    string
	}{
		{"1004@acme.example", CallStarted, call, "cti.v1.acme_example.1004.callStarted." + call},
		{"1004@acme.example", AgentStateChanged, "", "cti.v1.acme_example.1004.agentStateChanged.-"},
		{"1004", Hold, "x.*.>", "cti.v1.-.1004.hold.x_=2A_=3E"},
		{"a@b@c.d", Hold, "1", "cti.v1.c_d.a=40b.hold.1"},
		{"", Initialized, "", "cti.v1.-.-.initialized.-"},
	} {
		if got := Subject(DefaultPrefix, c.account, c.name, c.call); got != c.want {
			t.Errorf("Subject(%q, %q, %q) = %q, want %q", c.account, c.name, c.call, got, c.want)
		}
	}
	if got, want := CallKey("1004@acme.example", "a b"), "acme_example.1004.a=20b"; got != want {
		t.Errorf("CallKey = %q, want %q", got, want)
	}
	if got, want := LineKey("1004@acme.example"), "acme_example.1004"; got != want {
		t.Errorf("LineKey = %q, want %q", got, want)
	}
}

// untoken is the inverse of Token on everything but "-", which stands for the
// empty string and for itself.
func untoken(t *rapid.T, s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '_':
			b.WriteByte('.')
		case '=':
			if i+2 >= len(s) {
				t.Fatalf("token %q ends inside an escape", s)
			}
			hi, lo := strings.IndexByte(hex, s[i+1]), strings.IndexByte(hex, s[i+2])
			if hi < 0 || lo < 0 {
				t.Fatalf("token %q holds a wrong escape", s)
			}
			b.WriteByte(byte(hi<<4 | lo))
			i += 2
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// A token is one valid subject token and key part whatever the PBX says, and two
// different strings never share one, "" and "-" excepted.
func TestTokenIsValidAndInjective(t *testing.T) {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_="
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(
			rapid.String(),
			rapid.StringMatching(`[-._=*> 0-9A-F@]{0,12}`),
			rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 12), func(b []byte) string { return string(b) }),
		).Draw(t, "s")
		tok := Token(s)
		if tok == "" || strings.Trim(tok, allowed) != "" {
			t.Fatalf("Token(%q) = %q is no token", s, tok)
		}
		if s != "" && untoken(t, tok) != s {
			t.Fatalf("Token(%q) = %q reads back as %q", s, tok, untoken(t, tok))
		}
		if got := strings.Count(Subject("p", s, Hold, s), "."); got != 4 {
			t.Fatalf("Subject of %q has %d dots, want 4", s, got)
		}
	})
}

func TestFeatureNames(t *testing.T) {
	for _, c := range []struct {
		f    Features
		want string
	}{
		{CanNothing, "CAN_NOTHING"},
		{Idle, "CAN_DIAL"},
		{RingIn, "CAN_ANSWER|CAN_DROP"},
		{RingOut, "CAN_DROP"},
		{Talk, "CAN_DROP|CAN_HOLD|CAN_DTMF"},
		{TalkBridged, "CAN_DROP|CAN_HOLD|CAN_BLIND_TRANSFER|CAN_MAKE_CONSULT_CALL|CAN_DTMF"},
		{Held, "CAN_UNHOLD|CAN_MAKE_CONSULT_CALL|CAN_DTMF"},
		{CompleteTransfer, "CAN_COMPLETE_TRANSFER"},
		{CanCancelCompleteTransfer, "CAN_CANCEL_COMPLETE_TRANSFER"},
	} {
		if got := c.f.String(); got != c.want {
			t.Errorf("Features(%d) = %q, want %q", c.f, got, c.want)
		}
	}
	for f, want := range map[Features]int{Idle: 2, RingIn: 12, Talk: 1048, TalkBridged: 1816, Held: 1568, CompleteTransfer: 128} {
		if int(f) != want {
			t.Errorf("%s = %d, want %d", f, int(f), want)
		}
	}
	if Idle.Names() == nil || CanNothing.Names() == nil {
		t.Error("Names is nil, want an empty list")
	}
	if !Talk.Has(CanHold) || Talk.Has(CanHold|CanUnhold) {
		t.Error("Has must ask for all flags")
	}
}
