package diskguard

// Statfs asks the system for the volume that holds dir.
func Statfs(dir string) (Volume, error) {
	s, err := ask(dir)
	if err != nil {
		return Volume{}, err
	}
	// Blocks are counted in fragments; Bsize is the best size of a write, which is
	// another one on some network and FUSE file systems.
	block := uint64(s.Frsize)
	if block == 0 {
		block = uint64(s.Bsize)
	}
	return volume(block, s.Blocks, s.Bfree, s.Bavail, s.Files, s.Ffree), nil
}
