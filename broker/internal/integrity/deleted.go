package integrity

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// RemoveDeleted removes what deletions of streams have left in the store under dir, and
// returns their folders, relative to dir. The server must be stopped.
//
// nats-server (2.15.2) deletes a stream by a new name with a dot, which it then removes
// in the background, at its next start too. A stream of that name that is deleted
// meanwhile cannot be moved there: its blocks stay, its deletion is answered with
// success, and the next stream of the name holds its messages again, or cannot be made.
//
// Errors: ErrStore.
func RemoveDeleted(dir string) ([]string, error) {
	root := filepath.Join(dir, storeFolder)
	accounts, err := subfolders(root)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, acc := range accounts {
		names, err := subfolders(filepath.Join(root, acc, "streams"))
		if err != nil {
			return out, err
		}
		for _, n := range names {
			if !strings.HasPrefix(n, ".") {
				continue
			}
			if err := os.RemoveAll(filepath.Join(root, acc, "streams", n)); err != nil {
				return out, fmt.Errorf("%w: %w", ErrStore, err)
			}
			out = append(out, strings.Join([]string{storeFolder, acc, "streams", n}, "/"))
		}
	}
	return out, nil
}
