// Package adminapi holds the shapes of the admin API: the subjects
// ($SIGNET.API.<area>.<verb>), the JSON requests and results, and the answer
// envelope. The broker serves them, package client/admin asks for them; both
// import this package and neither imports the other.
//
// # Format
//
// A request is one JSON object (an empty body is {}), decoded strictly: an
// unknown member, a repeated top-level value or trailing bytes are refused. An
// answer is {"result": ...} or a wire.ErrorAnswer, whose problem says why.
// Members are only ever added to results, so results are decoded leniently.
//
// # Grants
//
// keys.ring is open to every principal, because without the keyring no reader
// could verify an event. Every other verb needs the admin grant of its area.
// All verbs act inside the tenant of the caller.
//
// The package keeps no state and starts no goroutine.
package adminapi
