package embed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// clearDeleted removes what deletions of streams have left that a kill cut short, and
// returns when it is gone. nats-server moves the folder of a deleted stream to one with
// a dot before its name, and removes that at its leisure, also at a start. While it is
// there, a stream of that name cannot be deleted again: the server says that it is, but
// its messages stay, and are in the next stream of the name.
//
// Errors: ErrServer, for a store that cannot be read or written.
func clearDeleted(storeDir string) error {
	top := filepath.Join(storeDir, "jetstream")
	accounts, err := os.ReadDir(top)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrServer, err)
	}
	for _, a := range accounts {
		dir := filepath.Join(top, a.Name(), "streams")
		if !a.IsDir() {
			continue // nats-server tries the folder with a file at its start, and may be killed then
		}
		streams, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue // no account: lost+found of a volume
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrServer, err)
		}
		for _, s := range streams {
			if !strings.HasPrefix(s.Name(), ".") {
				continue
			}
			if err := os.RemoveAll(filepath.Join(dir, s.Name())); err != nil {
				return fmt.Errorf("%w: what is left of a deleted stream: %w", ErrServer, err)
			}
		}
	}
	return nil
}

// deletedPoll is between two looks at what a deletion leaves.
const deletedPoll = 5 * time.Millisecond

// AwaitDeleted returns when nothing is left on this node of an earlier deletion of the
// stream: before that it must not be deleted again, see clearDeleted.
//
// Errors: ErrServer, for a store that cannot be read; ctx's.
func AwaitDeleted(ctx context.Context, s *Server, account, stream string) error {
	left := filepath.Join(s.cfg.StoreDir, "jetstream", account, "streams", "."+stream)
	for {
		if _, err := os.Lstat(left); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%w: %w", ErrServer, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("embed: %s is being removed: %w", left, ctx.Err())
		case <-time.After(deletedPoll):
		}
	}
}
