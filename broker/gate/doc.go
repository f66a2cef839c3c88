// Package gate is the one door of the broker: it accepts client connections,
// speaks the NATS client protocol with them, asks admission, the read guard and
// the access lists about every frame, and forwards what may pass to the embedded
// server over one loopback connection per client.
//
// # Data path
//
// Up: one read from the client is one batch. The parser turns bytes into values;
// nothing that a client wrote is ever forwarded as it stood. Publishes go to
// admission (events, ephemeral, rpc, buckets, discovery, admin), to the JetStream
// read guard ($JS and the connection's own $SYS.REQ.USER.INFO) or, for inboxes, to
// the inbox rules. Refusals are written to the client before anything of the batch
// is written upstream, so a refusal precedes the PONG that follows it. What was
// accepted goes upstream in one write, in the client's order.
//
// Down: a framed copy. Payloads are skipped by length. Only INFO (swallowed), inbox
// subjects (the session token is taken out) and, for clients without headers, the
// header blocks change; and a reply subject that is not for this client is cut out
// (relay.handOver). Frames of our own are written between frames, under the
// lock of the downlink. With a Barrier, publish acknowledgements are held until
// stable storage has what they acknowledge.
//
// # Inboxes
//
// Every connection has a 128-bit session token. The client's _INBOX.a.b is
// _INBOX.<token>.a.b on the server, in subscriptions and replies going up and in
// subjects coming down; so nobody can subscribe to, or name as a reply, an inbox
// that is not its own. An inbox of another connection may be published to only
// after the server handed it to this connection as the reply of a request, for a
// limited time.
//
// # Parts of a connection
//
// A conn makes, starts and ends the parts. Each has what it needs of the others; only
// the handshake, which fills them, knows the conn:
//
//   - handshake: TLS, CONNECT, authentication, the server behind. Gone when ready.
//   - lifetime: who may end the connection, and how.
//   - access: the principal and its ticket at the server, which Reload changes.
//   - session: what both directions share: links, options, inboxes, subscriptions.
//   - reader: the way up. Its intake turns bytes into operations; the publisher, the
//     apiCaller and the subscriber judge them; the batch gathers answers and frames.
//   - relay, with its holder: the way down.
//
// # Concurrency
//
// Reload may write to a connection from a goroutine of its own, which Shutdown waits
// for too. An idle connection has two goroutines: that of serve (handshake, reader)
// and that of the relay (upstream reads, client writes). While acknowledgements are
// held there is a third, the flusher, which ends when none is left. serve starts the
// relay and the relay the flusher; the Gate waits for all of them in Shutdown. A panic
// in any of them ends the connection, and no other (panic.go). Locks,
// none of which is held while another lock of this package is taken:
//
//   - Gate.mu: the set of connections and the shares of the principals; never held
//     during I/O.
//   - link.mu: one write to a peer at a time, always whole frames; one link to the
//     client and one to the server.
//   - access.mu: the handshake against Reload; held while the upstream's ticket
//     table is called.
//   - subscriptions.mu: the table of one connection; reader, relay and Reload.
//   - flights.mu: the publishes of one connection that are in flight; reader, relay and
//     a timer.
//   - handed.mu: the inboxes that were handed to one connection.
//   - holder.mu: the held acknowledgements of one connection.
//   - ownerCache.mu: consumer owners, shared by all connections.
//
// # Formats
//
// The NATS client protocol, narrowed: docs/spec/subjects.md lists what clients may
// say. Where the parser is stricter than nats-server is listed in parser.go.
package gate
