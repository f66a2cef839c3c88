package policy

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

func schemaKey(name string, version int) string { return name + "@" + strconv.Itoa(version) }

func firstToken(s string) string {
	token, _, _ := strings.Cut(s, ".")
	return token
}

func isRPC(match string) bool { return firstToken(match) == "rpc" }

// Compile is CompileAt as of now, with counts of its own.
func Compile(b *Bundle) (*Set, error) { return CompileAt(b, time.Now(), nil) }

// CompileAt builds the lookup structures of a valid bundle, as it holds at now: grants
// whose time has ended are left out, see NextLapse. counts, which may be nil, keeps the
// counts of the rules that an earlier set had, too.
//
// Errors: those of Validate.
func CompileAt(b *Bundle, now time.Time, counts *Counts) (*Set, error) {
	if b == nil || len(b.docs) == 0 {
		return nil, errNoBundle
	}
	if now.Year() < 2000 {
		return nil, errLapse
	}
	if counts == nil {
		counts = NewCounts()
	}
	var f faults
	if !b.valid {
		b.validate(&f)
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	set := &Set{digest: b.digest, byName: make(map[string]*Tenant), byNkey: make(map[string]*Principal), byIdentity: make(map[identityKey]*Principal), clock: clock{now: now}, counts: counts}
	for _, m := range b.merge(&f) {
		t := compileTenant(set, m)
		set.tenants = append(set.tenants, t)
		set.byName[t.Name] = t
		for _, p := range t.principalList {
			for _, k := range p.Nkeys {
				set.byNkey[k] = p
			}
			p.Identities.each(t.Name, func(k identityKey, _ Position) { set.byIdentity[k] = p })
		}
	}
	return set, nil
}

func compileTenant(set *Set, m *merged) *Tenant {
	t := &Tenant{
		Name: m.name, principals: make(map[string]*Principal),
		DeadLetter: DeadLetter{MaxBytes: DefaultDeadLetterMaxBytes, MaxAge: DefaultDeadLetterMaxAge},
		Audit:      Audit{MaxBytes: DefaultAuditMaxBytes, MaxAge: DefaultAuditMaxAge},
	}
	if m.deadLetter != nil {
		t.DeadLetter = *m.deadLetter
	}
	if m.audit != nil {
		t.Audit = *m.audit
	}
	compileQuota(set, t, m)
	t.Streams = sorted(m.streams, func(s *Stream) string { return s.Name })
	compileRetry(t, m)
	t.KV = sorted(m.kv, func(b *Bucket) string { return b.Name })
	t.Objects = sorted(m.objects, func(b *Bucket) string { return b.Name })
	for i := range t.Streams {
		for _, subject := range t.Streams[i].Subjects {
			t.streamIndex.add(subject, len(t.streamOf))
			t.streamOf = append(t.streamOf, int32(i))
		}
	}
	for i, w := range m.ephemeral {
		t.Ephemeral = append(t.Ephemeral, w.text)
		t.ephemeral.add(w.text, i)
	}
	compileBindings(set, t, m)
	for _, l := range m.limits {
		t.Limits = append(t.Limits, *l)
	}
	slices.SortFunc(t.Limits, func(a, b Limit) int { return cmp.Compare(a.Name, b.Name) })
	declared := t.declared()
	for _, d := range m.principals {
		p := compilePrincipal(set, t, m, d, declared)
		t.principals[p.Name] = p
		t.principalList = append(t.principalList, p)
	}
	slices.SortFunc(t.principalList, func(a, b *Principal) int { return cmp.Compare(a.Name, b.Name) })
	return t
}

func sorted[T any](list []*T, name func(*T) string) []T {
	values := make([]T, 0, len(list))
	for _, v := range list {
		values = append(values, *v)
	}
	slices.SortFunc(values, func(a, b T) int { return cmp.Compare(name(&a), name(&b)) })
	return values
}

func compileBindings(set *Set, t *Tenant, m *merged) {
	for _, versions := range m.schemas {
		for _, s := range versions {
			t.Schemas = append(t.Schemas, *s)
		}
	}
	slices.SortFunc(t.Schemas, func(a, b SchemaDoc) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
	byKey := make(map[string]*SchemaDoc, len(t.Schemas))
	for i := range t.Schemas {
		byKey[schemaKey(t.Schemas[i].Name, t.Schemas[i].Version)] = &t.Schemas[i]
	}
	for i, d := range m.bindings {
		b := d.Binding
		if s := m.schemaFor(d); s != nil {
			b.Schema = byKey[schemaKey(s.Name, s.Version)]
		}
		b.Spare = set.counts.of(t.Name, b.Rule, "")
		t.Bindings = append(t.Bindings, b)
		if isRPC(b.Match) {
			t.rpcBindings.add(b.Match, len(t.rpcBindingOf))
			t.rpcBindingOf = append(t.rpcBindingOf, int32(i))
			continue
		}
		t.bindings.add(b.Match, len(t.bindingOf))
		t.bindingOf = append(t.bindingOf, int32(i))
	}
}

func compilePrincipal(set *Set, t *Tenant, m *merged, d *principalDecl, declared []string) *Principal {
	p := &Principal{
		Tenant: t, Name: d.name, Disabled: d.disabled, Identities: d.identities, Until: d.until, Mode: m.modeOf(d), At: d.at,
		full: t.Name + "/" + d.name, defaultSource: "/" + t.Name + "/" + d.name,
	}
	if set.clock.over(d.until) {
		p.Disabled = true
	}
	for _, k := range d.nkeys {
		p.Nkeys = append(p.Nkeys, k.text)
	}
	grants := make(map[string][]Grant)
	var limits []word
	add := func(g *grantDecl, until time.Time) {
		for verb, list := range g.grants {
			grants[verb] = appendFilled(grants[verb], list, p, until, set)
		}
		limits = append(limits, g.limits...)
	}
	for _, r := range d.roles {
		p.Roles = append(p.Roles, r.text)
		add(&m.roles[r.text].grantDecl, r.until)
	}
	add(&d.grantDecl, time.Time{})
	compileLimits(set, t, m, p, limits)
	p.Priority = m.priorityOf(d, &set.clock)
	p.Grants = compileGrants(grants)
	p.publish = reach(p.Grants.Publish.list, declared)
	p.subscribe = reach(p.Grants.Subscribe.list, declared)
	if p.Mode != ModeEnforce {
		p.Spare = set.counts.of(p.full, "default-deny", "")
		p.publish, p.subscribe = declared, declared
	}
	return p
}

// appendFilled appends the grants of one owner as they are for p: with the templates
// filled in, and without those whose time has ended, or that of the role.
func appendFilled(to, list []Grant, p *Principal, until time.Time, set *Set) []Grant {
	for i := range list {
		g := list[i]
		// The line of the policy is what counts, whoever has it.
		g.Used, g.Written = set.counts.of(p.Tenant.Name, g.Rule, g.Pattern), g.Pattern
		if isTemplate(g.Pattern) {
			g.Pattern = fill(g.Pattern, p.Tenant.Name, p.Name)
		}
		if g.Until = earlier(g.Until, until); set.clock.over(g.Until) {
			p.Lapsed = append(p.Lapsed, g)
			continue
		}
		to = append(to, g)
	}
	return to
}

// declared returns the subjects of the tenant's streams and its ephemeral ones.
func (t *Tenant) declared() []string {
	list := append([]string(nil), t.Ephemeral...)
	for i := range t.Streams {
		list = append(list, t.Streams[i].Subjects...)
	}
	return list
}

func compileGrants(grants map[string][]Grant) Grants {
	g := Grants{
		Publish:     newSubjectGrants(grants[VerbPublish]),
		Subscribe:   newSubjectGrants(grants[VerbSubscribe]),
		Call:        newSubjectGrants(grants[VerbCall]),
		Serve:       newSubjectGrants(grants[VerbServe]),
		Consumers:   newSubjectGrants(grants[VerbConsumer]),
		Headers:     newNameGrants(grants[VerbHeader], false),
		Sources:     newNameGrants(grants[VerbSource], true),
		Types:       newNameGrants(grants[VerbType], true),
		KVRead:      newNameGrants(grants[VerbKVRead], false),
		KVWrite:     newNameGrants(grants[VerbKVWrite], false),
		ObjectRead:  newNameGrants(grants[VerbObjectRead], false),
		ObjectWrite: newNameGrants(grants[VerbObjectWrite], false),
		Admin:       newNameGrants(grants[VerbAdmin], false),
	}
	if d := grants[VerbDiscover]; len(d) > 0 {
		g.Discover = &d[0]
	}
	return g
}

// reach returns the patterns of the grants, each once; one that starts with a
// wildcard is replaced by what it has in common with the declared subjects.
func reach(grants []Grant, declared []string) []string {
	var list []string
	seen := make(map[string]bool)
	add := func(s string) {
		if s != "" && !seen[s] {
			seen[s] = true
			list = append(list, s)
		}
	}
	for i := range grants {
		pattern := grants[i].Pattern
		if pattern[0] != '*' && pattern[0] != '>' {
			add(pattern)
			continue
		}
		for _, d := range declared {
			add(intersect(pattern, d))
		}
	}
	return list
}

// intersect returns the pattern that matches exactly the subjects that both a and
// b match, or "" when there is none. (Two NATS patterns always meet in one.)
func intersect(a, b string) string {
	if !wire.Overlap(a, b) {
		return ""
	}
	var out []string
	for {
		at, arest, amore := strings.Cut(a, ".")
		bt, brest, bmore := strings.Cut(b, ".")
		switch {
		case at == ">":
			return strings.Join(append(out, b), ".")
		case bt == ">":
			return strings.Join(append(out, a), ".")
		case at == "*":
			out = append(out, bt)
		default:
			out = append(out, at)
		}
		if !amore || !bmore {
			return strings.Join(out, ".")
		}
		a, b = arest, brest
	}
}
