//go:build unix

package audit

import (
	"errors"
	"os"
)

// syncFolder brings the names in a folder to stable storage.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
