package jsonschema

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
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

// isTag reports whether a fault of rule says that another branch was meant: a
// constant, or an enum of one value, as unions are tagged.
func (p *plan) isTag(rule string) bool {
	return rule == ruleConst || rule == ruleEnum && len(p.enum.strings)+len(p.enum.others) == 1
}

// schemaAt is the JSON pointer of the keyword in the document.
func schemaAt(p *plan, rule string) string {
	if rule == ruleFalse {
		return p.at
	}
	return p.at + "/" + rule
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
		row[j] = j //nolint:gosec // nearest compares names of at most maxNameBytes
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
