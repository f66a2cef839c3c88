// Package auditlog is the format of the audit trail: records, the chains that they
// form, the heads that nodes sign, the batches that they are stored in, and the
// export that an auditor takes away. `broker/audit` writes them, `signet audit`
// reads and verifies them.
//
// A record has one encoding, byte for byte, and each record holds the hash of the
// one before it, so that a verifier finds what was edited, deleted, inserted or
// moved. A head is signed by the node that wrote the chain; one that was kept
// elsewhere shows what was cut off at the end.
//
// Everything here is pure: no goroutine, no file, no clock. Format: docs/spec/audit.md.
package auditlog
