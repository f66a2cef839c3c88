//go:build darwin || freebsd

package diskguard

// Statfs asks the system for the volume that holds dir.
func Statfs(dir string) (Volume, error) {
	s, err := ask(dir)
	if err != nil {
		return Volume{}, err
	}
	// FreeBSD counts below zero when the superuser's reserve is in use.
	return volume(uint64(s.Bsize), s.Blocks, s.Bfree, uint64(max(int64(s.Bavail), 0)), s.Files, uint64(max(int64(s.Ffree), 0))), nil //nolint:unconvert // not negative; the types differ between systems
}
