package policy

import "slices"

// Cron is the right to have the broker publish an event again and again. It is no header: a
// schedule is put by a request (docs/spec/policy.md, "Control headers").
const Cron = "Nats-Schedule-Cron"

// Schedules reports whether a principal of t, disabled or not, has the right Cron.
func Schedules(t *Tenant) bool {
	return slices.ContainsFunc(t.Principals(), func(p *Principal) bool { return p.Grants.Headers.Match(Cron) != nil })
}
