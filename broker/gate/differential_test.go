package gate

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/internal/embed"
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

// compare runs the stream through both and compares what was published.
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
			failed, strict = io.EOF, true // the server finishes its buffer
		case verbPub:
			// The server answers these itself, or has its own use for them.
			if c.reply != nil && (c.reply[0] == '$' || c.reply[0] == '_') || c.subject[0] == '$' || c.subject[0] == '_' {
				return
			}
			if !emptyToken(c.subject) {
				want = append(want, delivery(c.subject, c.reply, c.header, c.payload))
			}
		}
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
	if strict {
		if len(got) < len(want) {
			t.Errorf("%q: the server took less: %q, the gate %q", stream, got, want)
		}
		return
	}
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

// FuzzDifferential compares the parser with nats-server itself.
func FuzzDifferential(f *testing.F) {
	for _, s := range append(streamSeeds,
		"PUB a 3\r\nabc\r\nPUB b r 0\r\n\r\nPING\r\n", "hpub a 12 15\r\nNATS/1.0\r\n\r\nabc\r\npInG\r\n", "PUB a 3\nabc\r\nPING\n",
		"PUB a 3\r\nabc\nPING\r\n", "PUB \t a \t 1 \r\nx\r\nPING\r\n", "PUB a 1\r\nxy\r\nPING\r\n", "PUB a 000000001\r\nx\r\nPING\r\n",
		"PUB a 0000000001\r\nx\r\nPING\r\n", "PUB a\x00b 1\r\nx\r\nPING\r\n", "PUB a \xff 1\r\nx\r\n", "HPUB a 0 1\r\nx\r\nPING\r\n",
		"HPUB a 2 1\r\nx\r\n", "PUB a b c 1\r\nx\r\n", "SUB a 1\r\nUNSUB 1\r\nPING\r\n", "PUB a 2000000\r\n", "\nPING\r\n", "PUB a -1\r\n",
		"-ERR 'x'\r\nPUB a 1\r\nx\r\n", "+ok \r\nPUB a 1\r\nx\r\n", "PUB > 1\r\nx\r\nPUB a.* 1\r\nx\r\n",
	) {
		f.Add([]byte(s))
	}
	s, watcher := startPlain(f)
	f.Fuzz(func(t *testing.T, stream []byte) {
		if len(stream) > 2048 || bytes.Contains(stream, []byte("$")) {
			return
		}
		compare(t, s, watcher, stream)
	})
}
