package translog

import (
	"bytes"
	"fmt"
	"io"
	"time"
)

// frame is one MSG or HMSG: views of what the next frame overwrites.
type frame struct {
	subject, sid, reply []byte
	block, data         []byte
}

// frame reads up to the next message and answers pings.
func (f *feed) frame() (frame, error) {
	for {
		line, err := f.line()
		if err != nil {
			return frame{}, err
		}
		verb, rest, _ := cut(line, ' ')
		switch string(verb) {
		case "MSG":
			return f.body(1, rest)
		case "HMSG":
			return f.body(2, rest)
		case "PING":
			if err := f.answer("PONG\r\n"); err != nil {
				return frame{}, err
			}
		case "-ERR":
			return frame{}, fmt.Errorf("%w: %s", errFeed, rest)
		}
	}
}

// line reads a control line, a view of the buffer until the next read.
func (f *feed) line() ([]byte, error) {
	have, _ := f.r.Peek(f.r.Buffered())
	if bytes.IndexByte(have, '\n') < 0 {
		if err := f.patient(); err != nil {
			return nil, err
		}
	}
	line, err := f.r.ReadSlice('\n')
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFeed, err)
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

// body reads what follows a control line with the fields rest, the last sizes of which are
// lengths. A frame that is buffered whole, as most are, is not copied.
func (f *feed) body(sizes int, rest []byte) (frame, error) {
	total, ok := decimal(rest[bytes.LastIndexByte(rest, ' ')+1:])
	if !ok || total > maxFrame {
		return frame{}, fmt.Errorf("%w: size of a frame", errFeed)
	}
	n := int(total)
	whole := f.r.Buffered() >= n+2
	if !whole { // reading on moves what is in the buffer
		f.kept = append(f.kept[:0], rest...)
		rest = f.kept
	}
	var field [5][]byte
	fields := 0
	for more := true; more; fields++ {
		var part []byte
		if part, rest, more = cut(rest, ' '); fields < len(field) {
			field[fields] = part
		}
	}
	if fields != 2+sizes && fields != 3+sizes {
		return frame{}, fmt.Errorf("%w: control line with %d fields", errFeed, fields)
	}
	fr, size := frame{subject: field[0], sid: field[1]}, field[2]
	if fields == 3+sizes {
		fr.reply, size = field[2], field[3]
	}
	head := 0
	if sizes == 2 {
		length, ok := decimal(size)
		if !ok || length > total {
			return frame{}, fmt.Errorf("%w: sizes of a frame", errFeed)
		}
		head = int(length)
	}
	body, err := f.bytes(n+2, whole)
	if err != nil {
		return frame{}, err
	}
	fr.block, fr.data = body[:head:head], body[head:n:n]
	return fr, nil
}

// bytes reads n bytes, which are buffered if whole.
func (f *feed) bytes(n int, whole bool) ([]byte, error) {
	if whole {
		b, err := f.r.Peek(n)
		if err == nil {
			_, err = f.r.Discard(n)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errFeed, err)
		}
		return b, nil
	}
	if err := f.patient(); err != nil {
		return nil, err
	}
	if cap(f.buf) < n {
		f.buf = make([]byte, n)
	}
	f.buf = f.buf[:n]
	if _, err := io.ReadFull(f.r, f.buf); err != nil {
		return nil, fmt.Errorf("%w: %w", errFeed, err)
	}
	return f.buf, nil
}

// patient gives the server the time to send the rest of a frame, or to take an answer.
// What is buffered needs none: to ask for the time costs as much as to read a frame.
func (f *feed) patient() error {
	now := time.Now()
	if f.limit.Sub(now) >= feedSilence/2 {
		return nil
	}
	f.limit = now.Add(feedSilence)
	if err := f.conn.SetDeadline(f.limit); err != nil {
		return fmt.Errorf("%w: %w", errFeed, err)
	}
	return nil
}

// answer writes a frame to the server.
func (f *feed) answer(text string) error {
	if err := f.patient(); err != nil {
		return err
	}
	if _, err := io.WriteString(f.conn, text); err != nil {
		return fmt.Errorf("%w: %w", errFeed, err)
	}
	return nil
}

// cut is bytes.Cut at one byte.
func cut(b []byte, at byte) (before, after []byte, found bool) {
	if i := bytes.IndexByte(b, at); i >= 0 {
		return b[:i], b[i+1:], true
	}
	return b, nil, false
}

// decimal reads a number of 1 to 19 digits.
func decimal(b []byte) (n uint64, ok bool) {
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}
