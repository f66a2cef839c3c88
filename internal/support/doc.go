// Package support makes support bundles: a compressed archive of what helps somebody
// else to find a fault, from which every secret that can be recognised is taken out.
// Every byte of every entry, the names of entries and the manifest pass through
// Redact; nothing else writes into the archive.
//
// Redact recognises forms, it does not understand texts: what is only known to be a
// secret by its meaning (a password in a sentence) must not be collected at all.
//
// A Bundle is used by one goroutine; Redact is safe for concurrent use.
package support
