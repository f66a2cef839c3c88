// Package dlq defines a dead letter: the exact bytes and headers of what could
// not be let in or delivered, with the reason. It encodes a Record to the message
// that stands in the tenant's DLQ stream, decodes it back, and filters records.
//
// The package is pure; its functions are safe for concurrent use, a Record is not.
// Decoded records hold views into the message body.
//
// Format: docs/spec/dlq.md, version 1.
package dlq
