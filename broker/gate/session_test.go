package gate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func TestRefusalAnswers(t *testing.T) {
	w := newWorld(t)
	for _, echo := range []string{"true", "false"} {
		r := w.login("writer", quiet+`,"echo":`+echo)
		r.send("SUB _INBOX.me.* 4\r\nPUB payments.a _INBOX.me.1 1\r\nx\r\nPING\r\n")
		if l := r.line(); !strings.HasPrefix(l, "MSG _INBOX.me.1 4 ") {
			t.Errorf("echo %s: %q", echo, l)
		}
		if l := r.line(); !strings.Contains(l, `"err_code":40101`) || !strings.Contains(l, `"code":40101`) || !strings.Contains(l, `"ref":"r`) {
			t.Errorf("echo %s: %q", echo, l)
		}
		r.want("PONG") // after the refusal
		// Without a subscription, and without a reply: -ERR.
		r.send("PUB payments.a _INBOX.other 1\r\nx\r\n")
		r.want("-ERR 'Permissions Violation for Publish to \"payments.a\": 40101 PublishDenied: ")
		r.send("PUB payments.a 1\r\nx\r\n")
		r.want("-ERR 'Permissions Violation for Publish to \"payments.a\": 40101 PublishDenied: ")
		// One answer ends a subscription with a limit of one, here and on the server.
		r.send("SUB _INBOX.once 5\r\nUNSUB 5 1\r\nPUB payments.a _INBOX.once 1\r\nx\r\n")
		r.want("MSG _INBOX.once 5 ")
		r.line()
		r.send("PUB payments.a _INBOX.once 1\r\nx\r\n")
		r.want("-ERR 'Permissions Violation")
		// The sid is free again.
		r.send("SUB _INBOX.again 5\r\nPUB payments.a _INBOX.again 1\r\nx\r\n")
		r.want("MSG _INBOX.again 5 ")
		r.line()
	}
}

// TestRefusalCost bounds what a client can make one refusal cost.
func TestRefusalCost(t *testing.T) {
	w := newWorld(t)
	r := w.login("writer", quiet)
	var subs strings.Builder
	for i := range 200 {
		fmt.Fprintf(&subs, "SUB _INBOX.w.* %d\r\nSUB _INBOX.l %d\r\n", i, 1000+i)
	}
	r.send(subs.String())
	got := r.pong()
	if len(got) != 200-maxWildInboxes || got[0] != "-ERR 'maximum subscriptions exceeded'" {
		t.Errorf("%d wildcard inboxes were refused: %q", len(got), got[:min(1, len(got))])
	}
	for _, inbox := range []string{"_INBOX.w.1", "_INBOX.l"} {
		r.send("PUB payments.a " + inbox + " 1\r\nx\r\n")
		if n := strings.Count(strings.Join(r.pong(), "\n"), "MSG "+inbox); n != maxTargets {
			t.Errorf("%s: %d answers", inbox, n)
		}
	}
}

// TestEndsOverTLS: the reason of an end arrives through TLS, whoever ends it.
func TestEndsOverTLS(t *testing.T) {
	var roots *x509.CertPool
	w := newWorld(t, tlsOption(t, HandshakeFirst, &roots), func(c *Config, _ *Deps) { c.Timeouts.Message = 100 * time.Millisecond })
	for name, row := range map[string]struct{ send, want string }{
		"parser":    {"FOO\r\n", "-ERR 'Unknown Protocol Operation'"},
		"slowloris": {"PUB orders.a 10\r\nx", "-ERR 'Stale Connection'"},
		"connect":   {"", "-ERR 'User Authentication Revoked'"},
	} {
		nc, err := tls.Dial("tcp", w.gate.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13})
		check(t, err)
		r := &raw{t: t, nc: nc}
		t.Cleanup(func() { nc.Close() })
		info := parseInfo(t, r.line())
		public, _ := w.keys["writer"].PublicKey()
		sig, err := w.keys["writer"].Sign([]byte(info.Nonce))
		check(t, err)
		r.send(fmt.Sprintf("CONNECT {\"nkey\":%q,\"sig\":%q,%s}\r\n", public, encodeSig(sig), quiet))
		r.pong()
		if row.send == "" {
			w.gate.Reload(w.compile(strings.Replace(w.text, "  - name: writer\n", "  - name: writer\n    disabled: true\n", 1)))
		}
		r.send(row.send)
		if got := r.closed(); got != row.want {
			t.Errorf("%s: %q", name, got)
		}
		w.gate.Reload(w.set)
	}
}

func TestAsyncErrorKeepsConnection(t *testing.T) {
	w := newWorld(t)
	errs := make(chan error, 4)
	nc := w.connect("writer", nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { errs <- err }))
	check(t, nc.Publish("payments.a", nil))
	_, err := nc.QueueSubscribe("payments.>", "q", func(*nats.Msg) {})
	check(t, err)
	check(t, nc.Flush())
	for range 2 {
		if err := <-errs; !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("got %v", err)
		}
	}
	if !nc.IsConnected() {
		t.Error("the connection was closed")
	}
}

func TestVerbose(t *testing.T) {
	w := newWorld(t)
	r := w.login("reader", `"protocol":1`) // verbose and pedantic by default
	r.want("+OK")
	r.send("SUB orders.> 1\r\n")
	r.want("+OK")
	r.send("SUB payments.> 2\r\n")
	r.want("-ERR 'Permissions Violation for Subscription to \"payments.>\": ")
	r.send("SUB orders.a..b 2\r\n")
	r.want("-ERR 'Invalid Subject'")
	r.send("UNSUB 1\r\n")
	r.want("+OK")
	r.send("UNSUB 99\r\n")
	r.want("+OK")
	r.send("PUB a..b 0\r\n\r\n")
	r.want("-ERR 'Invalid Publish Subject \"a..b\": 40200 ")
	r.send("PING\r\n")
	r.want("PONG")
	if i := parseInfo(t, r.line()); !i.ConnectInfo || i.Account != "shop" {
		t.Errorf("after the first PONG: %+v", i)
	}
}

func TestClientWithoutHeaders(t *testing.T) {
	w := newWorld(t)
	r := w.login("reader", `"verbose":false,"headers":false`)
	r.send("SUB telemetry.> 1\r\n")
	r.pong()
	check(t, w.connect("writer").Publish("telemetry.x", []byte("hello")))
	if l := r.want("MSG"); l != "MSG telemetry.x 1 5" {
		t.Errorf("got %q", l)
	}
	if l := r.line(); l != "hello" {
		t.Errorf("got %q", l)
	}
	r.send("HPUB orders.a 12 12\r\nNATS/1.0\r\n\r\n\r\n")
	if got := r.closed(); got != "-ERR 'message headers not supported'" {
		t.Errorf("HPUB: %q", got)
	}
}

func TestHandedInbox(t *testing.T) {
	now := time.Unix(1000, 0)
	h := newHanded(8, 10*time.Minute)
	h.add([]byte("_INBOX.x.1"), now)
	if !h.has([]byte("_INBOX.x.1"), now) || h.has([]byte("_INBOX.x.2"), now) {
		t.Error("at once")
	}
	if !h.has([]byte("_INBOX.x.1"), now.Add(4*time.Minute)) {
		t.Error("within the lifetime")
	}
	if h.has([]byte("_INBOX.x.1"), now.Add(11*time.Minute)) {
		t.Error("after the lifetime")
	}
	for i := range 100 {
		h.add(fmt.Appendf(nil, "_INBOX.y.%d", i), now.Add(12*time.Minute))
	}
	if n := len(h.now) + len(h.old); n > 8 {
		t.Errorf("%d remembered", n)
	}
	if !h.has([]byte("_INBOX.y.99"), now.Add(12*time.Minute)) || h.has([]byte("_INBOX.y.1"), now.Add(12*time.Minute)) {
		t.Error("the newest must stay")
	}
}

func TestWaitHoldsTheBatch(t *testing.T) {
	w := newWorld(t)
	js := w.jetstream("waiter")
	began := time.Now()
	for range 6 { // 20 per second, burst of one
		_, err := js.Publish(w.ctx(), "orders.eu.held", nil)
		check(t, err)
	}
	if d := time.Since(began); d < 200*time.Millisecond {
		t.Errorf("six publishes at 20/s took %v", d)
	}
	slow := w.login("writer", quiet)
	slow.send("SUB _INBOX.a 1\r\n" + strings.Repeat("PUB orders.eu.slow _INBOX.a 0\r\n\r\n", 2)) // in one batch
	if got := strings.Join(slow.pong(), "\n"); strings.Count(got, `"err_code":40500`) != 1 {
		t.Errorf("over the limit: %s", got)
	}
}

// gatedBarrier lets the test decide when storage is stable.
type gatedBarrier struct {
	mu    sync.Mutex
	waits int
	open  chan error
}

func (b *gatedBarrier) Wait(ctx context.Context) error {
	b.mu.Lock()
	b.waits++
	b.mu.Unlock()
	select {
	case err := <-b.open:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestBarrierHoldsAcks(t *testing.T) {
	b := &gatedBarrier{open: make(chan error)}
	w := newWorld(t, func(_ *Config, d *Deps) { d.Barrier = b })
	r := w.login("writer", quiet)
	r.send("SUB _INBOX.a 1\r\n")
	r.pong()
	r.send("PUB orders.a _INBOX.a 1\r\nx\r\nPUB orders.b _INBOX.a 1\r\nx\r\n")
	w.until("both are stored and held", func() bool { return w.gate.Stats().HeldAcks == 2 })
	// Everything else passes a held ack: refusals, PONGs, other frames.
	r.send("PUB payments.a _INBOX.a 1\r\nx\r\n")
	r.want("MSG _INBOX.a 1 ")
	if l := r.line(); !strings.Contains(l, "40101") {
		t.Errorf("got %q", l)
	}
	if got := r.pong(); len(got) != 0 {
		t.Errorf("before the barrier: %q", got)
	}
	for seen := 0; seen < 2; {
		select {
		case b.open <- nil:
		case <-time.After(testTimeout):
			t.Fatal("nobody waits at the barrier")
		}
		for seen < 2 {
			r.want("MSG _INBOX.a 1 ")
			if l := r.line(); !isPubAck([]byte(l)) {
				t.Errorf("got %q", l)
			}
			seen++
			b.mu.Lock()
			waits := b.waits
			b.mu.Unlock()
			if waits > seen {
				break
			}
		}
	}
	// A failed barrier ends the connection and releases nothing.
	r.send("PUB orders.c _INBOX.a 1\r\nx\r\n")
	w.until("held", func() bool { return w.gate.Stats().HeldAcks == 3 })
	b.open <- errors.New("EIO")
	if got := r.closed(); strings.Contains(got, "stream") {
		t.Errorf("released after a failed barrier: %q", got)
	}
	w.until("gone", func() bool { return w.gate.Stats().Connections == 0 })
}

func TestReload(t *testing.T) {
	w := newWorld(t)
	lost := make(chan error, 1)
	w.connect("narrow", nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { lost <- err }))
	reader := w.login("reader", quiet)
	reader.send("SUB orders.> 1\r\nSUB telemetry.> 2\r\n")
	reader.pong()
	writer := w.login("writer", quiet)
	writer.pong()
	text := strings.Replace(w.text, "    publish: [orders.>, telemetry.>]", "    publish: [telemetry.>]", 1)
	text = strings.Replace(text, "    subscribe: [orders.>, telemetry.>]", "    subscribe: [telemetry.>]", 1)
	text = strings.Replace(text, "  - name: narrow\n", "  - name: narrow\n    disabled: true\n", 1)
	set := w.compile(text)
	w.gate.Reload(set)
	check(t, w.embed.Reload())
	select {
	case err := <-lost:
		if !errors.Is(err, nats.ErrAuthRevoked) {
			t.Errorf("the disabled principal was told %v", err)
		}
	case <-time.After(testTimeout):
		t.Error("the disabled principal is still connected")
	}
	// The server's own reload says it too, and may be first.
	for l := ""; !strings.HasPrefix(l, "-ERR 'Permissions Violation for Subscription to \"orders.>\": "); {
		if l = reader.want("-ERR "); !strings.HasPrefix(l, "-ERR 'Permissions Violation for Subscription to \"orders.>\"") {
			t.Fatal(l)
		}
	}
	writer.send("PUB orders.a 1\r\nx\r\nPUB telemetry.a 1\r\ny\r\n")
	writer.want("-ERR 'Permissions Violation for Publish to \"orders.a\": 40101")
	for l := ""; !strings.HasPrefix(l, "HMSG telemetry.a 2 "); {
		// The server's own reload says it again.
		if l = reader.line(); !strings.HasPrefix(l, "HMSG ") && !strings.HasPrefix(l, "-ERR 'Permissions Violation for Subscription to \"orders.>\"") {
			t.Fatalf("got %q", l)
		}
	}
	if _, err := w.tryConnect("narrow"); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("the disabled principal connects: %v", err)
	}
}

func TestDrain(t *testing.T) {
	w := newWorld(t, func(c *Config, _ *Deps) { c.Timeouts.Drain = time.Second })
	r := w.login("writer", quiet)
	r.send("SUB _INBOX.a 1\r\n")
	r.pong()
	done := make(chan error, 1)
	go func() { done <- w.gate.Drain(context.Background()) }()
	for {
		l := r.line()
		if strings.HasPrefix(l, "INFO ") && parseInfo(t, l).LameDuck {
			break
		}
		if l == "EOF" {
			t.Fatal("closed without INFO")
		}
	}
	r.closed()
	check(t, <-done)
	if _, err := net.Dial("tcp", w.gate.Addr().String()); err == nil {
		t.Error("still listening")
	}
	check(t, w.gate.Shutdown(w.ctx()))
}

func TestServerLossEndsTheClient(t *testing.T) {
	w := newWorld(t)
	r := w.login("writer", quiet)
	r.pong()
	w.nc.Close()
	check(t, w.embed.Shutdown(w.ctx()))
	r.closed()
	w.until("gone", func() bool { return w.gate.Stats().Connections == 0 })
	if _, err := w.tryConnect("writer"); err == nil {
		t.Error("connected without a server")
	}
}

// TestFireAndForget sends and closes at once: everything must be stored.
func TestFireAndForget(t *testing.T) {
	w := newWorld(t)
	const n = 500
	for round := range 5 {
		r := w.login("writer", quiet)
		r.send("SUB _INBOX.a 1\r\n" + strings.Repeat("PUB orders.a _INBOX.a 3\r\nabc\r\n", n))
		check(t, r.nc.Close())
		w.until("all are stored", func() bool {
			s, err := w.js.Stream(w.ctx(), "ORDERS")
			check(t, err)
			return s.CachedInfo().State.Msgs == uint64((round+1)*n)
		})
	}
}

// TestSlowClient does not read: it is cut, and the publisher is not held up.
func TestSlowClient(t *testing.T) {
	w := newWorld(t, func(c *Config, _ *Deps) { c.Timeouts.Write = 100 * time.Millisecond })
	slow := w.login("reader", quiet)
	check(t, slow.nc.(*net.TCPConn).SetReadBuffer(4096))
	slow.send("SUB telemetry.> 1\r\n")
	slow.pong()
	p := w.connect("writer")
	payload := make([]byte, 64<<10)
	for i := 0; w.gate.Stats().Connections == 2; i++ {
		check(t, p.Publish("telemetry.a", payload))
		check(t, p.Flush())
		if i > 5000 {
			t.Fatal("the slow client was not cut")
		}
	}
	check(t, p.Flush())
	_, _ = io.Copy(io.Discard, slow.nc)
}

func TestHostileBytesBeforeTLS(t *testing.T) {
	for _, mode := range []Handshake{HandshakeAuto, HandshakeInfo} {
		w := newWorld(t, tlsOption(t, mode, nil))
		public, _ := w.keys["writer"].PublicKey()
		nc, err := net.Dial("tcp", w.gate.Addr().String())
		check(t, err)
		_, err = fmt.Fprintf(nc, "CONNECT {\"nkey\":%q}\r\nPUB orders.a 1\r\nx\r\n", public)
		check(t, err)
		check(t, nc.SetReadDeadline(time.Now().Add(testTimeout)))
		all, _ := io.ReadAll(nc)
		if strings.Contains(string(all), "+OK") || strings.Contains(string(all), "PONG") {
			t.Errorf("%s: %q", mode, all)
		}
		check(t, nc.Close())
		if w.gate.Stats().Accepted != 0 {
			t.Errorf("%s: accepted", mode)
		}
	}
}

func TestConfigFaults(t *testing.T) {
	err := Config{Listen: "0.0.0.0:4222", InsecurePlain: true, Limits: Limits{Payload: -1}, Handshake: "later"}.Validate()
	for _, want := range []string{"loopback", "server id", "payload", "handshake"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no fault about %s in %v", want, err)
		}
	}
	if _, err := New(Config{}, Deps{}); err == nil {
		t.Error("an empty configuration passed")
	}
}
