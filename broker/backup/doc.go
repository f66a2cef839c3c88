// Package backup makes and restores backups of tenants: the broker's half of the
// admin area backup.
//
// A backup or a restore is a session of one principal: parts in order, one request
// each. A backup is made while it is read, at the reader's pace; nothing of it
// touches the disk. A restore is received into a file that has no name any more when
// its first byte comes, verified as a whole (package internal/backupfile), and only
// then given to the store, which restores all streams of it or none.
//
// Concurrency: a session has one goroutine while it makes or applies something;
// Shutdown ends and awaits all of them. The state of a session is guarded by its
// own lock, the set of sessions by Service.mu; neither is held while anything waits.
// Format: docs/spec/backup.md.
package backup
