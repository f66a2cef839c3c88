package brokertest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/brokertest"
)

// echo answers every connection with what it sends.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

// TestProxyHoldsAndDelays: a cut link holds what is sent and delivers it afterwards, on
// the same connection; a slow one delays it.
func TestProxyHoldsAndDelays(t *testing.T) {
	p, err := brokertest.NewProxy(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func(within time.Duration) error {
		if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		_, err := io.ReadFull(c, make([]byte, 4))
		return err
	}
	send := func() {
		if _, err := io.WriteString(c, "ping"); err != nil {
			t.Fatal(err)
		}
	}
	send()
	if err := ask(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	p.Set(brokertest.Link{Cut: true})
	send()
	var late net.Error
	if err := ask(200 * time.Millisecond); !errors.As(err, &late) || !late.Timeout() {
		t.Fatalf("through a cut link: %v", err)
	}
	p.Set(brokertest.Link{})
	if err := ask(10 * time.Second); err != nil {
		t.Fatalf("after the cut: %v", err)
	}
	const delay = 100 * time.Millisecond
	p.Set(brokertest.Link{Delay: delay})
	begin := time.Now()
	send()
	if err := ask(10 * time.Second); err != nil || time.Since(begin) < 2*delay {
		t.Fatalf("after %v, want at least %v: %v", time.Since(begin), 2*delay, err)
	}
}

// TestProxyOneWay: what is cut in one direction passes in the other, and arrives when the
// cut ends; stalls hold back, and lose and change nothing.
func TestProxyOneWay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, err := brokertest.NewProxy(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	near, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	pass := func(to, from net.Conn, within time.Duration) error {
		if _, err := io.WriteString(from, "ping"); err != nil {
			t.Fatal(err)
		}
		if err := to.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		_, err := io.ReadFull(to, make([]byte, 4))
		return err
	}
	var late net.Error
	for _, way := range []brokertest.Way{brokertest.Toward, brokertest.Back} {
		open, cut := [2]net.Conn{near, far}, [2]net.Conn{far, near} // to, from
		if way == brokertest.Back {
			open, cut = cut, open
		}
		p.Set(brokertest.Link{Cut: true, Only: way})
		if err := pass(open[0], open[1], 10*time.Second); err != nil {
			t.Errorf("%v: the open way: %v", way, err)
		}
		if err := pass(cut[0], cut[1], 200*time.Millisecond); !errors.As(err, &late) || !late.Timeout() {
			t.Errorf("%v: the cut way: %v", way, err)
		}
	}
	p.Set(brokertest.Link{})
	for _, to := range []net.Conn{near, far} { // what was held
		if err := to.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(to, make([]byte, 4)); err != nil {
			t.Error("what was held back is lost:", err)
		}
	}
	const least = 50 * time.Millisecond
	p.Set(brokertest.Link{Stalls: brokertest.Stalls{Every: time.Nanosecond, Min: least, Max: 2 * least, Seed: 1}})
	begin := time.Now()
	for range 3 {
		if err := pass(far, near, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begin); took < 2*least { // the first bytes may come before the first stall
		t.Errorf("three times through a way that always stalls took %v", took)
	}
}

// TestProcesses: a cluster of real processes; a paused node and a wiped one come back.
func TestProcesses(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	c, err := brokertest.NewProcesses(ctx, brokertest.ProcessOptions{Nodes: 3, Dir: t.TempDir(), Policy: `
tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 16MiB}
principals:
  - {name: writer, identities: [{nkey: {{nkey "writer"}}}], publish: [orders.>]}
`})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.StartAll(ctx))
	must(c.Pause(0))
	must(c.Resume(0))
	must(c.AwaitReady(ctx, 0))
	c.Kill(1)
	must(c.Wipe(1))
	must(c.Start(ctx, 1))
	must(c.Term(ctx, 2))
	if err := c.Reload(2); !errors.Is(err, brokertest.ErrNotRunning) {
		t.Errorf("reload of a node that is gone: %v", err)
	}
	must(c.Start(ctx, 2))
}
