// Package payload encrypts the data of events end to end: from the producer to the
// recipients that the keyring names, unreadable for the broker and its disks.
//
// A [Key] encrypts the events of one NATS subject for one epoch with AES-256-GCM. It
// lives in the memory of one producer and is told to nobody but in a [Record], where
// it is wrapped to every recipient with nkeys xkeys from a key pair that is used for
// this record alone. A [Reader] holds the seeds of a recipient and opens records.
//
// The id of a key is a digest of it. So an event names one key, and no record can
// bring another in its place: AES-GCM alone has ciphertexts that open with two keys.
// The ciphertext is bound to the principal, id, source, type and NATS subject of its event, and
// the event is signed after it was encrypted, so that everybody can verify it.
//
// What this package does not do: choose recipients, publish or fetch records, verify
// signatures. A record is good for nothing before its event is verified.
//
// Concurrency: every method may be called from many goroutines. The package starts
// none.
//
// Format and limits: docs/spec/encryption.md.
package payload
