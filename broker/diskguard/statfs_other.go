//go:build !linux && !darwin && !freebsd

package diskguard

// Statfs says ErrUnsupported: there is no guard on this system, and the broker warns
// of it at its start.
func Statfs(string) (Volume, error) { return Volume{}, ErrUnsupported }
