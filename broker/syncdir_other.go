//go:build !unix

package broker

// syncDir does nothing: folders cannot be synced here.
func syncDir(string) error { return nil }
