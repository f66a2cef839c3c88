package gate

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/internal/wire"
)

// plain is a connection to the embedded server without a gate.
type plain struct {
	t  testing.TB
	nc *net.TCPConn
	in window
}

var dialed atomic.Uint32

// dialFrom dials from another loopback address each time: minutes of fuzzing would
// use up the ports of one, which rest for a minute after each connection.
func dialFrom(ctx context.Context, s *embed.Server) (net.Conn, error) {
	n := dialed.Add(1)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(n>>8), byte(n))}}
	if nc, err := d.DialContext(ctx, "tcp4", s.Addr().String()); err == nil {
		return nc, nil
	}
	return s.Dial(ctx) // not every system has all of 127/8
}

func dialPlain(t testing.TB, s *embed.Server) *plain {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	nc, err := dialFrom(ctx, s)
	check(t, err)
	all := []string{">"}
	token, revoke := s.Ticket("plain", all, all, nc.LocalAddr())
	p := &plain{t: t, nc: nc.(*net.TCPConn)}
	check(t, nc.SetDeadline(time.Now().Add(testTimeout)))
	_, err = fmt.Fprintf(nc, "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":false,\"auth_token\":%q}\r\nPING\r\n", token)
	check(t, err)
	p.untilPong()
	t.Cleanup(func() { nc.Close(); revoke() })
	return p
}

// next returns the next frame; ok is false at the end.
func (p *plain) next() (f frame, ok bool) {
	for {
		n, need, err := nextFrame(p.in.unread(), 1<<26, &f)
		check(p.t, err)
		if n > 0 {
			p.in.r += n
			return f, true
		}
		n, err = p.nc.Read(p.in.room(need))
		p.in.filled(n)
		if err != nil && n == 0 {
			return f, false
		}
	}
}

// untilPong returns the messages before the PONG.
func (p *plain) untilPong() (got []string) {
	for {
		f, ok := p.next()
		switch {
		case !ok:
			p.t.Fatal("the server closed the connection")
		case f.kind == framePong:
			return got
		case f.kind <= frameHMsg:
			got = append(got, delivery(f.subject, f.reply, f.header, f.payload))
		}
	}
}

func delivery(subject, reply, header, payload []byte) string {
	return fmt.Sprintf("%q %q %q %q", subject, reply, header, payload)
}

// strictness says whether a refused operation is one where the gate is stricter
// than nats-server on purpose; the list is the one in parser.go.
func strictness(line []byte) bool {
	end := bytes.IndexByte(line, '\n')
	if end < 0 {
		end = len(line)
	}
	line = bytes.TrimSuffix(line[:end], []byte("\r"))
	upper := strings.ToUpper(string(line))
	verb, args, _ := strings.Cut(strings.ReplaceAll(upper, "\t", " "), " ")
	switch {
	case bytes.IndexByte(line, '\r') >= 0:
		return true // a CR inside
	case strings.HasPrefix(upper, "PING"), strings.HasPrefix(upper, "PONG"), strings.HasPrefix(upper, "+OK"):
		return true // something after it
	case strings.HasPrefix(upper, "INFO"), strings.HasPrefix(upper, "MSG"), strings.HasPrefix(upper, "HMSG"):
		return true
	case strings.HasPrefix(upper, "CONNECT"):
		return true // not after the first
	case strings.Trim(args, " ") == "":
		return true // an empty argument line
	case verb == "SUB" || verb == "UNSUB":
		return true // the sid's grammar, the max of UNSUB; the server splits at more bytes
	}
	return false
}

// servers says whether the server answers the subject itself, or has its own use for
// it. Inboxes are anybody's.
func servers(subject []byte) bool {
	return len(subject) > 0 && (subject[0] == '$' || subject[0] == '_' && !bytes.HasPrefix(subject, []byte("_INBOX.")))
}

// compareHeaders compares wire's reading of a header block with that of nats.go,
// which the receivers use. What wire accepts, nats.go must read alike: the same names
// byte for byte, and for each the same values in the same order. Differences that are
// meant:
//
//   - nats.go keeps blanks at the end of a value, wire cuts them;
//   - wire refuses what nats.go makes something of: lines that end with a bare LF,
//     status lines, text after the version or the empty line, names that are empty
//     (nats.go drops the line) or no tokens, values with control characters or that
//     are not UTF-8, and more than MaxHeaders headers or MaxHeaderBytes bytes;
//   - no bytes at all are no headers for wire and an error for nats.go, which does
//     not decode them: the message says that it has none.
func compareHeaders(t *testing.T, block []byte) {
	var h wire.Headers
	if len(block) == 0 || h.Parse(block) != nil {
		return
	}
	theirs, err := nats.DecodeHeadersMsg(block)
	if err != nil {
		t.Errorf("%q: nats.go: %v", block, err)
		return
	}
	ours := nats.Header{}
	for _, f := range h.All() {
		ours[string(f.Name)] = append(ours[string(f.Name)], string(f.Value))
	}
	for _, values := range theirs {
		for i := range values {
			values[i] = strings.TrimRight(values[i], " \t")
		}
	}
	if !reflect.DeepEqual(ours, theirs) {
		t.Errorf("%q:\nnats.go %q\nwire    %q", block, theirs, ours)
	}
}

// compare runs the stream through both and compares what was published: subject,
// reply, header block and payload byte for byte. Of what the gate refuses by its own
// strictness the server gets nothing; what it refuses otherwise must be refused by the
// server too.
func compare(t *testing.T, s *embed.Server, watcher *plain, stream []byte) {
	p := parser{maxLine: 8 << 10, maxConnect: 8 << 10, maxPayload: embed.DefaultMaxPayload, headers: true}
	var want []string
	var c command
	pings, rest, strict := 0, stream, false
	var failed error
	for failed == nil {
		n, err := p.next(rest, &c)
		if err == nil && n > 0 && c.verb == verbConnect {
			err, n = errArguments, 0 // the gate refuses a second one
		}
		if err != nil {
			failed, strict = err, strictness(rest)
			break
		}
		if n == 0 {
			break
		}
		rest = rest[n:]
		switch c.verb {
		case verbPing:
			pings++
		case verbErr:
			failed, strict = io.EOF, true // the server finishes what it has read
		case verbPub:
			if servers(c.subject) || servers(c.reply) || bytes.Contains(c.header, []byte("Nats-Trace-")) {
				return
			}
			compareHeaders(t, c.header)
			if !emptyToken(c.subject) {
				want = append(want, delivery(c.subject, c.reply, c.header, c.payload))
			}
		}
	}
	if strict {
		// What the server makes of it is its own affair, and can not always be read: it
		// delivers "PUB \na 0" with a subject that starts with the LF.
		stream = stream[:len(stream)-len(rest)]
	}
	server := dialPlain(t, s)
	_, _ = server.nc.Write(stream) // the server may have closed already
	_ = server.nc.CloseWrite()
	pongs := 0
	for {
		f, ok := server.next()
		if !ok {
			break
		}
		if f.kind == framePong {
			pongs++
		}
	}
	check(t, watcher.nc.SetDeadline(time.Now().Add(testTimeout)))
	watcher.t = t
	_, err := watcher.nc.Write(pingFrame)
	check(t, err)
	got := watcher.untilPong()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q:\nserver %q\ngate   %q (%v)", stream, got, want, failed)
	}
	// A reset may lose PONGs of a connection that was cut.
	if failed == nil && pongs != pings {
		t.Errorf("%q: %d PONGs from the server, %d PINGs at the gate", stream, pongs, pings)
	}
}

func emptyToken(s []byte) bool {
	return s[0] == '.' || s[len(s)-1] == '.' || bytes.Contains(s, []byte(".."))
}

func startPlain(t testing.TB) (*embed.Server, *plain) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	s, err := embed.Start(ctx, embed.Config{StoreDir: t.TempDir(), ServerName: "plain", Tenants: []embed.TenantAccount{{Name: "plain", MaxBytes: 1 << 20}}})
	check(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		defer cancel()
		check(t, s.Shutdown(ctx))
	})
	w := dialPlain(t, s)
	_, err = w.nc.Write([]byte("SUB > 1\r\nPING\r\n"))
	check(t, err)
	w.untilPong()
	return s, w
}

// withHeaders puts a publish with these header lines before the stream: mutations
// seldom leave the sizes of an HPUB and the frame of its header block right.
func withHeaders(lines, stream []byte) []byte {
	if len(lines) == 0 {
		return stream
	}
	block := slices.Concat([]byte(wire.HeaderLine), lines, []byte("\r\n\r\n"))
	pub := fmt.Appendf(nil, "HPUB h _INBOX.r %d %d\r\n", len(block), len(block)+2)
	return slices.Concat(pub, block, []byte("hi\r\n"), stream)
}

// FuzzDifferential compares the parser with nats-server itself, and the header parser
// with that of nats.go.
func FuzzDifferential(f *testing.F) {
	for _, s := range append(streamSeeds,
		"PUB a 3\r\nabc\r\nPUB b r 0\r\n\r\nPING\r\n", "hpub a 12 15\r\nNATS/1.0\r\n\r\nabc\r\npInG\r\n", "PUB a 3\nabc\r\nPING\n",
		"PUB a 3\r\nabc\nPING\r\n", "PUB \t a \t 1 \r\nx\r\nPING\r\n", "PUB a 1\r\nxy\r\nPING\r\n", "PUB a 000000001\r\nx\r\nPING\r\n",
		"PUB a 0000000001\r\nx\r\nPING\r\n", "PUB a\x00b 1\r\nx\r\nPING\r\n", "PUB a \xff 1\r\nx\r\n", "HPUB a 0 1\r\nx\r\nPING\r\n",
		"HPUB a 2 1\r\nx\r\n", "PUB a b c 1\r\nx\r\n", "SUB a 1\r\nUNSUB 1\r\nPING\r\n", "PUB a 2000000\r\n", "\nPING\r\n", "PUB a -1\r\n",
		"-ERR 'x'\r\nPUB a 1\r\nx\r\n", "+ok \r\nPUB a 1\r\nx\r\n", "PUB > 1\r\nx\r\nPUB a.* 1\r\nx\r\n",
		"PUB a _INBOX.a.1 2\r\nhi\r\nPING\r\n", "SUB _INBOX.a.* 1\r\nPUB a _INBOX.a.1 1\r\nx\r\nPUB _INBOX.a.1 1\r\ny\r\nPING\r\n",
		"PUB _INBOX.a 1\r\nx\r\nPUB _INBOX. 1\r\nx\r\nPUB a _INBOX.> 1\r\nx\r\n", "UNSUB 1 x\r\nPUB _INBOX.a _INBOX.b 0\r\n\r\n",
		"HPUB a _INBOX.a.1 18 20\r\nNATS/1.0\r\na: 1\r\n\r\nhi\r\nPING\r\n", "PUB a$b c$ 3\r\n1$2\r\n",
	) {
		f.Add([]byte(s), []byte(nil))
	}
	for _, s := range []string{
		"a: b", "a:b\r\nA: c\r\na:  \t d \t ", "a:\r\nb: \r\nc: x: y", "ce-id: 1\r\nce-type: a%20b\r\nNats-Msg-Id: 1",
		"a: \u00a0€\u2003", "a: b\nc: d", ": x", " a: b", "a : b", "a", "a: b\rc", "a: b\r", "a: \xff",
		"a: b\r\n\r\nc: d", "!#$%&'*+.^`|~: $1",
	} {
		f.Add([]byte("PING\r\n"), []byte(s))
	}
	for _, s := range []string{"NATS/1.0 503\r\n\r\n", "NATS/1.0 503 None\r\na: b\r\n\r\n", "NATS/1.0\n\n", "NATS/1.0\r\na: b\r\n", "NATS/1.00\r\n\r\n"} {
		f.Add(fmt.Appendf(nil, "HPUB a %d %d\r\n%s\r\nPING\r\n", len(s), len(s), s), []byte(nil))
	}
	s, watcher := startPlain(f)
	f.Fuzz(func(t *testing.T, stream, lines []byte) {
		if len(stream)+len(lines) > 2048 {
			return
		}
		compare(t, s, watcher, withHeaders(lines, stream))
	})
}
