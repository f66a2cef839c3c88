package jsapi

import (
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// The durables in wire.StreamRetry are made by the broker, one for each consumer that has
// something to do again, in the name of its owner. Whoever may pull from the consumer may
// pull from its retry queue and acknowledge what is in it; nobody may change or delete one.

// ownedRetry is owned for a durable of a retry queue: it belongs to its owner as long as the
// consumer does that it is for..
func ownedRetry(c *call, shareable bool) (Verdict, bool) {
	stream, consumer, ok := wire.RetryOrigin(c.name)
	switch {
	case !shareable:
		return c.refuse(wire.CodeAPIDenied, "the consumers of retry queues are the broker's to change"), false
	case !ok:
		return c.refuse(wire.CodeNotFound, "no such consumer"), false
	}
	owner, found, known := c.owner(c.stream.name, c.name)
	switch {
	case !known:
		return c.needOwner(), false
	case !found:
		return c.refuse(wire.CodeNotFound, "no such consumer"), false
	case !sharable(owner) || owner != c.Principal.FullName() && !shared(c.Principal, stream, consumer):
		return c.refuse(wire.CodeConsumerNotOwned, "only the owner of the consumer that it is for, or a principal with a consumers grant, may use it"), false
	}
	return Verdict{}, true
}

// retryReads is stillReads for the queue of a consumer; false for any other request.
func retryReads(c *call) bool {
	name, consumer, ok := wire.RetryOrigin(c.name)
	if !ok || c.stream.kind != streamRetry {
		return false
	}
	s := lookupStream(c.Principal.Tenant, name)
	return canReadSome(c.Principal, &s) || shared(c.Principal, name, consumer)
}

// RetryReadsWithin is ReadsWithin for the durable of a retry queue: reads are the filters
// of the consumer that it is for, none for its whole stream.
func RetryReadsWithin(p *policy.Principal, durable string, reads []string) bool {
	stream, _, ok := wire.RetryOrigin(durable)
	return ok && ReadsWithin(p, stream, reads)
}

// brokersOwn are the streams that clients neither write to nor take from: what goes from
// them goes by signet dlq, on record.
func brokersOwn(s *stream) bool { return s.kind == streamDeadLetters || s.kind == streamRetry }

func judgeMsgDelete(c *call) Verdict {
	if isAdmin(c.Principal, areaStreams) && brokersOwn(&c.stream) {
		return c.refuse(wire.CodeAPIDenied, "dead letters and what is redriven go by signet dlq only")
	}
	return adminBody[msgDelete](areaStreams, true)(c)
}
