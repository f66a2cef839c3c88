// Package audit keeps the trail of what was refused and what was done: one log
// line a second for equal refusals, counters for each code, and a ring of the
// latest refusals with their full explanation, which `signet explain REF` reads.
//
// A Trail is safe for concurrent use. Refused never blocks on I/O: it takes one
// mutex for the length of a map look-up; the only goroutine (Start to Shutdown)
// writes the lines. Memory is bounded whatever clients send: see Config.
//
// Lines are JSON by zerolog with component=audit; they hold no payload.
package audit
