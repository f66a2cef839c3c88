package policy

import (
	"slices"

	"github.com/goccy/go-yaml/ast"
)

// Priority is whose publishes are refused first when room is short, and whose last.
type Priority int8

// The classes, in rising order.
const (
	PriorityLow    Priority = -1
	PriorityNormal Priority = 0 // the default
	PriorityHigh   Priority = 1
)

// Priorities are all classes, in rising order.
var Priorities = [...]Priority{PriorityLow, PriorityNormal, PriorityHigh}

// String returns the word of the policy.
func (p Priority) String() string {
	switch p {
	case PriorityLow:
		return "low"
	case PriorityHigh:
		return "high"
	default:
		return "normal"
	}
}

// Index numbers the classes from 0, in the order of Priorities.
func (p Priority) Index() int { return int(p) + 1 }

// HasHigh reports whether a principal of the tenant is of PriorityHigh: room is kept for it.
func (t *Tenant) HasHigh() bool {
	return slices.ContainsFunc(t.principalList, func(p *Principal) bool { return p.Priority == PriorityHigh })
}

// HasHigh reports whether that holds for some tenant.
func (s *Set) HasHigh() bool {
	return slices.ContainsFunc(s.tenants, (*Tenant).HasHigh)
}

func readPriority(r *docReader, n ast.Node) *Priority {
	v, ok := r.text(n, "priority")
	for _, p := range Priorities {
		if v == p.String() {
			return &p
		}
	}
	if ok {
		r.fault(n, "priority: low, normal or high is wanted, not %q", v)
	}
	return nil
}

// priorityOf is that of the principal itself, else the highest that one of its roles names
// whose time is not over.
func (m *merged) priorityOf(d *principalDecl, c *clock) Priority {
	if d.priority != nil {
		return *d.priority
	}
	var highest *Priority
	for _, r := range d.roles {
		if role := m.roles[r.text]; role != nil && role.priority != nil && (r.until.IsZero() || r.until.After(c.now)) && (highest == nil || *role.priority > *highest) {
			highest = role.priority
		}
	}
	if highest == nil {
		return PriorityNormal
	}
	return *highest
}
