// Package deadletter writes dead letters into the tenant's DLQ stream: what was refused at
// ingress, after the sender has its answer, and what consumers fail on, before the event is
// let go.
//
// A Writer is best effort by design: its queue is bounded in entries and bytes and
// each tenant has a rate of its own, so that refusals cannot become a way to fill
// a stream or the heap. What is dropped is counted, and reported once a second per
// tenant and cause, so that the audit trail shows it. A dead letter that cannot be
// written does not become another dead letter.
//
// A Writer is safe for concurrent use. Offer never blocks; one goroutine (Start to
// Shutdown) writes.
//
// A Keeper is the opposite: what a consumer has acknowledged as failed, or was given too
// often, is stored first and let go then, so nothing is lost where the DLQ takes nothing:
// the event stays with its consumer. It has a queue and goroutines of its own.
//
// Format of both: docs/spec/dlq.md.
package deadletter
