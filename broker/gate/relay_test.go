package gate

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// pipeConn is a connection that reads given pieces and keeps what is written.
type pipeConn struct {
	net.Conn
	pieces [][]byte
	out    bytes.Buffer
}

func (p *pipeConn) Read(b []byte) (int, error) {
	if len(p.pieces) == 0 {
		return 0, net.ErrClosed
	}
	n := copy(b, p.pieces[0])
	if p.pieces[0] = p.pieces[0][n:]; len(p.pieces[0]) == 0 {
		p.pieces = p.pieces[1:]
	}
	return n, nil
}
func (p *pipeConn) Write(b []byte) (int, error)      { return p.out.Write(b) }
func (p *pipeConn) Close() error                     { return nil }
func (p *pipeConn) SetReadDeadline(time.Time) error  { return nil }
func (p *pipeConn) SetWriteDeadline(time.Time) error { return nil }
func (p *pipeConn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// relayed runs the pieces through the relay of a lone connection.
func relayed(headers bool, pieces [][]byte) (out []byte, c *conn) {
	g := &Gate{cfg: Config{ServerID: "X", ServerName: "x", Limits: Limits{Payload: 1 << 16}}.withDefaults(), addr: &net.TCPAddr{}}
	client, server := &pipeConn{}, &pipeConn{pieces: pieces}
	c = newConn(g, client)
	defer c.life.end()
	c.session.up.nc = server
	c.session.opts.Headers = headers
	c.session.box = inbox{token: "TOKEN", up: "_INBOX.TOKEN."}
	for c.relay.step() {
	}
	c.relay.in.release()
	return client.out.Bytes(), c
}

func TestRelayFrames(t *testing.T) {
	hdr := "NATS/1.0\r\na: b\r\n\r\n"
	for _, row := range []struct{ name, in, want, plain string }{
		{"event", "MSG orders.a 1 2\r\nhi\r\n", "MSG orders.a 1 2\r\nhi\r\n", ""},
		{"own inbox", "MSG _INBOX.TOKEN.a.b 1 2\r\nhi\r\n", "MSG _INBOX.a.b 1 2\r\nhi\r\n", ""},
		{"own reply", "MSG rpc.a 1 _INBOX.TOKEN.x 2\r\nhi\r\n", "MSG rpc.a 1 _INBOX.x 2\r\nhi\r\n", ""},
		{"other's reply", "MSG rpc.a 1 _INBOX.OTHER.x 2\r\nhi\r\n", "MSG rpc.a 1 _INBOX.OTHER.x 2\r\nhi\r\n", ""},
		{"own reply of an event", "MSG orders.a 1 _INBOX.TOKEN.x 2\r\nhi\r\n", "MSG orders.a 1 _INBOX.x 2\r\nhi\r\n", ""},
		{"other's reply of an event", "MSG orders.a 1 _INBOX.OTHER.x 2\r\nhi\r\n", "MSG orders.a 1 2\r\nhi\r\n", ""},
		{"routed reply of an event", "MSG telemetry.a 1 _R_.x 2\r\nhi\r\n", "MSG telemetry.a 1 2\r\nhi\r\n", ""},
		{
			"other's reply of an event with headers", fmt.Sprintf("HMSG orders.a 1 _INBOX.OTHER.x %d %d\r\n%shi\r\n", len(hdr), len(hdr)+2, hdr),
			fmt.Sprintf("HMSG orders.a 1 %d %d\r\n%shi\r\n", len(hdr), len(hdr)+2, hdr), "MSG orders.a 1 2\r\nhi\r\n",
		},
		{"other's reply of discovery", "MSG $SRV.PING 1 _INBOX.OTHER.x 0\r\n\r\n", "MSG $SRV.PING 1 _INBOX.OTHER.x 0\r\n\r\n", ""},
		{"other's reply of an answer", "MSG _INBOX.TOKEN.a 1 _INBOX.OTHER.x 0\r\n\r\n", "MSG _INBOX.a 1 _INBOX.OTHER.x 0\r\n\r\n", ""},
		{"a subject as reply", "MSG rpc.a 1 orders.x 0\r\n\r\n", "MSG rpc.a 1 0\r\n\r\n", ""},
		{"flow control reply", "MSG _INBOX.TOKEN.a 1 $JS.FC.S.c.x 0\r\n\r\n", "MSG _INBOX.a 1 $JS.FC.S.c.x 0\r\n\r\n", ""},
		{"ack reply", "MSG orders.a 1 $JS.ACK.S.c.1.1.1.0.0 0\r\n\r\n", "MSG orders.a 1 $JS.ACK.S.c.1.1.1.0.0 0\r\n\r\n", ""},
		{
			"headers", fmt.Sprintf("HMSG orders.a 1 %d %d\r\n%shi\r\n", len(hdr), len(hdr)+2, hdr),
			fmt.Sprintf("HMSG orders.a 1 %d %d\r\n%shi\r\n", len(hdr), len(hdr)+2, hdr), "MSG orders.a 1 2\r\nhi\r\n",
		},
		{
			"headers to own inbox", fmt.Sprintf("HMSG _INBOX.TOKEN.q 1 %d %d\r\n%s\r\n", len(hdr), len(hdr), hdr),
			fmt.Sprintf("HMSG _INBOX.q 1 %d %d\r\n%s\r\n", len(hdr), len(hdr), hdr), "MSG _INBOX.q 1 0\r\n\r\n",
		},
		{"info", "INFO {\"connect_urls\":[\"127.0.0.1:1\"]}\r\nPING\r\n", "PING\r\n", ""},
		{"ok", "+OK\r\nPING\r\n", "PING\r\n", ""},
		{"pong", "PONG\r\nPONG\r\n", "PONG\r\nPONG\r\n", ""},
		{"err", "-ERR 'Permissions Violation for Subscription to \"_INBOX.TOKEN.a\"'\r\n", "-ERR 'Permissions Violation for Subscription to \"_INBOX.a\"'\r\n", ""},
		{"ack without a barrier", "MSG _INBOX.TOKEN.a 1 27\r\n{\"stream\":\"ORDERS\",\"seq\":1}\r\n", "MSG _INBOX.a 1 27\r\n{\"stream\":\"ORDERS\",\"seq\":1}\r\n", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			tail := "MSG end 9 0\r\n\r\n"
			out, _ := relayed(true, [][]byte{[]byte(row.in + tail)})
			if string(out) != row.want+tail {
				t.Errorf("got  %q\nwant %q", out, row.want+tail)
			}
			if row.plain == "" {
				row.plain = row.want
			}
			out, _ = relayed(false, [][]byte{[]byte(row.in + tail)})
			if string(out) != row.plain+tail {
				t.Errorf("without headers:\ngot  %q\nwant %q", out, row.plain+tail)
			}
		})
	}
	for _, bad := range []string{"MSG a 1\r\n", "MSG a 1 x\r\n", "HMSG a 1 5 2\r\nhi\r\n", "FOO\r\n", "MSG a 1 2\n", "MSG a 1 r q 2\r\n", "MSG a 1 999999999\r\n"} {
		if out, c := relayed(true, [][]byte{[]byte(bad)}); c.life.ctx.Err() == nil && len(out) > 0 {
			t.Errorf("%q was relayed as %q", bad, out)
		}
	}
	_, c := relayed(true, [][]byte{[]byte("MSG rpc.a 1 _INBOX.OTHER.x 0\r\n\r\nMSG rpc.a 1 _R_.abc 0\r\n\r\nMSG orders.a 1 _INBOX.OTHER.event 0\r\n\r\nMSG a 1 $JS.ACK.x 0\r\n\r\nMSG a 1 _INBOX.TOKEN.y 0\r\n\r\n")})
	now := time.Now()
	for subject, want := range map[string]bool{"_INBOX.OTHER.x": true, "_R_.abc": true, "_INBOX.OTHER.event": false, "$JS.ACK.x": false, "_INBOX.TOKEN.y": false} {
		if got := c.session.handed.has([]byte(subject), now); got != want {
			t.Errorf("handed %s: %v", subject, got)
		}
	}
}

// randomFrames makes a stream and what the client must see of it.
func randomFrames(r *rand.Rand) (in, want []byte) {
	subjects := [][2]string{
		{"orders.a", "orders.a"},
		{"rpc.a", "rpc.a"},
		{"_INBOX.TOKEN.a", "_INBOX.a"},
		{"_INBOX.TOKENS.a", "_INBOX.TOKENS.a"},
		{"_INBOX.OTHER.b.c", "_INBOX.OTHER.b.c"},
		{"$JS.ACK.S.c.1.1.1.0.0", "$JS.ACK.S.c.1.1.1.0.0"},
	}
	for range 1 + r.IntN(8) {
		switch r.IntN(8) {
		case 0:
			in, want = append(in, "PING\r\n"...), append(want, "PING\r\n"...)
		case 1:
			in = append(in, "INFO {\"x\":1}\r\n"...)
		default:
			s, rep := subjects[r.IntN(len(subjects))], subjects[r.IntN(len(subjects))]
			switch request := s[0] == "_INBOX.TOKEN.a" || s[0] == "rpc.a"; {
			case r.IntN(2) == 0:
				rep = [2]string{}
			case rep[0] == "orders.a" || rep[0] == "rpc.a" || !request && (rep[0] == "_INBOX.TOKENS.a" || rep[0] == "_INBOX.OTHER.b.c"):
				rep[1] = ""
			}
			size := r.IntN(40)
			if r.IntN(8) == 0 {
				size = r.IntN(20000)
			}
			payload := bytes.Repeat([]byte("\r\nMSG _INBOX.TOKEN.a 1 2\r\n"), size/26+1)[:size]
			header := []byte(wire.HeaderLine + "a: " + strings.Repeat("b", r.IntN(30)) + "\r\n\r\n")
			if r.IntN(2) == 0 {
				in = wire.AppendMsg(in, []byte(s[0]), []byte("12"), []byte(rep[0]), payload)
				want = wire.AppendMsg(want, []byte(s[1]), []byte("12"), []byte(rep[1]), payload)
				continue
			}
			in = appendHMsg(in, s[0], rep[0], header, payload)
			want = appendHMsg(want, s[1], rep[1], header, payload)
		}
	}
	return in, want
}

func appendHMsg(dst []byte, subject, reply string, header, payload []byte) []byte {
	if reply != "" {
		reply += " "
	}
	dst = fmt.Appendf(dst, "HMSG %s 12 %s%d %d\r\n", subject, reply, len(header), len(header)+len(payload))
	dst = append(append(dst, header...), payload...)
	return append(dst, '\r', '\n')
}

func FuzzRelay(f *testing.F) {
	for i := range uint64(20) {
		f.Add(i, i*7+1)
	}
	f.Fuzz(func(t *testing.T, seed, cuts uint64) {
		r := rand.New(rand.NewPCG(seed, cuts))
		in, want := randomFrames(r)
		var pieces [][]byte
		for rest := bytes.Clone(in); len(rest) > 0; {
			n := 1 + r.IntN(len(rest))
			if cuts%3 == 0 {
				n = min(n, 1+r.IntN(7))
			}
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		if out, _ := relayed(true, pieces); !bytes.Equal(out, want) {
			t.Errorf("in   %q\ngot  %q\nwant %q", in, out, want)
		}
	})
}

// FuzzRelayBytes feeds anything: no panic, and what is not a frame never passes.
func FuzzRelayBytes(f *testing.F) {
	f.Add([]byte("MSG a 1 2\r\nhi\r\nHMSG b 1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"))
	f.Add([]byte("MSG a 1 999999999\r\n-ERR 'x'\r\n+OK\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, _ := relayed(true, [][]byte{bytes.Clone(in)})
		bytewise := make([][]byte, 0, len(in))
		for _, b := range in {
			bytewise = append(bytewise, []byte{b})
		}
		if drip, _ := relayed(true, bytewise); !bytes.HasPrefix(whole, drip) && !bytes.HasPrefix(drip, whole) {
			t.Errorf("whole %q\ndrip  %q", whole, drip)
		}
	})
}

func BenchmarkRelay(b *testing.B) {
	for _, row := range []struct{ name, subject, reply string }{
		{"event", "orders.eu.created", ""},
		{"consumer", "orders.eu.created", "$JS.ACK.ORDERS.BILLING.1.123456.123456.1795337613857168156.0"},
		{"inbox", "_INBOX.TOKEN.abcdefghijklmnop.abcdef", ""},
		{"request", "rpc.billing.charge", "_INBOX.abcdefghijklmnopqrstuv.abcdefghijklmnop.abcdef"},
	} {
		b.Run(row.name, func(b *testing.B) {
			var chunk []byte
			n := 0
			for ; len(chunk) < 60000; n++ {
				chunk = wire.AppendMsg(chunk, []byte(row.subject), []byte("12"), []byte(row.reply), make([]byte, 256))
			}
			_, c := relayed(true, nil)
			client := c.session.down.nc.(*pipeConn)
			c.relay.in = window{buf: getBuffer(largeBuffer)}
			b.ReportAllocs()
			for range b.N {
				client.out.Reset()
				c.relay.in.r, c.relay.in.w = 0, copy(c.relay.in.buf, chunk)
				if err := c.relay.chunk(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/msg")
		})
	}
}
