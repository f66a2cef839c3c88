package gate

import (
	"bytes"
	"errors"
)

// errFrame says that the server sent what the gate can not read: the connection
// ends, because no later byte could be trusted to be a frame boundary.
var errFrame = errors.New("gate: unreadable frame from the server")

// maxServerLine is the longest control line that is accepted from the server. INFO
// is the longest that it sends.
const maxServerLine = 64 << 10

// frameKind is the kind of one frame that the server sent.
type frameKind uint8

const (
	frameMsg frameKind = iota
	frameHMsg
	frameInfo
	framePing
	framePong
	frameOK
	frameErr
)

// frame is one frame from the server; all slices are views into the relay's buffer.
type frame struct {
	kind    frameKind
	line    []byte // without CRLF
	subject []byte
	sid     []byte
	reply   []byte
	header  []byte
	payload []byte
}

// nextFrame reads the frame at the start of buf. It returns its length in bytes; 0
// and the length it needs (0 if unknown) when buf does not hold the whole frame.
func nextFrame(buf []byte, maxPayload int, f *frame) (n, need int, err error) {
	end := bytes.IndexByte(buf, '\n')
	if end < 0 {
		if len(buf) > maxServerLine {
			return 0, 0, errFrame
		}
		return 0, 0, nil
	}
	if end < 3 || buf[end-1] != '\r' { // the shortest is +OK
		return 0, 0, errFrame
	}
	f.line = buf[:end-1]
	f.kind, err = kindOf(f.line)
	if err != nil || f.kind > frameHMsg {
		return end + 1, 0, err
	}
	header, total, err := f.fields()
	if err != nil || total > maxPayload {
		return 0, 0, errFrame
	}
	n = end + 1 + total + 2
	if len(buf) < n {
		return 0, n, nil
	}
	body := buf[end+1 : n]
	if body[total] != '\r' || body[total+1] != '\n' {
		return 0, 0, errFrame
	}
	f.header, f.payload = body[:header], body[header:total]
	return n, 0, nil
}

func kindOf(line []byte) (frameKind, error) {
	switch line[0] {
	case 'M':
		if bytes.HasPrefix(line, []byte("MSG ")) {
			return frameMsg, nil
		}
	case 'H':
		if bytes.HasPrefix(line, []byte("HMSG ")) {
			return frameHMsg, nil
		}
	case 'P':
		switch string(line) {
		case "PING":
			return framePing, nil
		case "PONG":
			return framePong, nil
		}
	case '+':
		return frameOK, nil
	case '-':
		return frameErr, nil
	case 'I':
		return frameInfo, nil
	}
	return 0, errFrame
}

// fields splits MSG subject sid [reply] size and HMSG subject sid [reply] header size.
func (f *frame) fields() (header, total int, err error) {
	var a [6][]byte
	line, n := f.line, 0
	for {
		if n == len(a) {
			return 0, 0, errFrame
		}
		i := bytes.IndexByte(line, ' ')
		if i < 0 {
			break
		}
		a[n] = line[:i]
		n++
		line = line[i+1:]
	}
	if total = parseSize(line); total < 0 {
		return 0, 0, errFrame
	}
	if f.kind == frameHMsg {
		n--
		if n < 3 {
			return 0, 0, errFrame
		}
		if header = parseSize(a[n]); header < 0 || header > total { //nolint:gosec // 3 <= n < len(a)
			return 0, 0, errFrame
		}
	}
	f.reply = nil
	switch n {
	case 4:
		f.reply = a[3]
	case 3:
	default:
		return 0, 0, errFrame
	}
	f.subject, f.sid = a[1], a[2]
	return header, total, nil
}
