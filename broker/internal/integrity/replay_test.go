package integrity

import (
	"os"
	"path/filepath"
	"testing"
)

// TestReplayed: after a power cut the server writes anew what is behind the Raft
// snapshot, and nothing else.
func TestReplayed(t *testing.T) {
	hole := func(from uint64) Damage { return Damage{Kind: KindZeroed, From: from} }
	for _, tc := range []struct {
		name    string
		damage  []Damage
		change  func(c *check, stream, group *Replica)
		replays bool
	}{
		{"behind the snapshot", []Damage{hole(41), {Kind: KindMissing, From: 50, To: 60}}, nil, true},
		{"the last that the snapshot has seen", []Damage{hole(40)}, nil, false},
		{"one before, one behind", []Damage{hole(41), hole(7)}, nil, false},
		{"a place that is not known", []Damage{hole(0)}, nil, false},
		{"a configuration", []Damage{{Kind: KindMeta, From: 41}}, nil, false},
		{"a block that differs from what was verified", []Damage{{Kind: KindChanged, From: 41}}, nil, false},
		{"the log is damaged, too", []Damage{hole(41)}, func(_ *check, _, g *Replica) { g.Damage = []Damage{hole(3)} }, false},
		{"no log", []Damage{hole(41)}, func(_ *check, _, g *Replica) { g.Stream = "OTHER" }, false},
		{"no snapshot, the log from the beginning", []Damage{hole(1)}, func(_ *check, _, g *Replica) { g.snapshotLast = 0 }, true},
		{"no snapshot, and not the whole log", []Damage{hole(1)}, func(_ *check, _, g *Replica) { g.snapshotLast, g.FirstSeq = 0, 2 }, false},
		{"one copy", []Damage{hole(41)}, func(_ *check, s, _ *Replica) { s.Replicas = 1 }, false},
		{"more damage than is listed", []Damage{hole(41)}, func(_ *check, s, _ *Replica) { s.More = 1 }, false},
		{"no power cut", []Damage{hole(41)}, func(c *check, _, _ *Replica) { c.powerCut = false }, false},
		{"not every write is synced", []Damage{hole(41)}, func(c *check, _, _ *Replica) { c.LazySync = true }, false},
		{"an orderly stop", []Damage{hole(41)}, func(c *check, s, _ *Replica) {
			c.Ledger = &Ledger{d: ledgerData{Sealed: true, Folders: map[string][]knownBlock{s.Dir: nil}}}
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &check{Options: Options{Dir: t.TempDir()}, powerCut: true}
			c.report.Replicas = []Replica{
				{Account: "shop", Stream: "ORDERS", Dir: "jetstream/shop/streams/ORDERS", Replicas: 3, Damage: tc.damage},
				{Account: "shop", Stream: "ORDERS", Group: "S-R3F-x", FirstSeq: 1, snapshotLast: 40},
				{Account: "shop", Stream: "ORDERS", Group: "C-R3F-x", Consumer: "c", snapshotLast: 1},
			}
			stream := &c.report.Replicas[0]
			if tc.change != nil {
				tc.change(c, stream, &c.report.Replicas[1])
			}
			index := filepath.Join(c.Dir, filepath.FromSlash(stream.Dir), "msgs", "index.db")
			if err := os.MkdirAll(filepath.Dir(index), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(index, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := c.replayed(); err != nil {
				t.Fatal(err)
			}
			_, err := os.Stat(index)
			if stream.Damaged() == tc.replays || os.IsNotExist(err) != tc.replays || (len(stream.Notes) > 0) != tc.replays {
				t.Errorf("damage %v, notes %v, index %v; want replayed: %v", stream.Damage, stream.Notes, err, tc.replays)
			}
		})
	}
}
