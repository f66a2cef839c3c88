// Package backupfile is the format of a tenant's backup: what `signet cluster
// backup` writes, and what restore and `signet cluster backup verify` read.
//
// A file is a header, one JetStream snapshot for each stream, and a manifest with
// counts and hashes of everything before it, signed by the broker that made it.
// Format: docs/spec/backup.md.
//
// The package reads what may come from an enemy: every length is bounded before
// memory is taken for it, names are plain, and nothing is written to a disk. It
// keeps no state beyond its values. Writer.Stream runs one goroutine, which has
// ended when it returns; nothing else runs beside its caller.
package backupfile
