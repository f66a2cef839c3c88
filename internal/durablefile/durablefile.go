// Package durablefile replaces files so that a power cut leaves the old content or the
// new one, whole, under the name: never a part, and never nothing.
package durablefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// ending is that of the files that Replace writes first. Their names begin with a dot
	// and the name of the file that they are to become.
	ending = ".tmp"
	// abandoned is how old a temporary file is of which nobody says any more that it is
	// being written: whoever wrote it was killed.
	abandoned = time.Hour
)

// Replace puts data in the place of the file name, which need not exist, with the
// permissions mode. When it returns nil, the content and the name are on stable storage.
// After an error the file is as it was, except after one of the sync of its folder: then
// it has the new content, which a power cut may undo.
//
// The temporary file beside it has a name of its own for each call, so that two callers
// do not write into one file: the last one wins, whole. What a process that was killed has
// left of it goes an hour later, with the first call of another process for that name. A
// link with that name is replaced, not followed.
//
// Errors: those of the file system.
func Replace(name string, data []byte, mode fs.FileMode) (err error) {
	if _, done := swept.LoadOrStore(filepath.Clean(name), true); !done {
		_ = sweep(name) // a folder that cannot be read says so below
	}
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, prefixOf(name)+"*"+ending) // with 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // gone if it was renamed; the first error is the one to tell
		}
	}()
	_, err = f.Write(data)
	if err == nil && mode != 0o600 {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync() // before the rename, which may reach the disk first
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	return SyncDir(dir)
}

// swept holds the names whose folders this process has looked through: what it leaves
// itself, it removes. It grows by one for each file that is ever replaced, of which a
// process has few.
var swept sync.Map

// sweep removes what calls of Replace for the file name have left that were cut short an
// hour ago or earlier, a secret among it. A younger one may still be written.
func sweep(name string) error {
	dir := filepath.Dir(name)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var faults []error
	for _, e := range entries {
		if !left(e.Name(), name) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && time.Since(info.ModTime()) < abandoned {
			continue
		}
		if err == nil {
			err = os.Remove(filepath.Join(dir, e.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, fmt.Errorf("remove what is left of a change of %s: %w", name, err))
		}
	}
	return errors.Join(faults...)
}

// left reports whether entry is the name of a temporary file of name: between the fixed
// parts are digits only.
func left(entry, name string) bool {
	s, ok := strings.CutPrefix(entry, prefixOf(name))
	if !ok {
		return false
	}
	s, ok = strings.CutSuffix(s, ending)
	return ok && s != "" && strings.Trim(s, "0123456789") == ""
}

func prefixOf(name string) string { return "." + filepath.Base(name) + "." }
