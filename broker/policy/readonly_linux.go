package policy

import "syscall"

// readOnly reports whether nobody can write to the file system of path: Kubernetes mounts
// the folders of ConfigMaps and Secrets so, with a mode that lets all write.
func readOnly(path string) bool {
	const flag = 0x1 // ST_RDONLY of statfs(2)
	var st syscall.Statfs_t
	return syscall.Statfs(path, &st) == nil && st.Flags&flag != 0
}
