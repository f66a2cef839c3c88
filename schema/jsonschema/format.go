package jsonschema

import (
	"bytes"
	"net/netip"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"
)

// formatCheck judges the text of a string. Checks do not allocate, save where
// one says so, and cost time linear in the text.
type formatCheck func(text []byte) bool

// formatChecks are the asserted formats. The checks are our own: the library's
// answer on a format is not relied on anywhere.
var formatChecks = map[string]formatCheck{
	"date-time":             isDateTime,
	"date":                  isDate,
	"time":                  isTime,
	"duration":              isDuration,
	"email":                 isEmail,
	"hostname":              isHostname,
	"ipv4":                  isIPv4,
	"ipv6":                  isIPv6,
	"uri":                   func(b []byte) bool { return isURI(b, true, false) },
	"uri-reference":         func(b []byte) bool { return isURI(b, false, false) },
	"iri":                   func(b []byte) bool { return isURI(b, true, true) },
	"iri-reference":         func(b []byte) bool { return isURI(b, false, true) },
	"uri-template":          isURITemplate,
	"uuid":                  isUUID,
	"json-pointer":          isJSONPointer,
	"relative-json-pointer": isRelativeJSONPointer,
	"regex":                 isRegex,
}

// Formats returns the names of the asserted formats, sorted. A schema that names
// any other format is refused at registration.
func Formats() []string {
	names := make([]string, 0, len(formatChecks))
	for name := range formatChecks {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func isDigit(c byte) bool { return c-'0' <= 9 }

func isHex(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }

func isAlpha(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// two reads two digits; -1 if they are not.
func two(b []byte) int {
	if len(b) < 2 || !isDigit(b[0]) || !isDigit(b[1]) {
		return -1
	}
	return int(b[0]-'0')*10 + int(b[1]-'0')
}

// isDate is RFC 3339 full-date.
func isDate(b []byte) bool {
	if len(b) != 10 || b[4] != '-' || b[7] != '-' {
		return false
	}
	century, year, month, day := two(b), two(b[2:]), two(b[5:]), two(b[8:])
	if century < 0 || year < 0 || month < 1 || month > 12 || day < 1 {
		return false
	}
	year += century * 100
	last := 31
	switch month {
	case 4, 6, 9, 11:
		last = 30
	case 2:
		last = 28
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			last = 29
		}
	}
	return day <= last
}

// isTime is RFC 3339 full-time; a leap second must be one in UTC.
func isTime(b []byte) bool {
	if len(b) < 9 || b[2] != ':' || b[5] != ':' {
		return false
	}
	hour, minute, second := two(b), two(b[3:]), two(b[6:])
	if hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60 {
		return false
	}
	b = b[8:]
	if b[0] == '.' {
		i := 1
		for i < len(b) && isDigit(b[i]) {
			i++
		}
		if i == 1 || i == len(b) {
			return false
		}
		b = b[i:]
	}
	offset := 0
	switch {
	case len(b) == 1 && b[0]|0x20 == 'z':
	case len(b) == 6 && (b[0] == '+' || b[0] == '-') && b[3] == ':':
		oh, om := two(b[1:]), two(b[4:])
		if oh < 0 || oh > 23 || om < 0 || om > 59 {
			return false
		}
		offset = oh*60 + om
		if b[0] == '-' {
			offset = -offset
		}
	default:
		return false
	}
	if second == 60 {
		utc := (hour*60 + minute - offset + 2*24*60) % (24 * 60)
		return utc == 23*60+59
	}
	return true
}

// isDateTime is RFC 3339 date-time.
func isDateTime(b []byte) bool {
	return len(b) > 11 && b[10]|0x20 == 't' && isDate(b[:10]) && isTime(b[11:])
}

// isDuration is RFC 3339 appendix A: units in order, none left out between two
// that are there, weeks alone, no fraction.
func isDuration(b []byte) bool {
	if len(b) < 3 || b[0] != 'P' {
		return false
	}
	b = b[1:]
	if b[len(b)-1] == 'W' {
		return len(b) > 1 && allDigits(b[:len(b)-1])
	}
	date, clock, hasClock := bytes.Cut(b, []byte("T"))
	if len(date) > 0 && !durationUnits(date, "YMD") {
		return false
	}
	if hasClock {
		return durationUnits(clock, "HMS")
	}
	return len(date) > 0
}

// durationUnits reads one or more <digits><unit>, the units being a contiguous
// run of order.
func durationUnits(b []byte, order string) bool {
	last := -1
	for len(b) > 0 {
		i := 0
		for i < len(b) && isDigit(b[i]) {
			i++
		}
		if i == 0 || i == len(b) {
			return false
		}
		at := strings.IndexByte(order, b[i])
		if at < 0 || last >= 0 && at != last+1 {
			return false
		}
		last = at
		b = b[i+1:]
	}
	return last >= 0
}

func allDigits(b []byte) bool {
	for _, c := range b {
		if !isDigit(c) {
			return false
		}
	}
	return true
}

// isUUID is the RFC 9562 text form of any version.
func isUUID(b []byte) bool {
	if len(b) != 36 {
		return false
	}
	for i, c := range b {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
		} else if !isHex(c) {
			return false
		}
	}
	return true
}

// isIPv4 is a dotted quad without leading zeros.
func isIPv4(b []byte) bool {
	parts := 0
	for parts < 4 {
		i, v := 0, 0
		for i < len(b) && i < 3 && isDigit(b[i]) {
			v = v*10 + int(b[i]-'0')
			i++
		}
		if i == 0 || v > 255 || i > 1 && b[0] == '0' {
			return false
		}
		parts++
		b = b[i:]
		if parts == 4 {
			return len(b) == 0
		}
		if len(b) == 0 || b[0] != '.' {
			return false
		}
		b = b[1:]
	}
	return false
}

// isIPv6 is RFC 4291 text form without a zone. It allocates once.
func isIPv6(b []byte) bool {
	if len(b) < 2 || len(b) > 45 || bytes.IndexByte(b, '%') >= 0 || bytes.IndexByte(b, ':') < 0 {
		return false
	}
	var a netip.Addr
	return a.UnmarshalText(b) == nil && a.Is6()
}

// isJSONPointer is RFC 6901 in string form.
func isJSONPointer(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	if b[0] != '/' {
		return false
	}
	for i, c := range b {
		if c == '~' && (i+1 == len(b) || b[i+1] != '0' && b[i+1] != '1') {
			return false
		}
	}
	return true
}

// isRelativeJSONPointer is draft-bhutton-relative-json-pointer: a number without
// leading zero, an optional index shift, then # or a JSON pointer.
func isRelativeJSONPointer(b []byte) bool {
	i := 0
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	if i == 0 || i > 1 && b[0] == '0' {
		return false
	}
	b = b[i:]
	if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
		i = 1
		for i < len(b) && isDigit(b[i]) {
			i++
		}
		if i == 1 || b[1] == '0' {
			return false
		}
		b = b[i:]
	}
	return len(b) == 1 && b[0] == '#' || isJSONPointer(b)
}

// isRegex is a regular expression that is both RE2 and, as far as constructs go,
// ECMA-262. Unlike a pattern, the text comes from a payload, so it must be cheap to
// judge: it is parsed but not compiled, and inline flags are refused, because
// case folding of large ranges costs milliseconds each. The check allocates;
// regexCost is its fuel.
func isRegex(b []byte) bool {
	if len(b) > maxRegexBytes {
		return false
	}
	class := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '\\':
			// \Q would hide what follows from this loop; none of them is ECMA-262.
			if i++; i < len(b) && strings.IndexByte("aACEQzZ", b[i]) >= 0 {
				return false
			}
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case c == '(' && i+2 < len(b) && b[i+1] == '?' && b[i+2] != ':' && b[i+2] != '<':
			return false
		}
	}
	_, err := syntax.Parse(string(b), syntax.Perl)
	return err == nil
}

// maxRegexBytes is the longest text that is taken for a regular expression.
const maxRegexBytes = 512

// regexCost is the fuel of isRegex: Unicode classes are expanded by the parser.
func regexCost(b []byte) int {
	if len(b) > maxRegexBytes {
		return 0
	}
	return 2*len(b) + 700*(bytes.Count(b, []byte(`\p`))+bytes.Count(b, []byte(`\P`)))
}

// isEmail is RFC 5321 Mailbox: a dot-atom or quoted local part of at most 64
// bytes, and a host name or address literal.
func isEmail(b []byte) bool {
	at := bytes.LastIndexByte(b, '@')
	if at < 1 || at > 64 || len(b) > 254 {
		return false
	}
	local, domain := b[:at], b[at+1:]
	if !isLocalPart(local) {
		return false
	}
	if len(domain) > 2 && domain[0] == '[' && domain[len(domain)-1] == ']' {
		literal := domain[1 : len(domain)-1]
		if len(literal) > 5 && bytes.EqualFold(literal[:5], []byte("IPv6:")) {
			return isIPv6(literal[5:])
		}
		return isIPv4(literal)
	}
	return isHostname(domain)
}

func isLocalPart(b []byte) bool {
	if b[0] == '"' {
		return isQuotedString(b)
	}
	dot := true // a dot may not stand first, last or beside another
	for _, c := range b {
		if c == '.' {
			if dot {
				return false
			}
			dot = true
			continue
		}
		dot = false
		if !isAlpha(c) && !isDigit(c) && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) < 0 {
			return false
		}
	}
	return !dot
}

func isQuotedString(b []byte) bool {
	if len(b) < 2 || b[len(b)-1] != '"' {
		return false
	}
	b = b[1 : len(b)-1]
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c < ' ' || c > '~' || c == '"':
			return false
		case c == '\\':
			if i++; i == len(b) || b[i] < ' ' || b[i] > '~' {
				return false
			}
		}
	}
	return true
}

// isHostname is RFC 1123 with RFC 5891 rules for A-labels: at most 253 bytes,
// labels of 1 to 63 letters, digits and inner hyphens. No trailing dot.
func isHostname(b []byte) bool {
	if len(b) == 0 || len(b) > 253 {
		return false
	}
	start := 0
	for i := 0; i <= len(b); i++ {
		if i < len(b) && b[i] != '.' {
			continue
		}
		if !isLabel(b[start:i]) {
			return false
		}
		start = i + 1
	}
	return true
}

func isLabel(b []byte) bool {
	if len(b) == 0 || len(b) > 63 || b[0] == '-' || b[len(b)-1] == '-' {
		return false
	}
	for _, c := range b {
		if !isAlpha(c) && !isDigit(c) && c != '-' {
			return false
		}
	}
	if len(b) >= 4 && b[2] == '-' && b[3] == '-' && b[0]|0x20 == 'x' && b[1]|0x20 == 'n' {
		return isALabel(b[4:])
	}
	return true
}

// runeCount is the length that minLength and maxLength count.
func runeCount(b []byte) int { return utf8.RuneCount(b) }
