package gate

import (
	"bytes"
	"errors"
)

// The parser reads the client side of the NATS protocol into values. It agrees
// with nats-server (server/parser.go, v2.15.2) on what a byte stream means, and is
// stricter on purpose in these points, each of which ends the connection:
//
//   - a CR anywhere but right before the LF of a control line (the server drops
//     one byte at the end of a line that had a CR anywhere in it);
//   - an empty argument line after a verb and a space (the server reads on into the
//     next line, and takes the LF as the first byte of a subject);
//   - anything but blanks after PING, PONG and +OK;
//   - a non-numeric or ten-digit max in UNSUB (the server unsubscribes at once);
//   - INFO, MSG and HMSG from a client (the server half-parses them);
//   - a sid outside printable ASCII or over 64 bytes;
//   - blanks before the first argument count towards the control line limit;
//   - nothing after a -ERR (the server finishes what it has read) or a CONNECT that
//     is not the first operation.
//
// Line feeds without CR end a control line, as they do for the server; payloads
// must end with CRLF. Both are canonical again when they leave the gate.

// verb is one client operation.
type verb uint8

const (
	verbNone verb = iota
	verbConnect
	verbPub // PUB and HPUB
	verbSub
	verbUnsub
	verbPing
	verbPong
	verbOK  // +OK: ignored
	verbErr // -ERR: the client gives up
)

// Errors of the parser; the text is what the client is told in -ERR. nats-server
// uses the same words where it has any.
var (
	errVerb        = errors.New("Unknown Protocol Operation")
	errArguments   = errors.New("Parser Error")
	errControlLine = errors.New("maximum control line exceeded")
	errPayload     = errors.New("Maximum Payload Violation")
	errHeaders     = errors.New("message headers not supported")
)

// maxSID is the longest subscription identifier in bytes.
const maxSID = 64

// command is one parsed operation. The slices are views into the read buffer.
type command struct {
	verb    verb
	subject []byte
	reply   []byte // publishes
	queue   []byte // SUB
	sid     []byte // SUB, UNSUB
	header  []byte // HPUB: the whole header block
	payload []byte
	max     int    // UNSUB: 0 for at once
	arg     []byte // CONNECT: the JSON text
}

// parser holds what is known of a message that is not complete yet, so that bytes
// are looked at once however they are split. The zero value with limits set is
// ready.
type parser struct {
	maxLine    int  // bytes of a control line after its verb
	maxConnect int  // the same for CONNECT
	maxPayload int  // header and payload bytes of one message
	headers    bool // HPUB is allowed

	scanned int // bytes of the pending line that hold no LF
	need    int // total bytes of the pending message once its line is known
}

// next reads one operation from the start of buf. It returns the bytes it took, or
// 0 when buf holds no whole operation yet. After an error the connection is
// finished. The values are views into buf.
func (p *parser) next(buf []byte, c *command) (int, error) {
	if len(buf) < p.need {
		return 0, nil
	}
	end := bytes.IndexByte(buf[p.scanned:], '\n')
	if end < 0 {
		p.scanned = len(buf)
		return 0, p.partial(buf)
	}
	end += p.scanned
	*c = command{}
	size, err := p.line(buf[:end], c)
	if err != nil {
		return 0, err
	}
	if c.verb != verbPub {
		p.scanned, p.need = 0, 0
		return end + 1, nil
	}
	return p.message(buf, end, size, c)
}

// message cuts header and payload of a publish whose line ends at the LF at end.
func (p *parser) message(buf []byte, end int, size payloadSize, c *command) (int, error) {
	body := buf[end+1:]
	total := end + 1 + size.total + 2
	if len(buf) < total {
		p.scanned, p.need = end, total
		return 0, nil
	}
	if body[size.total] != '\r' || body[size.total+1] != '\n' {
		return 0, errArguments
	}
	p.scanned, p.need = 0, 0
	if size.header > 0 {
		c.header = body[:size.header:size.header]
	}
	c.payload = body[size.header:size.total:size.total]
	return total, nil
}

// partial checks a line that has no LF yet: its verb and its length.
func (p *parser) partial(buf []byte) error {
	v, rest, err := cutVerb(buf, false)
	if err != nil {
		return err
	}
	limit := p.maxLine
	if v == verbConnect {
		limit = p.maxConnect
	}
	if len(rest) > limit+1 { // the CR does not count
		return errControlLine
	}
	return nil
}

type payloadSize struct{ header, total int }

// line parses a control line without its LF.
func (p *parser) line(line []byte, c *command) (payloadSize, error) {
	v, rest, err := cutVerb(line, true)
	if err != nil {
		return payloadSize{}, err
	}
	rest = bytes.TrimSuffix(rest, []byte{'\r'})
	limit := p.maxLine
	if v == verbConnect {
		limit = p.maxConnect
	}
	if len(rest) > limit { // before its content: a line that has not ended is judged by its length, too
		return payloadSize{}, errControlLine
	}
	if bytes.IndexByte(rest, '\r') >= 0 {
		return payloadSize{}, errArguments
	}
	c.verb = v
	hpub := v == verbPub && (line[0] == 'H' || line[0] == 'h')
	switch v {
	case verbPub:
		return p.publish(rest, c, hpub)
	case verbSub:
		return payloadSize{}, parseSub(rest, c)
	case verbUnsub:
		return payloadSize{}, parseUnsub(rest, c)
	case verbConnect:
		if c.arg = bytes.Trim(rest, " \t"); len(c.arg) == 0 {
			return payloadSize{}, errArguments
		}
	case verbErr:
	default: // PING, PONG, +OK
		if len(bytes.Trim(rest, " \t")) != 0 {
			return payloadSize{}, errArguments
		}
	}
	return payloadSize{}, nil
}

var verbs = [...]struct {
	name string
	verb verb
	args bool // a blank must follow
}{
	{"PUB", verbPub, true},
	{"HPUB", verbPub, true},
	{"PING", verbPing, false},
	{"PONG", verbPong, false},
	{"SUB", verbSub, true},
	{"UNSUB", verbUnsub, true},
	{"CONNECT", verbConnect, false},
	{"+OK", verbOK, false},
	{"-ERR", verbErr, true},
}

// cutVerb returns the verb at the start of line and what follows it. In a line that
// is not complete a prefix of a verb is no error yet; its verb is verbNone.
func cutVerb(line []byte, complete bool) (verb, []byte, error) {
	for i := range verbs {
		v := &verbs[i]
		n := min(len(line), len(v.name))
		if !foldedPrefix(line[:n], v.name) {
			continue
		}
		rest := line[n:]
		if n < len(v.name) || v.args && len(rest) == 0 {
			if complete {
				break
			}
			return verbNone, nil, nil
		}
		if v.args && rest[0] != ' ' && rest[0] != '\t' {
			break
		}
		return v.verb, rest, nil
	}
	return verbNone, nil, errVerb
}

// foldedPrefix reports whether b is a prefix of name, in any letter case. name is
// upper case.
func foldedPrefix(b []byte, name string) bool {
	for i, c := range b {
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		if c != name[i] {
			return false
		}
	}
	return true
}

// maxFields is one more than any operation may have.
const maxFields = 5

// fields splits at blanks and tabs. More than maxFields-1 fields are an error.
func fields(b []byte, out *[maxFields][]byte) (int, error) {
	n, start := 0, -1
	for i, c := range b {
		if c == ' ' || c == '\t' {
			if start >= 0 {
				out[n] = b[start:i:i]
				n++
				start = -1
			}
			continue
		}
		if start < 0 {
			if n == maxFields-1 {
				return 0, errArguments
			}
			start = i
		}
	}
	if start >= 0 {
		out[n] = b[start:len(b):len(b)]
		n++
	}
	return n, nil
}

func (p *parser) publish(rest []byte, c *command, hpub bool) (size payloadSize, err error) {
	var f [maxFields][]byte
	n, err := fields(rest, &f)
	if err != nil {
		return size, err
	}
	if hpub {
		if !p.headers {
			return size, errHeaders
		}
		if n < 3 {
			return size, errArguments
		}
		if size.header = parseSize(f[n-2]); size.header < 0 {
			return size, errArguments
		}
		f[n-2] = f[n-1]
		n--
	}
	if n < 2 || n > 3 {
		return size, errArguments
	}
	if size.total = parseSize(f[n-1]); size.total < 0 || size.header > size.total {
		return size, errArguments
	}
	if size.total > p.maxPayload {
		return size, errPayload
	}
	c.subject = f[0]
	if n == 3 {
		c.reply = f[1]
	}
	return size, nil
}

func parseSub(rest []byte, c *command) error {
	var f [maxFields][]byte
	n, err := fields(rest, &f)
	if err != nil || n < 2 || n > 3 {
		return errArguments
	}
	c.subject, c.sid = f[0], f[n-1]
	if n == 3 {
		c.queue = f[1]
	}
	return checkSID(c.sid)
}

func parseUnsub(rest []byte, c *command) error {
	var f [maxFields][]byte
	n, err := fields(rest, &f)
	if err != nil || n < 1 || n > 2 {
		return errArguments
	}
	c.sid = f[0]
	if n == 2 {
		if c.max = parseSize(f[1]); c.max < 0 {
			return errArguments
		}
	}
	return checkSID(c.sid)
}

func checkSID(sid []byte) error {
	if len(sid) > maxSID {
		return errArguments
	}
	for _, c := range sid {
		if c <= ' ' || c >= 0x7f {
			return errArguments
		}
	}
	return nil
}

// parseSize reads 1 to 9 digits, as nats-server does, else it returns -1. So a
// number can not overflow.
func parseSize(b []byte) int {
	if len(b) == 0 || len(b) > 9 {
		return -1
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}
