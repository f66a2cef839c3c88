package signing

import (
	"crypto/ed25519"
	"crypto/sha256"
	"sync"
)

// DefaultRoots is how many verified roots a Verifier remembers: some 330 KiB, and
// enough for readers of many streams whose batches interleave.
const DefaultRoots = 1024

// rootKey is everything that a root signature binds, with the signature itself: a
// hit means that exactly this signature over exactly this root was verified under
// exactly this key.
type rootKey struct {
	public [ed25519.PublicKeySize]byte
	root   hash
	sig    [ed25519.SignatureSize]byte
	size   uint8
}

// roots is a bounded set of verified roots that forgets the least recently used.
// Safe for concurrent use. Once full it does not allocate.
type roots struct {
	mu      sync.Mutex
	limit   int
	index   map[rootKey]int32 // guarded by mu, like the rest
	entries []rootEntry
	newest  int32
	oldest  int32
}

type rootEntry struct {
	key          rootKey
	newer, older int32 // -1: none
}

func newRoots(limit int) *roots {
	return &roots{limit: limit, index: make(map[rootKey]int32), newest: -1, oldest: -1}
}

// has reports whether key is in the set, and makes it the most recently used.
func (r *roots) has(key *rootKey) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, ok := r.index[*key]
	if ok {
		r.unlinkLocked(i)
		r.linkNewestLocked(i)
	}
	return ok
}

// add puts a verified root into the set.
func (r *roots) add(key *rootKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.index[*key]; ok { // another goroutine was faster
		return
	}
	i := int32(len(r.entries))
	if len(r.entries) < r.limit {
		r.entries = append(r.entries, rootEntry{})
	} else {
		i = r.oldest
		r.unlinkLocked(i)
		delete(r.index, r.entries[i].key)
	}
	r.entries[i].key = *key
	r.index[*key] = i
	r.linkNewestLocked(i)
}

// holds checks that the root signature of c covers leaf, 0x00 and then the PAE, in a
// tree of 2 and more. It remembers the roots that it has verified.
func (r *roots) holds(c *compact, public ed25519.PublicKey, leaf []byte) bool {
	seen := rootKey{
		public: [ed25519.PublicKeySize]byte(public),
		root:   rootOf(sha256.Sum256(leaf), c.index, c.size, c.path),
		sig:    [ed25519.SignatureSize]byte(c.sig),
		size:   uint8(c.size),
	}
	if r.has(&seen) {
		return true
	}
	var note [maxNote]byte
	if !ed25519.Verify(public, appendNote(note[:0], c.size, &seen.root), c.sig) {
		return false
	}
	r.add(&seen)
	return true
}

func (r *roots) unlinkLocked(i int32) {
	e := &r.entries[i]
	if e.newer >= 0 {
		r.entries[e.newer].older = e.older
	} else {
		r.newest = e.older
	}
	if e.older >= 0 {
		r.entries[e.older].newer = e.newer
	} else {
		r.oldest = e.newer
	}
}

func (r *roots) linkNewestLocked(i int32) {
	e := &r.entries[i]
	e.newer, e.older = -1, r.newest
	if r.newest >= 0 {
		r.entries[r.newest].newer = i
	} else {
		r.oldest = i
	}
	r.newest = i
}
