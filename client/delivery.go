package client

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// A Handler gets deliveries whose attestation holds, and no others. What it returns
// settles the event: nil acknowledges; an error made by Permanent or Reject makes it a
// dead letter; one made by Retry brings it back after that time; any other error
// brings it back when the retry policy of the broker says so. A delivery that the
// handler settled itself stays as it is. ctx ends when the subscription is stopped.
//
// A panic is not caught: it ends the process, as elsewhere in Go. The event comes again after
// the AckWait, and is a dead letter with the reason delivery once the retry policy is used
// up, so a poison event cannot end processes for ever.
type Handler func(ctx context.Context, d *Delivery) error

// Delivery is one verified event on its way to a handler.
type Delivery struct {
	Event       *Event
	NATSSubject string              // it came on, and the attestation is for
	Principal   string              // who published it, tenant/name
	Attestation signing.Attestation // what was verified

	// Producer is the verified signature of who made the event. Without one it is zero,
	// and the broker's word is all that there is: see RequireProducer.
	Producer signing.ProducerSignature
	// ProducerFault says why there is none though the event bears one: the keyring does
	// not have its key, or the key may not sign this event (signing.ErrUnknownKey,
	// signing.ErrKeyNotValid). Nothing was checked then but the attestation. nil otherwise,
	// and always with RequireProducer.
	ProducerFault error

	// KeyID is the id of the key that Event was decrypted with; empty if it came in the
	// clear. Attested still has the encrypted event, which is what is signed.
	KeyID string
	// Ciphertext says that the payload is encrypted and this client has no
	// WithDecryption: Event.Data is the ciphertext, as Event.DataContentType says too.
	Ciphertext bool

	// Of stored events; zero for SubscribeLive.
	Stream       string
	Consumer     string
	Sequence     uint64    // in the stream
	NumDelivered uint64    // 1 at the first delivery
	Pending      uint64    // events that the consumer has not delivered yet
	Stored       time.Time // by the clock of the server
	// Redrives is how often the event was brought back from the dead letters; 0: it came as
	// it was published.
	Redrives int

	// Of SubscribeKeyed: the key of the event, and a number that grows each time the
	// partition of the key changes hands. A handler that writes elsewhere can have that
	// store refuse a number below the greatest it has seen, which keeps out a process
	// that slept through losing the partition.
	Key   string
	Fence uint64

	msg     *nats.Msg
	sub     *Subscription // nil when there is nothing to settle
	settled atomic.Uint32 // an outcome
}

// outcome is how a delivery was settled.
type outcome uint32

const (
	outcomeOpen outcome = iota
	outcomeAck
	outcomeTerm
	outcomeNak
)

// claim makes the caller the one that settles d.
//
// Errors: ErrSettled, ErrFenced.
func (d *Delivery) claim(as outcome) error {
	if k := d.sub.keyed(); k != nil && !k.holds() {
		return ErrFenced
	}
	if !d.settled.CompareAndSwap(uint32(outcomeOpen), uint32(as)) {
		return ErrSettled
	}
	if as != outcomeNak {
		d.sub.done(d)
	}
	return nil
}

func (d *Delivery) outcome() outcome { return outcome(d.settled.Load()) }

// Attested returns the event with the attributes that the broker set
// (attestation, authid, authtype, recordedtime) and the producer's signature
// (dssematerial), if there is one, among its extensions: what to
// keep when the evidence must be kept. Such an event cannot be published again;
// Delivery.Event can, and what Event.WithoutSignatures makes of it.
func (d *Delivery) Attested() *Event {
	e := &Event{}
	var dec decoder
	rec, err := dec.decode(d.msg)
	if err != nil { // it was decoded before it was delivered
		return d.Event.Clone()
	}
	e.fill(rec, true)
	e.Data = append([]byte(nil), rec.Data...)
	return e
}

// Ack says that the event is handled. The broker may not have got it when Ack
// returns: see AckSync.
//
// Errors: ErrSettled, ErrFenced, ErrUnavailable.
func (d *Delivery) Ack() error { return d.settle("+ACK", outcomeAck) }

// AckSync is Ack that waits for the broker's confirmation.
//
// Errors: ErrSettled, ErrFenced, ErrUnavailable.
func (d *Delivery) AckSync(ctx context.Context) error {
	if d.sub == nil {
		return nil
	}
	if err := d.claim(outcomeAck); err != nil {
		return err
	}
	c := d.sub.client
	ctx, cancel := c.cfg.deadline(ctx)
	defer cancel()
	_, err := c.mux.request(ctx, &nats.Msg{Subject: d.msg.Reply, Data: []byte("+ACK")})
	return fromTransport("ack", d.NATSSubject, err)
}

// Nak puts the event back, to be delivered again after delay; 0: when the retry policy
// of the broker says so.
//
// Errors: ErrSettled, ErrFenced, ErrUnavailable.
func (d *Delivery) Nak(delay time.Duration) error { return d.settle(nakBody(delay), outcomeNak) }

// Term says that no redelivery will help: the event becomes a dead letter with
// reason, one line.
//
// Errors: ErrSettled, ErrFenced, ErrUnavailable.
func (d *Delivery) Term(reason string) error { return d.settle(termBody(reason), outcomeTerm) }

// InProgress starts the acknowledgement wait anew, for a handler that needs
// longer.
//
// Errors: ErrSettled, ErrFenced, ErrUnavailable.
func (d *Delivery) InProgress() error {
	if d.sub == nil {
		return nil
	}
	if k := d.sub.keyed(); k != nil && !k.holds() {
		return ErrFenced
	}
	if d.outcome() != outcomeOpen {
		return ErrSettled
	}
	return fromTransport("ack", d.NATSSubject, d.sub.client.nc.Publish(d.msg.Reply, []byte("+WPI")))
}

func (d *Delivery) settle(body string, as outcome) error {
	if d.sub == nil {
		return nil
	}
	if err := d.claim(as); err != nil {
		return err
	}
	return fromTransport("ack", d.NATSSubject, d.sub.client.nc.Publish(d.msg.Reply, []byte(body)))
}

// conclude settles by the result of the handler.
func (d *Delivery) conclude(err error) error {
	if d.sub == nil || d.outcome() != outcomeOpen {
		return nil
	}
	var end permanent
	var again retry
	var settleErr error
	switch {
	case err == nil:
		settleErr = d.Ack()
	case errors.As(err, &end):
		settleErr = d.Term(end.givenUp(err))
	case errors.As(err, &again):
		settleErr = d.Nak(jittered(again.after))
	default:
		settleErr = d.Nak(0)
	}
	if errors.Is(settleErr, ErrSettled) { // by another goroutine of the handler
		return nil
	}
	return settleErr
}

func nakBody(delay time.Duration) string {
	if delay <= 0 {
		return "-NAK"
	}
	return `-NAK {"delay": ` + strconv.FormatInt(int64(delay), 10) + "}"
}

func termBody(reason string) string {
	reason = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, reason)
	const most = 256
	if len(reason) > most {
		reason = strings.ToValidUTF8(reason[:most], "")
	}
	if reason = strings.TrimSpace(reason); reason == "" {
		return "+TERM"
	}
	return "+TERM " + reason
}

// ackInfo is what the reply subject of a stored event says.
type ackInfo struct {
	stream, consumer                         string
	delivered, streamSeq, consumerSeq, queue uint64
	stored                                   time.Time
}

// parseAck reads both forms of an ack subject: 9 tokens, or 11 and more with
// domain and account hash. It does not allocate.
func parseAck(reply string) (ackInfo, bool) {
	rest, ok := strings.CutPrefix(reply, wire.PrefixJSAck)
	if !ok {
		return ackInfo{}, false
	}
	var tok [10]string
	n, more := 0, true
	for more && n < len(tok) {
		tok[n], rest, more = strings.Cut(rest, ".")
		n++
	}
	t := tok[:n]
	switch {
	case n == 7 && !more:
	case n >= 9:
		t = t[2:9]
	default:
		return ackInfo{}, false
	}
	a := ackInfo{stream: t[0], consumer: t[1]}
	var nanos uint64
	for i, p := range []*uint64{&a.delivered, &a.streamSeq, &a.consumerSeq, &nanos, &a.queue} {
		v, err := strconv.ParseUint(t[2+i], 10, 64)
		if err != nil {
			return ackInfo{}, false
		}
		*p = v
	}
	a.stored = time.Unix(0, int64(nanos))
	return a, true
}
