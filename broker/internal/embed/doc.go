// Package embed runs nats-server with JetStream inside the process. It is the
// only importer of nats-server; nothing of that server's types leaves it.
//
// # What it promises
//
// The server listens on one TCP port of 127.0.0.1 and nowhere else: no cluster
// route, leaf node, gateway, WebSocket, MQTT or monitoring port, no signal
// handler, no profiler. A connection is accepted only with a ticket: 256 random
// bits, redeemable once, by the one connection that it was made for ([Server.Ticket]
// binds it to that connection's source address; [Server.InternalTicket] to an
// in-process pipe). Every reload makes the server check all live connections
// again; a ticket answers for the connection that redeemed it, with the
// permissions it has by then, and a revoked ticket cuts its connection.
//
// Accounts (one per tenant, each with JetStream limits, and the system account)
// are static configuration, rendered as text before the start. A new tenant is a
// reload ([Server.ReloadAccounts]), which keeps all connections. An account is
// never dropped while the server runs: nats-server would forget the account and keep
// its streams open. It goes at the next start; its files stay on disk.
//
// A user is registered without a name: with a name, nats-server takes the
// connection for one of a configured user and cuts it at every reload.
//
// # Files
//
// StoreDir/jetstream belongs to nats-server. StoreDir/signet.lock is held locked
// (flock) while the server runs, because two servers on one directory destroy it
// and nats-server itself does not look. StoreDir/store-key.json and its copy hold
// the key of an encrypted store, sealed ([Encryption]); Start reads them under the
// lock and before nats-server sees the store.
//
// # Concurrency
//
// All methods may be called from any goroutine. [Server.mu] orders reloads only,
// and Server.connecting keeps them apart from logins ([Server.Connecting]);
// the ticket table has its own lock, which is a leaf: nothing is called while it
// is held. Start makes two goroutines of its own, which end before Done is closed.
package embed
