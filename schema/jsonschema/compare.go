package jsonschema

import (
	"hash/maphash"
	"math/bits"
)

// budget is what a run may still spend. The parts of an evaluation share one.
type budget struct {
	fuel  int
	spent bool // fuel ran out: every answer since is "no", and the run must not be believed
}

// burn spends n steps.
func (b *budget) burn(n int) {
	if b.fuel -= n; b.fuel < 0 {
		b.spent = true
	}
}

// comparer compares values as JSON Schema does: numbers by value, objects without
// order. Its answers are worth nothing once the budget is spent.
type comparer struct {
	*budget         // of the evaluation
	slots   []int32 // table of unique, kept between runs
}

// equal compares value i of a with value j of b.
func (c *comparer) equal(a *document, i int, b *document, j int) bool {
	if c.burn(1); c.spent {
		return false
	}
	x, y := &a.values[i], &b.values[j]
	if x.kind != y.kind {
		return false
	}
	switch x.kind {
	case kindString:
		s, t := a.text(i), b.text(j)
		c.burn(min(len(s), len(t)) / 16)
		return string(s) == string(t)
	case kindNumber:
		c.burn(int(x.end-x.start+y.end-y.start) / 16)
		var m, n decimal
		m.parse(a.token(i), x.integer)
		n.parse(b.token(j), y.integer)
		return m.compare(&n) == 0
	case kindArray:
		return x.n == y.n && c.equalItems(a, i, b, j)
	case kindObject:
		return x.n == y.n && c.equalMembers(a, i, b, j)
	}
	return true
}

func (c *comparer) equalItems(a *document, i int, b *document, j int) bool {
	n := a.values[i].n
	i, j = i+1, j+1
	for range n {
		if !c.equal(a, i, b, j) {
			return false
		}
		i, j = int(a.values[i].next), int(b.values[j].next)
	}
	return true
}

func (c *comparer) equalMembers(a *document, i int, b *document, j int) bool {
	n := a.values[i].n
	key, other := i+1, j+1
	for range n {
		name := a.text(key)
		at := other // the same order is the usual case
		if at >= int(b.values[j].next) || string(b.text(at)) != string(name) {
			c.burn(int(n)/8 + 1)
			if at = b.find(j, name); at < 0 {
				return false
			}
		}
		if c.spent || !c.equal(a, key+1, b, at+1) {
			return false
		}
		key, other = int(a.values[key+1].next), int(b.values[at+1].next)
	}
	return true
}

// unique reports whether no two items of array i are equal.
func (c *comparer) unique(d *document, i, n int) bool {
	if cap(c.slots) < 4*n {
		c.slots = make([]int32, 4*n)
	}
	size := 1 << bits.Len(uint(2*n-1))
	slots := c.slots[:cap(c.slots)]
	if size > len(slots) {
		slots = make([]int32, size)
	}
	slots = slots[:size]
	clear(slots)
	mask := uint64(size - 1)
	item := i + 1
	for range n {
		h := c.hash(d, item)
		for slot := h & mask; ; slot = (slot + 1) & mask {
			if c.spent {
				return false
			}
			if slots[slot] == 0 {
				slots[slot] = int32(item)
				break
			}
			if c.equal(d, int(slots[slot]), d, item) {
				return false
			}
		}
		item = int(d.values[item].next)
	}
	return true
}

// hash is equal for equal values. Its seed is random, so a payload cannot be
// made to collide.
func (c *comparer) hash(d *document, i int) uint64 {
	if c.burn(1); c.spent {
		return 0
	}
	v := &d.values[i]
	h := uint64(v.kind) * 0x9E3779B97F4A7C15
	switch v.kind {
	case kindString:
		text := d.text(i)
		c.burn(len(text) / 16)
		return maphash.Bytes(nameSeed, text)
	case kindNumber:
		var x decimal
		x.parse(d.token(i), v.integer)
		x.expand()
		h = mix(maphash.Bytes(nameSeed, x.digits[:x.n]), uint64(x.exp))
		if x.neg {
			h = ^h
		}
	case kindArray:
		at := i + 1
		for range v.n {
			h = mix(h, c.hash(d, at))
			at = int(d.values[at].next)
		}
	case kindObject:
		key := i + 1
		for range v.n {
			// A sum, since the order of members does not count.
			h += mix(c.hash(d, key), c.hash(d, key+1))
			key = int(d.values[key+1].next)
		}
	}
	return h
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0xA0761D6478BD642F, b^0xE7037ED1A0B428DB)
	return hi ^ lo
}
