package wire

import (
	"bytes"
	"errors"
	"strings"
	"unicode/utf8"
)

// Limits of a client's header block.
const (
	MaxHeaders     = 32
	MaxHeaderBytes = 4096
)

// Errors of the header parser.
var (
	ErrHeaderLine  = errors.New("wire: header block does not start with NATS/1.0 and CRLF")
	ErrHeaderEnd   = errors.New("wire: header block does not end with an empty line")
	ErrHeaderName  = errors.New("wire: header name is empty or has a character outside the token set")
	ErrHeaderValue = errors.New("wire: header value has a control character or is not UTF-8")
	ErrHeaderCount = errors.New("wire: too many headers")
	ErrHeaderSize  = errors.New("wire: header block too large")
)

// Header is one header line; both slices are views into the parsed block.
type Header struct{ Name, Value []byte }

// Headers is a parsed header block, reusable: Parse overwrites it.
type Headers struct {
	List [MaxHeaders]Header
	N    int
}

// All returns the headers in wire order.
func (h *Headers) All() []Header { return h.List[:h.N] }

// Get returns the value of the first header of exactly this name.
func (h *Headers) Get(name string) ([]byte, bool) {
	for i := range h.N {
		if string(h.List[i].Name) == name {
			return h.List[i].Value, true
		}
	}
	return nil, false
}

// Parse reads a whole header block: "NATS/1.0\r\n", then "Name: value\r\n" lines,
// then "\r\n". It is stricter than nats-server: every line ends with CRLF, names
// are RFC 9110 tokens, values are UTF-8 without control characters (a tab inside
// is one; U+0080-9F are too), no status line. Spaces and tabs around the value are
// cut. h keeps views into block. A nil or empty
// block is no headers.
//
// Errors: ErrHeaderLine, ErrHeaderEnd, ErrHeaderName, ErrHeaderValue,
// ErrHeaderCount, ErrHeaderSize. It does not allocate.
func (h *Headers) Parse(block []byte) error {
	h.N = 0
	if len(block) == 0 {
		return nil
	}
	if len(block) > MaxHeaderBytes {
		return ErrHeaderSize
	}
	rest, ok := bytes.CutPrefix(block, []byte(HeaderLine))
	if !ok {
		return ErrHeaderLine
	}
	for {
		i := bytes.IndexByte(rest, '\r')
		if i < 0 || i+1 >= len(rest) || rest[i+1] != '\n' {
			return ErrHeaderEnd
		}
		line := rest[:i]
		rest = rest[i+2:]
		if len(line) == 0 {
			if len(rest) != 0 {
				return ErrHeaderEnd
			}
			return nil
		}
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 || !headerToken(line[:colon]) {
			return ErrHeaderName
		}
		value := bytes.Trim(line[colon+1:], " \t")
		if !headerValue(value) {
			return ErrHeaderValue
		}
		if h.N == MaxHeaders {
			return ErrHeaderCount
		}
		h.List[h.N] = Header{Name: line[:colon], Value: value}
		h.N++
	}
}

func headerToken(b []byte) bool {
	for _, c := range b {
		if !tokenChar(c) && strings.IndexByte("!#$%&'*+.^`|~", c) < 0 {
			return false
		}
	}
	return true
}

// headerValue reports whether v is UTF-8 without control characters.
func headerValue(v []byte) bool {
	ascii := true
	for _, c := range v {
		if c < ' ' || c == 0x7f {
			return false
		}
		ascii = ascii && c < utf8.RuneSelf
	}
	if ascii {
		return true
	}
	for len(v) > 0 {
		r, n := utf8.DecodeRune(v)
		if r == utf8.RuneError && n == 1 || r >= 0x80 && r <= 0x9f {
			return false
		}
		v = v[n:]
	}
	return true
}

// EqualFold reports whether two ASCII names differ at most in letter case. It
// does not allocate.
func EqualFold[T string | []byte](a T, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		x, y := a[i], b[i]
		if x >= 'A' && x <= 'Z' {
			x += 'a' - 'A'
		}
		if y >= 'A' && y <= 'Z' {
			y += 'a' - 'A'
		}
		if x != y {
			return false
		}
	}
	return true
}

// HasPrefixFold is EqualFold on a's first len(prefix) bytes.
func HasPrefixFold(a []byte, prefix string) bool {
	return len(a) >= len(prefix) && EqualFold(a[:len(prefix)], prefix)
}
