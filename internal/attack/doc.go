// Package attack is a list of attacks on a running broker, each written by hand over the
// wire, and what runs them and judges what came of them.
//
// An attack is refused only where the broker was seen to refuse it, by the control that
// the attack is on: with one of the codes that it names, or with what was protected seen
// to be as it was. It has succeeded where it got what it was after. Everything else, a
// lost connection or another refusal included, is not judged: it is never a pass.
//
// The attacks are done by principals and against streams of two throw-away tenants (Stage),
// so that one that succeeds harms nothing else: what it reads, writes, wipes, takes or deletes was
// made for it. The largest floods are 10,001 subscriptions on one connection, 1,000
// requests to the JetStream API and 12 publishes; at most 8 connections are open for one attack.
//
// The same attacks run against plain nats-server (OpenPlain), where nothing stops them: that
// shows that they are attacks.
//
// A Rig and what it opens are for one goroutine each, but for the connections of attacks
// that run for long, which have their own.
package attack
