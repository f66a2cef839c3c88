package integrity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

const (
	// MaxQuarantined is how many folders the quarantine holds. One more is refused: so
	// much damage is a bad disk or a bug, and a person must look before the evidence
	// goes and the volume fills.
	MaxQuarantined   = 8
	quarantineFolder = "quarantine"
)

// Aside is what SetAside did.
type Aside struct {
	Folder string   // absolute, in the quarantine
	Moved  []string // relative to the store's folder, where they were
	Kept   int      // folders in the quarantine now
}

// SetAside moves what must be fetched again to heal damaged into
// dir/quarantine/<time>-<account>-<stream>/: for a stream its folder and the folder of its
// Raft group, for the Raft group of a stream the same two, for the Raft group of a
// consumer, and for one that no longer says whose it is, that group alone. The server, which must be stopped, then makes the replica
// anew and fills it from its peers. Nothing is deleted, ever; each step is synced, and
// one that is interrupted is completed by the next check.
//
// Errors: ErrQuarantineFull; ErrStore; ErrDamaged for the meta group: such a node must be
// replaced as a whole.
func SetAside(dir string, report *Report, damaged *Replica, now time.Time) (*Aside, error) {
	if damaged.Group == metaGroup {
		return nil, fmt.Errorf("%w: %s belongs to the whole node: replace the node, it cannot be set aside", ErrDamaged, damaged.ID())
	}
	move := partsOf(report, damaged)
	out, err := newAside(dir, damaged, names(move), now)
	if err != nil {
		return nil, err
	}
	for _, r := range move {
		if err := moveAside(filepath.Join(dir, filepath.FromSlash(r.Dir)), out.Folder); err != nil {
			return out, err
		}
		out.Moved = append(out.Moved, r.Dir)
	}
	return out, nil
}

// newAside makes a folder in the quarantine, and says in it what it is for.
func newAside(dir string, damaged *Replica, moved []string, now time.Time) (*Aside, error) {
	root := filepath.Join(dir, quarantineFolder)
	kept, err := subfolders(root)
	if err != nil {
		return nil, err
	}
	if len(kept) >= MaxQuarantined {
		return nil, fmt.Errorf("%w: %s holds %d folders; find out why (the disk?), then move them elsewhere and start again", ErrQuarantineFull, root, len(kept))
	}
	stem := now.UTC().Format("20060102T150405.000Z") + "-" + damaged.Account + "-" + damaged.Stream
	if damaged.Group != "" {
		stem += "-" + damaged.Group
	}
	out := &Aside{Folder: filepath.Join(root, stem), Kept: len(kept) + 1}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	if err := os.Mkdir(out.Folder, 0o700); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	if err := errors.Join(syncDir(dir), syncDir(root)); err != nil {
		return nil, err
	}
	note, err := json.MarshalIndent(map[string]any{"at": now.UTC(), "replica": damaged, "moved": moved}, "", "  ")
	if err != nil {
		return nil, err
	}
	return out, writeSynced(filepath.Join(out.Folder, "report.json"), append(note, '\n'))
}

// Withdraw prepares a replica that is served as it is for the server. It moves into the
// quarantine what nobody can decrypt any more: nats-server would answer a block without
// its key by deleting the whole stream, and one whose key does not open by an error at
// each read. What it does not find it makes anew. And it removes index.db, unless that is
// the witness of a lost end: with it the server trusts the blocks, and where a
// sequence is damaged it counts up to the wrong one, for hours; without it it verifies
// them, and cuts off at the damage. It returns nil where nothing was moved.
//
// Errors: ErrQuarantineFull, ErrStore.
func Withdraw(dir string, r *Replica, now time.Time) (*Aside, error) {
	var move []string
	index := path.Join(r.Dir, "msgs", "index.db")
	for _, d := range r.Damage {
		switch at := path.Dir(d.File); {
		case d.Kind != KindKey:
		case d.File == path.Join(r.Dir, metaKey):
			// The blocks have keys of their own.
			move = append(move, d.File, path.Join(at, "meta.inf"), path.Join(at, "meta.sum"), index)
		case path.Base(d.File) == metaKey:
			move = append(move, at) // the folder of a consumer
		default:
			move = append(move, d.File, strings.TrimSuffix(d.File, ".blk")+".key")
		}
	}
	if err := distrustIndex(dir, r, index); err != nil {
		return nil, err
	}
	if len(move) == 0 {
		return nil, nil
	}
	out, err := newAside(dir, r, move, now)
	if err != nil {
		return nil, err
	}
	for _, name := range move {
		from := filepath.Join(dir, filepath.FromSlash(name))
		to := filepath.Join(out.Folder, filepath.FromSlash(strings.TrimPrefix(name, r.Dir)))
		if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return out, fmt.Errorf("%w: %w", ErrStore, err)
		}
		if err := os.Rename(from, to); err != nil {
			return out, fmt.Errorf("%w: %w", ErrStore, err)
		}
		if err := errors.Join(syncDir(filepath.Dir(to)), syncDir(filepath.Dir(from))); err != nil {
			return out, err
		}
		out.Moved = append(out.Moved, name)
	}
	return out, nil
}

// partsOf lists what goes with a damaged replica, groups first: if it ends halfway, the
// stream's folder still shows its damage to the next check.
func partsOf(report *Report, damaged *Replica) []*Replica {
	if damaged.Consumer != "" || damaged.Owner() == "" {
		return []*Replica{damaged}
	}
	var groups, streams []*Replica
	for i := range report.Replicas {
		switch r := &report.Replicas[i]; {
		case r.Owner() != damaged.Owner() || r.Consumer != "":
		case r.Group != "":
			groups = append(groups, r)
		default:
			streams = append(streams, r)
		}
	}
	return append(groups, streams...)
}

// distrustIndex removes index.db if a block is damaged, and none of them is the last.
func distrustIndex(dir string, r *Replica, index string) error {
	blocks, err := listBlocks(filepath.Join(dir, filepath.FromSlash(path.Dir(index))))
	if err != nil || len(blocks) == 0 {
		return err
	}
	last, inner := blocks[len(blocks)-1].name, false
	for _, d := range r.Damage {
		if d.Kind == KindTail || path.Base(d.File) == last {
			return nil
		}
		inner = inner || strings.HasSuffix(d.File, ".blk")
	}
	if !inner {
		return nil
	}
	return remove(filepath.Join(dir, filepath.FromSlash(path.Dir(index))), path.Base(index))
}

func names(list []*Replica) []string {
	out := make([]string, 0, len(list))
	for _, r := range list {
		out = append(out, r.Dir)
	}
	return out
}

func moveAside(from, folder string) error {
	to := filepath.Join(folder, strings.TrimPrefix(filepath.Base(from), "."))
	if _, err := os.Lstat(to); err == nil {
		return fmt.Errorf("%w: %s is there already", ErrStore, to)
	}
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	return errors.Join(syncDir(folder), syncDir(filepath.Dir(from)))
}

// Quarantined counts the folders in the quarantine of dir.
func Quarantined(dir string) (int, error) {
	kept, err := subfolders(filepath.Join(dir, quarantineFolder))
	return len(kept), err
}
