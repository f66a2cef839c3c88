// Package admission decides what may be published, and turns what may into the
// canonical frames that go to the server. It is the policy core of the publish
// path: pure functions of (principal, subject, headers, payload, clock) over an
// immutable policy snapshot. It opens no socket, starts no goroutine and never
// waits; the gate owns the bytes, the connection and the clock.
//
// The order of the checks is the order of DESIGN section 2, cheapest refusal first:
//
//	subject grammar and class -> ACL -> size and headers -> rate limit ->
//	producer signature -> schema -> wrap as CloudEvent -> attest -> encode
//
// A Session belongs to one connection and is used by one goroutine at a time.
// Publish keeps views into the caller's read buffer until Flush: the buffer must
// not move between the two. In steady state a publish that is let in costs no
// heap allocation.
//
// Formats: docs/spec/envelope.md, docs/spec/subjects.md. Refusals: docs/spec/errors.md.
package admission
