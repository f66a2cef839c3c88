package jsonschema

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// URI character classes (RFC 3986 section 2), as bits.
const (
	classUnreserved = 1 << iota
	classSubDelim
	classPath  // : @
	classQuery // / ?
	classScheme
)

var uriClass = func() (t [256]uint8) {
	for c := range 256 {
		b := byte(c)
		if isAlpha(b) && b < 0x80 || isDigit(b) || strings.IndexByte("-._~", b) >= 0 {
			t[c] |= classUnreserved
		}
		if isAlpha(b) && b < 0x80 || isDigit(b) || strings.IndexByte("+-.", b) >= 0 {
			t[c] |= classScheme
		}
		if strings.IndexByte("!$&'()*+,;=", b) >= 0 {
			t[c] |= classSubDelim
		}
		if b == ':' || b == '@' {
			t[c] |= classPath
		}
		if b == '/' || b == '?' {
			t[c] |= classQuery
		}
	}
	return t
}()

// isURI checks RFC 3986 URI (absolute) or URI-reference, and with iri RFC 3987.
func isURI(b []byte, absolute, iri bool) bool {
	rest := b
	hasScheme := false
	if i := bytes.IndexAny(b, ":/?#"); i > 0 && b[i] == ':' {
		if !isScheme(b[:i]) {
			return false
		}
		hasScheme = true
		rest = b[i+1:]
	} else if i == 0 && b[0] == ':' {
		return false
	}
	if absolute && !hasScheme {
		return false
	}
	rest, fragment, hasFragment := bytes.Cut(rest, []byte("#"))
	if hasFragment && !uriChars(fragment, classUnreserved|classSubDelim|classPath|classQuery, iri) {
		return false
	}
	rest, query, _ := bytes.Cut(rest, []byte("?"))
	if !uriCharsPrivate(query, classUnreserved|classSubDelim|classPath|classQuery, iri, true) {
		return false
	}
	if bytes.HasPrefix(rest, []byte("//")) {
		rest = rest[2:]
		authority := rest
		if i := bytes.IndexByte(rest, '/'); i >= 0 {
			authority, rest = rest[:i], rest[i:]
		} else {
			rest = nil
		}
		if !isAuthority(authority, iri) {
			return false
		}
	}
	// The path: the classes of a segment and the slash. A first segment with a
	// colon and no scheme was taken for a scheme above.
	for i := range rest {
		if rest[i] == '?' {
			return false
		}
	}
	return uriChars(rest, classUnreserved|classSubDelim|classPath|classQuery, iri)
}

func isScheme(b []byte) bool {
	if !isAlpha(b[0]) {
		return false
	}
	for _, c := range b {
		if uriClass[c]&classScheme == 0 {
			return false
		}
	}
	return true
}

// isAuthority checks [userinfo@]host[:port].
func isAuthority(b []byte, iri bool) bool {
	if i := bytes.IndexByte(b, '@'); i >= 0 {
		user := b[:i]
		b = b[i+1:]
		if bytes.IndexByte(user, '@') >= 0 || !userinfo(user, iri) {
			return false
		}
	}
	host, port := b, []byte(nil)
	if len(b) > 0 && b[0] == '[' {
		end := bytes.IndexByte(b, ']')
		if end < 0 || !isIPLiteral(b[1:end]) {
			return false
		}
		host, port = nil, b[end+1:]
		if len(port) > 0 && port[0] != ':' {
			return false
		}
	} else if i := bytes.IndexByte(b, ':'); i >= 0 {
		host, port = b[:i], b[i:]
	}
	if len(port) > 0 && !allDigits(port[1:]) {
		return false
	}
	return uriChars(host, classUnreserved|classSubDelim, iri)
}

func userinfo(b []byte, iri bool) bool {
	for len(b) > 0 {
		i := bytes.IndexByte(b, ':')
		if i < 0 {
			i = len(b)
		}
		if !uriChars(b[:i], classUnreserved|classSubDelim, iri) {
			return false
		}
		b = b[min(i+1, len(b)):]
	}
	return true
}

// isIPLiteral checks the inside of [ ]: an IPv6 address or the IPvFuture form.
func isIPLiteral(b []byte) bool {
	if len(b) > 0 && b[0]|0x20 == 'v' {
		version, address, ok := bytes.Cut(b[1:], []byte("."))
		if !ok || len(version) == 0 || len(address) == 0 {
			return false
		}
		for _, c := range version {
			if !isHex(c) {
				return false
			}
		}
		for _, c := range address {
			if c != ':' && uriClass[c]&(classUnreserved|classSubDelim) == 0 {
				return false
			}
		}
		return true
	}
	return isIPv6(b)
}

func uriChars(b []byte, classes uint8, iri bool) bool {
	return uriCharsPrivate(b, classes, iri, false)
}

// uriCharsPrivate checks characters and percent escapes; private allows the
// private-use characters that RFC 3987 allows in a query only.
func uriCharsPrivate(b []byte, classes uint8, iri, private bool) bool {
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case uriClass[c]&classes != 0:
		case c == '%':
			if i+2 >= len(b) || !isHex(b[i+1]) || !isHex(b[i+2]) {
				return false
			}
			i += 2
		case iri && c >= 0x80:
			r, size := utf8.DecodeRune(b[i:])
			if !isUCSChar(r) && !(private && isPrivate(r)) {
				return false
			}
			i += size - 1
		default:
			return false
		}
	}
	return true
}

// isUCSChar is ucschar of RFC 3987.
func isUCSChar(r rune) bool {
	switch {
	case r >= 0xA0 && r <= 0xD7FF, r >= 0xF900 && r <= 0xFDCF, r >= 0xFDF0 && r <= 0xFFEF:
		return true
	case r >= 0x10000 && r <= 0xEFFFD:
		return r&0xFFFF <= 0xFFFD && (r < 0xE0000 || r >= 0xE1000)
	}
	return false
}

func isPrivate(r rune) bool {
	return r >= 0xE000 && r <= 0xF8FF || r >= 0xF0000 && r&0xFFFF <= 0xFFFD
}

// isURITemplate is RFC 6570 at level 4: literals, and expressions of an optional
// operator and variable names with an optional prefix or explode modifier. An
// apostrophe may stand in a literal (errata 6937).
func isURITemplate(b []byte) bool {
	for i := 0; i < len(b); {
		c := b[i]
		switch {
		case c == '{':
			end := bytes.IndexByte(b[i:], '}')
			if end < 0 || !isExpression(b[i+1:i+end]) {
				return false
			}
			i += end + 1
		case c == '%':
			if i+2 >= len(b) || !isHex(b[i+1]) || !isHex(b[i+2]) {
				return false
			}
			i += 3
		case c >= 0x80:
			r, size := utf8.DecodeRune(b[i:])
			if !isUCSChar(r) && !isPrivate(r) {
				return false
			}
			i += size
		case c <= ' ' || c == 0x7F || strings.IndexByte("\"<>\\^`|}", c) >= 0:
			return false
		default:
			i++
		}
	}
	return true
}

// isExpression checks the inside of { }.
func isExpression(b []byte) bool {
	if len(b) > 0 && strings.IndexByte("+#./;?&=,!@|", b[0]) >= 0 {
		b = b[1:]
	}
	for {
		spec, rest, more := bytes.Cut(b, []byte(","))
		if !isVarspec(spec) {
			return false
		}
		if !more {
			return true
		}
		b = rest
	}
}

func isVarspec(b []byte) bool {
	if n := len(b); n > 0 && b[n-1] == '*' {
		b = b[:n-1]
	} else if name, prefix, ok := bytes.Cut(b, []byte(":")); ok {
		if len(prefix) == 0 || len(prefix) > 4 || prefix[0] == '0' || !allDigits(prefix) {
			return false
		}
		b = name
	}
	dot := true // a dot may not stand first, last or beside another
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c == '.' {
			if dot {
				return false
			}
			dot = true
			continue
		}
		dot = false
		switch {
		case c == '_' || isDigit(c) || isAlpha(c):
		case c == '%' && i+2 < len(b) && isHex(b[i+1]) && isHex(b[i+2]):
			i += 2
		default:
			return false
		}
	}
	return !dot
}
