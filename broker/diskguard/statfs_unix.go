//go:build linux || darwin || freebsd

package diskguard

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ask makes the system call; what its fields mean differs between systems.
func ask(dir string) (unix.Statfs_t, error) {
	var s unix.Statfs_t
	err := unix.Statfs(dir, &s)
	for errors.Is(err, unix.EINTR) {
		err = unix.Statfs(dir, &s)
	}
	if err != nil {
		return s, fmt.Errorf("diskguard: statfs %s: %w", dir, err)
	}
	return s, nil
}
