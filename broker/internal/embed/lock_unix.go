//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package embed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// ErrLocked: another process, or another Server, uses the store directory.
var ErrLocked = errors.New("embed: the store directory is in use")

// dirLock is an flock on StoreDir/signet.lock; the kernel drops it with the
// process, however that ends.
type dirLock struct{ f *os.File }

func lockDir(dir string) (*dirLock, error) {
	f, err := os.OpenFile(filepath.Join(dir, "signet.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("embed: lock file: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s: another broker runs with it; stop that one, or give this one a state folder of its own", ErrLocked, dir)
		}
		return nil, fmt.Errorf("embed: lock %s: %w", dir, err)
	}
	return &dirLock{f}, nil
}

func (l *dirLock) release() error { return l.f.Close() }
