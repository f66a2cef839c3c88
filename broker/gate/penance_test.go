package gate

import (
	"strings"
	"testing"
	"time"
)

// TestPenance: a burst is free, then each refusal costs its time, for all connections
// together, and a flood that has ended is forgiven.
func TestPenance(t *testing.T) {
	var p penance
	now := int64(time.Hour)
	if wait := p.owe(refusalBurst, now); wait != 0 {
		t.Fatalf("the burst costs %v", wait)
	}
	if wait := p.owe(10, now); wait != 10*time.Second/refusalRate {
		t.Fatalf("10 more cost %v", wait)
	}
	if wait := p.owe(10, now); wait != 20*time.Second/refusalRate {
		t.Fatalf("10 of another connection cost %v", wait)
	}
	now += int64(20 * time.Second / refusalRate)
	if wait := p.owe(0, now); wait != 0 {
		t.Fatalf("what is paid for still costs %v", wait)
	}
	if wait := p.owe(1<<30, now); wait != time.Second {
		t.Fatalf("a flood costs %v, want the bound", wait)
	}
	now += int64(3 * time.Second)
	if wait := p.owe(refusalBurst, now); wait != 0 {
		t.Fatalf("after the flood a burst costs %v", wait)
	}
}

// TestRefusedFloodIsReadLater: a connection that is refused without end is read a little at
// a time with pauses, and another one of the same principal that is refused nothing is not.
// All that it sends is answered, in order, and it is never cut.
func TestRefusedFloodIsReadLater(t *testing.T) {
	w := newWorld(t)
	flooder, calm := w.login("writer", quiet), w.login("writer", quiet)
	const n = 2*refusalBurst + 1000
	written := make(chan error, 1)
	go func() {
		_, err := flooder.nc.Write([]byte(strings.Repeat("PUB payments.x 1\r\nx\r\n", n) + "PING\r\n"))
		written <- err
	}()
	calm.send("SUB _INBOX.me.* 1\r\n")
	calm.pong()
	calm.send("PUB orders.a _INBOX.me.1 1\r\nx\r\n")
	if l := calm.want("MSG _INBOX.me.1 1 "); l == "" {
		t.Fatal("no answer to the other connection")
	}
	calm.line()
	refused := 0
	for {
		l := flooder.line()
		if l == "PONG" {
			break
		}
		if strings.HasPrefix(l, "-ERR 'Permissions Violation for Publish to \"payments.x\"") {
			refused++
		}
	}
	check(t, <-written)
	if refused != n {
		t.Errorf("%d refusals before the PONG, want %d", refused, n)
	}
	w.gate.mu.Lock()
	defer w.gate.mu.Unlock()
	owed := w.gate.shares["shop/writer"].penance.owe(0, int64(time.Since(began)))
	if paid := w.gate.shares["shop/writer"].penance.paid.Load(); paid == 0 {
		t.Error("nothing was counted")
	}
	if owed > time.Duration(refusalDebt) {
		t.Errorf("%v are owed, the bound is %v", owed, time.Duration(refusalDebt))
	}
}

// TestPenanceOutlivesConnections: who was refused too often and connects anew owes still, and
// nothing is kept of a principal that owes nothing.
func TestPenanceOutlivesConnections(t *testing.T) {
	w := newWorld(t)
	share := func() *usage {
		w.gate.mu.Lock()
		defer w.gate.mu.Unlock()
		return w.gate.shares["shop/writer"]
	}
	login := func() *raw {
		r := w.login("writer", quiet)
		r.send("PING\r\n")
		_ = r.want("PONG")
		return r
	}
	closed := func(r *raw, u *usage) {
		t.Helper()
		check(t, r.nc.Close())
		w.until("the connection is gone", func() bool {
			w.gate.mu.Lock()
			defer w.gate.mu.Unlock()
			return u.connections == 0
		})
	}
	now := func() int64 { return int64(time.Since(began)) }
	r := login()
	u := share()
	u.penance.paid.Store(now() + int64(time.Hour))
	closed(r, u)
	r = login()
	if share() != u {
		t.Fatal("a new connection begins with nothing to pay")
	}
	u.penance.paid.Store(now() + int64(50*time.Millisecond))
	closed(r, u)
	w.until("nothing is kept when all is paid", func() bool { return share() == nil })
	r = login()
	closed(r, share())
	if share() != nil {
		t.Error("kept, and nothing is owed")
	}
}
