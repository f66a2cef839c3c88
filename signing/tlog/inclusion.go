package tlog

import (
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// MaxRange is the number of sequences that one proof may cover.
const MaxRange = 1 << 14

// ErrProof: hashes that do not lead to the root.
var ErrProof = errors.New("tlog: the proof does not lead to the root of the checkpoint")

// RangeHashes returns what proves the leaves from index from up to, not including, to,
// in a log of size leaves: the roots of the largest subtrees beside them, from left to
// right. For one leaf these are the hashes of its RFC 6962 audit path.
//
// Errors: ErrSize, or that of r.
func RangeHashes(size, from, to int64, r tlog.HashReader) ([]Hash, error) {
	if from < 0 || from >= to || to > size || size > MaxSize || to-from > MaxRange {
		return nil, fmt.Errorf("%w: leaves %d to %d of %d, at most %d", ErrSize, from, to, size, MaxRange)
	}
	var spans []span
	beside(0, size, from, to, &spans)
	var need []int64
	for _, s := range spans {
		need = s.parts(need)
	}
	if len(need) == 0 {
		return []Hash{}, nil
	}
	hashes, err := r.ReadHashes(need)
	if err != nil {
		return nil, err
	}
	out := make([]Hash, 0, len(spans))
	for _, s := range spans {
		n := len(s.parts(nil))
		out = append(out, fold(hashes[:n]))
		hashes = hashes[n:]
	}
	return out, nil
}

// LeafHashes returns the leaf hashes from index from up to, not including, to.
//
// Errors: ErrSize, or that of r.
func LeafHashes(size, from, to int64, r tlog.HashReader) ([]Hash, error) {
	if from < 0 || from > to || to > size {
		return nil, fmt.Errorf("%w: leaves %d to %d of %d", ErrSize, from, to, size)
	}
	need := make([]int64, 0, to-from)
	for i := from; i < to; i++ {
		need = append(need, tlog.StoredHashIndex(0, i))
	}
	return r.ReadHashes(need)
}

// RangeRoot computes the root of a log of size leaves from the leaves from index from
// on and what RangeHashes returned for them.
//
// Errors: ErrSize, ErrProof for too few or too many hashes.
func RangeRoot(size, from int64, leaves, hashes []Hash) (Hash, error) {
	if from < 0 || len(leaves) == 0 || len(leaves) > MaxRange || size > MaxSize || from > size-int64(len(leaves)) {
		return Hash{}, fmt.Errorf("%w: %d leaves from %d of %d", ErrSize, len(leaves), from, size)
	}
	w := walk{from: from, to: from + int64(len(leaves)), leaves: leaves, hashes: hashes}
	root, ok := w.root(0, size)
	if !ok || len(w.hashes) > 0 {
		return Hash{}, fmt.Errorf("%w: wrong number of hashes", ErrProof)
	}
	return root, nil
}

// span is the subtree over the leaves [lo, hi); lo is aligned to it.
type span struct{ lo, hi int64 }

// parts appends the stored hashes that make up the root of s, left to right.
func (s span) parts(need []int64) []int64 {
	for lo := s.lo; lo < s.hi; {
		level := bits.Len64(uint64(s.hi-lo)) - 1
		need = append(need, tlog.StoredHashIndex(level, lo>>level))
		lo += 1 << level
	}
	return need
}

// fold is the root over complete subtrees that shrink from left to right.
func fold(parts []Hash) Hash {
	h := parts[len(parts)-1]
	for i := len(parts) - 2; i >= 0; i-- {
		h = tlog.NodeHash(parts[i], h)
	}
	return h
}

// middle is where RFC 6962 splits [lo, hi): at the largest power of two below its size.
func middle(lo, hi int64) int64 { return lo + 1<<(bits.Len64(uint64(hi-lo-1))-1) }

func beside(lo, hi, from, to int64, out *[]span) {
	switch {
	case hi <= from || lo >= to:
		*out = append(*out, span{lo, hi})
	case from <= lo && hi <= to:
	default:
		m := middle(lo, hi)
		beside(lo, m, from, to, out)
		beside(m, hi, from, to, out)
	}
}

// walk computes a root. Depth is at most 48; every call but those within the range
// takes a hash.
type walk struct {
	from, to int64
	leaves   []Hash
	hashes   []Hash
}

func (w *walk) root(lo, hi int64) (Hash, bool) {
	if hi <= w.from || lo >= w.to {
		if len(w.hashes) == 0 {
			return Hash{}, false
		}
		h := w.hashes[0]
		w.hashes = w.hashes[1:]
		return h, true
	}
	if hi-lo == 1 {
		return w.leaves[lo-w.from], true
	}
	m := middle(lo, hi)
	left, ok := w.root(lo, m)
	if !ok {
		return Hash{}, false
	}
	right, ok := w.root(m, hi)
	return tlog.NodeHash(left, right), ok
}

// ProveConsistency returns the RFC 6962 consistency proof from a log of oldSize leaves
// to size.
//
// Errors: ErrSize, or that of r.
func ProveConsistency(oldSize, size int64, r tlog.HashReader) ([]Hash, error) {
	if oldSize < 0 || oldSize > size || size > MaxSize {
		return nil, fmt.Errorf("%w: from %d to %d leaves", ErrSize, oldSize, size)
	}
	if oldSize == 0 || oldSize == size {
		return []Hash{}, nil
	}
	return tlog.ProveTree(size, oldSize, r)
}

// ErrForked: two checkpoints that no one log has both had.
var ErrForked = errors.New("tlog: the checkpoints contradict each other")

// ErrOtherLog: two checkpoints of two logs, which say nothing about each other.
var ErrOtherLog = errors.New("tlog: the checkpoints are of two logs")

// CheckConsistency checks that a log with the checkpoint newer only appended to what it
// was at older. The signatures are the caller's to check.
//
// Errors: ErrForked, ErrProof, ErrOtherLog.
func CheckConsistency(older, newer *Checkpoint, proof []Hash) error {
	switch {
	case older.Origin.String() != newer.Origin.String():
		return fmt.Errorf("%w: %s and %s", ErrOtherLog, older.Origin, newer.Origin)
	case older.First != newer.First:
		return fmt.Errorf("%w: the first sequence is %d in one, %d in the other", ErrForked, older.First, newer.First)
	case older.Size > newer.Size:
		return fmt.Errorf("%w: the older has %d leaves, the newer %d", ErrForked, older.Size, newer.Size)
	case older.Size == newer.Size:
		if older.Root != newer.Root {
			return fmt.Errorf("%w: equal size %d, different roots", ErrForked, older.Size)
		}
		if len(proof) > 0 {
			return fmt.Errorf("%w: hashes that prove nothing", ErrProof)
		}
		return nil
	case older.Size == 0:
		if older.Root != (&Edge{}).Root() {
			return fmt.Errorf("%w: an empty log with a root of its own", ErrForked)
		}
		if len(proof) > 0 {
			return fmt.Errorf("%w: hashes that prove nothing", ErrProof)
		}
		return nil
	}
	if len(proof) > 2*48 || tlog.CheckTree(proof, newer.Size, newer.Root, older.Size, older.Root) != nil {
		return fmt.Errorf("%w, or the proof is wrong: from %d to %d leaves", ErrForked, older.Size, newer.Size)
	}
	return nil
}
