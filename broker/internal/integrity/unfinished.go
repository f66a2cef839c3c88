package integrity

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What an abrupt end leaves of an encrypted store, and nats-server cannot cope with.

// withoutPurged leaves out the block that a purge has made to begin with and whose key
// it has moved already: the server throws it away and forgets the purge.
func withoutPurged(files []blockFile, moved string) []blockFile {
	return slices.DeleteFunc(files, func(b blockFile) bool {
		_, err := os.Stat(filepath.Join(moved, strings.TrimSuffix(b.name, ".blk")+".key"))
		return err == nil
	})
}

// dropUnborn removes an empty block that has no key: the server makes the block, then
// the key, and was cut off in between. It would take it for a damaged block that is not
// encrypted, and delete the stream.
func dropUnborn(r *Replica, files []blockFile, msgs string) ([]blockFile, error) {
	var out []blockFile
	for _, b := range files {
		file := filepath.Join(msgs, b.name)
		key, err := readKey(strings.TrimSuffix(file, ".blk") + ".key")
		if err != nil {
			return nil, err
		}
		if key != nil || b.size > 0 {
			out = append(out, b)
			continue
		}
		if err := os.Remove(file); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrStore, err)
		}
		if err := syncDir(msgs); err != nil {
			return nil, err
		}
		r.note("%s: %s was made and not finished, it held nothing and was removed", r.Dir, b.name)
	}
	return out, nil
}

// unfinished: a power cut has taken the content of the key file, and so nobody was told of
// what it belongs to. The server could neither read that nor make it anew.
func (c *check) unfinished(f folder, l *lock) bool {
	_, sealed := c.Ledger.known(f.rel)
	return l != nil && l.bad && l.blank() && !sealed && !c.live && c.powerCut && c.LazySync
}

// remove takes names in dir away, with all that is under them.
func remove(dir string, names ...string) error {
	for _, n := range names {
		if err := os.RemoveAll(filepath.Join(dir, n)); err != nil {
			return fmt.Errorf("%w: %w", ErrStore, err)
		}
	}
	return syncDir(dir)
}
