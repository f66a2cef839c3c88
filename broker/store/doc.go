// Package store keeps the streams and buckets of all tenants as the policy declares
// them, reads and writes dead letters, looks up who owns a consumer, and holds the
// durability barrier.
//
// # Streams
//
// ApplyPolicy makes what is missing and updates what differs. It never deletes a
// stream, and refuses, before it touches anything, a change that would lose stored
// messages (a lower max_age or history) or that would leave less room than is used.
// What the policy no longer declares stays as it is.
//
// Event streams store in files, discard new messages when full (an accepted event
// is never dropped silently), deny message deletion and purge, allow neither
// rollup nor any other header that deletes or redirects, and answer direct gets.
// The dead letter stream DLQ is the same without direct gets; it captures
// $SIGNET.DLQ.>, and nothing captures $SIGNET.API. Key-value and object buckets
// have the stream configuration that nats.go gives them: it needs rollup headers
// and purge for Purge and Delete. Rollup lets a writer of one key empty the whole
// bucket, so the gate lets only the form that stays on its subject through
// (Nats-Rollup: sub).
//
// # Durability
//
// With SyncAlways off, an acknowledgement means something only after [Barrier.Wait].
// The package's own writes wait for it.
//
// # Concurrency
//
// All methods may be called from any goroutine. ApplyPolicy calls run one after
// another. There is one connection to the server per tenant, made at its first
// use; [Store.mu] is held while it is made. The barrier has one goroutine.
package store
