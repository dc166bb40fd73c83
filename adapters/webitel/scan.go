package webitel

import (
	"encoding/binary"
	"math/bits"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deeply values may nest. Webitel's deepest frame, the reply to
// auth, has four levels; encoding/json stops at 10,000.
const MaxDepth = 128

// The functions here walk over JSON without building anything. Each takes the
// bytes and an index and returns the index behind what it read, or where it had
// to stop and why. They accept exactly what encoding/json accepts, but for depth.

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// special marks the quotes, backslashes and control characters among eight bytes,
// each by the top bit of its byte: what is subtracted borrows there, and bytes
// that have it, of UTF-8, are none of these. Bits above the lowest may be carries.
func special(w uint64) uint64 {
	quote, slash := w^(ones*'"'), w^(ones*'\\')
	return ((quote - ones) | (slash - ones) | (w - ones*0x20)) &^ w & highs
}

// skipString returns the index of the quote that ends the string whose first
// byte is b[i], and whether the string holds escapes. It looks at sixteen bytes
// at a time: nine tenths of a frame are strings, and the most costly step is the
// mispredicted branch at the end of each.
func skipString(b []byte, i int) (end int, escaped bool, _ fault) {
	for {
		for i+16 <= len(b) {
			w := b[i : i+16]
			m := special(binary.LittleEndian.Uint64(w))
			n := special(binary.LittleEndian.Uint64(w[8:]))
			if m|n == 0 {
				i += 16
				continue
			}
			skip := 8 + bits.TrailingZeros64(n)>>3
			if m != 0 {
				skip = bits.TrailingZeros64(m) >> 3
			}
			i += skip
			break
		}
		for i < len(b) && b[i] != '"' && b[i] != '\\' && b[i] >= 0x20 {
			i++
		}
		switch {
		case i >= len(b):
			return i, escaped, faultTruncated
		case b[i] == '"':
			return i, escaped, 0
		case b[i] != '\\':
			return i, escaped, faultSyntax
		}
		escaped = true
		var f fault
		if i, f = skipEscape(b, i); f != 0 {
			return i, escaped, f
		}
	}
}

// skipEscape steps over the escape that begins with the backslash at b[i].
func skipEscape(b []byte, i int) (int, fault) {
	if i+1 >= len(b) {
		return len(b), faultTruncated
	}
	switch b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2, 0
	case 'u':
	default:
		return i + 1, faultSyntax
	}
	for j := i + 2; j < i+6; j++ {
		if j >= len(b) {
			return j, faultTruncated
		}
		if hexDigit(b[j]) < 0 {
			return j, faultSyntax
		}
	}
	return i + 6, 0
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// skipValue steps over any value. depth is how many objects and arrays it is in.
func skipValue(b []byte, i, depth int) (int, fault) {
	if i >= len(b) {
		return i, faultTruncated
	}
	switch c := b[i]; {
	case c == '"':
		end, _, f := skipString(b, i+1)
		if f == 0 {
			end++
		}
		return end, f
	case c == '{' || c == '[':
		return skipNested(b, i, depth+1)
	case c == 't':
		return skipLiteral(b, i, "true")
	case c == 'f':
		return skipLiteral(b, i, "false")
	case c == 'n':
		return skipLiteral(b, i, "null")
	case c == '-' || isDigit(c):
		return skipNumber(b, i)
	}
	return i, faultSyntax
}

// skipNested steps over the object or array that begins at b[i]. Recursion is
// bounded by [MaxDepth].
func skipNested(b []byte, i, depth int) (int, fault) {
	if depth > MaxDepth {
		return i, faultDeep
	}
	object := b[i] == '{'
	closing := b[i] + 2 // ']' is '['+2 and '}' is '{'+2
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == closing {
		return i + 1, 0
	}
	for {
		var f fault
		if object {
			if _, _, i, f = skipName(b, i); f != 0 {
				return i, f
			}
		}
		if i, f = skipValue(b, i, depth); f != 0 {
			return i, f
		}
		var more bool
		if i, more, f = skipComma(b, i, closing); !more {
			return i, f
		}
	}
}

// skipName steps over a member's name and the colon to the value. end is the
// index of the name's closing quote.
func skipName(b []byte, i int) (end int, escaped bool, next int, _ fault) {
	if i >= len(b) {
		return 0, false, i, faultTruncated
	}
	if b[i] != '"' {
		return 0, false, i, faultSyntax
	}
	end, escaped, f := skipString(b, i+1)
	if f != 0 {
		return end, escaped, end, f
	}
	if end+2 < len(b) && b[end+1] == ':' && b[end+2] == '"' { // nearly always
		return end, escaped, end + 2, 0
	}
	next = skipSpace(b, end+1)
	if next >= len(b) {
		return end, escaped, next, faultTruncated
	}
	if b[next] != ':' {
		return end, escaped, next, faultSyntax
	}
	return end, escaped, skipSpace(b, next+1), 0
}

// skipComma steps over what follows a value: a comma, to the next element, or
// closing.
func skipComma(b []byte, i int, closing byte) (next int, more bool, _ fault) {
	i = skipSpace(b, i)
	if i >= len(b) {
		return i, false, faultTruncated
	}
	switch b[i] {
	case ',':
		return skipSpace(b, i+1), true, 0
	case closing:
		return i + 1, false, 0
	}
	return i, false, faultSyntax
}

func skipLiteral(b []byte, i int, word string) (int, fault) {
	for j := range len(word) {
		if i+j >= len(b) {
			return i + j, faultTruncated
		}
		if b[i+j] != word[j] {
			return i + j, faultSyntax
		}
	}
	return i + len(word), 0
}

func skipNumber(b []byte, i int) (int, fault) {
	digits := func() bool {
		from := i
		for i < len(b) && isDigit(b[i]) {
			i++
		}
		return i > from
	}
	broken := func() (int, fault) {
		if i >= len(b) {
			return i, faultTruncated
		}
		return i, faultSyntax
	}
	if b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if !digits() {
		return broken()
	}
	if i < len(b) && b[i] == '.' {
		i++
		if !digits() {
			return broken()
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if !digits() {
			return broken()
		}
	}
	return i, 0
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// hexDigit returns the value of c, or -1.
func hexDigit(c byte) rune {
	switch {
	case '0' <= c && c <= '9':
		return rune(c - '0')
	case 'a' <= c && c <= 'f':
		return rune(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return rune(c-'A') + 10
	}
	return -1
}

// unescape returns the text of a string that [skipString] accepted. A surrogate
// without its partner becomes U+FFFD, as in encoding/json.
func unescape(s []byte) []byte {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			out = append(out, s[i])
			i++
			continue
		}
		switch c := s[i+1]; c {
		case 'u':
			r := hexRune(s[i+2:])
			i += 6
			if utf16.IsSurrogate(r) {
				low := rune(unicode.ReplacementChar)
				if len(s) >= i+6 && s[i] == '\\' && s[i+1] == 'u' {
					low = hexRune(s[i+2:])
				}
				if r = utf16.DecodeRune(r, low); r != unicode.ReplacementChar {
					i += 6
				}
			}
			out = utf8.AppendRune(out, r)
			continue
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		default: // quote, backslash, slash
			out = append(out, c)
		}
		i += 2
	}
	return out
}

func hexRune(s []byte) rune {
	return hexDigit(s[0])<<12 | hexDigit(s[1])<<8 | hexDigit(s[2])<<4 | hexDigit(s[3])
}
