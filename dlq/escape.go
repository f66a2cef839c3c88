package dlq

import (
	"strings"
	"unicode/utf8"
)

const upperHex = "0123456789ABCDEF"

// escape percent-encodes every byte outside printable ASCII, the percent sign,
// and a space at either end (header parsers cut it), so that any bytes a client
// sent survive in a header value.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c > ' ' && c < 0x7f && c != '%' || c == ' ' && i > 0 && i < len(s)-1 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(upperHex[c>>4])
		b.WriteByte(upperHex[c&15])
	}
	return b.String()
}

// unescape is the inverse of escape; it is strict, so that a record has one
// encoding only.
func unescape(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, escape(s) == s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		hi, lo := strings.IndexByte(upperHex, s[i+1]), strings.IndexByte(upperHex, s[i+2])
		if hi < 0 || lo < 0 {
			return "", false
		}
		b.WriteByte(byte(hi<<4 | lo))
		i += 2
	}
	plain := b.String()
	return plain, escape(plain) == s
}

// cut shortens s to MaxText bytes without splitting a UTF-8 sequence.
func cut(s string) string {
	if len(s) <= MaxText {
		return s
	}
	n := MaxText
	for n > MaxText-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
