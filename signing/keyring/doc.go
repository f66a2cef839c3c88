// Package keyring holds the public keys that verifiers of Signet events trust.
//
// A [Ring] is an immutable set of keys with, for each, its algorithm, role,
// principal, validity interval and revocation time. Nothing of that is ever read
// from a message: a message only hints which key to try.
//
// A ring travels as a document: a DSSE envelope whose one signature is made by
// the root key (an nkeys operator key, "O...", kept offline), with a version that
// only grows and an expiry. The document has exactly one encoding: keys in order
// of their id, no white space, no unknown, repeated or re-ordered member. [Parse]
// accepts that encoding only, so equal rings are equal bytes.
//
// What this package does not do: fetch documents, keep them, or remember the last
// version seen. Holders call [Ring.Replaces] before they swap one ring for the
// next, and check [Ring.Expires] while they use it.
//
// Keys are read through nkeys only, which checks the checksum and the type prefix
// and refuses points of small order (a key of small order has signatures that fit
// every message).
//
// Concurrency: a Ring never changes after [New] or [Parse]; every method may be
// called from many goroutines. The package starts none.
//
// Format: docs/spec/envelope.md, section 8.
package keyring
