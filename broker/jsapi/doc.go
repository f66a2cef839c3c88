// Package jsapi is the read guard: it gives the verdict for every publish of a
// client on `$JS.>` and `$SYS.>`, so that the JetStream API cannot be used to
// read, write, acknowledge or destroy what the policy does not grant.
//
// nats-server has no such check: whoever may use `$JS.API.>` reads every subject
// of a stream through a consumer, through filter_subjects or through a direct
// get, and turns reply and deliver subjects into writes to subjects that its
// permissions deny. The guard therefore works by an allow list of verbs (table.go);
// what is not in it is denied.
//
// # Rules
//
//   - A request body is decoded strictly (no unknown, repeated or differently
//     cased member), checked, and encoded again from our own struct. The server
//     sees only bytes that this package wrote: encoding/json, which the server
//     uses, matches names in any letter case and lets the last of two win.
//   - Every subject that a request can make readable must be inside one subscribe
//     grant, or inside a granted key-value or object bucket. A request without a
//     filter reads the whole stream, so every subject of the stream must be granted.
//   - A consumer belongs to the principal that created it. The owner is written
//     into the consumer's metadata under wire.MetaOwner and is the only source of
//     truth; a grant can share a consumer ("STREAM.CONSUMER"): shared consumers may
//     be read and acknowledged, not changed.
//   - A reply subject and a deliver_subject are inboxes of the same connection.
//   - Headers other than Nats-Required-Api-Level do not pass.
//
// The package is pure: no I/O, no goroutine, no clock. A Guard is immutable and
// safe for concurrent use. What it cannot know (who owns a consumer) it asks
// through OwnerFunc and answers NeedOwner when the caller must look it up first.
//
// Formats: the JetStream API of nats-server v2.15 (ADR-1, ADR-8, ADR-20, ADR-31,
// ADR-42 of nats-architecture-and-design).
package jsapi
