package store

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// durable are the file systems whose syncfs writes back all data and metadata and
// flushes the device cache. Others may do nothing at it (most FUSE), know only a
// server's cache (network file systems) or sit on something unknown (overlay).
var durable = map[int64]string{
	unix.EXT4_SUPER_MAGIC:  "ext",
	unix.XFS_SUPER_MAGIC:   "xfs",
	unix.BTRFS_SUPER_MAGIC: "btrfs",
	unix.F2FS_SUPER_MAGIC:  "f2fs",
	// Nothing there outlives the machine, synced or not; tests use it.
	unix.TMPFS_MAGIC: "tmpfs",
}

func volumeSync(dir string) (sync, release func() error, err error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, nil, fmt.Errorf("store: uname: %w", err)
	}
	if r := unix.ByteSliceToString(name.Release[:]); !reportsErrors(r) {
		return nil, nil, fmt.Errorf("%w: Linux %s is older than 5.8, where syncfs began to report write errors", ErrUnsupported, r)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("store: open %s: %w", dir, err)
	}
	// The descriptor stays open: syncfs reports the errors since it was opened.
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("store: statfs %s: %w", dir, err), unix.Close(fd))
	}
	if _, ok := durable[int64(fs.Type)]; !ok { //nolint:unconvert // 32 bits on some systems
		return nil, nil, errors.Join(fmt.Errorf("%w: file system 0x%x of %s is not ext, xfs, btrfs or f2fs", ErrUnsupported, fs.Type, dir), unix.Close(fd))
	}
	return func() error { return unix.Syncfs(fd) }, func() error { return unix.Close(fd) }, nil
}

func reportsErrors(release string) bool {
	major, rest, _ := strings.Cut(release, ".")
	minor := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	a, err1 := strconv.Atoi(major)
	b, err2 := strconv.Atoi(minor)
	return err1 == nil && err2 == nil && (a > 5 || a == 5 && b >= 8)
}
