package admin

import (
	"cmp"
	"context"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

// Policies is the policy as a whole: what was applied, and what would be. What it refuses
// is a *wire.Refusal.
type Policies interface {
	// Show says where the policy in force comes from.
	Show(ctx context.Context) adminapi.PolicyShow
	// Plan compares a policy with the one in force. tenant bounds what is compared and
	// replayed; empty: all tenants.
	Plan(ctx context.Context, q *adminapi.PolicyPlanRequest, tenant string) (*adminapi.PolicyPlan, error)
	// Put applies a version that by, tenant/name, has signed.
	Put(ctx context.Context, q *adminapi.PolicyPutRequest, by string) (*adminapi.PolicyPut, error)
	// History returns the versions that are kept, newest first.
	History(ctx context.Context) ([]adminapi.PolicyVersion, error)
	// Get returns the signed document of a version that is kept.
	Get(ctx context.Context, version uint64) ([]byte, error)
}

// policies is the handler of a verb about the policy as a whole. Only whoever may see all
// tenants may have it: a policy is for all of them.
func policies(whole bool, verb func(*Service, context.Context, *request) (any, error)) handler {
	return func(s *Service, ctx context.Context, r *request) (any, error) {
		switch {
		case s.cfg.Policies == nil:
			return nil, wire.Refuse(wire.CodeUnavailable, "policy", "this broker takes its policy from files only")
		case whole && !seesAll(r):
			return nil, wire.Refuse(wire.CodeAdminDenied, "default-deny/admin", "the policy is for all tenants: this needs the area cluster beside policy")
		}
		return verb(s, ctx, r)
	}
}

// seesAll reports whether the caller may see the policy of all tenants.
func seesAll(r *request) bool {
	return len(r.set.Tenants()) == 1 || acl.Admin(r.caller, adminapi.AreaCluster).Allowed
}

func policyShow(s *Service, ctx context.Context, r *request) (any, error) {
	if err := r.decode(&struct{}{}); err != nil {
		return nil, err
	}
	out := s.cfg.Policies.Show(ctx)
	out.Tenants = []string{r.caller.Tenant.Name}
	if seesAll(r) {
		out.Tenants = nil
		for _, t := range r.set.Tenants() {
			out.Tenants = append(out.Tenants, t.Name)
		}
	}
	return out, nil
}

func policyPlan(s *Service, ctx context.Context, r *request) (any, error) {
	var q adminapi.PolicyPlanRequest
	if err := r.decode(&q); err != nil {
		return nil, err
	}
	switch {
	case (len(q.Files) > 0) == (q.Version > 0):
		return nil, wire.Refuse(wire.CodeRequestMalformed, "admin", "files or a version are wanted, one of them")
	case len(q.Files) > adminapi.MaxPolicyBytes, q.Hours < 0, q.Hours > adminapi.MaxPlanHours:
		return nil, wire.Refuse(wire.CodeRequestMalformed, "admin", "the files are too large, or it is too many hours")
	}
	tenant := r.caller.Tenant.Name
	if seesAll(r) {
		tenant = ""
	} else if q.Version > 0 {
		return nil, wire.Refuse(wire.CodeAdminDenied, "default-deny/admin", "versions are of all tenants: this needs the area cluster beside policy")
	}
	return s.cfg.Policies.Plan(ctx, &q, tenant)
}

func policyPut(s *Service, ctx context.Context, r *request) (any, error) {
	var q adminapi.PolicyPutRequest
	if err := r.decode(&q); err != nil {
		return nil, err
	}
	if len(q.Document) == 0 || len(q.Document) > adminapi.MaxPolicyBytes {
		return nil, wire.Refuse(wire.CodeRequestMalformed, "admin", "the document is missing or too large")
	}
	return s.cfg.Policies.Put(ctx, &q, r.Principal)
}

func policyHistory(s *Service, ctx context.Context, r *request) (any, error) {
	if err := r.decode(&struct{}{}); err != nil {
		return nil, err
	}
	list, err := s.cfg.Policies.History(ctx)
	return adminapi.PolicyHistory{Versions: list}, err
}

func policyGet(s *Service, ctx context.Context, r *request) (any, error) {
	var q adminapi.PolicyGetRequest
	if err := r.decode(&q); err != nil {
		return nil, err
	}
	doc, err := s.cfg.Policies.Get(ctx, q.Version)
	return adminapi.PolicyGet{Document: doc}, err
}

// policyUsage counts over all nodes: a grant is unused only where nobody has used it
// anywhere.
func policyUsage(s *Service, ctx context.Context, r *request) (any, error) {
	if err := r.decode(&struct{}{}); err != nil {
		return nil, err
	}
	out := usage(r.caller.Tenant, s.cfg.Started)
	if s.cfg.Nodes == nil || r.forwarded {
		return out, nil
	}
	out.Without = askOthers(s, ctx, r, func(theirs *adminapi.PolicyUsage) { addUsage(out, theirs) })
	return out, nil
}

func addUsage(to, more *adminapi.PolicyUsage) {
	if more.Since.After(to.Since) {
		to.Since = more.Since
	}
	type key struct{ rule, pattern string }
	grants, modes := map[key]uint64{}, map[string]uint64{}
	for i := range more.Grants {
		grants[key{more.Grants[i].Rule, more.Grants[i].Pattern}] = more.Grants[i].Count
	}
	for i := range more.Modes {
		modes[more.Modes[i].Rule] = more.Modes[i].Count
	}
	for i := range to.Grants {
		to.Grants[i].Count += grants[key{to.Grants[i].Rule, to.Grants[i].Pattern}]
	}
	for i := range to.Modes {
		to.Modes[i].Count += modes[to.Modes[i].Rule]
	}
}

// usage lists the lines of the policy that grant something in a tenant, the least used
// first, the rules that are not enforced, and the limits that bound nobody.
func usage(t *policy.Tenant, since time.Time) *adminapi.PolicyUsage {
	out := &adminapi.PolicyUsage{Since: since, Grants: []adminapi.GrantUse{}}
	lines := map[*policy.Count]*adminapi.GrantUse{}
	modes := map[string]adminapi.ModeUse{}
	had := map[string]bool{} // limits, by somebody
	mode := func(rule string, m policy.Mode, count *policy.Count, at policy.Position) {
		if m != policy.ModeEnforce {
			modes[rule] = adminapi.ModeUse{Rule: rule, Mode: m.String(), Count: count.Load(), File: filepath.Base(at.File), Line: at.Line}
		}
	}
	for _, p := range t.Principals() {
		mode("principal "+p.Name, p.Mode, p.Spare, p.At)
		for i := range p.Limits {
			had[p.Limits[i].Name] = true
			mode(p.Limits[i].Rule, p.Limits[i].Mode, p.Limits[i].Spare, p.Limits[i].At)
		}
		for _, g := range p.Grants.All() {
			line := lines[g.Used]
			if line == nil {
				line = &adminapi.GrantUse{
					Verb: g.Verb, Pattern: g.Written, Rule: g.Rule, File: filepath.Base(g.File), Line: g.Line, Until: g.Until, Count: g.Used.Load(),
				}
				lines[g.Used] = line
			}
			line.Holders++
		}
	}
	for i := range t.Bindings {
		mode(t.Bindings[i].Rule, t.Bindings[i].Mode, t.Bindings[i].Spare, t.Bindings[i].At)
	}
	if r := t.Quota.Rate; r != nil {
		mode(r.Rule, r.Mode, r.Spare, t.Quota.At)
	}
	for i := range t.Limits {
		if l := &t.Limits[i]; !had[l.Name] {
			out.Idle = append(out.Idle, adminapi.IdleLimit{Rule: "limit " + l.Name, File: filepath.Base(l.At.File), Line: l.At.Line})
		}
	}
	for _, line := range lines {
		out.Grants = append(out.Grants, *line)
	}
	slices.SortFunc(out.Grants, func(a, b adminapi.GrantUse) int {
		return cmp.Or(cmp.Compare(a.Count, b.Count), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Pattern, b.Pattern))
	})
	if n := len(out.Grants) - adminapi.MaxUsageRows; n > 0 {
		out.Grants, out.More = out.Grants[:adminapi.MaxUsageRows], n
	}
	for _, rule := range slices.Sorted(maps.Keys(modes)) {
		out.Modes = append(out.Modes, modes[rule])
	}
	return out
}
