package broker_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/wire"
)

// TestConnectWithABadKey: unknown, disabled and missing keys are turned away with
// the same words, so that nobody learns which keys are known.
func TestConnectWithABadKey(t *testing.T) {
	b := newBroker(t)
	stranger := b.State.Dir + "/stranger.nk"
	kp := must(nkeys.CreateUser())(t)
	check(t, os.WriteFile(stranger, must(kp.Seed())(t), 0o600))
	var answers []string
	for _, seed := range []string{stranger, b.Cred("off")} {
		r, _ := rawTLS(t, b, seed)
		r.send("PING\r\n")
		answers = append(answers, r.rest())
	}
	if answers[0] != answers[1] || !strings.HasPrefix(answers[0], "-ERR 'Authorization Violation") {
		t.Errorf("unknown: %q\ndisabled: %q", answers[0], answers[1])
	}
	for name, opts := range map[string][]nats.Option{
		"no key": {}, "token": {nats.Token("x")}, "user": {nats.UserInfo("root", "x")},
		"a node key":   {nats.Nkey(must(must(nkeys.CreateServer())(t).PublicKey())(t), func(n []byte) ([]byte, error) { return n, nil })},
		"no signature": {nats.Nkey(must(kp.PublicKey())(t), func([]byte) ([]byte, error) { return nil, nil })},
	} {
		nc, err := nats.Connect(b.URL(), append(opts, nats.Secure(b.TLS()), nats.NoReconnect())...)
		if err == nil {
			nc.Close()
			t.Errorf("%s: connected", name)
		} else if !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A signature of another's nonce.
	known := must(nkeys.FromSeed(must(os.ReadFile(b.Cred("root")))(t)[:58]))(t)
	nc, err := nats.Connect(b.URL(), nats.Secure(b.TLS()), nats.NoReconnect(),
		nats.Nkey(must(known.PublicKey())(t), func([]byte) ([]byte, error) { return known.Sign([]byte("AAAAAAAAAAAAAAA")) }))
	if !errors.Is(err, nats.ErrAuthorization) {
		if err == nil {
			nc.Close()
		}
		t.Errorf("another nonce: %v", err)
	}
	_, err = client.Connect(within(t), b.URL(), client.WithNkeySeedFile(stranger), client.WithTLSRoots(b.State.CA), client.WithRoot(b.State.Root))
	if !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("SDK: %v", err)
	}
	if n := len(inside(t, b, "shop").Servers()); n == 0 {
		t.Error("the broker is gone")
	}
}

// TestSecondConnect: one connection is one principal.
func TestSecondConnect(t *testing.T) {
	b := newBroker(t)
	r, line := rawTLS(t, b, b.Cred("narrow"))
	r.send("PING\r\n")
	if l := r.line(); l != "PONG" {
		t.Fatalf("%q", l)
	}
	r.send(line + "\r\nPUB orders.eu.x 1\r\nx\r\nPING\r\n")
	if got := r.rest(); !strings.HasPrefix(got, "-ERR '") || strings.Contains(got, "PONG") {
		t.Errorf("a second CONNECT: %q", got)
	}
	if n := streamOf(t, b, "shop", "ORDERS").State.Messages; n != 0 {
		t.Errorf("%d events after a second CONNECT", n)
	}
}

// TestPlaintextBeforeTLS: not one byte is taken before the upgrade, and no
// plaintext client gets further than INFO.
func TestPlaintextBeforeTLS(t *testing.T) {
	b := newBroker(t)
	for _, first := range []string{
		"CONNECT {}\r\nPING\r\n", "PING\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x00\x00\x00\x00", "PUB orders.eu.x 1\r\nx\r\n",
	} {
		r := dialRaw(t, b)
		r.send(first)
		got := r.rest()
		if strings.Contains(got, "PONG") || strings.Contains(got, "+OK") {
			t.Errorf("after %q: %q", first, got)
		}
	}
	// The INFO that a plaintext peer may read holds no address of the inside.
	r := dialRaw(t, b)
	info := r.line()
	_, port, _ := net.SplitHostPort(b.Upstream())
	for _, leak := range []string{port, "connect_urls", "\"ip\"", "xkey", "cluster", b.State.Dir} {
		if strings.Contains(info, leak) {
			t.Errorf("INFO tells %q: %s", leak, info)
		}
	}
	if !strings.Contains(info, `"tls_required":true`) || !strings.Contains(info, `"auth_required":true`) {
		t.Errorf("INFO %s", info)
	}
	// Smuggled in front of the handshake: the bytes must not survive it.
	r.send("PUB orders.eu.x 1\r\nx\r\n")
	if got := r.rest(); strings.Contains(got, "PONG") {
		t.Errorf("%q", got)
	}
	if n := streamOf(t, b, "shop", "ORDERS").State.Messages; n != 0 {
		t.Errorf("%d events from plaintext", n)
	}
}

// TestLoopbackPortNeedsATicket: the embedded server's own port is of no use to
// anybody but the gate.
func TestLoopbackPortNeedsATicket(t *testing.T) {
	b := newBroker(t)
	url := "nats://" + b.Upstream()
	seed := must(nats.NkeyOptionFromSeed(b.Cred("root")))(t)
	for name, opts := range map[string][]nats.Option{
		"nothing": {}, "nkey": {seed}, "token": {nats.Token("x")}, "empty token": {nats.Token("")}, "user": {nats.UserInfo("shop", "shop")},
		"account": {nats.UserInfo("shop", "")}, "system": {nats.UserInfo("sys", "pass")},
	} {
		if nc, err := nats.Connect(url, append(opts, nats.NoReconnect(), nats.Timeout(5*time.Second))...); err == nil {
			nc.Close()
			t.Errorf("%s: connected past the gate", name)
		}
	}
	host, _, err := net.SplitHostPort(b.Upstream())
	check(t, err)
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		t.Errorf("the server listens on %s", host)
	}
	// What the server says to a stranger on its port.
	nc := must(net.DialTimeout("tcp", b.Upstream(), patience))(t)
	defer nc.Close()
	check(t, nc.SetDeadline(time.Now().Add(patience)))
	r := &raw{Conn: nc, t: t}
	r.r = newReader(nc)
	r.line()
	r.send("CONNECT {\"verbose\":false}\r\nSUB > 1\r\nPING\r\n")
	if got := r.rest(); strings.Contains(got, "PONG") {
		t.Errorf("a stranger on the loopback port: %q", got)
	}
}

// TestRow03HeadersOnTheWire: a header block with two meanings is refused, on event
// and on bucket subjects, and the connection lives on.
func TestRow03HeadersOnTheWire(t *testing.T) {
	b := newBroker(t)
	r, _ := rawTLS(t, b, b.Cred("writer"))
	blocks := []string{
		"NATS/1.0\r\nx: a\x00b\r\n\r\n", "NATS/1.0\r\nx: a\x1bb\r\n\r\n", "NATS/1.0\r\nx: a\nNats-Rollup: all\r\n\r\n", "NATS/1.0\r\nx: a\rb\r\n\r\n",
		"NATS/1.0\r\n: a\r\n\r\n", "NATS/1.0\r\nnocolon\r\n\r\n", "NATS/1.0\r\nx : a\r\n\r\n", "NATS/1.0\r\n x: a\r\n\r\n", "NATS/1.0\r\nx: a\r\n", "NATS/1.0 503\r\n\r\n",
		"NATS/2.0\r\nx: a\r\n\r\n", "garbage\r\n\r\n", "NATS/1.0\r\nx: a\r\n\r\ny: b\r\n\r\n", "NATS/1.0\r\nce-id: 1\r\nce-id: 2\r\n\r\n", "NATS/1.0\r\nce-id: 1\r\nCE-ID: 2\r\n\r\n",
		"NATS/1.0\r\nx: \xff\xfe\r\n\r\n",
	}
	for _, subject := range []string{"orders.eu.x", "telemetry.x", "$KV.settings.k"} {
		for _, block := range blocks {
			if subject == "$KV.settings.k" && strings.Contains(block, "ce-id") {
				continue // no event, so no attribute
			}
			r.send(fmt.Sprintf("HPUB %s %d %d\r\n%sx\r\nPING\r\n", subject, len(block), len(block)+1, block))
			if l := r.line(); !strings.HasPrefix(l, "-ERR '") {
				t.Errorf("%s %q: %q", subject, block, l)
				continue
			}
			if l := r.line(); l != "PONG" {
				t.Fatalf("%s %q: then %q", subject, block, l)
			}
		}
	}
	if n := streamOf(t, b, "shop", "ORDERS").State.Messages + streamOf(t, b, "shop", "KV_settings").State.Messages; n != 0 {
		t.Errorf("%d stored", n)
	}
}

// TestRow04Subjects: no publish on wildcards or outside the grammar, whatever the
// grant.
func TestRow04Subjects(t *testing.T) {
	b := newBroker(t)
	r, _ := rawTLS(t, b, b.Cred("writer"))
	for _, s := range []string{
		"orders.*", "orders.>", ">", "*", "orders..x", ".orders", "orders.", "orders.x.", "orders.\x00", "orders.\x1b[31m", "orders.\xff", "orders.ordеrs", // a Cyrillic letter
		"orders.a+b", "orders.a'b", "orders.$JS", "orders." + strings.Repeat("a.", 20) + "a", "orders." + strings.Repeat("a", 300), "orders.a\\b", "orders.{x}",
	} {
		r.send("PUB " + s + " 1\r\nx\r\nPING\r\n")
		if l := r.line(); !strings.HasPrefix(l, "-ERR '") {
			t.Errorf("%q: %q", s, l)
			continue
		}
		if l := r.line(); l != "PONG" {
			t.Fatalf("%q: then %q", s, l)
		}
	}
	if n := streamOf(t, b, "shop", "ORDERS").State.Messages; n != 0 {
		t.Errorf("%d stored", n)
	}
	// What the log gets is escaped: a subject never reaches it raw (row 39).
	p := connect(t, b, "root")
	_, m := p.ask(t, "$SIGNET.API.refusals.ls", nil)
	if strings.ContainsAny(string(m.Data), "\x00\x1b") {
		t.Error("control characters in the refusals")
	}
}

// TestRow37LimitAcrossConnections: ten connections of one principal share its limit.
func TestRow37LimitAcrossConnections(t *testing.T) {
	b := newBroker(t)
	passed, limited := 0, 0
	for range 10 {
		p := connect(t, b, "throttled")
		for range 3 {
			problem, _ := p.ask(t, "orders.x", "x")
			switch {
			case problem == nil:
				passed++
			case problem.Code == wire.CodeRateLimited && problem.RetryAfterMs > 0 && problem.Rule == "limit slow":
				limited++
			default:
				t.Fatalf("%+v", problem)
			}
		}
	}
	// 2/s with a burst of a second; the loop takes well under ten seconds.
	if passed < 2 || passed > 22 || limited == 0 {
		t.Errorf("%d passed, %d limited", passed, limited)
	}
	if n := streamOf(t, b, "shop", "ORDERS").State.Messages; int(n) != passed {
		t.Errorf("%d stored, %d passed", n, passed)
	}
}
