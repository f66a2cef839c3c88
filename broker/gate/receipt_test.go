package gate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// signs is a Receipt that writes where the event is said to be, so that a test can
// read it in the answer.
func signs(r signing.Receipt) ([]byte, error) {
	return fmt.Appendf(nil, `"%s %s %d %x"`, r.Subject, r.Stream, r.Sequence, r.Event), nil
}

const asksBlock = "NATS/1.0\r\nSignet-Ack: signed\r\n\r\n"

func askFor(subject, reply, data string) string {
	return fmt.Sprintf("HPUB %s %s %d %d\r\n%s%s\r\n", subject, reply, len(asksBlock), len(asksBlock)+len(data), asksBlock, data)
}

// TestSignedAckWaitsForTheBarrier: a signature leaves when stable storage has the
// event, and not at all after a barrier that failed.
func TestSignedAckWaitsForTheBarrier(t *testing.T) {
	b := &gatedBarrier{open: make(chan error)}
	w := newWorld(t, func(_ *Config, d *Deps) { d.Barrier, d.Receipt = b, signs })
	r := w.login("writer", quiet)
	r.send("SUB _INBOX.a 1\r\n")
	r.pong()
	r.send(askFor("orders.a", "_INBOX.a", "x"))
	w.until("it is stored and held", func() bool { return w.gate.Stats().HeldAcks == 1 })
	if got := r.pong(); len(got) != 0 {
		t.Errorf("before the barrier: %q", got)
	}
	release(t, b, nil)
	r.want("MSG _INBOX.a 1 ")
	if l := r.line(); !isPubAck([]byte(l)) || !strings.Contains(l, `,"receipt":"orders.a ORDERS 1 `) {
		t.Errorf("got %q", l)
	}
	r.send(askFor("orders.b", "_INBOX.a", "x"))
	w.until("held", func() bool { return w.gate.Stats().HeldAcks == 2 })
	release(t, b, errors.New("EIO"))
	if got := r.closed(); strings.Contains(got, "receipt") {
		t.Errorf("released after a failed barrier: %q", got)
	}
}

func release(t *testing.T, b *gatedBarrier, err error) {
	t.Helper()
	select {
	case b.open <- err:
	case <-time.After(testTimeout):
		t.Fatal("nobody waits at the barrier")
	}
}

// TestSignedAcksAreBounded: beyond the bound the publish is refused and nothing of it
// is stored; what has come makes room again.
func TestSignedAcksAreBounded(t *testing.T) {
	w := newWorld(t, func(c *Config, d *Deps) { d.Receipt, c.Limits.SignedAcks = signs, 3 })
	r := w.login("writer", quiet)
	r.send("SUB _INBOX.a 1\r\n")
	r.pong()
	var batch strings.Builder // in one write, so that no answer comes between
	for range 5 {
		batch.WriteString(askFor("orders.a", "_INBOX.a", "x"))
	}
	r.send(batch.String())
	signed, refused := 0, 0
	for range 5 {
		r.want("MSG _INBOX.a 1 ")
		switch l := r.line(); {
		case strings.Contains(l, `"receipt":`):
			signed++
		case strings.Contains(l, `"err_code":40503`):
			refused++
		default:
			t.Errorf("got %q", l)
		}
	}
	if signed != 3 || refused != 2 {
		t.Errorf("%d signed and %d refused, want 3 and 2", signed, refused)
	}
	r.send(askFor("orders.a", "_INBOX.a", "x"))
	r.want("MSG _INBOX.a 1 ")
	if l := r.line(); !strings.Contains(l, `"receipt":"orders.a ORDERS 4 `) {
		t.Errorf("after the others: %q", l)
	}
}

// TestAskedAcksExpire: an acknowledgement that never comes does not keep its place.
func TestAskedAcksExpire(t *testing.T) {
	box := newInbox()
	var told []*askedAck
	a := signedAcks{
		box: &box, sign: signs, most: askedLimits{conn: 1, node: 9, ttl: time.Hour}, all: new(receiptCounters),
		late: func(late []*askedAck) { told = append(told, late...) },
	}
	defer a.close()
	to, before := a.Expect([]byte(box.up+"x"), &signing.Receipt{})
	if want := "SUB " + box.acks + "* " + box.ackSID + "\r\n"; string(before) != want {
		t.Errorf("before the first: %q, want %q", before, want)
	}
	if r := a.Room(); r == nil || r.Code != wire.CodeSignedAcksLimited || r.RetryAfter == 0 {
		t.Errorf("full: %v", r)
	}
	for _, p := range a.pending {
		p.at = p.at.Add(-time.Hour - time.Second)
	}
	a.sweep()
	if len(told) != 1 || string(told[0].reply) != "_INBOX.x" || a.all.open.Load() != 0 || a.all.expired.Load() != 1 {
		t.Errorf("told of %d, %d outstanding", len(told), a.all.open.Load())
	}
	if r := a.Room(); r != nil {
		t.Errorf("after its time: %v", r)
	}
	if a.take(to) != nil || a.take([]byte(box.acks)) != nil || a.take(nil) != nil {
		t.Error("taken after its time")
	}
	if to, before = a.Expect([]byte(box.up+"y"), &signing.Receipt{}); before != nil {
		t.Errorf("before the second: %q", before)
	}
	if p := a.take(to); p == nil || string(p.reply) != "_INBOX.y" || a.take(to) != nil {
		t.Error("it is taken once, with the reply subject of the client")
	}
}

// TestSignedAckReachesTheSubscriptions: as the server would deliver it, also to a
// subscription that ends with it, and to a client that knows no headers.
func TestSignedAckReachesTheSubscriptions(t *testing.T) {
	w := newWorld(t, func(_ *Config, d *Deps) { d.Receipt = signs })
	r := w.login("writer", quiet)
	r.send("SUB _INBOX.a.* 1\r\nUNSUB 1 1\r\nSUB _INBOX.a.b 2\r\n")
	r.pong()
	r.send(askFor("orders.a", "_INBOX.a.b", "x"))
	got := map[string]bool{}
	for range 2 {
		head := r.line()
		for strings.HasPrefix(head, "INFO ") { // the second one, after the first PONG
			head = r.line()
		}
		got[strings.Join(strings.Fields(head)[:3], " ")] = true
		if l := r.line(); !strings.Contains(l, `"receipt":`) {
			t.Errorf("got %q", l)
		}
	}
	if !got["MSG _INBOX.a.b 1"] || !got["MSG _INBOX.a.b 2"] {
		t.Errorf("delivered to %v", got)
	}
	r.send(askFor("orders.a", "_INBOX.a.b", "x"))
	r.want("MSG _INBOX.a.b 2 ")
	r.line()
	if rest := r.pong(); len(rest) != 0 {
		t.Errorf("after its end: %q", rest)
	}
}

// TestSignedAckWithoutASignature: what cannot be signed is handed on unsigned, since the
// event is stored; so is what says more than that.
func TestSignedAckWithoutASignature(t *testing.T) {
	fails := func(signing.Receipt) ([]byte, error) { return nil, context.DeadlineExceeded }
	for name, row := range map[string]struct {
		sign    func(signing.Receipt) ([]byte, error)
		payload string
		signed  bool
	}{
		"plain":          {signs, `{"stream":"S","seq":7}`, true},
		"domain":         {signs, `{"stream":"S","domain":"d","seq":7}`, true},
		"duplicate":      {signs, `{"stream":"S","seq":7,"duplicate":true}`, true},
		"no key":         {fails, `{"stream":"S","seq":7}`, false},
		"counter":        {signs, `{"stream":"S","seq":7,"val":"3"}`, false},
		"batch":          {signs, `{"stream":"S","seq":7,"batch":"b","count":2}`, false},
		"cut":            {signs, `{"stream":"S","seq":7`, false},
		"two":            {signs, `{"stream":"S","seq":7}{"stream":"S","seq":8}`, false},
		"not a sequence": {signs, `{"stream":"S","seq":"7"}`, false},
	} {
		a := signedAcks{sign: row.sign, all: new(receiptCounters)}
		got := string(a.signed([]byte(row.payload), &signing.Receipt{}))
		if signed := strings.Contains(got, `,"receipt":" S 7 "}`); signed != row.signed || !signed && got != row.payload {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

// hole takes what is published on a subject and answers nothing, so that no stream and no
// server does either.
func (w *world) hole(subject string) {
	w.t.Helper()
	_, err := w.nc.Subscribe(subject, func(*nats.Msg) {})
	check(w.t, err)
	check(w.t, w.nc.Flush())
}

// unstored makes the stream of orders forget its subjects.
func (w *world) unstored() {
	w.t.Helper()
	check(w.t, w.js.DeleteStream(w.ctx(), "ORDERS"))
	w.hole("orders.>")
}

// TestSignedAcksThatDoNotComeAreTold: who waits for a receipt has an answer in the end, and
// the place is free again, also when the connection has ended.
func TestSignedAcksThatDoNotComeAreTold(t *testing.T) {
	w := newWorld(t, func(c *Config, d *Deps) {
		d.Receipt, c.Limits.SignedAcks, c.Timeouts.SignedAck = signs, 3, 50*time.Millisecond
	})
	w.unstored()
	r := w.login("writer", quiet)
	r.send("SUB _INBOX.a 1\r\n")
	r.pong()
	for range 2 {
		r.send(askFor("orders.a", "_INBOX.a", "x") + askFor("orders.a", "_INBOX.a", "y"))
		for range 2 {
			r.want("MSG _INBOX.a 1 ")
			if l := r.line(); !strings.Contains(l, `"error"`) || !strings.Contains(l, "may be stored or not") {
				t.Errorf("got %q", l)
			}
		}
	}
	if s := w.gate.Stats().Receipts; s.Expired != 4 || s.Outstanding != 0 || s.Signed != 0 {
		t.Errorf("%+v", s)
	}
	w2 := newWorld(t, func(c *Config, d *Deps) { d.Receipt = signs })
	w2.unstored()
	gone := w2.login("writer", quiet)
	gone.send(askFor("orders.a", "_INBOX.a", "x"))
	w2.until("it is outstanding", func() bool { return w2.gate.Stats().Receipts.Outstanding == 1 })
	check(t, gone.nc.Close())
	w2.until("the place of a connection that has ended is free", func() bool { return w2.gate.Stats().Receipts.Outstanding == 0 })
}

// TestFloodOfSignedAcks: many connections together hold no more than the node allows.
func TestFloodOfSignedAcks(t *testing.T) {
	const conns, perConn, perNode = 8, 10, 25
	w := newWorld(t, func(c *Config, d *Deps) {
		d.Receipt, c.Limits.SignedAcks, c.Limits.NodeSignedAcks = signs, perConn, perNode
	})
	w.unstored()
	refused := 0
	for range conns { // one after the other, so that the bound is exact
		r := w.login("writer", quiet)
		r.send("SUB _INBOX.a 1\r\n")
		r.pong()
		for range perConn + 5 {
			r.send(askFor("orders.a", "_INBOX.a", "x"))
		}
		refused += strings.Count(strings.Join(r.pong(), "\n"), `"err_code":40503`)
	}
	if s := w.gate.Stats().Receipts; s.Outstanding != perNode || int(s.Refused) != conns*(perConn+5)-perNode || refused != int(s.Refused) {
		t.Errorf("%+v, %d refusals were read", s, refused)
	}
}

// TestNoReceiptNow: what may not be signed is refused before it is stored.
func TestNoReceiptNow(t *testing.T) {
	var why atomic.Pointer[error]
	w := newWorld(t, func(_ *Config, d *Deps) {
		d.Receipt = signs
		d.NoReceipt = func() error {
			if e := why.Load(); e != nil {
				return *e
			}
			return nil
		}
	})
	r := w.login("writer", quiet)
	r.send("SUB _INBOX.a 1\r\n")
	r.pong()
	no := errors.New("the node n2 does not sync")
	why.Store(&no)
	r.send(askFor("orders.a", "_INBOX.a", "x"))
	r.want("MSG _INBOX.a 1 ")
	if l := r.line(); !strings.Contains(l, `"err_code":40104`) || !strings.Contains(l, "n2 does not sync") {
		t.Errorf("got %q", l)
	}
	why.Store(nil)
	r.send(askFor("orders.a", "_INBOX.a", "x"))
	r.want("MSG _INBOX.a 1 ")
	if l := r.line(); !strings.Contains(l, `,"receipt":"orders.a ORDERS 1 `) {
		t.Errorf("got %q", l)
	}
}
