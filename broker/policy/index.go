package policy

import "strings"

// index finds the pattern that covers a subject or filter. Literal hits take one
// map lookup; the rest walk a trie by token, literal before * before >, so that
// the most specific pattern is found first. It is immutable once built; the zero
// value covers nothing.
type index struct {
	exact map[string]int32
	root  *node
}

// node is a set of patterns with a common prefix. Numbers are positions in the
// list that the index was built from; -1 is none.
type node struct {
	literal map[string]*node
	star    *node
	here    int32 // the pattern that ends here
	rest    int32 // the pattern that ends with > here
	first   int32 // the first pattern at or below this node
}

func newNode(i int32) *node { return &node{here: -1, rest: -1, first: i} }

// add enters pattern as number i; the first of equal patterns stays.
func (x *index) add(pattern string, i int) {
	if _, ok := x.exact[pattern]; ok {
		return
	}
	if x.exact == nil {
		x.exact = make(map[string]int32)
		x.root = newNode(int32(i))
	}
	n32 := int32(i)
	x.exact[pattern] = n32
	n := x.root
	for rest, more := pattern, true; more; {
		var token string
		token, rest, more = strings.Cut(rest, ".")
		switch token {
		case ">":
			n.rest = n32
			return
		case "*":
			if n.star == nil {
				n.star = newNode(n32)
			}
			n = n.star
		default:
			next := n.literal[token]
			if next == nil {
				if n.literal == nil {
					n.literal = make(map[string]*node)
				}
				next = newNode(n32)
				n.literal[token] = next
			}
			n = next
		}
	}
	n.here = n32
}

// covers returns the number of a pattern that every subject matching filter
// matches too, or -1. A literal subject is a filter. The pattern itself may be
// given; else the most specific one is found.
func (x *index) covers(filter string) int {
	if x.exact == nil {
		return -1
	}
	if i, ok := x.exact[filter]; ok {
		return int(i)
	}
	return int(x.root.covers(filter))
}

func (n *node) covers(filter string) int32 {
	token, rest, more := strings.Cut(filter, ".")
	if token == "" {
		return -1
	}
	if token != ">" {
		if token != "*" {
			if next := n.literal[token]; next != nil {
				if i := next.end(rest, more); i >= 0 {
					return i
				}
			}
		}
		if n.star != nil {
			if i := n.star.end(rest, more); i >= 0 {
				return i
			}
		}
	}
	return n.rest
}

func (n *node) end(rest string, more bool) int32 {
	if !more {
		return n.here
	}
	return n.covers(rest)
}

// nearest returns the number of a pattern that shares the longest run of leading
// tokens with filter, or -1 if not even the first one fits. It costs one walk.
func (x *index) nearest(filter string) int {
	if x.exact == nil {
		return -1
	}
	best, depth := int32(-1), 0
	x.root.nearest(filter, 0, &best, &depth)
	return int(best)
}

func (n *node) nearest(filter string, at int, best *int32, depth *int) {
	if at > *depth {
		*best, *depth = n.first, at
	}
	token, rest, more := strings.Cut(filter, ".")
	if token == "" {
		return
	}
	next := n.literal[token]
	if next != nil {
		next.step(rest, more, at+1, best, depth)
	}
	if n.star != nil {
		n.star.step(rest, more, at+1, best, depth)
	}
}

func (n *node) step(rest string, more bool, at int, best *int32, depth *int) {
	if more {
		n.nearest(rest, at, best, depth)
	} else if at > *depth {
		*best, *depth = n.first, at
	}
}

// overlapping calls visit with the number of every pattern that some literal
// subject matches together with filter, until visit returns false.
func (x *index) overlapping(filter string, visit func(i int) bool) {
	if x.exact != nil {
		x.root.overlapping(filter, true, visit)
	}
}

func (n *node) overlapping(filter string, more bool, visit func(i int) bool) bool {
	if !more {
		return n.here < 0 || visit(int(n.here))
	}
	token, rest, more := strings.Cut(filter, ".")
	if token == ">" {
		return n.below(false, visit)
	}
	if n.rest >= 0 && !visit(int(n.rest)) {
		return false
	}
	if n.star != nil && !n.star.overlapping(rest, more, visit) {
		return false
	}
	if token != "*" {
		next := n.literal[token]
		return next == nil || next.overlapping(rest, more, visit)
	}
	for _, next := range n.literal {
		if !next.overlapping(rest, more, visit) {
			return false
		}
	}
	return true
}

// below visits every pattern under n, and n's own when self is true.
func (n *node) below(self bool, visit func(i int) bool) bool {
	if self && n.here >= 0 && !visit(int(n.here)) {
		return false
	}
	if n.rest >= 0 && !visit(int(n.rest)) {
		return false
	}
	if n.star != nil && !n.star.below(true, visit) {
		return false
	}
	for _, next := range n.literal {
		if !next.below(true, visit) {
			return false
		}
	}
	return true
}

// SubjectGrants are the grants of one verb, found by subject. The zero value grants nothing.
type SubjectGrants struct {
	list  []Grant
	index index
}

func newSubjectGrants(list []Grant) SubjectGrants {
	g := SubjectGrants{list: list}
	for i := range list {
		g.index.add(list[i].Pattern, i)
	}
	return g
}

// All returns the grants, roles first, in the order of the policy.
func (g *SubjectGrants) All() []Grant { return g.list }

// Covers returns a grant whose pattern takes in every subject that matches the
// filter (a literal subject is a filter), or nil. The filter is not retained.
func (g *SubjectGrants) Covers(filter string) *Grant {
	if i := g.index.covers(filter); i >= 0 {
		return &g.list[i]
	}
	return nil
}

// Nearest returns the grant that comes closest to the filter by leading tokens,
// or nil if no grant starts alike.
func (g *SubjectGrants) Nearest(filter string) *Grant {
	if i := g.index.nearest(filter); i >= 0 {
		return &g.list[i]
	}
	return nil
}

// NameGrants are grants of names: exact, or with a trailing * where the policy
// allows it. The zero value grants nothing.
type NameGrants struct {
	list   []Grant
	exact  map[string]int32
	prefix []int32
}

func newNameGrants(list []Grant, wildcards bool) NameGrants {
	g := NameGrants{list: list}
	for i := range list {
		pattern := list[i].Pattern
		if wildcards && strings.HasSuffix(pattern, "*") {
			g.prefix = append(g.prefix, int32(i))
			continue
		}
		if g.exact == nil {
			g.exact = make(map[string]int32)
		}
		if _, ok := g.exact[pattern]; !ok {
			g.exact[pattern] = int32(i)
		}
	}
	return g
}

// All returns the grants, roles first, in the order of the policy.
func (g *NameGrants) All() []Grant { return g.list }

// Match returns a grant of that name, or nil. The name is not retained.
func (g *NameGrants) Match(name string) *Grant {
	if i, ok := g.exact[name]; ok {
		return &g.list[i]
	}
	for _, i := range g.prefix {
		pattern := g.list[i].Pattern
		if strings.HasPrefix(name, pattern[:len(pattern)-1]) {
			return &g.list[i]
		}
	}
	return nil
}

// All returns every grant, verb by verb, in the order of the policy.
func (g *Grants) All() []*Grant {
	var out []*Grant
	add := func(list []Grant) {
		for i := range list {
			out = append(out, &list[i])
		}
	}
	for _, s := range []*SubjectGrants{&g.Publish, &g.Subscribe, &g.Call, &g.Serve, &g.Consumers} {
		add(s.list)
	}
	for _, n := range []*NameGrants{&g.Headers, &g.Sources, &g.Types, &g.KVRead, &g.KVWrite, &g.ObjectRead, &g.ObjectWrite, &g.Admin} {
		add(n.list)
	}
	if g.Discover != nil {
		out = append(out, g.Discover)
	}
	return out
}
