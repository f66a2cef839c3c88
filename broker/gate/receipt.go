package gate

import (
	"bytes"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// askedTTL is how long a signed acknowledgement is waited for. One that comes later
// finds its place gone; there is none for a stream without a leader.
const askedTTL = time.Minute

// signedAcks are the signed acknowledgements of one connection that are outstanding.
// Such an event goes to the server with a reply subject of its own that only the gate
// and the server know, used once: so what comes there is the answer to that event.
// On a subject that the client chose, it could have the answer to another event, or
// one that an accomplice wrote, signed. The reader adds, the relay takes.
type signedAcks struct {
	box  *inbox
	sign func(signing.Receipt) ([]byte, error)
	max  int
	open bool // the server has the gate's subscription; only the reader uses it

	mu      sync.Mutex
	last    uint64
	pending map[uint64]*askedAck // nil while nothing was asked for
}

// askedAck is one that is waited for.
type askedAck struct {
	reply   []byte // as the client sees it
	receipt *signing.Receipt
	at      time.Time
}

// Room is of admission.Receipts.
func (a *signedAcks) Room() *wire.Refusal {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.pending) < a.max {
		return nil
	}
	now := time.Now()
	for n, p := range a.pending {
		if now.Sub(p.at) > askedTTL {
			delete(a.pending, n)
		}
	}
	if len(a.pending) < a.max {
		return nil
	}
	r := wire.Refuse(wire.CodeSignedAcksLimited, "signed-ack", strconv.Itoa(a.max)+" are outstanding on this connection")
	r.RetryAfter = time.Second
	return r
}

// Expect is of admission.Receipts.
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
	return strconv.AppendUint([]byte(a.box.acks), a.last, 36), before
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
	delete(a.pending, n)
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
		return payload
	}
	r.Stream, r.Sequence, r.Duplicate = ack.Stream, ack.Sequence, ack.Duplicate
	doc, err := a.sign(*r)
	if err != nil {
		return payload
	}
	out := make([]byte, 0, len(payload)+len(doc)+16)
	out = append(out, payload[:len(payload)-1]...)
	out = append(out, `,"`+wire.MemberReceipt+`":`...)
	out = append(out, doc...)
	return append(out, '}')
}
