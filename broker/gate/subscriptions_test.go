package gate

import (
	"strings"
	"testing"
)

// TestStatsSubscriptions: what is counted are the subscriptions that are open now,
// however they came to an end.
func TestStatsSubscriptions(t *testing.T) {
	w := newWorld(t)
	open := func() int { return int(w.gate.Stats().Subscriptions) }
	want := func(after string, n int) {
		t.Helper()
		if got := open(); got != n {
			t.Errorf("%d open after %s, want %d", got, after, n)
		}
	}
	r, p := w.login("reader", quiet), w.login("writer", quiet)
	p.pong()
	want("CONNECT", 0)
	r.send("SUB orders.> 1\r\nSUB _INBOX.a 2\r\nSUB _INBOX.* 3\r\nSUB telemetry.> 4\r\n")
	r.pong()
	want("SUB", 4)
	r.send("SUB orders.a 1\r\nSUB payments.> 9\r\nUNSUB 9\r\n")
	r.pong()
	want("a sid that is taken, a refusal and an unknown sid", 4)
	r.send("UNSUB 3\r\n")
	r.pong()
	want("UNSUB", 3)

	r.send("UNSUB 4 2\r\n")
	r.pong()
	want("UNSUB with a limit", 3)
	p.send("PUB telemetry.a 1\r\nx\r\nPUB telemetry.a 1\r\nx\r\nPUB telemetry.a 1\r\nx\r\n")
	p.pong()
	w.until("the limit is reached", func() bool { return open() == 2 })

	p.send("SUB _INBOX.once 1\r\nUNSUB 1 1\r\n")
	p.pong()
	want("SUB on another connection", 3)
	p.send("PUB payments.a _INBOX.once 1\r\nx\r\n")
	p.pong()
	want("a refusal that reached the limit", 2)

	w.gate.Reload(w.compile(strings.ReplaceAll(w.text, "subscribe: [orders.>, telemetry.>]", "subscribe: [telemetry.>]")))
	w.until("Reload ends what is denied", func() bool { return open() == 1 })

	p.send("SUB _INBOX.b 1\r\nSUB _INBOX.c.* 2\r\n")
	p.pong()
	want("SUB again", 3)
	_ = p.nc.Close()
	w.until("one is gone", func() bool { return w.gate.Stats().Connections == 1 })
	want("the end of one connection", 1)
	r.send("BOGUS\r\n")
	w.until("both are gone", func() bool { return w.gate.Stats().Connections == 0 })
	want("the end of both", 0)
}
