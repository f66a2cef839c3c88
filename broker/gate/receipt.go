package gate

import (
	"bytes"
	"encoding/json"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// receiptCounters are the live numbers of a gate's signed acknowledgements.
type receiptCounters struct {
	open     atomic.Int64 // outstanding, over all connections
	signed   counter
	unsigned counter // acknowledgements that were asked for signed and could not be
	expired  counter // that did not come in time
	refused  counter // not taken down: as many as may are outstanding
}

// signedAcks are the signed acknowledgements of one connection that are outstanding.
// Such an event goes to the server with a reply subject of its own that only the gate
// and the server know, used once: so what comes there is the answer to that event.
// On a subject that the client chose, it could have the answer to another event, or
// one that an accomplice wrote, signed. The reader adds, the relay takes, and a timer
// tells the publisher of those that do not come.
type signedAcks struct {
	box  *inbox
	sign func(signing.Receipt) ([]byte, error)
	why  func() error // why none may be signed now; nil: it may
	most askedLimits
	all  *receiptCounters
	late func([]*askedAck) // told of those whose time is over, in a goroutine of its own
	open bool              // the server has the gate's subscription; only the reader uses it

	mu      sync.Mutex
	last    uint64
	pending map[uint64]*askedAck // nil while nothing was asked for
	timer   *time.Timer          // runs while there is something pending
	closed  bool
}

// askedLimits bound what is outstanding.
type askedLimits struct {
	conn, node int
	ttl        time.Duration
}

// askedAck is one that is waited for.
type askedAck struct {
	reply   []byte // as the client sees it
	receipt *signing.Receipt
	at      time.Time
}

// Room is of admission.Receipts.
func (a *signedAcks) Room() *wire.Refusal {
	if a.why != nil {
		if err := a.why(); err != nil {
			return wire.Refuse(wire.CodeHeaderDenied, "signed-ack", err.Error())
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case len(a.pending) >= a.most.conn:
		return a.refuse(strconv.Itoa(a.most.conn) + " are outstanding on this connection")
	case a.all.open.Load() >= int64(a.most.node):
		return a.refuse(strconv.Itoa(a.most.node) + " are outstanding on this node")
	}
	return nil
}

func (a *signedAcks) refuse(why string) *wire.Refusal {
	a.all.refused.Add(1)
	r := wire.Refuse(wire.CodeSignedAcksLimited, "signed-ack", why)
	r.RetryAfter = time.Second
	return r
}

// Expect is of admission.Receipts. Connections that ask at the same time may together
// take down a few more than the node's limit: each has asked for room before.
func (a *signedAcks) Expect(reply []byte, r *signing.Receipt) (ackTo, before []byte) {
	if !a.open {
		a.open = true
		before = []byte("SUB " + a.box.acks + "* " + a.box.ackSID + "\r\n")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last++
	if a.pending == nil {
		a.pending = make(map[uint64]*askedAck)
	}
	a.pending[a.last] = &askedAck{reply: a.box.appendDown(nil, reply), receipt: r, at: time.Now()}
	a.all.open.Add(1)
	if a.timer == nil && !a.closed {
		a.timer = time.AfterFunc(a.most.ttl, a.sweep)
	}
	return strconv.AppendUint([]byte(a.box.acks), a.last, 36), before
}

// sweep takes those whose time is over, and comes again while others wait.
func (a *signedAcks) sweep() {
	a.mu.Lock()
	now, next := time.Now(), a.most.ttl
	var over []*askedAck
	for n, p := range a.pending {
		if left := a.most.ttl - now.Sub(p.at); left > 0 {
			next = min(next, left)
			continue
		}
		over = append(over, p)
		delete(a.pending, n)
	}
	a.all.open.Add(-int64(len(over)))
	a.all.expired.Add(uint64(len(over)))
	a.timer = nil
	if len(a.pending) > 0 && !a.closed {
		a.timer = time.AfterFunc(next, a.sweep)
	}
	a.mu.Unlock()
	if len(over) > 0 {
		a.late(over)
	}
}

// close is when the connection has ended: what is outstanding counts no more.
func (a *signedAcks) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timer != nil {
		a.timer.Stop()
	}
	a.closed = true
	a.all.open.Add(-int64(len(a.pending)))
	clear(a.pending)
}

// unacknowledged answers publishes whose acknowledgement did not come: nobody must wait
// for ever, nor take silence for a refusal. One that comes yet has nowhere to go.
func (c *conn) unacknowledged(late []*askedAck) {
	s := &c.session
	r := wire.Refuse(wire.CodeUnavailable, "signed-ack", "the stream has not acknowledged the event in time: it may be stored or not, and no receipt comes; publish it again with the same id to learn of it")
	body := r.Answer("", false)
	for _, p := range late {
		for _, t := range s.subs.inject(p.reply) {
			if s.down.write(wire.AppendMsg(nil, p.reply, []byte(t.sid), nil, body)) != nil {
				return // the link has ended the connection
			}
			if t.end || t.limit > 0 {
				_ = s.up.write(appendUnsub(nil, t.sid, t.limit)) // a link that fails ends the connection by itself
			}
		}
	}
}

// take returns what the answer on subject was waited for by, once; nil for none.
func (a *signedAcks) take(subject []byte) *askedAck {
	n, err := strconv.ParseUint(string(subject[min(len(a.box.acks), len(subject)):]), 36, 64)
	if err != nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pending[n]
	if p != nil {
		delete(a.pending, n)
		a.all.open.Add(-1)
	}
	return p
}

// acknowledge hands on the answer to an event whose acknowledgement is to be signed: to
// the subscriptions of the client that its reply subject reaches, as the server would.
// An acknowledgement goes the way of all others, through the barrier. It goes without
// a signature where none can be made: the event is stored, and its publisher must learn
// of that; it sees that the signature is missing.
func (r *relay) acknowledge(f *frame) {
	s := r.s
	asked := s.acks.take(f.subject)
	if asked == nil {
		return
	}
	s.flights.answered(s.box.appendUp(nil, asked.reply))
	out := frame{kind: f.kind, subject: asked.reply, header: f.header, payload: f.payload}
	ack := isPubAck(f.payload)
	if ack {
		out.payload = s.acks.signed(f.payload, asked.receipt)
	}
	for _, t := range s.subs.inject(asked.reply) {
		out.sid = []byte(t.sid)
		r.deliver(&out, ack)
		// The server does not know of this delivery: its own count must end earlier.
		if t.end || t.limit > 0 {
			_ = s.up.write(appendUnsub(nil, t.sid, t.limit)) // a link that fails ends the connection by itself
		}
	}
}

// signed returns the acknowledgement payload with the receipt in it, or as it is if it
// says more than that one event was stored (the members are those of nats-server), or
// the receipt cannot be signed.
func (a *signedAcks) signed(payload []byte, r *signing.Receipt) []byte {
	var ack struct {
		Stream    string `json:"stream"`
		Domain    string `json:"domain"`
		Sequence  uint64 `json:"seq"`
		Duplicate bool   `json:"duplicate"`
	}
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&ack); err != nil || int(dec.InputOffset()) != len(payload) {
		a.all.unsigned.Add(1)
		return payload
	}
	r.Stream, r.Sequence, r.Duplicate = ack.Stream, ack.Sequence, ack.Duplicate
	doc, err := a.sign(*r)
	if err != nil {
		a.all.unsigned.Add(1)
		return payload
	}
	a.all.signed.Add(1)
	out := make([]byte, 0, len(payload)+len(doc)+16)
	out = append(out, payload[:len(payload)-1]...)
	out = append(out, `,"`+wire.MemberReceipt+`":`...)
	out = append(out, doc...)
	return append(out, '}')
}
