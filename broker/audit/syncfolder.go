package audit

import "github.com/signetbus/signet/internal/durablefile"

// syncFolder brings the names in a folder to stable storage.
func syncFolder(dir string) error { return durablefile.SyncDir(dir) }
