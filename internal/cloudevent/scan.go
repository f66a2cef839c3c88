package cloudevent

import (
	"unicode/utf16"
	"unicode/utf8"
)

// MaxJSONDepth is how deep arrays and objects of a structured event may nest,
// the event's own object included.
const MaxJSONDepth = 32

// scanner walks one JSON text, RFC 8259 with nothing added. A method that
// returns an error leaves pos at the offending byte.
type scanner struct {
	b   []byte
	pos int
}

func (s *scanner) fail(reason string) error {
	return &JSONError{Offset: s.pos, Reason: reason}
}

func (s *scanner) failCause(at int, cause error, reason string) error {
	return &JSONError{Offset: at, Reason: reason, Cause: cause}
}

// peek returns the next byte, 0 at the end. (A NUL in the text is no token
// either, so nothing takes the one for the other.)
func (s *scanner) peek() byte {
	if s.pos < len(s.b) {
		return s.b[s.pos]
	}
	return 0
}

func (s *scanner) space() {
	for s.pos < len(s.b) {
		switch s.b[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// expect skips white space and then takes c.
func (s *scanner) expect(c byte, reason string) error {
	s.space()
	if s.peek() != c {
		return s.fail(reason)
	}
	s.pos++
	return nil
}

// str takes a string and returns what stands between its quotes; escaped says
// whether a backslash is in there. Control characters, bad escapes, lone
// surrogates and bytes that are not UTF-8 are refused.
func (s *scanner) str() (raw []byte, escaped bool, err error) {
	if s.peek() != '"' {
		return nil, false, s.fail("string expected")
	}
	s.pos++
	start := s.pos
	for s.pos < len(s.b) {
		switch c := s.b[s.pos]; {
		case c == '"':
			raw = s.b[start:s.pos:s.pos]
			s.pos++
			return raw, escaped, nil
		case c < ' ':
			return nil, false, s.fail("control character in a string")
		case c == '\\':
			escaped = true
			if err := s.escape(); err != nil {
				return nil, false, err
			}
		case c < utf8.RuneSelf:
			s.pos++
		default:
			r, n := utf8.DecodeRune(s.b[s.pos:])
			if r == utf8.RuneError && n == 1 {
				return nil, false, s.fail("not UTF-8")
			}
			s.pos += n
		}
	}
	return nil, false, s.fail("text ends inside a string")
}

// escape takes one escape sequence, or the two of a surrogate pair.
func (s *scanner) escape() error {
	if s.pos+1 >= len(s.b) {
		return s.fail("text ends inside a string")
	}
	switch s.b[s.pos+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos += 2
		return nil
	case 'u':
	default:
		return s.fail("unknown escape")
	}
	r := hex4(s.b[s.pos+2:])
	switch {
	case r < 0:
		return s.fail("\\u needs four hex digits")
	case r >= 0xdc00 && r <= 0xdfff:
		return s.fail("lone surrogate")
	case r < 0xd800 || r > 0xdfff:
		s.pos += 6
		return nil
	}
	rest := s.b[s.pos+6:]
	if len(rest) < 6 || rest[0] != '\\' || rest[1] != 'u' {
		return s.fail("lone surrogate")
	}
	if low := hex4(rest[2:]); low < 0xdc00 || low > 0xdfff {
		return s.fail("lone surrogate")
	}
	s.pos += 12
	return nil
}

// hex4 reads four hex digits, -1 if they are not there.
func hex4(b []byte) rune {
	if len(b) < 4 {
		return -1
	}
	var r rune
	for _, c := range b[:4] {
		d := unhex[c]
		if d > 0x0f {
			return -1
		}
		r = r<<4 | rune(d)
	}
	return r
}

// unescape appends the value of a string that str has checked.
func unescape(dst, raw []byte) []byte {
	for i := 0; i < len(raw); {
		c := raw[i]
		if c != '\\' {
			dst = append(dst, c)
			i++
			continue
		}
		switch c = raw[i+1]; c {
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
			r := hex4(raw[i+2:])
			i += 6
			if utf16.IsSurrogate(r) {
				r = utf16.DecodeRune(r, hex4(raw[i+2:]))
				i += 6
			}
			dst = utf8.AppendRune(dst, r)
			continue
		}
		dst = append(dst, c)
		i += 2
	}
	return dst
}

// number takes a number and returns its text; integer says that it has neither
// a fraction nor an exponent.
func (s *scanner) number() (text []byte, integer bool, err error) {
	start := s.pos
	integer = true
	if s.peek() == '-' {
		s.pos++
	}
	switch c := s.peek(); {
	case c == '0':
		s.pos++
	case c >= '1' && c <= '9':
		s.digits()
	default:
		return nil, false, s.fail("value expected")
	}
	if s.peek() == '.' {
		integer = false
		s.pos++
		if !s.digits() {
			return nil, false, s.fail("digit expected")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		integer = false
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !s.digits() {
			return nil, false, s.fail("digit expected")
		}
	}
	return s.b[start:s.pos:s.pos], integer, nil
}

func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.b) && s.b[s.pos] >= '0' && s.b[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}

// literal takes true, false or null.
func (s *scanner) literal() error {
	for _, w := range [...]string{"true", "false", "null"} {
		if len(s.b)-s.pos >= len(w) && string(s.b[s.pos:s.pos+len(w)]) == w {
			s.pos += len(w)
			return nil
		}
	}
	return s.fail("value expected")
}

// value takes any value and returns its text, byte for byte; depth is how many
// arrays and objects are open around it.
func (s *scanner) value(depth int) ([]byte, error) {
	start := s.pos
	var err error
	switch s.peek() {
	case '{', '[':
		err = s.container(depth + 1)
	case '"':
		_, _, err = s.str()
	case 't', 'f', 'n':
		err = s.literal()
	default:
		_, _, err = s.number()
	}
	if err != nil {
		return nil, err
	}
	return s.b[start:s.pos:s.pos], nil
}

// container takes an array or object whose bracket is the depth-th one open. It
// calls itself through value, at most MaxJSONDepth deep.
func (s *scanner) container(depth int) error {
	if depth > MaxJSONDepth {
		return s.fail("nested too deep")
	}
	object := s.b[s.pos] == '{'
	end := byte(']')
	if object {
		end = '}'
	}
	s.pos++
	s.space()
	if s.peek() == end {
		s.pos++
		return nil
	}
	for {
		s.space()
		if object {
			if _, _, err := s.str(); err != nil {
				return err
			}
			if err := s.expect(':', "colon expected"); err != nil {
				return err
			}
			s.space()
		}
		if _, err := s.value(depth); err != nil {
			return err
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
		case end:
			s.pos++
			return nil
		default:
			return s.fail("comma or closing bracket expected")
		}
	}
}
