package broker

import (
	"strconv"
	"time"

	"github.com/signetbus/signet/broker/ops"
	"github.com/signetbus/signet/broker/policy"
)

// policyMetrics are those of the policy in force (docs/operations.md).
func policyMetrics(b *Broker) []ops.Source {
	gauge := func(name, help string, read func() float64) ops.Source {
		return ops.Source{Name: name, Help: help, Kind: ops.Gauge, Read: func(emit func(float64, ...string)) { emit(read()) }}
	}
	return []ops.Source{
		gauge("signet_policy_version", "Version of the policy that was applied last; 0 for none.", func() float64 { return float64(b.material.Load().applied.version()) }),
		gauge("signet_policy_lapsed", "Grants and principals of the policy whose time is over.", func() float64 { return float64(b.Policy().Lapsed()) }),
		gauge("signet_policy_names_not_given", "Names under identities of the applied policy that the configuration of this node gives to nobody who vouches for them: nobody comes in by them here.", func() float64 {
			return float64(len(b.material.Load().ungiven))
		}),
		{
			Name: "signet_policy_spared", Help: "What rules in mode audit would have refused, of those in force, by tenant.", Kind: ops.Gauge, Labels: []string{"tenant"},
			Read: func(emit func(float64, ...string)) {
				for _, t := range b.Policy().Tenants() {
					if n, any := spared(t); any {
						emit(float64(n), t.Name)
					}
				}
			},
		},
		{
			Name: "signet_throttled_total", Help: "Refusals because of a limit, by tenant, principal, rule and code; at most 512 rows, what has none counts as rule (others).", Kind: ops.Counter,
			Labels: []string{"tenant", "principal", "rule", "code"}, Read: func(emit func(float64, ...string)) {
				for _, t := range b.trail.Throttled().List(time.Now()) {
					emit(float64(t.Total), t.Tenant, t.Principal, t.Rule, strconv.Itoa(int(t.Code)))
				}
			},
		},
	}
}

// spared sums up what the modes of a tenant's rules have let through; false if none is in
// mode audit.
func spared(t *policy.Tenant) (sum uint64, some bool) {
	seen := map[*policy.Count]bool{}
	add := func(m policy.Mode, c *policy.Count) {
		if m == policy.ModeAudit && !seen[c] {
			seen[c] = true
			sum += c.Load()
		}
	}
	for _, p := range t.Principals() {
		add(p.Mode, p.Spare)
		for i := range p.Limits {
			add(p.Limits[i].Mode, p.Limits[i].Spare)
		}
	}
	for i := range t.Bindings {
		add(t.Bindings[i].Mode, t.Bindings[i].Spare)
	}
	if r := t.Quota.Rate; r != nil {
		add(r.Mode, r.Spare)
	}
	return sum, len(seen) > 0
}
