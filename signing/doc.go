// Package signing makes and checks attestations: the broker's signed statement
// that a principal published an event, byte for byte, on a subject at a time.
//
// What is signed is the CloudEvents verifiability extension v0.1 (DSSE, SHA-256
// digests of attributes and data, Ed25519), so the statement survives a change of
// binding between NATS, JSON, Kafka and HTTP. Events are signed in [Batch]es: one
// signature per RFC 6962 tree of up to 32 events. On the wire it is one compact
// extension attribute, "attestation"; [Expand] turns it without loss into the
// standard "dssematerial".
//
// Writing: a [Signer] holds a node's attestation key; a Batch takes events with
// Add, signs with Sign and writes texts with AppendAttestation. Reading: a
// [Verifier] over a function that returns the [keyring.Ring] in force. A reader
// uses the very event that Verify was given, never one it parsed again.
//
// A service may sign its events too, before a broker sees them: a [Producer] holds
// an event key, a [ProducerBatch] signs up to 32 events at once, and a
// [ProducerVerifier] checks what they wrote into "dssematerial". The attestation
// covers that signature; the two are verified apart.
//
// What is not signed: headers that are not ce- attributes, the stream sequence and
// JetStream's own timestamp. An attestation proves what the broker saw, it is not
// a producer signature, and it does not stop replay: see the threat notes in the
// format document.
//
// Concurrency: Signer, Producer and the verifiers may be used by many goroutines, a
// batch by one at a time. The package starts no goroutine. Hashing, Add and a Verify under a
// root that was seen before do not allocate.
//
// Format: docs/spec/envelope.md; vectors: docs/spec/vectors/attestation.json and
// producer.json.
package signing
