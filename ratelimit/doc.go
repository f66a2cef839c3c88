// Package ratelimit holds the arithmetic of rate limits: a bucket that limits
// messages and bytes per second, and a table that shares one bucket among all
// connections of a principal.
//
// It is pure: the caller passes the time, nothing starts a goroutine or reads a
// clock. Bucket and Table are safe for concurrent use; neither allocates on the
// hot path (Bucket.Take).
package ratelimit
