// Package client is the Go SDK of Signet.
//
//	c, err := client.Connect(ctx, "tls://bus.example:4222",
//		client.WithNkeySeedFile("checkout.nk"),
//		client.WithTLSRoots("ca.pem"),
//		client.WithRoot("OB..."))
//	ack, err := c.Publish(ctx, "orders.created", client.NewEvent("com.example.order", data))
//	sub, err := c.Subscribe(ctx, "orders.>", handle, client.Durable("billing"))
//
// # Verification
//
// Every event that a broker lets in carries the broker's attestation: a
// signature over its data, its attributes, the principal that sent it and the
// subject it was published on. The SDK checks it on every delivery, against a
// keyring that is signed by the root key pinned with [WithRoot]. There is no
// option to leave it out, and a handler never sees an event whose attestation
// does not hold for the subject it came on: such an event is counted, given to
// the [WithInvalidHandler] hook and terminated. Where the check cannot be made
// (the keyring is expired or cannot be fetched), the event is put back for later.
//
// # Delivery
//
// Delivery is at least once, in stream order per subscription while
// [Concurrency] is 1. A handler that returns nil acknowledges; an error brings the
// event back, after the pause and as often as the retry policy of the broker says,
// which owns retries alone: [Retry] only replaces the next pause. [Reject] and
// [Permanent] end it: the event becomes a dead letter and is not delivered to this
// consumer again. [Once] keeps a handler from doing twice what was done; [Client.SubscribeKeyed]
// keeps the order of each key over many workers and processes.
// [Ordered] subscriptions are without acknowledgement: each event once, in order.
//
// # Publishing
//
// [Client.Publish] returns when the event is on stable storage. Each publish has
// an event id; the broker removes duplicates of (principal, source, id), so the
// SDK publishes again after a lost connection, a rate limit or an unavailable
// broker without making two events of one. Set [Event.ID] to make your own
// retries idempotent too.
//
// With [WithEventKeyFile] the SDK signs what it publishes, with a key that is not
// the one of the connection. A reader that needs such signatures says so with
// [RequireProducer]; [Delivery] has what was verified.
//
// With [WithEncryption] it encrypts payloads to the recipients that the keyring names,
// which read them with [WithDecryption]; the broker cannot.
//
// # Errors
//
// Every refusal is an [*Error] with code, class, rule and ref. Test the class
// with errors.Is(err, client.ErrDenied), read the rest with errors.As, and decide
// on a retry with [Retryable].
//
// # Concurrency and lifecycle
//
// A Client and a Subscription may be used by many goroutines. An Event must not
// be modified while it is being published; a Delivery belongs to its handler.
// On a Subscription, Stop discards what is buffered, Drain handles it first, and
// Closed is closed when the last handler has returned. Client.Close stops
// everything, Client.Drain finishes everything. The SDK does not log.
package client
