package jsonschema

// marks says which members or items of one value were evaluated, by ordinal. It
// exists only under unevaluatedProperties and unevaluatedItems.
type marks struct {
	bits []uint64
}

func (e *evaluation) newMarks(n int) *marks {
	e.burn(n/64 + 1)
	return &marks{bits: make([]uint64, (n+63)/64)}
}

func (m *marks) set(k int) {
	if m != nil {
		m.bits[k/64] |= 1 << (k % 64)
	}
}

func (m *marks) has(k int) bool { return m.bits[k/64]&(1<<(k%64)) != 0 }

func (m *marks) merge(o *marks) {
	for k, b := range o.bits {
		m.bits[k] |= b
	}
}

// into judges a member (name >= 0) or an item of the value under judgement.
func (e *evaluation) into(p *plan, i, name, item int) bool {
	if !e.out.on() {
		return e.eval(p, i, nil)
	}
	e.out.path = append(e.out.path, step{name, item})
	ok := e.eval(p, i, nil)
	e.out.path = e.out.path[:len(e.out.path)-1]
	return ok
}

func (e *evaluation) checkObject(p *plan, i int, own *marks) bool {
	o, n := p.obj, int(e.doc.values[i].n)
	ok := true
	if n < o.min {
		if ok = false; !e.out.bad(p, i, ruleMinProperties, "") {
			return false
		}
	}
	if n > o.max {
		if ok = false; !e.out.bad(p, i, ruleMaxProperties, "") {
			return false
		}
	}
	required := 0
	key := i + 1
	for k := range n {
		if e.burn(1); e.spent {
			return false
		}
		prop := o.lookup(e.doc.text(key))
		if prop.required {
			required++ // names are unique, so counting is enough
		}
		if !e.checkMember(p, o, prop.plan, key, k, own) {
			if ok = false; !e.out.on() {
				return false
			}
		}
		key = int(e.doc.values[key+1].next)
	}
	if required < len(o.required) {
		if ok = false; !e.out.on() {
			return false
		}
		e.out.missing(p, i, ruleRequired, o.required)
	}
	for k := range o.dependent {
		if !e.checkDependency(p, &o.dependent[k], i, own) {
			if ok = false; !e.out.on() {
				return false
			}
		}
	}
	return ok
}

// checkMember judges the member whose name stands at key and which is the k-th.
func (e *evaluation) checkMember(p *plan, o *objectRules, declared *plan, key, k int, own *marks) bool {
	ok, evaluated := true, false
	if declared != nil {
		evaluated = true
		ok = e.into(declared, key+1, key, 0)
	}
	if len(o.patterns) > 0 {
		name := e.doc.text(key)
		for r := range o.patterns {
			rule := &o.patterns[r]
			if e.burn(rule.pattern.cost(len(name)) + 1); e.spent {
				return false
			}
			if rule.pattern.match(name) {
				evaluated = true
				ok = e.into(rule.plan, key+1, key, 0) && ok
			}
		}
	}
	if !evaluated && o.additional != nil {
		evaluated = true
		if o.additional.never {
			ok = false
			e.out.badName(p, key, ruleAdditionalProperties)
		} else {
			ok = e.into(o.additional, key+1, key, 0) && ok
		}
	}
	if o.names != nil && !e.quietly(o.names, key, nil) {
		ok = false
		e.out.badName(p, key, rulePropertyNames)
	}
	if evaluated {
		own.set(k)
	}
	return ok
}

func (e *evaluation) checkDependency(p *plan, d *dependency, i int, own *marks) bool {
	e.burn(int(e.doc.values[i].n)/8 + 1)
	if e.spent || e.doc.find(i, []byte(d.name)) < 0 {
		return !e.spent
	}
	if d.plan != nil {
		return e.eval(d.plan, i, own)
	}
	for _, name := range d.required {
		e.burn(int(e.doc.values[i].n)/8 + 1)
		if e.spent {
			return false
		}
		if e.doc.find(i, []byte(name)) < 0 {
			e.out.missing(p, i, d.rule, d.required)
			return false
		}
	}
	return true
}

func (e *evaluation) checkArray(p *plan, i int, own *marks) bool {
	a, n := p.arr, int(e.doc.values[i].n)
	ok := true
	if n < a.min {
		if ok = false; !e.out.bad(p, i, ruleMinItems, "") {
			return false
		}
	}
	if n > a.max {
		if ok = false; !e.out.bad(p, i, ruleMaxItems, "") {
			return false
		}
	}
	item := i + 1
	for k := range n {
		if e.burn(1); e.spent {
			return false
		}
		q := a.items
		if k < len(a.prefix) {
			q = a.prefix[k]
		}
		if q == nil {
			break
		}
		own.set(k)
		if !e.into(q, item, -1, k) {
			if ok = false; !e.out.on() {
				return false
			}
		}
		item = int(e.doc.values[item].next)
	}
	if a.contains != nil && !e.contains(p, i, own) {
		if ok = false; !e.out.on() {
			return false
		}
	}
	if a.unique && n > 1 && !e.cmp.unique(e.doc, i, n) {
		if ok = false; !e.spent {
			e.out.bad(p, i, ruleUniqueItems, "")
		}
	}
	return ok && !e.spent
}

func (e *evaluation) contains(p *plan, i int, own *marks) bool {
	a, n := p.arr, int(e.doc.values[i].n)
	found := 0
	item := i + 1
	for k := range n {
		if e.quietly(a.contains, item, nil) {
			found++
			if a.marks {
				own.set(k)
			}
		}
		if e.spent {
			return false
		}
		item = int(e.doc.values[item].next)
	}
	if found < a.minContains {
		e.out.bad(p, i, ruleContains, "")
		return false
	}
	if found > a.maxContains {
		e.out.bad(p, i, ruleMaxContains, "")
		return false
	}
	return true
}

// unevaluated judges what no other keyword of p has evaluated.
func (e *evaluation) unevaluated(p *plan, i int, own *marks) bool {
	v := e.doc.values[i]
	var q *plan
	if v.kind == kindObject && p.obj != nil {
		q = p.obj.uneval
	} else if v.kind == kindArray && p.arr != nil {
		q = p.arr.uneval
	}
	if q == nil {
		return true
	}
	ok := true
	at := i + 1
	for k := range int(v.n) {
		if e.burn(1); e.spent {
			return false
		}
		name, val := -1, at
		if v.kind == kindObject {
			name, val = at, at+1
		}
		if !own.has(k) {
			own.set(k)
			if !e.into(q, val, name, k) {
				if ok = false; !e.out.on() {
					return false
				}
			}
		}
		at = int(e.doc.values[val].next)
	}
	return ok
}
