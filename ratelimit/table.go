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
	spread  *Spread // nil: the buckets are whole
}

// Spread makes the buckets parts of buckets of a cluster. Call it before the first Bucket.
func (t *Table) Spread(s *Spread) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spread = s
}

// Asking is an Ask that is not answered yet.
type Asking struct {
	Ask
	bucket *Bucket
}

// Apply puts the lease that answers it in force, until the given nanosecond of Spread.Clock. It
// says whether a share became smaller: the sooner the next ask, the sooner another node
// has the rest.
func (a *Asking) Apply(l Lease, until int64) (less bool) {
	return l.Key == a.Key && a.bucket.apply(l, until)
}

// Asks returns what the owner has to be told now, in no order, and whether there are buckets that it
// has to be told of again: some 200 ms later, or when Spread.Wake is called. It is told nothing
// of idle ones.
func (t *Table) Asks() (due []Asking, again bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entries {
		if b := e.get(); b != nil && b.part != nil {
			a, now, hot := b.report()
			if now {
				due = append(due, Asking{a, b})
			}
			if hot { // what it owes must not go with a connection
				e.bucket, again = b, true
			}
		}
	}
	return due, again
}

// Held is what a node has of the cluster's buckets.
type Held struct {
	Asked  int     // buckets that are asked for
	Leased int     // of these, with a lease in force
	Shares float64 // sum of the leases' shares; 1 is the whole rate of one limit
}

// Held counts the leases in force, for metrics.
func (t *Table) Held() (h Held) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entries {
		b := e.get()
		if b == nil || b.part == nil {
			continue
		}
		share, hot := b.held()
		if hot {
			h.Asked++
		}
		if share > 0 {
			h.Leased++
		}
		h.Shares += share
	}
	return h
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
	if t.spread != nil {
		b.part = newPart(t.spread, k, l, b.burst)
	}
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
