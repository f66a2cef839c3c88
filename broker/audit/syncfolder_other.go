//go:build !unix

package audit

// syncFolder does nothing: folders cannot be synced here.
func syncFolder(string) error { return nil }
