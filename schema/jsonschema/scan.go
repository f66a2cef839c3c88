package jsonschema

import (
	"fmt"
	"unicode/utf8"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/schema"
)

// Reason says which rule of the strict scanner a text broke.
type Reason string

// The reasons of a ScanError.
const (
	ReasonEmpty         Reason = "empty text"
	ReasonTooLarge      Reason = "payload over the size limit"
	ReasonBOM           Reason = "byte order mark"
	ReasonSyntax        Reason = "not JSON"
	ReasonTrailing      Reason = "bytes after the value"
	ReasonDepth         Reason = "nested too deep"
	ReasonKeys          Reason = "too many members in one object"
	ReasonItems         Reason = "too many items in one array"
	ReasonString        Reason = "string too long"
	ReasonNumber        Reason = "number token too long"
	ReasonExponent      Reason = "exponent too large"
	ReasonUTF8          Reason = "invalid UTF-8"
	ReasonSurrogate     Reason = "lone surrogate in an escape"
	ReasonControl       Reason = "raw control character in a string"
	ReasonDuplicate     Reason = "duplicate member name"
	ReasonUnexpectedEnd Reason = "text ends too early"
	ReasonEscape        Reason = "unknown escape"
	ReasonNumberSyntax  Reason = "malformed number"
)

// ScanError is why a text was refused before any schema saw it. It never holds
// bytes of the text.
type ScanError struct {
	Offset int // byte at which the fault was seen
	Reason Reason
}

// Error implements error.
func (e *ScanError) Error() string {
	return fmt.Sprintf("jsonschema: %s at byte %d", e.Reason, e.Offset)
}

// Code returns the code of the refusal: PayloadTooLarge for the size limit, else
// JSONMalformed.
func (e *ScanError) Code() wire.Code {
	if e.Reason == ReasonTooLarge {
		return wire.CodePayloadTooLarge
	}
	return wire.CodeJSONMalformed
}

// Scan reports whether data is exactly one JSON value (RFC 8259) that every
// parser reads alike: UTF-8 without byte order mark, no duplicate member names
// (compared after unescaping), no lone surrogates, no trailing bytes, and within
// the payload, depth, key, item, string and number limits of l. The error is a
// *ScanError. Scan does not allocate in steady state when data is accepted and
// keeps no reference to it.
func Scan(data []byte, l schema.Limits) error {
	l = l.Effective()
	d := takeDocument()
	err := d.parse(data, &l)
	d.release()
	if err != nil { // a nil *ScanError must not become a non-nil error
		return err
	}
	return nil
}

// parse fills d from data. d keeps views of data until release.
func (d *document) parse(data []byte, l *schema.Limits) *ScanError {
	d.data, d.limits, d.pos = data, *l, 0
	switch {
	case len(data) == 0:
		return &ScanError{0, ReasonEmpty}
	case len(data) > l.Payload:
		return &ScanError{l.Payload, ReasonTooLarge}
	case data[0] == 0xEF || data[0] == 0xFE || data[0] == 0xFF:
		return &ScanError{0, ReasonBOM}
	}
	if err := d.value(0); err != nil {
		return err
	}
	d.space()
	if d.pos < len(data) {
		return d.fail(ReasonTrailing)
	}
	return nil
}

func (d *document) fail(r Reason) *ScanError { return &ScanError{d.pos, r} }

// space skips insignificant white space.
func (d *document) space() {
	for d.pos < len(d.data) {
		switch d.data[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

// value parses one value; depth counts the arrays and objects around it.
func (d *document) value(depth int) *ScanError {
	d.space()
	if d.pos >= len(d.data) {
		return d.fail(ReasonUnexpectedEnd)
	}
	switch c := d.data[d.pos]; {
	case c == '"':
		return d.string()
	case c == '{':
		return d.object(depth + 1)
	case c == '[':
		return d.array(depth + 1)
	case c == '-' || c-'0' <= 9:
		return d.number()
	case c == 't':
		return d.literal("true", kindTrue)
	case c == 'f':
		return d.literal("false", kindFalse)
	case c == 'n':
		return d.literal("null", kindNull)
	}
	return d.fail(ReasonSyntax)
}

func (d *document) literal(word string, k kind) *ScanError {
	if len(d.data)-d.pos < len(word) || string(d.data[d.pos:d.pos+len(word)]) != word {
		return d.fail(ReasonSyntax)
	}
	i := d.add(k, d.pos)
	d.pos += len(word)
	d.close(i)
	return nil
}

func (d *document) array(depth int) *ScanError {
	if depth > d.limits.Depth {
		return d.fail(ReasonDepth)
	}
	self := d.add(kindArray, d.pos)
	d.pos++
	d.space()
	if d.pos < len(d.data) && d.data[d.pos] == ']' {
		d.pos++
		d.close(self)
		return nil
	}
	for n := 1; ; n++ {
		if n > d.limits.Items {
			return d.fail(ReasonItems)
		}
		if err := d.value(depth); err != nil {
			return err
		}
		more, err := d.separator(']')
		if err != nil {
			return err
		}
		if !more {
			d.values[self].n = int32(n)
			d.close(self)
			return nil
		}
	}
}

func (d *document) object(depth int) *ScanError {
	if depth > d.limits.Depth {
		return d.fail(ReasonDepth)
	}
	self := d.add(kindObject, d.pos)
	d.pos++
	d.space()
	if d.pos < len(d.data) && d.data[d.pos] == '}' {
		d.pos++
		d.close(self)
		return nil
	}
	for n := 1; ; n++ {
		if n > d.limits.Keys {
			return d.fail(ReasonKeys)
		}
		if err := d.member(depth); err != nil {
			return err
		}
		more, err := d.separator('}')
		if err != nil {
			return err
		}
		if !more {
			d.values[self].n = int32(n)
			d.close(self)
			return d.checkDuplicates(self)
		}
	}
}

// member parses one name, colon and value.
func (d *document) member(depth int) *ScanError {
	d.space()
	if d.pos >= len(d.data) {
		return d.fail(ReasonUnexpectedEnd)
	}
	if d.data[d.pos] != '"' {
		return d.fail(ReasonSyntax)
	}
	if err := d.string(); err != nil {
		return err
	}
	d.space()
	if d.pos >= len(d.data) {
		return d.fail(ReasonUnexpectedEnd)
	}
	if d.data[d.pos] != ':' {
		return d.fail(ReasonSyntax)
	}
	d.pos++
	return d.value(depth)
}

// separator reads a comma (more follows) or the closing byte.
func (d *document) separator(closing byte) (more bool, err *ScanError) {
	d.space()
	if d.pos >= len(d.data) {
		return false, d.fail(ReasonUnexpectedEnd)
	}
	switch d.data[d.pos] {
	case ',':
		d.pos++
		return true, nil
	case closing:
		d.pos++
		return false, nil
	}
	return false, d.fail(ReasonSyntax)
}

// plain marks the bytes that stand for themselves in a string.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 0x80; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// string parses a string at its opening quote.
func (d *document) string() *ScanError {
	start := d.pos + 1
	b, i := d.data, start
	for {
		for i < len(b) && plain[b[i]] {
			i++
		}
		if i >= len(b) {
			d.pos = len(b)
			return d.fail(ReasonUnexpectedEnd)
		}
		c := b[i]
		if c == '"' {
			break
		}
		d.pos = i
		if c == '\\' {
			return d.escapedString(start)
		}
		if c < 0x20 {
			return d.fail(ReasonControl)
		}
		r, size := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && size == 1 {
			return d.fail(ReasonUTF8)
		}
		i += size
	}
	if i-start > d.limits.StringBytes {
		d.pos = start
		return d.fail(ReasonString)
	}
	v := d.add(kindString, start)
	d.pos = i
	d.close(v) // end excludes the closing quote
	d.pos = i + 1
	return nil
}

// escapedString goes on with a string that has an escape at d.pos; its decoded
// text goes to the scratch arena.
func (d *document) escapedString(start int) *ScanError {
	from := len(d.scratch)
	d.scratch = append(d.scratch, d.data[start:d.pos]...)
	for {
		if d.pos >= len(d.data) {
			return d.fail(ReasonUnexpectedEnd)
		}
		c := d.data[d.pos]
		switch {
		case c == '"':
			if d.pos-start > d.limits.StringBytes {
				d.pos = start
				return d.fail(ReasonString)
			}
			v := d.add(kindString, start)
			d.values[v].escaped = true
			d.values[v].n, d.values[v].m = int32(from), int32(len(d.scratch))
			d.close(v)
			d.pos++
			return nil
		case c == '\\':
			if err := d.escape(); err != nil {
				return err
			}
		case c < 0x20:
			return d.fail(ReasonControl)
		case c < 0x80:
			d.scratch = append(d.scratch, c)
			d.pos++
		default:
			r, size := utf8.DecodeRune(d.data[d.pos:])
			if r == utf8.RuneError && size == 1 {
				return d.fail(ReasonUTF8)
			}
			d.scratch = append(d.scratch, d.data[d.pos:d.pos+size]...)
			d.pos += size
		}
	}
}

// escape decodes one escape sequence at d.pos into the scratch arena.
func (d *document) escape() *ScanError {
	if d.pos+1 >= len(d.data) {
		return d.fail(ReasonUnexpectedEnd)
	}
	c := d.data[d.pos+1]
	switch c {
	case '"', '\\', '/':
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case 'u':
		return d.unicodeEscape()
	default:
		return d.fail(ReasonEscape)
	}
	d.scratch = append(d.scratch, c)
	d.pos += 2
	return nil
}

func (d *document) unicodeEscape() *ScanError {
	r, ok := hex4(d.data[d.pos:])
	if !ok {
		return d.fail(ReasonEscape)
	}
	size := 6
	if r >= 0xD800 && r < 0xE000 {
		low, ok := hex4(d.data[d.pos+6:])
		if r >= 0xDC00 || !ok || low < 0xDC00 || low >= 0xE000 {
			return d.fail(ReasonSurrogate)
		}
		r = (r-0xD800)<<10 + (low - 0xDC00) + 0x10000
		size = 12
	}
	d.scratch = utf8.AppendRune(d.scratch, r)
	d.pos += size
	return nil
}

// hex4 reads \uXXXX at the start of b.
func hex4(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range b[2:6] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// number parses a number token; the exponent limit is on what is written, so no
// later stage meets a short token that stands for a huge number.
func (d *document) number() *ScanError {
	b, i, start := d.data, d.pos, d.pos
	integer := true
	if b[i] == '-' {
		i++
	}
	digits := i
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	if i == digits || b[digits] == '0' && i-digits > 1 {
		return d.fail(ReasonNumberSyntax)
	}
	if i < len(b) && b[i] == '.' {
		integer = false
		i++
		digits = i
		for i < len(b) && b[i]-'0' <= 9 {
			i++
		}
		if i == digits {
			return d.fail(ReasonNumberSyntax)
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		integer = false
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		digits = i
		exp := 0
		for i < len(b) && b[i]-'0' <= 9 {
			exp = min(exp*10+int(b[i]-'0'), 1<<20)
			i++
		}
		if i == digits {
			return d.fail(ReasonNumberSyntax)
		}
		if exp > d.limits.ExponentAbs {
			return d.fail(ReasonExponent)
		}
	}
	if i-start > d.limits.NumberBytes {
		return d.fail(ReasonNumber)
	}
	v := d.add(kindNumber, start)
	d.values[v].integer = integer
	d.pos = i
	d.close(v)
	return nil
}
