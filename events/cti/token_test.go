package cti

import (
	"testing"

	"pgregory.net/rapid"
)

func TestUntokenGivesBackWhatTokenTook(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		got, err := Untoken(Token(s))
		if err != nil && s != "-" || s != "-" && got != s {
			t.Fatalf("%q became %q, and that %q, %v", s, Token(s), got, err)
		}
	})
	for _, bad := range []string{"", "a b", "=", "=4", "=GG", "a.b", "é"} {
		if s, err := Untoken(bad); err == nil {
			t.Errorf("%q is taken for %q", bad, s)
		}
	}
}
