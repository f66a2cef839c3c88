package policy

import (
	"math"

	"github.com/goccy/go-yaml/ast"
)

// Quota is what a tenant may use as a whole, whatever its principals are granted. It
// stands above their limits: a publish must find room in both.
type Quota struct {
	// Rate is a limit that all publishes of the tenant share, nil: none.
	Rate *LimitUse
	// Connections is how many clients of the tenant may be connected to one node; 0: no
	// bound but the gate's.
	Connections int
	// Storage bounds the sum of maxBytes over the tenant's streams, buckets, dead letters
	// and audit trail, of one copy; 0: no bound. More is a fault of the policy.
	Storage ByteSize
	At      Position // zero when there is none
}

// quotaName is the name of Quota.Rate among the limits. No limit has it: it is no word.
const quotaName = "tenant quota"

func (r *docReader) rate(what string, to *float64, bytes bool) func(ast.Node) {
	return func(n ast.Node) {
		text, ok := r.scalar(n, what)
		if !ok {
			return
		}
		var err error
		if *to, err = parseRate(text, bytes); err != nil {
			r.fault(n, "%s: %v", what, err)
		}
	}
}

func (r *docReader) exceed(n ast.Node) (wait bool) {
	v, ok := r.text(n, "exceed")
	if ok && v != "wait" && v != "reject" {
		r.fault(n, "exceed: reject or wait is wanted, not %q", v)
	}
	return v == "wait"
}

func (r *docReader) quota(n ast.Node) {
	q := Quota{At: r.at(n)}
	l := Limit{Name: quotaName, Burst: DefaultBurst, At: q.At}
	seen := r.object(n, "quota", fields{
		"messages":    r.rate("messages", &l.Messages, false),
		"bytes":       r.rate("bytes", &l.Bytes, true),
		"burst":       r.duration("burst", &l.Burst, 0),
		"exceed":      func(n ast.Node) { l.Wait = r.exceed(n) },
		"mode":        func(n ast.Node) { l.Mode = r.mode(n) },
		"connections": func(n ast.Node) { q.Connections = r.number(n, "connections", math.MaxInt32) },
		"storage":     func(n ast.Node) { q.Storage = r.size(n, "storage", minStore) },
	})
	if l.Burst > maxBurst {
		r.fault(n, "quota: burst is at most %s", maxBurst)
	}
	rated := seen["messages"] || seen["bytes"]
	for _, key := range []string{"burst", "exceed", "mode"} {
		if seen[key] && !rated {
			r.fault(n, "quota: %s without messages or bytes", key)
		}
	}
	if rated {
		q.Rate = &LimitUse{Limit: l}
	}
	r.doc.quota = &q
}

// addTenant takes over what a tenant has once: its quota and its mode.
func (m *merged) addTenant(d *document, f *faults) {
	switch {
	case d.quota == nil:
	case m.quota != nil:
		f.add(d.quota.At, "quota is declared twice, first at %s", m.quota.At)
	default:
		m.quota = d.quota
	}
	switch {
	case d.modeAt == Position{}:
	case m.modeAt != Position{}:
		f.add(d.modeAt, "mode is declared twice, first at %s", m.modeAt)
	default:
		m.mode, m.modeAt = d.mode, d.modeAt
	}
}

// checkQuota compares the quota with the sum of all reservations of the tenant, those
// that hold by default included.
func (m *merged) checkQuota(sum ByteSize, f *faults) {
	if m.quota == nil || m.quota.Storage == 0 {
		return
	}
	if m.deadLetter == nil {
		sum += DefaultDeadLetterMaxBytes
	}
	if m.audit == nil {
		sum += DefaultAuditMaxBytes
	}
	if sum > m.quota.Storage {
		f.add(m.quota.At, "quota: streams, buckets, dead letters and audit trail of tenant %s reserve %s, storage is %s", m.name, sum, m.quota.Storage)
	}
}

func compileQuota(set *Set, t *Tenant, m *merged) {
	if m.quota == nil {
		return
	}
	t.Quota = *m.quota
	if r := m.quota.Rate; r != nil {
		use := *r
		use.Rule = "quota " + t.Name
		use.Spare = set.counts.of(t.Name, use.Rule, "")
		t.Quota.Rate = &use
	}
}
