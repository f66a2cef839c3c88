// Package redrive brings dead letters back: to the consumer that failed, through a queue
// that only its owner reads, or to everybody, on the original subject. It judges each by
// the policy in force, as of the principal that sent the event and never as of the one who
// redrives, and takes the letter away only when its target has it on stable storage.
//
// What a letter goes through, in this order: a mark is written, which only one redrive can
// have; the event is stored in its target under a Nats-Msg-Id made of the letter's sequence
// and the count of its redrives; the letter is removed; the mark is removed. Whoever finds
// the mark of a redrive that ended midway can tell how far that came, or says that nobody
// can: no letter is lost, and none is redriven twice without being told to.
//
// A Redriver is safe for concurrent use, also on several nodes at once.
//
// Format: docs/spec/dlq.md.
package redrive
