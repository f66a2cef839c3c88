package tlog

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

func leafOf(i int) Hash {
	return sha256.Sum256(binary.BigEndian.AppendUint64([]byte{9}, uint64(i)))
}

// Random runs of events and absent sequences against the definition of RFC 6962.
func TestEdgeAgainstOracle(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for trial := range 60 {
		var l testLog
		for range 1 + rng.IntN(8) {
			switch rng.IntN(3) {
			case 0:
				for range rng.IntN(700) {
					l.append(t, leafOf(len(l.leaves)))
				}
			case 1:
				l.absent(t, int64(rng.IntN(70_000)))
			case 2:
				l.absent(t, int64(rng.IntN(3)))
			}
			l.save()
			n := int64(len(l.leaves))
			root := naiveRoot(l.leaves)
			if l.edge.Size() != n || l.edge.Root() != root {
				t.Fatalf("trial %d: size %d, want %d; root %v, want %v", trial, l.edge.Size(), n, l.edge.Root(), root)
			}
			again, err := NewEdge(n, root, l.read)
			if err != nil {
				t.Fatalf("trial %d: from the tiles of size %d: %v", trial, n, err)
			}
			if err := errors.Join(again.Append(leafOf(1)), again.AppendAbsent(300), again.Append(leafOf(2))); err != nil {
				t.Fatal(err)
			}
			more := append(append([]Hash(nil), l.leaves...), leafOf(1))
			for range 300 {
				more = append(more, AbsentHash())
			}
			if got, want := again.Root(), naiveRoot(append(more, leafOf(2))); got != want {
				t.Fatalf("trial %d: a log that goes on from its tiles has another root", trial)
			}
			checkProofs(t, rng, &l, root)
		}
	}
}

func checkProofs(t *testing.T, rng *rand.Rand, l *testLog, root Hash) {
	t.Helper()
	n := int64(len(l.leaves))
	if n == 0 {
		return
	}
	r := NewHashReader(n, root, l.read)
	from := rng.Int64N(n)
	to := from + 1 + rng.Int64N(min(n-from, 400))
	hashes, err := RangeHashes(n, from, to, r)
	if err != nil {
		t.Fatalf("%d to %d of %d: %v", from, to, n, err)
	}
	leaves := l.leaves[from:to]
	if got, err := RangeRoot(n, from, leaves, hashes); err != nil || got != root {
		t.Fatalf("%d to %d of %d: root %v, %v", from, to, n, got, err)
	}
	stored, err := LeafHashes(n, from, to, r)
	if err != nil || fmt.Sprint(stored) != fmt.Sprint(leaves) {
		t.Fatalf("leaves %d to %d of %d: %v", from, to, n, err)
	}
	// The hashes for one leaf are those of the audit path, in another order.
	path, err := tlog.ProveRecord(n, from, r)
	if err != nil {
		t.Fatal(err)
	}
	one, err := RangeHashes(n, from, from+1, r)
	if err != nil || !sameSet(path, one) {
		t.Fatalf("leaf %d of %d: %d hashes, %d in the audit path: %v", from, n, len(one), len(path), err)
	}
	if len(hashes) > 0 {
		bad := append([]Hash(nil), hashes...)
		bad[rng.IntN(len(bad))][rng.IntN(32)] ^= 1 << rng.IntN(8)
		if got, err := RangeRoot(n, from, leaves, bad); err == nil && got == root {
			t.Fatal("a changed hash leads to the same root")
		}
		for _, cut := range [][]Hash{hashes[1:], append(hashes[:len(hashes):len(hashes)], Hash{})} {
			if _, err := RangeRoot(n, from, leaves, cut); !errors.Is(err, ErrProof) {
				t.Fatalf("%d hashes for %d: %v", len(cut), len(hashes), err)
			}
		}
	}
	old := rng.Int64N(n + 1)
	oldRoot := naiveRoot(l.leaves[:old])
	proof, err := ProveConsistency(old, n, r)
	if err != nil {
		t.Fatal(err)
	}
	older := &Checkpoint{Origin: origin, Size: old, Root: oldRoot, First: 1}
	newer := &Checkpoint{Origin: origin, Size: n, Root: root, First: 1}
	if err := CheckConsistency(older, newer, proof); err != nil {
		t.Fatalf("from %d to %d: %v", old, n, err)
	}
	older.Root[0] ^= 1
	if err := CheckConsistency(older, newer, proof); !errors.Is(err, ErrForked) {
		t.Fatalf("from %d to %d with another old root: %v", old, n, err)
	}
}

func sameSet(a, b []Hash) bool {
	count := map[Hash]int{}
	for _, h := range a {
		count[h]++
	}
	for _, h := range b {
		count[h]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

// A jump over millions of sequences costs hashes and tiles by its logarithm.
func TestAbsentJumpIsCheap(t *testing.T) {
	var l testLog
	l.append(t, leafOf(0))
	const jump = 1 << 40
	if err := l.edge.AppendAbsent(jump); err != nil {
		t.Fatal(err)
	}
	if err := l.edge.Append(leafOf(1)); err != nil {
		t.Fatal(err)
	}
	tiles := l.edge.Take()
	bytes := 0
	for i := range tiles {
		bytes += len(tiles[i].Hashes) * 32
	}
	t.Logf("%d absent sequences: %d tiles, %d bytes", int64(jump), len(tiles), bytes)
	if len(tiles) > 2*tileLevels || bytes > 2*tileLevels*TileWidth*32 {
		t.Errorf("a jump wrote %d tiles of %d bytes", len(tiles), bytes)
	}
	l.tiles = map[string][]byte{}
	for _, tile := range tiles {
		l.tiles[fmt.Sprintf("%d/%d", tile.Level, tile.Index)] = tile.Bytes()
	}
	n := l.edge.Size()
	r := NewHashReader(n, l.edge.Root(), l.read)
	for index, leaf := range map[int64]Hash{0: leafOf(0), 1: AbsentHash(), jump / 3: AbsentHash(), jump: AbsentHash(), jump + 1: leafOf(1)} {
		hashes, err := RangeHashes(n, index, index+1, r)
		if err != nil {
			t.Fatal(err)
		}
		if root, err := RangeRoot(n, index, []Hash{leaf}, hashes); err != nil || root != l.edge.Root() {
			t.Errorf("leaf %d: %v", index, err)
		}
	}
	if err := l.edge.AppendAbsent(MaxSize); !errors.Is(err, ErrSize) {
		t.Errorf("beyond the largest log: %v", err)
	}
	if err := l.edge.AppendAbsent(-1); !errors.Is(err, ErrSize) {
		t.Errorf("a jump back: %v", err)
	}
}

// No tile that was changed is used: each stored byte is flipped once.
func TestChangedTilesAreRefused(t *testing.T) {
	var l testLog
	for i := range 1000 {
		l.append(t, leafOf(i))
	}
	l.save()
	root, n := l.edge.Root(), l.edge.Size()
	used := 0
	for name := range l.tiles {
		for at := 0; at < len(l.tiles[name]); at += 32 {
			l.tiles[name][at] ^= 1
			_, edgeErr := NewEdge(n, root, l.read)
			hashes, err := LeafHashes(n, 0, n, NewHashReader(n, root, l.read))
			if err == nil {
				used++
				t.Errorf("tile %s, byte %d: %d hashes were read", name, at, len(hashes))
			} else if !errors.Is(err, ErrTiles) {
				t.Errorf("tile %s, byte %d: %v", name, at, err)
			}
			if edgeErr != nil && !errors.Is(edgeErr, ErrTiles) {
				t.Errorf("tile %s, byte %d: %v", name, at, edgeErr)
			}
			l.tiles[name][at] ^= 1
		}
	}
	t.Logf("%d accepted", used)
}

func TestReadErrorsAreNotTheTilesFault(t *testing.T) {
	down := errors.New("down")
	_, err := LeafHashes(3, 0, 1, NewHashReader(3, Hash{}, func(int, int64) ([]byte, error) { return nil, down }))
	if !errors.Is(err, down) || errors.Is(err, ErrTiles) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkAppend(b *testing.B) {
	var e Edge
	h := leafOf(1)
	b.ReportAllocs()
	for i := range b.N {
		h[0] = byte(i)
		_ = e.Append(h)
		if i%30_000 == 0 {
			e.Take()
			e.Root()
		}
	}
}
