//go:build !unix

package durablefile

// SyncDir does nothing: folders cannot be synced here.
func SyncDir(string) error { return nil }
