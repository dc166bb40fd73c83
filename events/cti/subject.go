package cti

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// DefaultPrefix begins every subject of CTI events.
const DefaultPrefix = "cti.v1"

// Token encodes s as one NATS subject token, which is also a valid key of a
// key-value bucket: letters, digits and '-' stay, a dot becomes '_', every other
// byte becomes =XX (upper-case hex). The empty string becomes "-".
func Token(s string) string {
	plain := s != ""
	for i := 0; i < len(s) && plain; i++ {
		plain = plainByte(s[i])
	}
	if plain {
		return s
	}
	if s == "" {
		return "-"
	}
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(s) + 8)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case plainByte(c):
			b.WriteByte(c)
		case c == '.':
			b.WriteByte('_')
		default:
			b.WriteByte('=')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}

// ErrToken is matched by the error of [Untoken].
var ErrToken = errors.New("cti: not a token of a subject")

// Untoken returns what [Token] encoded.
func Untoken(token string) (string, error) {
	if token == "-" {
		return "", nil
	}
	b := make([]byte, 0, len(token))
	for i := 0; i < len(token); i++ {
		switch c := token[i]; {
		case plainByte(c):
			b = append(b, c)
		case c == '_':
			b = append(b, '.')
		case c == '=' && i+2 < len(token):
			v, err := strconv.ParseUint(token[i+1:i+3], 16, 8)
			if err != nil {
				return "", fmt.Errorf("%w: %q", ErrToken, token)
			}
			b = append(b, byte(v))
			i += 2
		default:
			return "", fmt.Errorf("%w: %q", ErrToken, token)
		}
	}
	if len(b) == 0 {
		return "", fmt.Errorf("%w: empty", ErrToken)
	}
	return string(b), nil
}

func plainByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-'
}

// SplitAccount splits number@domain. An account without a domain is all number.
func SplitAccount(account string) (number, domain string) {
	if i := strings.LastIndexByte(account, '@'); i >= 0 {
		return account[:i], account[i+1:]
	}
	return account, ""
}

// Subject is where an event is published:
// <prefix>.<domain>.<account number>.<event>.<call id>, "-" without a call.
func Subject(prefix, account string, name Name, callID string) string {
	number, domain := SplitAccount(account)
	return prefix + "." + Token(domain) + "." + Token(number) + "." + string(name) + "." + Token(callID)
}

// CallKey is the key of a call's view: <domain>.<account number>.<call id>.
func CallKey(account, callID string) string {
	return LineKey(account) + "." + Token(callID)
}

// LineKey is the key of a line's view: <domain>.<account number>.
func LineKey(account string) string {
	number, domain := SplitAccount(account)
	return Token(domain) + "." + Token(number)
}
