// Package integrity finds damage in the store folder of nats-server before it is
// served: it reads the block files of streams and of Raft groups, verifies every
// record's checksum, and what the checksums do not cover.
//
// nats-server answers damage with silence. It truncates a block at the first record
// that it cannot read, counts the rest as deleted, and reports good health; readers
// see a stream with a hole. So the check runs before the server starts (Check), again
// and again while it runs (Scrubber), and its report is judged by a pure function
// (Decide): serve, set the replica aside so that the server fetches it again from its
// peers, or refuse to start.
//
// Nothing in a store is ever changed but by SetAside and Withdraw, which only rename,
// and by Check where an abrupt end has left what holds nothing and the server cannot cope
// with: it completes a change of a configuration, and removes an empty block, or a
// stream or consumer that was made and not finished, of which the key never came, or the
// index of a stream whose end is replayed from the Raft log.
//
// Encrypted stores are decrypted in memory with the key of the store (StoreKey). The
// format is that of nats-server v2.15 (server/filestore.go); docs/ARCHITECTURE.md says
// what can be seen and what cannot.
package integrity
