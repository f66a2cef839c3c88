package jsonschema

import (
	"strings"

	"github.com/signetbus/signet/internal/wire"
)

// report collects violations; nothing in it holds a payload value.
type report struct {
	violations []wire.Violation
	max        int
	total      int  // recorded or not
	truncated  bool // more than max

	// For the choice between branches: faults that say "this branch is not
	// meant", and the depth of the value that the branches share.
	strange int
	depth   int
}

func newReport(most int) *report { return &report{max: most} }

func (r *report) add(v wire.Violation) {
	for i := range r.violations { // two branches of allOf may ask for the same
		if o := &r.violations[i]; o.At == v.At && o.Rule == v.Rule && o.Want == v.Want && o.Got == v.Got {
			return
		}
	}
	r.total++
	if len(r.violations) >= r.max {
		r.truncated = true
		return
	}
	r.violations = append(r.violations, v)
}

// full counts a fault that there is no room for, so that it need not be built.
func (r *report) full() bool {
	if len(r.violations) < r.max {
		return false
	}
	r.total++
	r.truncated = true
	return true
}

// take appends what o recorded.
func (r *report) take(o *report) {
	for _, v := range o.violations {
		r.add(v)
	}
	r.truncated = r.truncated || o.truncated
	r.strange += o.strange
}

// nearer reports whether r is a better account than o of what the sender meant:
// a branch whose tag or type does not fit is not meant; then fewer faults.
func (r *report) nearer(o *report) bool {
	if r.strange != o.strange {
		return r.strange < o.strange
	}
	return r.total < o.total
}

// reporter writes down the faults that an evaluation finds, if the run is to explain:
// report is nil in the first run, which only decides. Then nothing is recorded, no
// path is kept, and every method returns at once.
type reporter struct {
	*budget // of the evaluation
	doc     *document
	report  *report
	path    []step // where the value under judgement stands
}

// step is one level of a JSON pointer: a member by the index of its name, or an
// item by its number.
type step struct {
	name int // -1: item
	item int
}

// start begins a run over d; into is nil if it only decides.
func (r *reporter) start(d *document, into *report) {
	r.doc, r.report, r.path = d, into, r.path[:0]
}

// on reports whether faults are recorded, so that the run goes on after one.
func (r *reporter) on() bool { return r.report != nil }

// bad records a fault of value i, if the run records. It reports whether to go
// on looking for more.
func (r *reporter) bad(p *plan, i int, rule, arg string) bool {
	into := r.report
	if into == nil {
		return false
	}
	if p.isTag(rule) && len(r.path) <= into.depth+1 || rule == ruleType && len(r.path) == into.depth {
		into.strange++
	}
	if into.full() {
		return true
	}
	want, message := p.describe(rule, arg)
	into.add(wire.Violation{
		At: r.pointer(), Rule: rule, SchemaAt: schemaAt(p, rule), Want: want, Got: r.doc.got(i),
		Offset: r.doc.offset(i), Message: message,
	})
	return true
}

// badName records a fault of the member whose name stands at key.
func (r *reporter) badName(p *plan, key int, rule string) {
	if r.report == nil || r.report.full() {
		return
	}
	name := quoteName(r.doc.text(key))
	message := "the name is not allowed"
	if rule == ruleAdditionalProperties {
		message = "not declared"
		// A hint is a luxury: it must not use up what the other faults need.
		if cost := hintCost * len(p.obj.props); cost < r.fuel/4 {
			r.burn(cost)
			if hint := p.obj.nearest(string(r.doc.text(key))); hint != "" {
				message += "; did you mean " + quoteName([]byte(hint)) + "?"
			}
		}
	}
	r.report.add(wire.Violation{
		At: r.pointer(), Rule: rule, SchemaAt: schemaAt(p, rule), Got: "property " + name,
		Offset: r.doc.offset(key), Message: message,
	})
}

// missing records each of names that object i lacks.
func (r *reporter) missing(p *plan, i int, rule string, names []string) {
	if r.report == nil {
		return
	}
	for _, name := range names {
		r.burn(int(r.doc.values[i].n)/8 + 1)
		if r.spent {
			return
		}
		if r.doc.find(i, []byte(name)) >= 0 || r.report.full() {
			continue
		}
		r.report.add(wire.Violation{
			At: r.pointer(), Rule: rule, SchemaAt: schemaAt(p, rule), Want: "property " + quoteName([]byte(name)),
			Got: r.doc.got(i), Offset: r.doc.offset(i), Message: "property " + quoteName([]byte(name)) + " is missing",
		})
	}
}

// pointer writes the path as a JSON pointer, names cut and escaped.
func (r *reporter) pointer() string {
	var b strings.Builder
	for _, s := range r.path {
		if b.WriteByte('/'); b.Len() > maxPointerBytes {
			b.WriteString("...")
			break
		}
		if s.name < 0 {
			writeInt(&b, s.item)
		} else {
			writeToken(&b, r.doc.text(s.name))
		}
	}
	return b.String()
}
