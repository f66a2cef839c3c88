package policy

import (
	"maps"
	"math"
	"slices"

	"github.com/signetbus/signet/internal/wire"
)

// merged is one tenant over all documents, as declared.
type merged struct {
	name       string
	streams    []*Stream
	ephemeral  []word
	kv         []*Bucket
	objects    []*Bucket
	roles      map[string]*roleDecl
	principals []*principalDecl
	limits     map[string]*Limit
	limitAll   []word                  // of every principal
	nShared    int                     // limits per tenant
	schemas    map[string][]*SchemaDoc // versions of a name, ascending
	bindings   []*bindingDecl
	deadLetter *DeadLetter
	audit      *Audit
	quota      *Quota
	retry      *retryDecl
	mode       Mode
	modeAt     Position

	declared  index // subjects of streams and ephemeral subjects
	nDeclared int
}

// maxCompiled bounds what roles used by many principals multiply to.
const maxCompiled = 1_000_000

// once faults names that are declared twice.
type once struct {
	faults *faults
	what   string
	first  map[string]Position
}

func newOnce(f *faults, what string) *once { return &once{f, what, make(map[string]Position)} }

func (o *once) add(name string, at Position) bool {
	if p, ok := o.first[name]; ok {
		o.faults.add(at, "%s %q is declared twice, first at %s", o.what, name, p)
		return false
	}
	o.first[name] = at
	return true
}

// tenantOnce is the name tables of one tenant while it is merged.
type tenantOnce struct{ stream, kv, object, role, principal, limit, schema *once }

// merge joins the documents by tenant, sorted by tenant name. Repeated names are
// faults and only the first stays.
func (b *Bundle) merge(f *faults) []*merged {
	byName := make(map[string]*merged)
	names := make(map[string]*tenantOnce)
	for _, d := range b.docs {
		m, o := byName[d.tenant], names[d.tenant]
		if m == nil {
			m = &merged{
				name: d.tenant, roles: make(map[string]*roleDecl), limits: make(map[string]*Limit),
				schemas: make(map[string][]*SchemaDoc),
			}
			o = &tenantOnce{
				newOnce(f, "stream"), newOnce(f, "kv bucket"), newOnce(f, "object bucket"), newOnce(f, "role"),
				newOnce(f, "principal"), newOnce(f, "limit"), newOnce(f, "schema"),
			}
			byName[d.tenant], names[d.tenant] = m, o
		}
		m.add(d, o, f)
	}
	list := make([]*merged, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		list = append(list, byName[name])
	}
	return list
}

func (m *merged) add(d *document, o *tenantOnce, f *faults) {
	m.streams = appendOnce(m.streams, d.streams, o.stream, func(s *Stream) (string, Position) { return s.Name, s.At })
	m.kv = appendOnce(m.kv, d.kv, o.kv, func(b *Bucket) (string, Position) { return b.Name, b.At })
	m.objects = appendOnce(m.objects, d.objects, o.object, func(b *Bucket) (string, Position) { return b.Name, b.At })
	m.principals = appendOnce(m.principals, d.principals, o.principal,
		func(p *principalDecl) (string, Position) { return p.name, p.at })
	m.ephemeral = append(m.ephemeral, d.ephemeral...)
	for i := range d.roles {
		if r := &d.roles[i]; o.role.add(r.name, r.at) {
			m.roles[r.name] = r
		}
	}
	for i := range d.limits {
		if l := &d.limits[i]; o.limit.add(l.Name, l.At) {
			m.limits[l.Name] = l
			if l.Per == PerTenant {
				m.nShared++
			}
		}
	}
	m.limitAll = append(m.limitAll, d.limitAll...)
	for i := range d.schemas {
		s := &d.schemas[i]
		if o.schema.add(schemaKey(s.Name, s.Version), s.At) {
			m.schemas[s.Name] = append(m.schemas[s.Name], s)
		}
	}
	for _, versions := range m.schemas {
		slices.SortFunc(versions, func(a, b *SchemaDoc) int { return a.Version - b.Version })
	}
	for i := range d.bindings {
		m.bindings = append(m.bindings, &d.bindings[i])
	}
	if d.deadLetter != nil && m.deadLetter != nil {
		f.add(d.deadLetter.At, "deadLetter is declared twice, first at %s", m.deadLetter.At)
	} else if d.deadLetter != nil {
		m.deadLetter = d.deadLetter
	}
	m.addTenant(d, f)
	m.addRetry(d, f)
	if d.audit != nil && m.audit != nil {
		f.add(d.audit.At, "audit is declared twice, first at %s", m.audit.At)
	} else if d.audit != nil {
		m.audit = d.audit
	}
}

// appendOnce appends pointers to the new entries whose names were not seen before.
func appendOnce[T any](list []*T, more []T, o *once, key func(*T) (string, Position)) []*T {
	for i := range more {
		if o.add(key(&more[i])) {
			list = append(list, &more[i])
		}
	}
	return list
}

// validate reports what takes the whole bundle to see.
func (b *Bundle) validate(f *faults) {
	tenants := b.merge(f)
	nkeys, names := newOnce(f, "nkey"), newTakenNames(f)
	compiled := 0
	for _, m := range tenants {
		m.checkSubjects(f)
		m.checkBindings(f)
		m.checkRequire(f)
		m.checkEncrypted(f)
		m.checkStorage(f)
		m.checkRetry(f)
		m.checkLimits(m.limitAll, f)
		for _, name := range slices.Sorted(maps.Keys(m.roles)) {
			m.checkGrants(&m.roles[name].grantDecl, f)
		}
		for _, p := range m.principals {
			m.checkGrants(&p.grantDecl, f)
			m.checkPrincipal(p, nkeys, f)
			m.checkFilled(p, f)
			names.add(m.name, p)
			if compiled <= maxCompiled {
				if compiled += m.compiledGrants(p); compiled > maxCompiled {
					f.add(p.at, "roles x principals make more than %d grants", maxCompiled)
				}
			}
		}
	}
}

// compiledGrants counts the grants of p after its roles are merged and those that
// start with a wildcard are narrowed to the declared subjects.
func (m *merged) compiledGrants(p *principalDecl) int {
	n := len(m.limitAll) + m.nShared // each principal has a copy of these
	count := func(g *grantDecl) {
		n += len(g.limits)
		for _, list := range g.grants {
			n += len(list)
			for i := range list {
				if p := list[i].Pattern; p != "" && (p[0] == '*' || p[0] == '>') {
					n += m.nDeclared
				}
			}
		}
	}
	count(&p.grantDecl)
	for _, r := range p.roles {
		if role := m.roles[r.text]; role != nil {
			count(&role.grantDecl)
		}
	}
	return n
}

// checkSubjects refuses overlaps: a subject belongs to one stream or is ephemeral,
// never both, so that its class is never a matter of order.
func (m *merged) checkSubjects(f *faults) {
	var x index
	var owner []*Stream
	for _, s := range m.streams {
		for _, subject := range s.Subjects {
			x.overlapping(subject, func(i int) bool {
				if owner[i] == s {
					f.add(s.At, "stream %s: subject %s overlaps another subject of this stream", s.Name, subject)
				} else {
					f.add(s.At, "stream %s: subject %s overlaps stream %s at %s", s.Name, subject, owner[i].Name, owner[i].At)
				}
				return false
			})
			x.add(subject, len(owner))
			m.declare(subject)
			owner = append(owner, s)
		}
	}
	seen := newOnce(f, "ephemeral subject")
	for _, w := range m.ephemeral {
		seen.add(w.text, w.at)
		m.declare(w.text)
		x.overlapping(w.text, func(i int) bool {
			f.add(w.at, "ephemeral subject %s overlaps stream %s at %s", w.text, owner[i].Name, owner[i].At)
			return false
		})
	}
}

func (m *merged) declare(subject string) {
	m.declared.add(subject, m.nDeclared)
	m.nDeclared++
}

// checkBindings refuses rules of which neither is the more specific one where they
// meet, rules that no declared subject reaches, and unknown schemas.
func (m *merged) checkBindings(f *faults) {
	var events, rpc index
	for i, b := range m.bindings {
		x := &events
		if isRPC(b.Match) {
			x = &rpc
		} else if !overlaps(&m.declared, b.Match) {
			f.add(b.At, "subject rule %s: no stream or ephemeral subject matches it", b.Match)
		}
		x.overlapping(b.Match, func(j int) bool {
			other := m.bindings[j]
			switch {
			case other.Match == b.Match:
				f.add(b.At, "subject rule %s is declared twice, first at %s", b.Match, other.At)
			case !wire.Subset(b.Match, other.Match) && !wire.Subset(other.Match, b.Match):
				f.add(b.At, "subject rule %s and %s at %s match some of the same subjects and neither is more specific",
					b.Match, other.Match, other.At)
			default:
				return true
			}
			return false
		})
		x.add(b.Match, i)
		if b.schema.text != "" {
			m.checkSchemaRef(b, f)
		}
	}
}

func overlaps(x *index, filter string) (found bool) {
	x.overlapping(filter, func(int) bool {
		found = true
		return false
	})
	return found
}

func (m *merged) checkSchemaRef(b *bindingDecl, f *faults) {
	if m.schemas[b.schema.text] == nil {
		f.add(b.schema.at, "unknown schema %q%s", b.schema.text,
			suggest(b.schema.text, slices.Sorted(maps.Keys(m.schemas)), "schemas"))
		return
	}
	if m.schemaFor(b) == nil {
		f.add(b.schema.at, "schema %s has no version %d", b.schema.text, b.version)
	}
}

// schemaFor resolves the schema of a rule; nil if it has none.
func (m *merged) schemaFor(b *bindingDecl) *SchemaDoc {
	versions := m.schemas[b.schema.text]
	if len(versions) == 0 {
		return nil
	}
	if b.version == 0 {
		return versions[len(versions)-1]
	}
	for _, s := range versions {
		if s.Version == b.version {
			return s
		}
	}
	return nil
}

// checkStorage keeps the sum of all reservations inside an int64.
func (m *merged) checkStorage(f *faults) {
	var sum ByteSize
	add := func(n ByteSize, at Position) {
		if sum > math.MaxInt64-n {
			f.add(at, "tenant %s: the sum of maxBytes is too large", m.name)
			sum = 0
		}
		sum += n
	}
	for _, s := range m.streams {
		add(s.MaxBytes, s.At)
		if s.MaxMsgSize > s.MaxBytes && s.MaxBytes > 0 {
			f.add(s.At, "stream %s: maxMsgSize %s is more than maxBytes %s", s.Name, s.MaxMsgSize, s.MaxBytes)
		}
	}
	for _, b := range slices.Concat(m.kv, m.objects) {
		add(b.MaxBytes, b.At)
	}
	if m.deadLetter != nil {
		add(m.deadLetter.MaxBytes, m.deadLetter.At)
	}
	if m.audit != nil {
		add(m.audit.MaxBytes, m.audit.At)
	}
	m.checkQuota(sum, f)
}

// checkGrants faults references to what the tenant does not declare.
func (m *merged) checkGrants(g *grantDecl, f *faults) {
	m.checkLimits(g.limits, f)
	known := func(verb, what string, names []string, name func(Grant) string) {
		for _, grant := range g.grants[verb] {
			if n := name(grant); !slices.Contains(names, n) {
				f.add(grant.Position, "unknown %s %q%s", what, n, suggest(n, names, what+"s"))
			}
		}
	}
	whole := func(g Grant) string { return g.Pattern }
	kv, objects := bucketNames(m.kv), bucketNames(m.objects)
	known(VerbKVRead, "kv bucket", kv, whole)
	known(VerbKVWrite, "kv bucket", kv, whole)
	known(VerbObjectRead, "object bucket", objects, whole)
	known(VerbObjectWrite, "object bucket", objects, whole)
	streams := make([]string, 0, len(m.streams))
	for _, s := range m.streams {
		streams = append(streams, s.Name)
	}
	known(VerbConsumer, "stream", streams, func(g Grant) string {
		if s := firstToken(g.Pattern); !isTemplate(s) || len(streams) == 0 {
			return s
		}
		return streams[0] // which one it is shows when it is filled in; Covers finds none else
	})
	m.checkReach(g, VerbPublish, f)
	m.checkReach(g, VerbSubscribe, f)
}

// checkReach faults a grant that no declared subject can ever use: a misspelt
// subject would otherwise be found only by the refusal.
func (m *merged) checkReach(g *grantDecl, verb string, f *faults) {
	for _, grant := range g.grants[verb] {
		if !overlaps(&m.declared, widened(grant.Pattern)) {
			f.add(grant.Position, "%s %s: no stream or ephemeral subject of tenant %s matches it", verb, grant.Pattern, m.name)
		}
	}
}

func (m *merged) checkPrincipal(p *principalDecl, nkeys *once, f *faults) {
	for _, k := range p.nkeys {
		nkeys.add(k.text, k.at)
	}
	seen := newOnce(f, "role of principal "+p.name)
	for _, r := range p.roles {
		seen.add(r.text, r.at)
		if m.roles[r.text] == nil {
			f.add(r.at, "unknown role %q%s", r.text, suggest(r.text, slices.Sorted(maps.Keys(m.roles)), "roles"))
		}
	}
}

func bucketNames(list []*Bucket) []string {
	names := make([]string, 0, len(list))
	for _, b := range list {
		names = append(names, b.Name)
	}
	return names
}
