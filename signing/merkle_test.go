package signing

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// bookSum is SHA-256 over the SHA-256 of each value, in base64, written as the
// format document says it.
func bookSum(values ...string) string {
	var all []byte
	for _, v := range values {
		s := sha256.Sum256([]byte(v))
		all = append(all, s[:]...)
	}
	s := sha256.Sum256(all)
	return base64.StdEncoding.EncodeToString(s[:])
}

// storedHashes is the whole log in memory, as tlog wants it.
type storedHashes []tlog.Hash

func (s storedHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, at := range indexes {
		out[i] = s[at]
	}
	return out, nil
}

// Root and paths equal those of golang.org/x/mod/sumdb/tlog for every size.
func TestTreeAgainstTlog(t *testing.T) {
	for n := 1; n <= maxLeaves; n++ {
		var log storedHashes
		var tr tree
		tr.n = n
		for i := range n {
			data := fmt.Appendf(nil, "record %d of %d", i, n)
			tr.nodes[i] = sha256.Sum256(append([]byte{leafPrefix}, data...))
			hashes, err := tlog.StoredHashes(int64(i), data, log)
			if err != nil {
				t.Fatal(err)
			}
			log = append(log, hashes...)
		}
		want, err := tlog.TreeHash(int64(n), log)
		if err != nil {
			t.Fatal(err)
		}
		root := *tr.build()
		if root != hash(want) {
			t.Fatalf("root of %d leaves: got %x, want %x", n, root, want)
		}
		for i := range n {
			path := tr.appendPath(nil, i)
			proof, err := tlog.ProveRecord(int64(n), int64(i), log)
			if err != nil {
				t.Fatal(err)
			}
			var flat []byte
			for _, h := range proof {
				flat = append(flat, h[:]...)
			}
			if string(path) != string(flat) || len(path) != sumBytes*pathLength(i, n) || pathLength(i, n) > maxPath {
				t.Errorf("path of leaf %d of %d: got %x, want %x", i, n, path, flat)
			}
			if got := rootOf(tr.nodes[i], i, n, path); got != root {
				t.Errorf("root from leaf %d of %d: got %x, want %x", i, n, got, root)
			}
			for j := range n {
				if j != i && pathLength(j, n) == pathLength(i, n) && rootOf(tr.nodes[i], j, n, path) == root {
					t.Errorf("leaf %d of %d also passes as leaf %d", i, n, j)
				}
			}
		}
	}
}

func TestRootsForgetTheLeastRecentlyUsed(t *testing.T) {
	r := newRoots(3)
	key := func(i byte) *rootKey { return &rootKey{size: i} }
	for i := range byte(3) {
		r.add(key(i))
		r.add(key(i))
	}
	if !r.has(key(0)) { // now 1 is the oldest
		t.Fatal("0 is gone")
	}
	r.add(key(3))
	for i, want := range []bool{true, false, true, true} {
		if got := r.has(key(byte(i))); got != want {
			t.Errorf("has(%d): got %v, want %v", i, got, want)
		}
	}
	for i := range 1000 {
		r.add(key(byte(i)))
		if len(r.index) > 3 || len(r.entries) > 3 {
			t.Fatalf("%d entries, limit 3", len(r.index))
		}
	}
}
