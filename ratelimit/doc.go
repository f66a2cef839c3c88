// Package ratelimit holds the arithmetic of rate limits: a bucket that limits
// messages and bytes per second, and a table that shares one bucket among all
// connections of a principal.
//
// In a cluster (Table.Spread) a bucket is one node's part of a bucket of all nodes. Peer and
// Ledger are the rules by which one node, the owner, gives the parts leases of shares:
// docs/spec/limits.md.
//
// It is pure: the caller passes the time, nothing starts a goroutine or reads a
// clock. Bucket and Table are safe for concurrent use; neither allocates on the
// hot path (Bucket.Take).
package ratelimit
