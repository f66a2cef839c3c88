package jsonschema

import (
	"math"
)

// Bits of the JSON types that a node allows.
const (
	typeNull = 1 << iota
	typeBoolean
	typeNumber
	typeInteger
	typeString
	typeArray
	typeObject
)

var typeNames = [...]string{"null", "boolean", "number", "integer", "string", "array", "object"}

var kindTypes = [...]uint8{
	kindNull: typeNull, kindFalse: typeBoolean, kindTrue: typeBoolean, kindNumber: typeNumber,
	kindString: typeString, kindArray: typeArray, kindObject: typeObject,
}

// plan is one schema node, ready to judge a value. The plans of a document form
// a graph; they are built under the document's lock and immutable afterwards.
// Groups of keywords that a node lacks are nil.
type plan struct {
	at     string // JSON pointer of the node in its document
	never  bool   // the schema false
	types  uint8  // allowed types; 0: all
	enum   *choices
	konst  *choices
	format *namedFormat
	refs   []*plan // $ref, and $dynamicRef where it can only mean one place
	str    *stringRules
	num    *numberRules
	obj    *objectRules
	arr    *arrayRules
	mix    *combinators

	uneval bool // has unevaluatedProperties or unevaluatedItems

	// cost is the node visits that one value costs without descending, with
	// references followed; costCycle marks a node that reaches itself so.
	cost   int
	faults []error // why this node must not be used; refused when reached
}

type namedFormat struct {
	name  string
	check formatCheck
	cost  func(text []byte) int // fuel beyond what every string costs; nil: none
}

type stringRules struct {
	min, max int // runes; max is unlimited where the schema has none
	pattern  *pattern
}

type numberRules struct {
	bounds   []bound
	multiple *decimal
}

// bound is one of minimum, maximum, exclusiveMinimum, exclusiveMaximum: the
// comparison of a value with limit must be low..high.
type bound struct {
	rule      string
	limit     *decimal
	low, high int
}

type objectRules struct {
	min, max   int
	props      map[string]property
	few        []namedProperty // props again, when a walk is faster than a hash
	required   []string        // sorted, unique; each is in props too
	patterns   []patternRule
	additional *plan // nil: anything
	names      *plan
	dependent  []dependency
	uneval     *plan
}

// property is what is known of one member name: its schema, nil if it is not
// declared, and whether it is required.
type property struct {
	plan     *plan
	required bool
}

// namedProperty is one entry of objectRules.few.
type namedProperty struct {
	name string
	property
}

// fewProperties is up to how many names are looked for one by one.
const fewProperties = 8

// lookup returns what is known of a name.
func (o *objectRules) lookup(name []byte) property {
	if len(o.few) == 0 {
		return o.props[string(name)]
	}
	for k := range o.few {
		if p := &o.few[k]; len(p.name) == len(name) && p.name == string(name) {
			return p.property
		}
	}
	return property{}
}

type patternRule struct {
	pattern *pattern
	plan    *plan
}

// dependency is what the presence of a member asks for.
type dependency struct {
	name     string
	rule     string // the keyword
	required []string
	plan     *plan
}

type arrayRules struct {
	min, max    int
	unique      bool
	prefix      []*plan
	items       *plan // after prefix
	itemsRule   string
	contains    *plan
	minContains int
	maxContains int
	marks       bool // contains marks items as evaluated (2020-12)
	uneval      *plan
}

type combinators struct {
	all, any, one []*plan
	not           *plan
	when          *plan // if
	then, els     *plan
}

// edges calls f for each plan that p refers to; inPlace says that it judges the
// same value, not a part of it.
func (p *plan) edges(f func(q *plan, inPlace bool)) {
	visit := func(inPlace bool, list ...*plan) {
		for _, q := range list {
			if q != nil {
				f(q, inPlace)
			}
		}
	}
	visit(true, p.refs...)
	if m := p.mix; m != nil {
		visit(true, m.all...)
		visit(true, m.any...)
		visit(true, m.one...)
		visit(true, m.not, m.when, m.then, m.els)
	}
	if o := p.obj; o != nil {
		for _, d := range o.dependent {
			visit(true, d.plan)
		}
		for _, prop := range o.props {
			visit(false, prop.plan)
		}
		for _, r := range o.patterns {
			visit(false, r.plan)
		}
		visit(false, o.additional, o.names, o.uneval)
	}
	if a := p.arr; a != nil {
		visit(false, a.prefix...)
		visit(false, a.items, a.contains, a.uneval)
	}
}

const (
	costUnknown = 0
	costActive  = -1
	costCycle   = -2
)

// inPlaceCost fills and returns p.cost; the sum saturates.
func (p *plan) inPlaceCost() int {
	switch p.cost {
	case costUnknown:
	case costActive:
		return costCycle
	default:
		return p.cost
	}
	p.cost = costActive
	sum, cycle := 1, false
	p.edges(func(q *plan, inPlace bool) {
		if !inPlace {
			return
		}
		c := q.inPlaceCost()
		if c == costCycle {
			cycle = true
			return
		}
		sum = min(sum+c, math.MaxInt32)
	})
	if cycle {
		sum = costCycle
	}
	p.cost = sum
	return sum
}

// reach returns p and every plan that it leads to, p first.
func (p *plan) reach() []*plan {
	seen := map[*plan]bool{p: true}
	out := []*plan{p}
	for i := 0; i < len(out); i++ {
		out[i].edges(func(q *plan, _ bool) {
			if !seen[q] {
				seen[q] = true
				out = append(out, q)
			}
		})
	}
	return out
}

// choices is the values of enum or const. Strings are found by a map; the rest
// are compared one by one.
type choices struct {
	strings map[string]struct{}
	others  []int // indices into values
	values  *document
	want    string // for messages
}
