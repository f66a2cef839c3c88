package gate

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func newParser() parser {
	return parser{maxLine: 64, maxConnect: 128, maxPayload: 100, headers: true}
}

// parsed is the result of a whole stream: a printable form of each operation and
// the error that ended it.
type parsed struct {
	ops []string
	err error
}

func (c *command) String() string {
	return fmt.Sprintf("%d subject=%q reply=%q queue=%q sid=%q header=%q payload=%q max=%d arg=%q",
		c.verb, c.subject, c.reply, c.queue, c.sid, c.header, c.payload, c.max, c.arg)
}

// parseAll feeds the stream in the given pieces through a window, as the reader does.
func parseAll(p parser, pieces ...[]byte) (out parsed) {
	var w window
	defer w.release()
	var c command
	for _, piece := range pieces {
		for len(piece) > 0 {
			n := copy(w.room(p.need), piece)
			w.filled(n)
			piece = piece[n:]
			for {
				n, err := p.next(w.unread(), &c)
				if err != nil {
					out.err = err
					return out
				}
				if n == 0 {
					break
				}
				out.ops = append(out.ops, c.String())
				w.r += n
			}
		}
	}
	return out
}

func (p parsed) equal(o parsed) bool {
	return errors.Is(p.err, o.err) && strings.Join(p.ops, "\n") == strings.Join(o.ops, "\n")
}

func TestParser(t *testing.T) {
	for _, row := range []struct {
		name, in string
		want     command
		err      error
	}{
		{"pub", "PUB a 2\r\nhi\r\n", command{verb: verbPub, subject: []byte("a"), payload: []byte("hi")}, nil},
		{"pub reply", "pub a r 2\r\nhi\r\n", command{verb: verbPub, subject: []byte("a"), reply: []byte("r"), payload: []byte("hi")}, nil},
		{"pub blanks", "PuB \t a\t \tr  002 \r\nhi\r\n", command{verb: verbPub, subject: []byte("a"), reply: []byte("r"), payload: []byte("hi")}, nil},
		{"pub LF", "PUB a 0\n\r\n", command{verb: verbPub, subject: []byte("a")}, nil},
		{"payload with CRLF", "PUB a 6\r\n\r\nPING\r\n", command{verb: verbPub, subject: []byte("a"), payload: []byte("\r\nPING")}, nil},
		{"hpub", "HPUB a 3 5\r\nxyzhi\r\n", command{verb: verbPub, subject: []byte("a"), header: []byte("xyz"), payload: []byte("hi")}, nil},
		{"hpub empty header", "HPUB a r 0 2\r\nhi\r\n", command{verb: verbPub, subject: []byte("a"), reply: []byte("r"), payload: []byte("hi")}, nil},
		{"sub", "SUB a 1\r\n", command{verb: verbSub, subject: []byte("a"), sid: []byte("1")}, nil},
		{"sub queue", "sub a q 1\n", command{verb: verbSub, subject: []byte("a"), queue: []byte("q"), sid: []byte("1")}, nil},
		{"unsub", "UNSUB 1\r\n", command{verb: verbUnsub, sid: []byte("1")}, nil},
		{"unsub max", "UNSUB 1 5\r\n", command{verb: verbUnsub, sid: []byte("1"), max: 5}, nil},
		{"ping", "PING\r\n", command{verb: verbPing}, nil},
		{"pong blanks", "pong \t\r\n", command{verb: verbPong}, nil},
		{"ok", "+OK\r\n", command{verb: verbOK}, nil},
		{"err", "-ERR 'x'\r\n", command{verb: verbErr}, nil},
		{"connect", "CONNECT {}\r\n", command{verb: verbConnect, arg: []byte("{}")}, nil},
		{"connect tight", "CONNECT{}\n", command{verb: verbConnect, arg: []byte("{}")}, nil},
		{"exact payload", "PUB a 100\r\n" + strings.Repeat("x", 100) + "\r\n", command{verb: verbPub, subject: []byte("a"), payload: bytes.Repeat([]byte("x"), 100)}, nil},

		{"over payload", "PUB a 101\r\n", command{}, errPayload},
		{"no size", "PUB a\r\n", command{}, errArguments},
		{"four arguments", "PUB a b c 1\r\n", command{}, errArguments},
		{"ten digits", "PUB a 0000000001\r\n", command{}, errArguments},
		{"plus", "PUB a +1\r\n", command{}, errArguments},
		{"hex", "PUB a 0x1\r\n", command{}, errArguments},
		{"header over total", "HPUB a 3 2\r\n", command{}, errArguments},
		{"hpub one size", "HPUB a 3\r\n", command{}, errArguments},
		{"hpub five", "HPUB a b c 1 1\r\n", command{}, errArguments},
		{"payload short", "PUB a 3\r\nhi\r\n\r\n", command{}, errArguments},
		{"payload LF", "PUB a 2\r\nhi\n\n", command{}, errArguments},
		{"CR inside", "PUB a\rb 1\r\n", command{}, errArguments},
		{"two CR", "PING\r\r\n", command{}, errArguments},
		{"sub alone", "SUB a\r\n", command{}, errArguments},
		{"sub four", "SUB a b c d\r\n", command{}, errArguments},
		{"sid bytes", "SUB a \x01\r\n", command{}, errArguments},
		{"sid long", "UNSUB " + strings.Repeat("9", 65) + "\r\n", command{}, errControlLine},
		{"unsub words", "UNSUB 1 x\r\n", command{}, errArguments},
		{"ping more", "PING x\r\n", command{}, errArguments},
		{"pinged", "PINGx\r\n", command{}, errArguments},
		{"connect empty", "CONNECT \r\n", command{}, errArguments},
		{"verb", "FOO a\r\n", command{}, errVerb},
		{"verb first byte", "\r\nPING\r\n", command{}, errVerb},
		{"info", "INFO {}\r\n", command{}, errVerb},
		{"msg", "MSG a 1 1\r\n", command{}, errVerb},
		{"half a verb", "PU\n", command{}, errVerb},
		{"no blank", "PUBa 1\r\n", command{}, errVerb},
		{"long line", "SUB " + strings.Repeat("a", 70) + " 1\r\n", command{}, errControlLine},
		{"long open line", "SUB " + strings.Repeat("a", 70), command{}, errControlLine},
		{"long line with a CR", "SUB \r" + strings.Repeat("a", 70) + "\n", command{}, errControlLine},
		{"long blanks", "SUB " + strings.Repeat(" ", 70), command{}, errControlLine},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newParser()
			var c command
			n, err := p.next([]byte(row.in), &c)
			if !errors.Is(err, row.err) {
				t.Fatalf("error %v, want %v", err, row.err)
			}
			if err == nil && (n != len(row.in) || c.String() != row.want.String()) {
				t.Errorf("took %d of %d\n got %v\nwant %v", n, len(row.in), &c, &row.want)
			}
		})
	}
}

var streamSeeds = []string{
	"PUB a 2\r\nhi\r\nPING\r\nSUB b q 1\r\nUNSUB 1 3\r\nHPUB a r 12 14\r\nNATS/1.0\r\n\r\nhi\r\npong\n",
	"CONNECT {\"verbose\":false}\r\n+OK\r\n-ERR 'x'\r\n",
	"PUB a 101\r\n", "pub\t\ta\t0\n\r\nPUB a\rb 1\r\nx\r\n", "SUB " + "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	"SUB \r" + strings.Repeat("0", 64) + "\n", "HPUB a 0 0\r\n\r\n", "PUB a 5\r\nPING\r\n\r\n", "PINGx\n", "MSG a 1 2\r\n", "unsub 1 99999999999\r\n",
}

func FuzzParser(f *testing.F) {
	for _, s := range streamSeeds {
		f.Add([]byte(s), uint16(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, at uint16) {
		if len(in) > 4096 {
			return
		}
		whole := parseAll(newParser(), in)
		cut := int(at) % (len(in) + 1)
		if split := parseAll(newParser(), in[:cut], in[cut:]); !split.equal(whole) {
			t.Errorf("split at %d:\n%v\nwhole:\n%v", cut, split, whole)
		}
		bytewise := make([][]byte, len(in))
		for i := range in {
			bytewise[i] = in[i : i+1]
		}
		if drip := parseAll(newParser(), bytewise...); !drip.equal(whole) {
			t.Errorf("byte by byte:\n%v\nwhole:\n%v", drip, whole)
		}
	})
}

func TestWindowShrinks(t *testing.T) {
	var w window
	defer w.release()
	feed := func(n int) {
		for n > 0 {
			k := min(n, len(w.room(0)))
			w.filled(k)
			w.r = w.w
			n -= k
		}
	}
	feed(1000)
	feed(100000)
	if len(w.buf) != largeBuffer {
		t.Errorf("after a burst: %d bytes", len(w.buf))
	}
	for range shrinkAfter + 1 {
		feed(6)
	}
	if len(w.buf) != smallBuffer {
		t.Errorf("idle: %d bytes", len(w.buf))
	}
	if got := len(w.room(300000)); got < 300000 {
		t.Errorf("room for one message: %d", got)
	}
	feed(6)
	w.room(0)
	if len(w.buf) > largeBuffer {
		t.Errorf("after a large message: %d bytes", len(w.buf))
	}
}

func BenchmarkParser(b *testing.B) {
	frame := []byte("PUB orders.eu.created _INBOX.abcdefghijklmnopqrstuv.abcdef 256\r\n" + strings.Repeat("x", 256) + "\r\n")
	buf := bytes.Repeat(frame, 190)
	p := parser{maxLine: 4096, maxConnect: 4096, maxPayload: 1 << 20}
	var c command
	b.ReportAllocs()
	b.SetBytes(int64(len(frame)))
	for i := 0; b.Loop(); i++ {
		at := i % 190 * len(frame)
		if n, err := p.next(buf[at:], &c); n != len(frame) || err != nil {
			b.Fatal(n, err)
		}
	}
}
