// Package jwks keeps the public keys of an issuer of tokens at hand: it fetches them in
// the background, keeps them on disk, and has them again after a start without a network.
//
// A login never fetches. One whose token names a key that is not known may ask for a
// fetch before its time and wait for it a moment; since strangers can do that with any
// token, such fetches have a gap between them, which doubles while they bring nothing
// new and ends at the regular interval. All who ask meanwhile share one.
//
// Keys that could not be confirmed for longer than Config.MaxAge are not used: who can
// keep the broker from the issuer must not thereby keep a withdrawn key alive for ever.
//
// A [Source] runs one goroutine from Start to Close. Its methods are safe for concurrent
// use; Source.mu guards what is known and is never held over a request or a write.
package jwks
