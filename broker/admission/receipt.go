package admission

import (
	"time"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// Receipts takes down which events of one connection want a signed acknowledgement.
// The gate has it; only the goroutine of the session calls it.
type Receipts interface {
	// Room says why no further one is taken down, nil while there is room.
	Room() *wire.Refusal
	// Expect takes down that the acknowledgement of the event of r, whose Node,
	// Stream, Sequence, Duplicate and Time are still open, is to be signed and sent to reply.
	// It returns where the acknowledgement must go in place of reply, valid until the
	// flush, and the frame that must go to the server before the event, nil for none.
	// Room was asked before.
	Expect(reply []byte, r *signing.Receipt) (ackTo, before []byte)
}

// takeAsk notes that a publish wants a signed acknowledgement.
func takeAsk(s *Session, h wire.Header) *wire.Refusal {
	switch {
	case string(h.Value) != wire.AckSigned:
		return wire.Refuse(wire.CodeHeaderDenied, "signed-ack", "the only value of "+wire.HeaderAck+" is "+wire.AckSigned)
	case s.asked:
		return wire.Refuse(wire.CodeHeaderDuplicate, "signed-ack", wire.HeaderAck+" is there twice")
	}
	s.asked = true
	return nil
}

// mayAsk refuses where nothing could be signed: what is not stored, what has no
// reply, and where as many as may are waiting for theirs.
func mayAsk(s *Session, rt *route, p *Publish) *wire.Refusal {
	switch {
	case s.plans.batch:
		return wire.Refuse(wire.CodeHeaderDenied, "signed-ack", "an event of a batch has no acknowledgement of its own")
	case rt.class != acl.ClassEvent:
		return wire.Refuse(wire.CodeHeaderDenied, "signed-ack", "only an event of a stream has a signed acknowledgement")
	case len(p.Reply) == 0:
		return wire.Refuse(wire.CodeHeaderDenied, "signed-ack", "a signed acknowledgement needs a reply subject")
	case p.Receipts == nil:
		return wire.Refuse(wire.CodeHeaderDenied, "signed-ack", "this broker acknowledges before anything is on stable storage, so it signs no acknowledgements")
	}
	return p.Receipts.Room()
}

// ask takes down the event e, which was added to the batch just now, and returns where
// its acknowledgement must go.
func ask(s *Session, p *Publish, e *cloudevent.Event) []byte {
	sum := s.batch.LastDigest()
	ackTo, before := p.Receipts.Expect(p.Reply, &signing.Receipt{
		Tenant: s.p.Tenant.Name, Principal: s.p.FullName(), Subject: string(p.Subject),
		ID: string(e.ID), Source: string(e.Source), Type: string(e.Type), ContentType: string(e.ContentType),
		Recorded: string(e.Get(wire.AttrRecordedTime)), Event: sum[:], Policy: s.chain.cfg.Policy,
	})
	if before != nil {
		s.Frame(before)
	}
	return ackTo
}

// SignReceipt completes r as of now and signs it with the attestation key in force.
//
// Errors: a Refusal (Unavailable) outside of the time of that key; ErrReceipt.
func (c *Chain) SignReceipt(r signing.Receipt, now time.Time) ([]byte, error) {
	if now.Before(c.cfg.NotBefore) || !now.Before(c.cfg.NotAfter) {
		return nil, wire.Refuse(wire.CodeUnavailable, "attestation-key", "the broker's attestation key is not valid now")
	}
	ring := c.cfg.Keyring()
	if ring == nil {
		return nil, wire.Refuse(wire.CodeUnavailable, "keyring", "the broker has no keyring in force")
	}
	key, known := ring.ByID(c.cfg.Signer.KeyID())
	if !known {
		return nil, wire.Refuse(wire.CodeUnavailable, "attestation-key", "the broker's attestation key is not in the keyring")
	}
	r.Node, r.Time = key.Principal, now
	return c.cfg.Signer.SignReceipt(r)
}
