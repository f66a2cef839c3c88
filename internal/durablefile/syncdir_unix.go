//go:build unix

package durablefile

import (
	"errors"
	"os"
)

// SyncDir brings the names in a folder to stable storage: those that were made, changed
// and removed.
//
// Errors: those of the file system.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
