//go:build unix

package broker

import (
	"errors"
	"os"
)

// syncDir brings the names in a folder to stable storage.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
