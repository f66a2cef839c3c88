// Package admin serves the admin API: request and reply on
// $SIGNET.API.<area>.<verb> in every tenant's account. The gate has authenticated
// the caller, checked the admin grant and stamped the principal on the request;
// this package checks both again, because it is the second lock, and answers.
//
// A tenant's administrators see their tenant only. Answers never hold a payload,
// except dlq.show, whose purpose it is.
//
// Concurrency: every request runs in its own goroutine, at most Config.Parallel at
// a time and few for each principal; more are answered as unavailable. keys.ring has
// places of its own. Shutdown waits for all of them.
//
// Format: internal/adminapi.
package admin
