package jsonschema

import "sync"

// evaluation is one run of a plan over one document. It is pooled and used by
// one goroutine. What it finds goes to the reporter, which tells it whether to go on
// after a fault; values are compared by the comparer. The three share the budget.
type evaluation struct {
	budget
	doc *document
	out reporter
	cmp comparer
}

var evaluations = sync.Pool{New: func() any {
	e := new(evaluation)
	e.out.budget, e.cmp.budget = &e.budget, &e.budget
	return e
}}

// start begins a run over the document on a budget of its own; into is nil if the
// run only decides.
func (e *evaluation) start(fuel int, into *report) {
	e.budget = budget{fuel: fuel}
	e.out.start(e.doc, into)
}

func (e *evaluation) release() {
	e.doc.release()
	e.doc = nil
	e.out.start(nil, nil)
	if cap(e.cmp.slots) > keepSeen {
		e.cmp.slots = nil
	}
	evaluations.Put(e)
}

// eval judges value i by p. outer, when not nil, collects which members or items
// p has evaluated; it is changed only when p accepts.
func (e *evaluation) eval(p *plan, i int, outer *marks) bool {
	if e.burn(1); e.spent {
		return false
	}
	if p.never {
		e.out.bad(p, i, ruleFalse, "")
		return false
	}
	v := &e.doc.values[i]
	if p.types != 0 && !e.hasType(p.types, v, i) {
		e.out.bad(p, i, ruleType, "")
		return false
	}
	var own *marks
	if (outer != nil || p.uneval) && v.kind >= kindArray {
		own = e.newMarks(int(v.n))
	}
	ok := true
	if p.enum != nil && !e.isOneOf(p.enum, i) {
		if ok = false; !e.out.bad(p, i, ruleEnum, "") {
			return false
		}
	}
	if p.konst != nil && !e.isOneOf(p.konst, i) {
		if ok = false; !e.out.bad(p, i, ruleConst, "") {
			return false
		}
	}
	for _, q := range p.refs {
		if !e.eval(q, i, own) {
			if ok = false; !e.out.on() {
				return false
			}
		}
	}
	if !e.byKind(p, i, own) {
		if ok = false; !e.out.on() {
			return false
		}
	}
	if p.mix != nil && !e.combine(p, i, own) {
		if ok = false; !e.out.on() {
			return false
		}
	}
	if p.uneval && own != nil && !e.unevaluated(p, i, own) {
		ok = false
	}
	if ok && outer != nil && own != nil {
		outer.merge(own)
	}
	return ok && !e.spent
}

// byKind applies the keywords that bear on one kind of value.
func (e *evaluation) byKind(p *plan, i int, own *marks) bool {
	switch e.doc.values[i].kind {
	case kindString:
		if p.str != nil || p.format != nil {
			return e.checkString(p, i)
		}
	case kindNumber:
		if p.num != nil {
			return e.checkNumber(p, i)
		}
	case kindObject:
		if p.obj != nil {
			return e.checkObject(p, i, own)
		}
	case kindArray:
		if p.arr != nil {
			return e.checkArray(p, i, own)
		}
	}
	return true
}

func (e *evaluation) hasType(types uint8, v *value, i int) bool {
	if types&kindTypes[v.kind] != 0 {
		return true
	}
	if v.kind != kindNumber || types&typeInteger == 0 {
		return false
	}
	if v.integer {
		return true
	}
	var x decimal
	x.parse(e.doc.token(i), false)
	return x.isInteger()
}

func (e *evaluation) isOneOf(c *choices, i int) bool {
	if e.doc.values[i].kind == kindString {
		_, ok := c.strings[string(e.doc.text(i))]
		return ok
	}
	for _, k := range c.others {
		if e.cmp.equal(e.doc, i, c.values, k) {
			return true
		}
		if e.spent {
			return false
		}
	}
	return false
}

func (e *evaluation) checkString(p *plan, i int) bool {
	text := e.doc.text(i)
	ok := true
	e.burn(len(text) / 16)
	if p.format != nil {
		if p.format.cost != nil {
			e.burn(p.format.cost(text))
		}
		if e.spent {
			return false
		}
		if !p.format.check(text) {
			if ok = false; !e.out.bad(p, i, ruleFormat, "") {
				return false
			}
		}
	}
	s := p.str
	if s == nil {
		return ok
	}
	// Runes are counted only where bytes do not decide.
	if len(text) < s.min || len(text) > s.max || s.min > 0 {
		n := runeCount(text)
		if n < s.min {
			if ok = false; !e.out.bad(p, i, ruleMinLength, "") {
				return false
			}
		}
		if n > s.max {
			if ok = false; !e.out.bad(p, i, ruleMaxLength, "") {
				return false
			}
		}
	}
	if s.pattern != nil {
		if e.burn(s.pattern.cost(len(text))); e.spent {
			return false
		}
		if !s.pattern.match(text) {
			e.out.bad(p, i, rulePattern, "")
			return false
		}
	}
	return ok
}

func (e *evaluation) checkNumber(p *plan, i int) bool {
	var x decimal
	tok := e.doc.token(i)
	e.burn(len(tok) / 16)
	x.parse(tok, e.doc.values[i].integer)
	n, ok := p.num, true
	for k := range n.bounds {
		c := &n.bounds[k]
		if got := x.compare(c.limit); got < c.low || got > c.high {
			if ok = false; !e.out.bad(p, i, c.rule, "") {
				return false
			}
		}
	}
	if n.multiple != nil {
		if !x.small || !n.multiple.small {
			e.burn(64) // big integers of up to some 1,000 digits
		}
		if !x.multipleOf(n.multiple) {
			e.out.bad(p, i, ruleMultipleOf, "")
			return false
		}
	}
	return ok
}

// quietly judges without recording.
func (e *evaluation) quietly(p *plan, i int, outer *marks) bool {
	saved := e.out.report
	e.out.report = nil
	ok := e.eval(p, i, outer)
	e.out.report = saved
	return ok
}

// combine applies allOf, anyOf, oneOf, not and if.
func (e *evaluation) combine(p *plan, i int, own *marks) bool {
	m, ok := p.mix, true
	for _, q := range m.all {
		if !e.eval(q, i, own) {
			if ok = false; !e.out.on() {
				return false
			}
		}
	}
	if len(m.any) > 0 && !e.anyOf(p, i, own) {
		if ok = false; !e.out.on() {
			return false
		}
	}
	if len(m.one) > 0 && !e.oneOf(p, i, own) {
		if ok = false; !e.out.on() {
			return false
		}
	}
	if m.not != nil && e.quietly(m.not, i, nil) {
		if ok = false; !e.out.bad(p, i, ruleNot, "") {
			return false
		}
	}
	if m.when != nil {
		branch := m.then
		if !e.quietly(m.when, i, own) {
			branch = m.els
		}
		if branch != nil && !e.eval(branch, i, own) {
			ok = false
		}
	}
	return ok && !e.spent
}

func (e *evaluation) anyOf(p *plan, i int, own *marks) bool {
	matched := false
	for _, q := range p.mix.any {
		if e.quietly(q, i, own) {
			matched = true
			if own == nil { // else every branch must tell what it evaluated
				return true
			}
		}
		if e.spent {
			return false
		}
	}
	if !matched {
		e.blame(p, i, ruleAnyOf, p.mix.any)
	}
	return matched
}

func (e *evaluation) oneOf(p *plan, i int, own *marks) bool {
	matched := -1
	for k, q := range p.mix.one {
		var branch *marks // merged only if it is the one
		if own != nil {
			branch = own
			if matched >= 0 {
				branch = nil
			}
		}
		if e.quietly(q, i, branch) {
			if matched >= 0 {
				e.out.bad(p, i, ruleOneOf, twoBranches(matched, k))
				return false
			}
			matched = k
		}
		if e.spent {
			return false
		}
	}
	if matched < 0 {
		e.blame(p, i, ruleOneOf, p.mix.one)
		return false
	}
	return true
}

// blame records why none of the branches took the value: the faults of the
// branch that came nearest, then the combinator itself.
func (e *evaluation) blame(p *plan, i int, rule string, branches []*plan) {
	if !e.out.on() {
		return
	}
	outer := e.out.report
	var best *report
	for _, q := range branches {
		r := newReport(outer.max)
		r.depth = len(e.out.path)
		e.out.report = r
		e.eval(q, i, nil)
		if best == nil || r.nearer(best) {
			best = r
		}
		if e.spent {
			break
		}
	}
	e.out.report = outer
	if best != nil {
		outer.take(best)
	}
	e.out.bad(p, i, rule, "")
}
