//go:build linux || darwin

package backup

import "syscall"

// diskFree returns how many bytes the broker may still write to the volume of dir.
func diskFree(dir string) (free uint64, ok bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, false
	}
	return st.Bavail * uint64(st.Bsize), true
}
