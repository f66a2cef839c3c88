package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// Words of Change.What.
const (
	Gains   = "gains"   // a principal may do what it could not
	Loses   = "loses"   // and the reverse
	Adds    = "adds"    // something is there that was not
	Removes = "removes" // and the reverse
	Changes = "changes" // something is otherwise
)

// Change is one difference of two policies: of what somebody may do, or of what there is.
type Change struct {
	Tenant    string
	Principal string // empty for what is the tenant's
	What      string
	Of        string // the verb of a grant, else a word such as stream, limit, identity
	Name      string // pattern or name
	Detail    string
	Rule      string   // of the grant that is gained or lost
	At        Position // of the rule, in the policy that has it
}

// String returns the change in one line.
func (c *Change) String() string {
	who := c.Principal
	if who == "" {
		who = "tenant " + c.Tenant
	}
	text := strings.TrimSpace(fmt.Sprintf("%s %s %s %s", who, c.What, c.Of, c.Name))
	if c.Detail != "" {
		text += ": " + c.Detail
	}
	if c.Rule != "" {
		text += " (" + strings.TrimSpace(c.Rule+" "+c.At.String()) + ")"
	}
	return text
}

// Compare returns how now differs from old (nil: from nothing) in what it means, not in
// how it is written: a grant that moves to a role, or that another one takes in, is no
// change. It is ordered by tenant and principal.
func Compare(old, now *Set) []Change {
	if old == nil {
		old = &Set{}
	}
	var list []Change
	for _, name := range unionOf(names(old.tenants, nameOfTenant), names(now.tenants, nameOfTenant)) {
		was, is := old.byName[name], now.byName[name]
		if was == nil {
			was = &Tenant{Name: name}
			list = append(list, Change{Tenant: name, What: Adds, Of: "tenant", Name: name})
		}
		if is == nil {
			is = &Tenant{Name: name}
			list = append(list, Change{Tenant: name, What: Removes, Of: "tenant", Name: name, Detail: "its streams keep their data; nobody can connect"})
		}
		list = append(list, compareTenant(was, is)...)
		for _, p := range unionOf(names(was.principalList, nameOfPrincipal), names(is.principalList, nameOfPrincipal)) {
			list = append(list, comparePrincipal(name, was.principals[p], is.principals[p])...)
		}
	}
	return list
}

func nameOfTenant(t *Tenant) string       { return t.Name }
func nameOfPrincipal(p *Principal) string { return p.Name }

func names[T any](list []T, name func(T) string) []string {
	out := make([]string, len(list))
	for i := range list {
		out[i] = name(list[i])
	}
	return out
}

// unionOf merges lists of names, sorted.
func unionOf(lists ...[]string) []string {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return slices.Compact(all)
}

// named compares two lists of declarations by name. text says what there is to one.
func named[T any](tenant, of string, was, is []T, name, text func(*T) string) []Change {
	var list []Change
	before := map[string]string{}
	for i := range was {
		before[name(&was[i])] = text(&was[i])
	}
	for i := range is {
		n, now := name(&is[i]), text(&is[i])
		then, ok := before[n]
		delete(before, n)
		switch {
		case !ok:
			list = append(list, Change{Tenant: tenant, What: Adds, Of: of, Name: n, Detail: now})
		case then != now:
			list = append(list, Change{Tenant: tenant, What: Changes, Of: of, Name: n, Detail: then + " -> " + now})
		}
	}
	for i := range was {
		if n := name(&was[i]); before[n] != "" {
			list = append(list, Change{Tenant: tenant, What: Removes, Of: of, Name: n, Detail: before[n]})
		}
	}
	return list
}

func compareTenant(was, is *Tenant) []Change {
	t := is.Name
	list := named(t, "stream", was.Streams, is.Streams, func(s *Stream) string { return s.Name }, func(s *Stream) string {
		return describe(*s, "Name", "At")
	})
	bucket, bucketText := func(b *Bucket) string { return b.Name }, func(b *Bucket) string { return describe(*b, "Name", "At") }
	list = append(list, named(t, "kv bucket", was.KV, is.KV, bucket, bucketText)...)
	list = append(list, named(t, "object bucket", was.Objects, is.Objects, bucket, bucketText)...)
	same := func(s *string) string { return *s }
	list = append(list, named(t, "ephemeral subject", was.Ephemeral, is.Ephemeral, same, func(*string) string { return "attested, not stored" })...)
	list = append(list, named(t, "limit", was.Limits, is.Limits, func(l *Limit) string { return l.Name }, (*Limit).text)...)
	list = append(list, named(t, "schema", was.Schemas, is.Schemas, func(s *SchemaDoc) string { return schemaKey(s.Name, s.Version) }, func(s *SchemaDoc) string {
		return fmt.Sprintf("%s%s sha256 %x", s.Format, s.Ref, s.SHA256[:6])
	})...)
	list = append(list, named(t, "subject rule", was.Bindings, is.Bindings, func(b *Binding) string { return b.Match }, func(b *Binding) string {
		text := describe(*b, "Match", "At", "Rule", "Schema", "Spare")
		if b.Schema != nil {
			text = strings.TrimSpace("schema " + schemaKey(b.Schema.Name, b.Schema.Version) + " " + text)
		}
		return text
	})...)
	one := func(of, before, after string) {
		if before != after {
			list = append(list, Change{Tenant: t, What: Changes, Of: of, Detail: before + " -> " + after})
		}
	}
	if was.Quota.At != (Position{}) || is.Quota.At != (Position{}) {
		one("quota", quotaText(&was.Quota), quotaText(&is.Quota))
	}
	if len(was.principalList) > 0 && len(is.principalList) > 0 {
		one("deadLetter", describe(was.DeadLetter, "At"), describe(is.DeadLetter, "At"))
		one("audit", describe(was.Audit, "At"), describe(is.Audit, "At"))
	}
	return list
}

func quotaText(q *Quota) string {
	text := describe(*q, "At", "Rate")
	if q.Rate != nil {
		text = strings.TrimSpace(q.Rate.text() + " " + text)
	}
	if text == "" {
		return "none"
	}
	return text
}

// describe writes the fields of a flat struct that are not zero, but those that are left
// out: what the policy gains a key for is in every comparison from then on.
func describe(v any, leaveOut ...string) string {
	var words []string
	s := reflect.ValueOf(v)
	for i := range s.NumField() {
		f := s.Type().Field(i)
		if !f.IsExported() || s.Field(i).IsZero() || slices.Contains(leaveOut, f.Name) {
			continue
		}
		name := strings.ToLower(f.Name[:1]) + f.Name[1:]
		words = append(words, fmt.Sprintf("%s %v", name, s.Field(i).Interface()))
	}
	if len(words) == 0 {
		return "as by default"
	}
	return strings.Join(words, ", ")
}

// nobody may do nothing.
var nobody = Principal{Tenant: &Tenant{}}

// comparePrincipal compares what a principal may do; either may be nil. One that is
// disabled may do nothing.
func comparePrincipal(tenant string, was, is *Principal) []Change {
	var list []Change
	who := func(p *Principal) *Principal {
		if p == nil || p.Disabled {
			return &nobody
		}
		return p
	}
	full := ""
	change := func(what, of, name, detail string) {
		list = append(list, Change{Tenant: tenant, Principal: full, What: what, Of: of, Name: name, Detail: detail})
	}
	switch {
	case was == nil:
		full = is.full
		change(Adds, "principal", is.full, "")
	case is == nil:
		full = was.full
		change(Removes, "principal", was.full, "its connections are cut")
	case !was.Disabled && is.Disabled:
		full = is.full
		change(Loses, "everything", "", "it is disabled, and its connections are cut")
	default:
		full = is.full
	}
	before, after := who(was), who(is)
	had, has := identityTexts(before), identityTexts(after)
	for _, k := range had {
		if !slices.Contains(has, k) {
			change(Loses, "identity", k, "connections with it are cut")
		}
	}
	for _, k := range has {
		if !slices.Contains(had, k) {
			change(Gains, "identity", k, "")
		}
	}
	if b, a := untilText(before), untilText(after); b != a && before != &nobody && after != &nobody {
		change(Changes, "until", "", b+" -> "+a)
	}
	if before.Mode != after.Mode {
		change(Changes, "mode", "", before.Mode.String()+" -> "+after.Mode.String())
	}
	if before.Priority != after.Priority {
		change(Changes, "priority", "", before.Priority.String()+" -> "+after.Priority.String())
	}
	if b, a := limitNames(before), limitNames(after); !slices.Equal(b, a) {
		change(Changes, "limits", "", strings.Join(b, ", ")+" -> "+strings.Join(a, ", "))
	}
	return append(list, compareGrants(tenant, full, &before.Grants, &after.Grants)...)
}

// identityTexts names everything that p can connect with.
func identityTexts(p *Principal) []string {
	list := names(p.Nkeys, func(k string) string { return "nkey " + k })
	p.Identities.each("", func(k identityKey, _ Position) {
		if k.kind != kindOIDC {
			list = append(list, k.kind+" "+k.name)
		}
	})
	for _, o := range p.Identities.OIDC {
		text := kindOIDC + " " + o.Issuer + " " + o.Subject
		if len(o.Claims) > 0 { // what a token must bear beside its subject: with fewer of them more tokens do
			text += " with " + claimTexts(o.Claims)
		}
		list = append(list, text)
	}
	return list
}

func untilText(p *Principal) string {
	if p.Until.IsZero() {
		return "none"
	}
	return p.Until.Format(time.RFC3339)
}

func claimTexts(claims []Claim) string {
	return strings.Join(names(claims, func(c Claim) string {
		if c.Bool != nil {
			return fmt.Sprintf("%s=%v", c.Name, *c.Bool)
		}
		return c.Name + "=" + c.Text
	}), ", ")
}

func limitNames(p *Principal) []string {
	own := slices.DeleteFunc(slices.Clone(p.Limits), func(l LimitUse) bool { return l.Per == PerTenant })
	return names(own, func(l LimitUse) string { return l.Name })
}

func compareGrants(tenant, full string, was, is *Grants) []Change {
	var list []Change
	// missing tells what of from the other list does not have, or has for a shorter time.
	missing := func(what string, from, other []Grant, covers func(wider, pattern string) bool, covered func(pattern string) bool) {
		seen := map[string]bool{}
		for i := range from {
			g := &from[i]
			if seen[g.Pattern] {
				continue
			}
			seen[g.Pattern] = true
			detail := ""
			if !g.Until.IsZero() {
				detail = "until " + g.Until.Format(time.RFC3339)
			}
			if covered(g.Pattern) {
				here, there := lasts(from, g.Pattern, covers), lasts(other, g.Pattern, covers)
				if !here.After(there) {
					continue
				}
				detail = "from " + there.Format(time.RFC3339) + " on"
			}
			list = append(list, Change{Tenant: tenant, Principal: full, What: what, Of: g.Verb, Name: g.Pattern, Detail: detail, Rule: g.Rule, At: g.Position})
		}
	}
	subjects := func(was, is *SubjectGrants) {
		covers := func(wider, pattern string) bool { return wire.Subset(pattern, wider) }
		missing(Loses, was.list, is.list, covers, func(p string) bool { return is.Covers(p) != nil })
		missing(Gains, is.list, was.list, covers, func(p string) bool { return was.Covers(p) != nil })
	}
	byName := func(was, is *NameGrants) {
		missing(Loses, was.list, is.list, sameOrPrefix, func(p string) bool { return is.Match(p) != nil })
		missing(Gains, is.list, was.list, sameOrPrefix, func(p string) bool { return was.Match(p) != nil })
	}
	subjects(&was.Publish, &is.Publish)
	subjects(&was.Subscribe, &is.Subscribe)
	subjects(&was.Call, &is.Call)
	subjects(&was.Serve, &is.Serve)
	subjects(&was.Consumers, &is.Consumers)
	byName(&was.Headers, &is.Headers)
	byName(&was.Sources, &is.Sources)
	if was == &nobody.Grants || is == &nobody.Grants {
		byName(&was.Types, &is.Types) // what is not granted by name goes without saying
	} else {
		byName(everyType(&was.Types), everyType(&is.Types))
	}
	byName(&was.KVRead, &is.KVRead)
	byName(&was.KVWrite, &is.KVWrite)
	byName(&was.ObjectRead, &is.ObjectRead)
	byName(&was.ObjectWrite, &is.ObjectWrite)
	byName(&was.Admin, &is.Admin)
	one := func(g *Grant) []Grant {
		if g == nil {
			return nil
		}
		return []Grant{*g}
	}
	missing(Loses, one(was.Discover), one(is.Discover), sameOrPrefix, func(string) bool { return is.Discover != nil })
	missing(Gains, one(is.Discover), one(was.Discover), sameOrPrefix, func(string) bool { return was.Discover != nil })
	return list
}

func sameOrPrefix(wider, pattern string) bool {
	prefix, open := strings.CutSuffix(wider, "*")
	return wider == pattern || open && strings.HasPrefix(pattern, prefix)
}

// endless is later than any until of a policy.
var endless = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)

// lasts returns when the last grant ends that covers the pattern.
func lasts(list []Grant, pattern string, covers func(wider, pattern string) bool) time.Time {
	var last time.Time
	for i := range list {
		switch until := list[i].Until; {
		case !covers(list[i].Pattern, pattern):
		case until.IsZero():
			return endless
		case until.After(last):
			last = until
		}
	}
	return last
}

// everyType makes of the absence of a types grant what it means.
func everyType(g *NameGrants) *NameGrants {
	if len(g.list) > 0 {
		return g
	}
	all := newNameGrants([]Grant{{Verb: VerbType, Pattern: "*", Rule: "default-type"}}, true)
	return &all
}

// SameStores reports whether next wants the same streams and buckets of the same tenants as
// old: from that to next nothing in the store has to change. A right Cron that nobody has any
// more leaves its stream: to take a right away must not need the store.
func SameStores(next, old *Set) bool {
	return slices.EqualFunc(next.tenants, old.tenants, func(a, b *Tenant) bool {
		bucket := func(x, y Bucket) bool {
			x.At, y.At = Position{}, Position{}
			return x == y
		}
		stream := func(x, y Stream) bool {
			x.At, y.At = Position{}, Position{}
			return reflect.DeepEqual(x, y)
		}
		return a.Name == b.Name && (Schedules(b) || !Schedules(a)) && slices.EqualFunc(a.Streams, b.Streams, stream) &&
			slices.EqualFunc(a.KV, b.KV, bucket) && slices.EqualFunc(a.Objects, b.Objects, bucket) &&
			a.DeadLetter.MaxBytes == b.DeadLetter.MaxBytes && a.DeadLetter.MaxAge == b.DeadLetter.MaxAge &&
			a.Audit.MaxBytes == b.Audit.MaxBytes && a.Audit.MaxAge == b.Audit.MaxAge
	})
}
