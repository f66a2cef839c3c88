// Package tlog is the log of what a stream stores: an RFC 6962 tree with one leaf for
// each sequence, C2SP checkpoints that a broker signs, tiles of 256 hashes, and proofs
// that are checked offline with the root key alone.
//
// A [Leaf] is what is kept of one stored message; a [Hasher] makes it from the bytes of
// the stream, and a verifier makes it again from the event in a proof. An [Edge] grows
// the tree and hands out its tiles; [NewHashReader] reads hashes from tiles and
// authenticates each against the root. A [Checkpoint] is the signed state of a log at
// a time. A [Proof] shows that an event, or every sequence of a range, stands in the log.
//
// Sequence s of the stream has the leaf with the index s - First. A sequence without a
// message has the absent leaf, so order and completeness follow from the arithmetic.
//
// The package is pure: it starts no goroutine and opens nothing. Hasher and Edge belong
// to one goroutine at a time, everything else does not change once made.
//
// Format: docs/spec/log.md; vectors: docs/spec/vectors/log.json.
package tlog
