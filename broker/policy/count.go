package policy

import (
	"sync"
	"sync/atomic"
)

// Count is how often one rule of the policy was used, since this process began or the
// rule came, whichever is later. A nil Count counts nothing.
type Count struct{ n atomic.Uint64 }

// Add counts one use.
func (c *Count) Add() {
	if c != nil {
		c.n.Add(1)
	}
}

// Load returns the count.
func (c *Count) Load() uint64 {
	if c == nil {
		return 0
	}
	return c.n.Load()
}

// Counts keeps the counts of rules from one compiled policy to the next, as long as the
// rule, with its pattern, stays. It holds one count for each rule of the policy in force
// and no others, so the policy bounds it. It is safe for concurrent use.
type Counts struct {
	mu   sync.Mutex
	live map[countKey]*counted
	turn uint64
}

// countKey is who owns a rule (a tenant, or a principal), its name and its pattern.
type countKey struct{ owner, rule, pattern string }

type counted struct {
	Count
	turn uint64 // in which it was asked for last
}

// NewCounts returns an empty table.
func NewCounts() *Counts { return &Counts{live: map[countKey]*counted{}} }

func (c *Counts) of(owner, rule, pattern string) *Count {
	key := countKey{owner, rule, pattern}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.live[key]
	if k == nil {
		k = &counted{}
		c.live[key] = k
	}
	k.turn = c.turn
	return &k.Count
}

// Forget drops the counts that no set has asked for since the last Forget, but those of
// the set that was compiled since. Call it when a new set is in force.
func (c *Counts) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, k := range c.live {
		if k.turn != c.turn {
			delete(c.live, key)
		}
	}
	c.turn++
}
