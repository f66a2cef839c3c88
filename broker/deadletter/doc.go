// Package deadletter writes what was refused at ingress into the tenant's DLQ
// stream, after the sender has its answer and without ever holding it up.
//
// A Writer is best effort by design: its queue is bounded in entries and bytes and
// each tenant has a rate of its own, so that refusals cannot become a way to fill
// a stream or the heap. What is dropped is counted, and reported once a second per
// tenant and cause, so that the audit trail shows it. A dead letter that cannot be
// written does not become another dead letter.
//
// A Writer is safe for concurrent use. Offer never blocks; one goroutine (Start to
// Shutdown) writes. Format: docs/spec/dlq.md.
package deadletter
