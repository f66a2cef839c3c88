package integrity

import (
	"path/filepath"
	"slices"
)

// replayable are the kinds of damage that pages leave which never reached the disk.
var replayable = []Kind{KindChecksum, KindStructure, KindTruncated, KindZeroed, KindMissing, KindTail, KindOrder}

// replayed turns damage that the server will write anew into notes. Where every write is
// synced, nats-server syncs of a stream with several copies only the Raft log, and the
// stream before each snapshot of the log. So a power cut may leave any of the stream's
// pages behind the snapshot unwritten, also before the last block; after an abrupt end the
// server cuts the stream off behind the snapshot and replays the log from there
// (prepareForWALReplay in server/stream.go). index.db goes, which knows of what is cut off.
func (c *check) replayed() error {
	if !c.powerCut || c.LazySync || c.live {
		return nil
	}
	groups := map[string]*Replica{}
	for i := range c.report.Replicas {
		if g := &c.report.Replicas[i]; g.Group != "" && g.Consumer == "" && g.Owner() != "" {
			groups[g.Owner()] = g
		}
	}
	for i := range c.report.Replicas {
		r := &c.report.Replicas[i]
		if r.Group != "" || !r.Damaged() || !behindSnapshot(r, groups[r.Owner()]) {
			continue
		}
		if _, sealed := c.Ledger.known(r.Dir); sealed {
			continue
		}
		if err := remove(filepath.Join(c.Dir, filepath.FromSlash(r.Dir), "msgs"), "index.db"); err != nil {
			return err
		}
		r.note("%s: sequences from %d on had not reached the disk when the power was cut; they are replayed from the Raft log", r.Dir, r.Damage[0].From)
		r.Damage = nil
	}
	return nil
}

// behindSnapshot reports whether all damage of a stream is in what its whole Raft log
// holds.
func behindSnapshot(r, group *Replica) bool {
	switch {
	case group == nil || group.Damaged() || r.More > 0 || r.Replicas <= 1:
		return false
	case group.snapshotLast == 0 && group.FirstSeq != 1:
		return false // no snapshot, and no log from the beginning
	}
	return !slices.ContainsFunc(r.Damage, func(d Damage) bool {
		return d.From <= group.snapshotLast || !slices.Contains(replayable, d.Kind)
	})
}
