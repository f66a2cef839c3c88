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

// A Handler gets deliveries whose attestation holds, and no others. nil
// acknowledges; an error puts the event back after RetryDelay; an error made by
// Permanent terminates it. A delivery that the handler settled itself stays as it
// is. ctx ends when the subscription is stopped.
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

	msg     *nats.Msg
	sub     *Subscription // nil when there is nothing to settle
	settled atomic.Bool
}

// permanent marks an error that no redelivery can heal.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// Permanent wraps err so that a handler that returns it terminates the event,
// which makes it a dead letter, instead of having it delivered again.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanent{err}
}

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
// Errors: ErrSettled, ErrUnavailable.
func (d *Delivery) Ack() error { return d.settle("+ACK", true) }

// AckSync is Ack that waits for the broker's confirmation.
//
// Errors: ErrSettled, ErrUnavailable.
func (d *Delivery) AckSync(ctx context.Context) error {
	if d.sub == nil {
		return nil
	}
	if d.settled.Swap(true) {
		return ErrSettled
	}
	d.sub.done(d)
	c := d.sub.client
	ctx, cancel := c.cfg.deadline(ctx)
	defer cancel()
	_, err := c.mux.request(ctx, &nats.Msg{Subject: d.msg.Reply, Data: []byte("+ACK")})
	return fromTransport("ack", d.NATSSubject, err)
}

// Nak puts the event back, to be delivered again after delay (0: at once).
//
// Errors: ErrSettled, ErrUnavailable.
func (d *Delivery) Nak(delay time.Duration) error { return d.settle(nakBody(delay), false) }

// Term says that no redelivery will help: the event becomes a dead letter with
// reason, one line.
//
// Errors: ErrSettled, ErrUnavailable.
func (d *Delivery) Term(reason string) error { return d.settle(termBody(reason), true) }

// InProgress starts the acknowledgement wait anew, for a handler that needs
// longer.
//
// Errors: ErrSettled, ErrUnavailable.
func (d *Delivery) InProgress() error {
	if d.sub == nil {
		return nil
	}
	if d.settled.Load() {
		return ErrSettled
	}
	return fromTransport("ack", d.NATSSubject, d.sub.client.nc.Publish(d.msg.Reply, []byte("+WPI")))
}

// settle sends body; final says that no redelivery is wanted.
func (d *Delivery) settle(body string, final bool) error {
	if d.sub == nil {
		return nil
	}
	if d.settled.Swap(true) {
		return ErrSettled
	}
	if final {
		d.sub.done(d)
	}
	return fromTransport("ack", d.NATSSubject, d.sub.client.nc.Publish(d.msg.Reply, []byte(body)))
}

// conclude settles by the result of the handler.
func (d *Delivery) conclude(err error, delay time.Duration) error {
	if d.sub == nil || d.settled.Load() {
		return nil
	}
	var end permanent
	var settleErr error
	switch {
	case err == nil:
		settleErr = d.Ack()
	case errors.As(err, &end):
		settleErr = d.Term(err.Error())
	default:
		settleErr = d.Nak(redeliveryDelay(delay, d.NumDelivered))
	}
	if errors.Is(settleErr, ErrSettled) { // by another goroutine of the handler
		return nil
	}
	return settleErr
}

// redeliveryDelay doubles with each delivery, up to a minute (or delay, if that
// is more).
func redeliveryDelay(delay time.Duration, delivered uint64) time.Duration {
	longest := max(delay, time.Minute)
	if delay <= 0 {
		return 0
	}
	for n := uint64(1); n < delivered && delay < longest; n++ {
		delay *= 2
	}
	return min(delay, longest)
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
