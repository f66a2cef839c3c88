package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// ErrReceipt says that the broker acknowledged an event and the signed
// acknowledgement that WithSignedAck asked for is missing, or does not vouch for what
// was sent. The broker says that the event is stored; there is no proof of it. To
// publish it again gives a duplicate.
var ErrReceipt = errors.New("client: no valid receipt for a stored event")

// WithSignedAck asks for a signed acknowledgement: the statement of a broker node
// that the event, with exactly these attributes and data, is on stable storage, in
// which stream and at which sequence. It is verified under the keyring before the
// publish returns, and Ack.Receipt has its bytes.
//
// Of a duplicate the receipt names principal, source and id only: nobody has compared
// what is stored with what was sent. It costs the broker one signature per event; at
// most 64 may be outstanding on a connection, and some thousands on a node. PublishAsync
// waits for a place among the 64; beyond it is ErrRateLimited, after which Publish tries
// again.
//
// It is for Publish and PublishAsync; PublishLive refuses it.
func WithSignedAck() PubOpt {
	return func(p *pubConfig) error {
		p.header = append(p.header, [2]string{wire.HeaderAck, wire.AckSigned})
		return nil
	}
}

// maxAsked is how many signed acknowledgements PublishAsync waits for at a time: as many as
// a node lets a connection have.
const maxAsked = 64

func asksReceipt(msg *nats.Msg) bool {
	_, asked := msg.Header[wire.HeaderAck]
	return asked
}

func (p *pubConfig) asks() bool {
	return p != nil && slices.ContainsFunc(p.header, func(h [2]string) bool { return h[0] == wire.HeaderAck })
}

// checkReceipt verifies the receipt in ack of what was sent as msg. Where its key is
// not in the keyring it asks for a new one, once. One that nobody asked for is not handed
// on: it was not verified.
//
// Errors: *Error that is ErrReceipt.
func checkReceipt(ctx context.Context, c *Client, msg *nats.Msg, ack *Ack) error {
	if !asksReceipt(msg) {
		ack.Receipt = nil
		return nil
	}
	_, err := freshly(ctx, c, time.Time{}, func() (struct{}, error) { return struct{}{}, holdsReceipt(c, msg, ack) }, signing.ErrUnknownKey)
	return receiptError(msg, ack, err)
}

// settleReceipt is checkReceipt for the callback of an answer, which must not wait for
// a keyring: where a new one is needed, finish is called later, from a goroutine that
// ends with the request for it.
func settleReceipt(c *Client, msg *nats.Msg, ack *Ack, finish func(error)) {
	if !asksReceipt(msg) {
		ack.Receipt = nil
		finish(nil)
		return
	}
	err := holdsReceipt(c, msg, ack)
	if !errors.Is(err, signing.ErrUnknownKey) && !errors.Is(err, signing.ErrNoKeyring) {
		finish(receiptError(msg, ack, err))
		return
	}
	go func() { finish(checkReceipt(context.Background(), c, msg, ack)) }()
}

func receiptError(msg *nats.Msg, ack *Ack, err error) error {
	if err == nil {
		return nil
	}
	return &Error{
		Op: "publish", Class: string(wire.ClassBadSignature), Title: "the broker says that the event is stored, but gave no valid receipt",
		Subject: msg.Subject, EventID: ack.EventID, Err: errors.Join(ErrReceipt, err),
		Fix: "keep the event: nothing proves that it is stored. Is every node of the broker of a version that signs acknowledgements?",
	}
}

// holdsReceipt verifies the receipt in ack: that a broker signed it, that it says what
// ack says, and that it is of the event that was sent as msg.
func holdsReceipt(c *Client, msg *nats.Msg, ack *Ack) error {
	if len(ack.Receipt) == 0 {
		return errors.New("the acknowledgement is not signed")
	}
	ring := c.ring.current()
	if ring == nil || !time.Now().Before(ring.Expires()) {
		return signing.ErrNoKeyring
	}
	r, _, err := signing.VerifyReceipt(ack.Receipt, ring)
	switch {
	case err != nil:
		return err
	case r.Subject != msg.Subject, r.Stream != ack.Stream, r.Sequence != ack.Sequence, r.Duplicate != ack.Duplicate, r.ID != ack.EventID:
		return fmt.Errorf("%w: it says something else than the acknowledgement", signing.ErrOtherEvent)
	case r.Tenant+"/" != c.tenant || !strings.HasPrefix(r.Principal, c.tenant):
		return fmt.Errorf("%w: it is of another tenant", signing.ErrOtherEvent)
	}
	return sentAs(msg, r)
}

// sentAs checks that the event of r is the one that was sent as msg: what msg has is
// as it was sent, what it lacks is as r says that the broker filled it in.
func sentAs(msg *nats.Msg, r *signing.Receipt) error {
	var e cloudevent.Event
	if err := e.FromHeaderMap(msg.Header, msg.Data); err != nil {
		return err
	}
	for _, f := range []struct {
		name   string
		sent   *[]byte
		stored string
	}{{"id", &e.ID, r.ID}, {"source", &e.Source, r.Source}, {"type", &e.Type, r.Type}, {"datacontenttype", &e.ContentType, r.ContentType}} {
		if len(*f.sent) > 0 && string(*f.sent) != f.stored {
			return fmt.Errorf("%w: %s is not what was sent", signing.ErrOtherEvent, f.name)
		}
		*f.sent = []byte(f.stored)
	}
	if r.Duplicate {
		return nil // it says nothing about the rest
	}
	e.SetExt([]byte(wire.AttrAuthID), []byte(r.Principal))
	e.SetExt([]byte(wire.AttrAuthType), []byte(wire.DefaultAuthType))
	if len(e.Get(wire.AttrRecordedTime)) == 0 { // else the producer has set and signed it
		e.SetExt([]byte(wire.AttrRecordedTime), []byte(r.Recorded))
	}
	return r.Covers(&e)
}
