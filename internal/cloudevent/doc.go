// Package cloudevent holds the event record of Signet, a CloudEvents 1.0 event,
// and its codecs: NATS binary mode (header lines plus body), the structured
// JSON mode, and for bridges the binary modes of HTTP and Kafka. Both decoders are strict: whatever two parsers could read in two
// ways is refused, never repaired.
//
// The record is a set of views. Decoders point into the bytes they were given,
// or into a Scratch where a value had to be decoded; nothing is copied, so an
// Event is valid only as long as those bytes are. Clone makes one that stands by
// itself. Data bytes are never changed by any codec.
//
// Absent and empty are one state: an attribute of length 0 is not there. The
// decoders refuse an attribute that is present and empty, because its signature
// would not tell the two apart. specversion is always 1.0 and has no field.
//
// Decoders check form (names, duplicates, letter case, encoding); Validate checks
// values. A caller that lets an event in runs both.
//
// Concurrency: none of the types is safe for concurrent use; several goroutines
// may read one Event that nobody writes. The package starts no goroutine.
//
// Formats: docs/spec/envelope.md; CloudEvents 1.0.2 with its NATS protocol
// binding and its JSON event format.
package cloudevent
