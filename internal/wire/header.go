package wire

import (
	"bytes"
	"errors"
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
// are RFC 9110 tokens, values hold no control character, no status line. Spaces
// and tabs around the value are cut. h keeps views into block. A nil or empty
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
		for _, c := range value {
			if c < ' ' || c == 0x7f {
				return ErrHeaderValue
			}
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
		if !tokenChar(c) && !bytes.ContainsRune([]byte("!#$%&'*+.^`|~"), rune(c)) {
			return false
		}
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
