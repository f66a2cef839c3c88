package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// names of the file systems that the checks know by number.
var names = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.F2FS_SUPER_MAGIC: "f2fs",
	unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs", unix.NFS_SUPER_MAGIC: "nfs", 0xff534d42: "cifs", unix.SMB2_SUPER_MAGIC: "smb2",
	unix.V9FS_MAGIC: "9p", unix.FUSE_SUPER_MAGIC: "fuse", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", 0x2fc12fc1: "zfs",
}

func volumeOf(dir string) (volume, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return volume{}, fmt.Errorf("statfs %s: %w", dir, err)
	}
	kind := names[int64(uint32(s.Type))]
	if kind == "" {
		kind = fmt.Sprintf("0x%x", uint32(s.Type))
	}
	size := uint64(s.Frsize)
	if size == 0 {
		size = uint64(s.Bsize)
	}
	return volume{
		kind: kind, mount: mountPoint(dir), free: s.Bavail * size, total: s.Blocks * size, inodes: s.Ffree, allInodes: s.Files,
	}, nil
}

// mountPoint walks up until the device changes.
func mountPoint(dir string) string {
	abs, err := filepath.EvalSymlinks(dir)
	if err == nil {
		abs, err = filepath.Abs(abs)
	}
	if err != nil {
		return dir
	}
	for device(abs) != 0 {
		up := filepath.Dir(abs)
		if up == abs || device(up) != device(abs) {
			return abs
		}
		abs = up
	}
	return dir
}

func device(path string) uint64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return uint64(st.Dev) //nolint:unconvert // of other width on some systems
}

func openFileLimit() (uint64, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, fmt.Errorf("getrlimit: %w", err)
	}
	return r.Cur, nil
}

// kernelClockSynced asks whether a time service disciplines the clock.
func kernelClockSynced() (synced, known bool) {
	var t unix.Timex // no mode: only reads
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return false, false
	}
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, true
}
