package ratelimit

import (
	"sync"
	"time"
	"weak"
)

// IdleAfter is how long a full bucket must rest before Sweep lets go of it.
const IdleAfter = 10 * time.Minute

type key struct{ principal, rule string }

// entry holds a bucket strongly while it is in use or owes something. A swept
// bucket is held weakly: a connection that still has it keeps it shared with new
// connections, and nobody gains a second bucket; when the last one goes, so does
// the bucket.
type entry struct {
	bucket *Bucket
	idle   weak.Pointer[Bucket]
}

func (e *entry) get() *Bucket {
	if e.bucket != nil {
		return e.bucket
	}
	return e.idle.Value()
}

// Table shares buckets: one per (principal, rule), whichever connection asks. The
// zero value is ready.
type Table struct {
	mu      sync.Mutex
	entries map[key]*entry
}

// Bucket returns the bucket of principal ("tenant/name") and rule. While the limit
// is equal to the one it was made with, it is the same bucket, with all that it
// owes; a changed limit starts a new, full one.
func (t *Table) Bucket(principal, rule string, l Limit) *Bucket {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := key{principal, rule}
	if e := t.entries[k]; e != nil {
		if b := e.get(); b != nil && b.limit == l {
			e.bucket = b
			return b
		}
	}
	if t.entries == nil {
		t.entries = make(map[key]*entry)
	}
	b := NewBucket(l)
	t.entries[k] = &entry{bucket: b}
	return b
}

// Sweep lets go of buckets that are full and were not used for IdleAfter, and
// returns how many entries it removed. A bucket that a connection still holds
// stays known. Call it about once a minute.
func (t *Table) Sweep(nowNanos int64) (removed int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, e := range t.entries {
		b := e.get()
		switch {
		case b == nil:
			delete(t.entries, k)
			removed++
		case b.idle(nowNanos, IdleAfter):
			e.idle, e.bucket = weak.Make(b), nil
		default:
			e.bucket = b
		}
	}
	return removed
}

// Len returns the number of known buckets, for metrics.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.entries)
}
