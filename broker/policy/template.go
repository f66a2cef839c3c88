package policy

import (
	"fmt"
	"strings"
)

// Templates stand in the patterns of grants for what differs between the principals
// that have them. They are filled in when the policy is compiled: a decision sees
// patterns only.
const (
	templatePrincipal = "{principal}"
	templateTenant    = "{tenant}"
)

func isTemplate(pattern string) bool { return strings.ContainsAny(pattern, "{}") }

func fill(pattern, tenant, principal string) string {
	return strings.ReplaceAll(strings.ReplaceAll(pattern, templatePrincipal, principal), templateTenant, tenant)
}

// templated lets a check of patterns take templates, too. What they are filled with is
// checked again, for each principal: a name may make the pattern too long, or a
// reserved one.
func templated(check func(string) (string, error)) func(string) (string, error) {
	return func(s string) (string, error) {
		if !isTemplate(s) {
			return check(s)
		}
		filled := fill(s, "t", "p")
		if isTemplate(filled) {
			return "", fmt.Errorf("%q: the templates are %s and %s", s, templatePrincipal, templateTenant)
		}
		_, err := check(filled)
		return s, err
	}
}

// templateChecks are the verbs whose patterns may have templates.
var templateChecks = map[string]func(string) (string, error){
	VerbPublish:   checkEventFilter,
	VerbSubscribe: checkEventFilter,
	VerbCall:      checkCall,
	VerbServe:     checkServe,
	VerbConsumer:  checkConsumer,
	VerbSource:    checkPrefixPattern,
	VerbType:      checkPrefixPattern,
}

// widened is a pattern that takes in every filling of a template: the check of a role
// does not know who will have it.
func widened(pattern string) string {
	if !isTemplate(pattern) {
		return pattern
	}
	tokens := strings.Split(pattern, ".")
	for i := range tokens {
		if isTemplate(tokens[i]) {
			tokens[i] = "*"
		}
	}
	return strings.Join(tokens, ".")
}

// checkFilled faults templates that the name of p turns into what may not be granted.
func (m *merged) checkFilled(p *principalDecl, f *faults) {
	check := func(list []Grant, verb string) {
		for i := range list {
			g := &list[i]
			if !isTemplate(g.Pattern) {
				continue
			}
			if _, err := templateChecks[verb](fill(g.Pattern, m.name, p.name)); err != nil {
				f.add(p.at, "principal %s: %s %s (%s) cannot be filled in: %v", p.name, g.Rule, g.Pattern, g.Position, err)
			}
		}
	}
	for verb := range templateChecks {
		check(p.grants[verb], verb)
		for _, r := range p.roles {
			if role := m.roles[r.text]; role != nil {
				check(role.grants[verb], verb)
			}
		}
	}
}

// quoteTemplates ends the fault of a line that is no YAML because of the braces of a
// template in a list.
func quoteTemplates(src []byte, line int) string {
	lines := strings.Split(string(src), "\n")
	if line < 1 || line > len(lines) || !strings.Contains(lines[line-1], templatePrincipal) && !strings.Contains(lines[line-1], templateTenant) {
		return ""
	}
	return "; a pattern with a template stands in quotes: [\"orders.{principal}.created\"]"
}
