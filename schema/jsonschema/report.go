package jsonschema

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/signetbus/signet/internal/wire"
)

// The rules that a violation can name: the schema keywords.
const (
	ruleFalse                = "false"
	ruleType                 = "type"
	ruleEnum                 = "enum"
	ruleConst                = "const"
	ruleFormat               = "format"
	ruleMinLength            = "minLength"
	ruleMaxLength            = "maxLength"
	rulePattern              = "pattern"
	ruleMinimum              = "minimum"
	ruleMaximum              = "maximum"
	ruleExclusiveMinimum     = "exclusiveMinimum"
	ruleExclusiveMaximum     = "exclusiveMaximum"
	ruleMultipleOf           = "multipleOf"
	ruleMinProperties        = "minProperties"
	ruleMaxProperties        = "maxProperties"
	ruleRequired             = "required"
	ruleAdditionalProperties = "additionalProperties"
	rulePropertyNames        = "propertyNames"
	ruleMinItems             = "minItems"
	ruleMaxItems             = "maxItems"
	ruleUniqueItems          = "uniqueItems"
	ruleContains             = "contains"
	ruleMaxContains          = "maxContains"
	ruleAnyOf                = "anyOf"
	ruleOneOf                = "oneOf"
	ruleNot                  = "not"
)

const (
	maxNameBytes = 64  // of a property name in a violation
	hintCost     = 150 // fuel for comparing one name with another
	maxWantBytes = 128 // of Violation.Want

	// maxPointerBytes keeps an answer small whatever the names in a payload are;
	// a pointer that was cut ends with "/...".
	maxPointerBytes = 512
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

// bad records a fault of value i, if the run records. It reports whether to go
// on looking for more.
func (e *evaluation) bad(p *plan, i int, rule, arg string) bool {
	r := e.report
	if r == nil {
		return false
	}
	if p.isTag(rule) && len(e.path) <= r.depth+1 || rule == ruleType && len(e.path) == r.depth {
		r.strange++
	}
	if r.full() {
		return true
	}
	want, message := p.describe(rule, arg)
	r.add(wire.Violation{
		At: e.pointer(), Rule: rule, SchemaAt: schemaAt(p, rule), Want: want, Got: e.got(i),
		Offset: e.offset(i), Message: message,
	})
	return true
}

// isTag reports whether a fault of rule says that another branch was meant: a
// constant, or an enum of one value, as unions are tagged.
func (p *plan) isTag(rule string) bool {
	return rule == ruleConst || rule == ruleEnum && len(p.enum.strings)+len(p.enum.others) == 1
}

// badName records a fault of the member whose name stands at key.
func (e *evaluation) badName(p *plan, key int, rule string) {
	if e.report == nil || e.report.full() {
		return
	}
	name := quoteName(e.doc.text(key))
	message := "the name is not allowed"
	if rule == ruleAdditionalProperties {
		message = "not declared"
		// A hint is a luxury: it must not use up what the other faults need.
		if cost := hintCost * len(p.obj.props); cost < e.fuel/4 {
			e.burn(cost)
			if hint := p.obj.nearest(string(e.doc.text(key))); hint != "" {
				message += "; did you mean " + quoteName([]byte(hint)) + "?"
			}
		}
	}
	e.report.add(wire.Violation{
		At: e.pointer(), Rule: rule, SchemaAt: schemaAt(p, rule), Got: "property " + name,
		Offset: e.offset(key), Message: message,
	})
}

// missing records each of names that object i lacks.
func (e *evaluation) missing(p *plan, i int, rule string, names []string) {
	if e.report == nil {
		return
	}
	for _, name := range names {
		e.burn(int(e.doc.values[i].n)/8 + 1)
		if e.spent {
			return
		}
		if e.doc.find(i, []byte(name)) >= 0 || e.report.full() {
			continue
		}
		e.report.add(wire.Violation{
			At: e.pointer(), Rule: rule, SchemaAt: schemaAt(p, rule), Want: "property " + quoteName([]byte(name)),
			Got: e.got(i), Offset: e.offset(i), Message: "property " + quoteName([]byte(name)) + " is missing",
		})
	}
}

// schemaAt is the JSON pointer of the keyword in the document.
func schemaAt(p *plan, rule string) string {
	if rule == ruleFalse {
		return p.at
	}
	return p.at + "/" + rule
}

// offset is the first byte of value i; of a string, its quote.
func (e *evaluation) offset(i int) int {
	v := &e.doc.values[i]
	if v.kind == kindString {
		return int(v.start) - 1
	}
	return int(v.start)
}

// got names type and size, never the value.
func (e *evaluation) got(i int) string {
	v := &e.doc.values[i]
	switch v.kind {
	case kindNull:
		return "null"
	case kindTrue, kindFalse:
		return "boolean"
	case kindNumber:
		return "number"
	case kindString:
		return fmt.Sprintf("string of %d characters", runeCount(e.doc.text(i)))
	case kindArray:
		return fmt.Sprintf("array of %d items", v.n)
	default:
		return fmt.Sprintf("object of %d members", v.n)
	}
}

// describe gives what the schema wants and one sentence. Schema values may be
// told; payload values never get here.
func (p *plan) describe(rule, arg string) (want, message string) {
	switch rule {
	case ruleType:
		want = p.typeList()
		return want, "must be " + strings.ReplaceAll(want, "|", " or ")
	case ruleEnum:
		return p.enum.want, "must be one of the listed values"
	case ruleConst:
		return p.konst.want, "must be the one value that the schema names"
	case ruleFormat:
		return p.format.name, "is not a valid " + p.format.name
	case ruleMinLength:
		return atLeast(p.str.min, "characters")
	case ruleMaxLength:
		return atMost(p.str.max, "characters")
	case rulePattern:
		return cut(p.str.pattern.source, maxWantBytes), "does not match the pattern"
	case ruleMinimum, ruleMaximum, ruleExclusiveMinimum, ruleExclusiveMaximum:
		return p.num.describe(rule)
	case ruleMultipleOf:
		return p.num.multiple.String(), "must be a multiple of " + p.num.multiple.String()
	case ruleMinProperties:
		return atLeast(p.obj.min, "members")
	case ruleMaxProperties:
		return atMost(p.obj.max, "members")
	case ruleMinItems:
		return atLeast(p.arr.min, "items")
	case ruleMaxItems:
		return atMost(p.arr.max, "items")
	case ruleUniqueItems:
		return "", "has two equal items"
	case ruleContains:
		return strconv.Itoa(p.arr.minContains), "has too few items of the kind that it must contain"
	case ruleMaxContains:
		return strconv.Itoa(p.arr.maxContains), "has too many items of the kind that it may contain"
	case ruleNot:
		return "", "matches what it must not match"
	case ruleAnyOf:
		return fmt.Sprintf("one of %d branches", len(p.mix.any)), "matches none of the branches"
	case ruleOneOf:
		want = fmt.Sprintf("exactly one of %d branches", len(p.mix.one))
		if arg != "" {
			return want, arg
		}
		return want, "matches none of the branches"
	}
	return "", "must not be here"
}

func (n *numberRules) describe(rule string) (want, message string) {
	for _, b := range n.bounds {
		if b.rule == rule {
			want = b.limit.String()
		}
	}
	relation := map[string]string{
		ruleMinimum: "at least ", ruleMaximum: "at most ", ruleExclusiveMinimum: "above ", ruleExclusiveMaximum: "below ",
	}
	return want, "must be " + relation[rule] + want
}

func atLeast(n int, what string) (want, message string) {
	return strconv.Itoa(n), fmt.Sprintf("must have at least %d %s", n, what)
}

func atMost(n int, what string) (want, message string) {
	return strconv.Itoa(n), fmt.Sprintf("must have at most %d %s", n, what)
}

func twoBranches(a, b int) string {
	return fmt.Sprintf("matches more than one branch (%d and %d)", a, b)
}

func (p *plan) typeList() string {
	var names []string
	for i, name := range typeNames {
		if p.types&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "|")
}

// nearest returns the declared name within two edits of name, if there is one.
func (o *objectRules) nearest(name string) string {
	if len(name) > maxNameBytes {
		return ""
	}
	best, bestDistance := "", 3
	for declared, prop := range o.props {
		if prop.plan == nil || len(declared) > maxNameBytes {
			continue
		}
		d := distance(name, declared, bestDistance)
		if d < bestDistance || d == bestDistance && d < 3 && declared < best {
			best, bestDistance = declared, d
		}
	}
	if bestDistance >= len(name) { // a one-letter name is near to everything short
		return ""
	}
	return best
}

// distance is the edit distance, or some number above most.
func distance(a, b string, most int) int {
	if len(a)-len(b) > most || len(b)-len(a) > most {
		return most + 1
	}
	var row [maxNameBytes + 1]int
	for j := range len(b) + 1 {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := diagonal
			if a[i-1] != b[j-1] {
				change++
			}
			diagonal = row[j]
			row[j] = min(row[j]+1, row[j-1]+1, change)
		}
	}
	return row[len(b)]
}

// cut shortens s to at most n bytes on a rune boundary.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n -= len("…")
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// quoteName makes a property name fit for logs: cut, quoted, everything but
// printable ASCII escaped.
func quoteName(name []byte) string {
	return strconv.QuoteToASCII(cut(string(name), maxNameBytes))
}

// quotePointer quotes a pointer that pointer has made safe already.
func quotePointer(s string) string {
	if s == "" {
		return "the root"
	}
	return s
}

// writeToken writes a member name as a token of a JSON pointer: cut, with ~ and /
// escaped as RFC 6901 says, and everything but printable ASCII as \u escapes.
func writeToken(b *strings.Builder, name []byte) {
	q := quoteName(name)
	q = q[1 : len(q)-1]
	q = strings.ReplaceAll(q, `\"`, `"`)
	q = strings.ReplaceAll(q, "~", "~0")
	b.WriteString(strings.ReplaceAll(q, "/", "~1"))
}

func writeInt(b *strings.Builder, n int) { b.WriteString(strconv.Itoa(n)) }
