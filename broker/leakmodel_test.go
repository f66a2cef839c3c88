package broker_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// The model of the leak test knows patterns and names, and nothing else.

// reader is a principal of the leak test, with what the model gives it in one round.
type reader struct {
	tenant, name string

	subscribe []string // of the principal itself, and of its role
	role      []string
	lapsed    []string // granted until a moment that is past
	buckets   []string
	writes    []string
	objects   []string
	shares    []string // STREAM.CONSUMER or STREAM.*
	lenient   bool     // mode: audit
	admin     []string // of nobody, by the model
}

var leakReaders = []reader{{tenant: "red", name: "r1"}, {tenant: "red", name: "r2"}, {tenant: "red", name: "r3"}, {tenant: "blue", name: "b1"}}

var (
	storedSubjects = []string{"a.x", "a.y", "a.x.k", "a.r1.k", "a.r2.k", "b.x", "b.y"}
	liveSubjects   = []string{"e.x", "e.y", "e.x.k"}
	bucketSubjects = []string{"$KV.one.k", "$KV.two.k", "$O.files.M.x", "$O.files.C.x", "$O.vault.M.x"}
	// What no reader may get, whatever its grants.
	nobodysSubjects = []string{"dead letter", "inbox"}

	grantPool  = []string{"a.>", "a.x", "a.y", "a.*", "a.x.*", "a.*.k", "'a.{principal}.>'", "b.>", "b.x", "b.*", "e.>", "e.x", "e.*"}
	filterPool = []string{
		"a.>", "a.x", "a.y", "a.*", "a.x.*", "a.x.>", "a.*.k", "a.r1.k", "a.r2.>", "b.>", "b.x", "b.*", "*.x", ">", "*.>", "e.>", "e.x", "e.*",
		"$KV.one.>", "$KV.two.k", "$KV.*.k", "$KV.>", "$O.files.>", "$O.files.M.x", "$O.vault.M.x", "$O.>", "_INBOX.>", "$JS.EVENT.>", "$JS.>", "$SIGNET.DLQ.>", "$SYS.>",
	}
	leakStreams = []string{"A", "A", "B", "KV_one", "KV_two", "OBJ_files", "OBJ_vault", "DLQ"}
)

func some(r *rand.Rand, pool []string, most int) (out []string) {
	for range r.IntN(most + 1) {
		out = append(out, one(r, pool))
	}
	return out
}

func one(r *rand.Rand, pool []string) string { return pool[r.IntN(len(pool))] }

// draw gives the reader grants at random.
func (p *reader) draw(r *rand.Rand) {
	*p = reader{tenant: p.tenant, name: p.name}
	p.subscribe, p.role, p.lapsed = some(r, grantPool, 2), some(r, grantPool, 1), some(r, grantPool, 1)
	p.buckets, p.objects = some(r, []string{"one", "two"}, 1), some(r, []string{"files", "vault"}, 1)
	if r.IntN(3) == 0 {
		p.writes = []string{one(r, []string{"one", "two"})}
	}
	if r.IntN(4) == 0 {
		p.shares = []string{one(r, []string{"A.c0", "A.c1", "A.*", "B.*"})}
	}
	p.lenient = r.IntN(12) == 0
}

// mayRead: by a grant of its own that is in force.
func (p *reader) mayRead(subject string) bool {
	for prefix, names := range map[string][]string{"$KV.": p.buckets, "$O.": p.objects} {
		if key, ok := strings.CutPrefix(subject, prefix); ok {
			bucket, _, _ := strings.Cut(key, ".")
			return slices.Contains(names, bucket)
		}
	}
	if slices.Contains(nobodysSubjects, subject) {
		return false
	}
	for _, g := range slices.Concat(p.subscribe, p.role) {
		g = strings.ReplaceAll(strings.Trim(g, "'"), "{principal}", p.name)
		if modelMatch(strings.Split(g, "."), strings.Split(subject, ".")) {
			return true
		}
	}
	return p.lenient
}

// mayGet: by grants, or through a consumer that it shares: any that a principal may make
// who may read the subject.
func (p *reader) mayGet(subject string, all []reader) bool {
	if p.mayRead(subject) {
		return true
	}
	stream := strings.ToUpper(subject[:1])
	shares := slices.ContainsFunc(p.shares, func(s string) bool { return strings.HasPrefix(s, stream+".") })
	return shares && slices.Contains(storedSubjects, subject) && slices.ContainsFunc(all, func(q reader) bool { return q.tenant == p.tenant && q.mayRead(subject) })
}

// lostShare: what the reader before was granted of others' consumers, it is not any more.
func (p *reader) lostShare(before *reader) bool {
	return slices.ContainsFunc(before.shares, func(s string) bool {
		stream, _, _ := strings.Cut(s, ".")
		return !slices.Contains(p.shares, s) && !slices.Contains(p.shares, stream+".*")
	})
}

func modelMatch(pattern, subject []string) bool {
	switch {
	case len(pattern) == 0 || len(subject) == 0:
		return len(pattern) == len(subject)
	case pattern[0] == ">":
		return len(pattern) == 1
	}
	return (pattern[0] == "*" || pattern[0] == subject[0]) && modelMatch(pattern[1:], subject[1:])
}

// leakPolicy writes the policy of the readers.
func leakPolicy(all []reader) string {
	var s strings.Builder
	for i, tenant := range []string{"red", "blue"} {
		if i > 0 {
			s.WriteString("---\n")
		}
		fmt.Fprintf(&s, `tenant: %[1]s
streams: [{name: A, subjects: [a.>], maxBytes: 16MiB}, {name: B, subjects: [b.>], maxBytes: 16MiB}]
ephemeral: [e.>]
kv: [{bucket: one, maxBytes: 1MiB}, {bucket: two, maxBytes: 1MiB}]
objects: [{bucket: files, maxBytes: 1MiB}, {bucket: vault, maxBytes: 1MiB}]
schemas: [{name: number, version: 1, text: '{"type":"object","required":["n"]}'}]
subjects: [{match: a.checked, schema: number}]
deadLetter: {maxBytes: 4MiB}
roles:
`, tenant)
		for j := range all {
			if all[j].tenant == tenant {
				fmt.Fprintf(&s, "  of-%s: {subscribe: [%s]}\n", all[j].name, strings.Join(all[j].role, ", "))
			}
		}
		fmt.Fprintf(&s, `principals:
  - {name: source, identities: [{nkey: '{{nkey "source-%[1]s"}}'}], publish: [a.>, b.>, e.>], kv: {write: [one, two]}, objects: {write: [files, vault]}}
`, tenant)
		for j := range all {
			if all[j].tenant == tenant {
				s.WriteString(all[j].yaml())
			}
		}
	}
	return s.String()
}

func (p *reader) yaml() string {
	grants := slices.Clone(p.subscribe)
	for i := range grants {
		if i%2 == 1 {
			grants[i] = "{grant: " + grants[i] + ", until: 2099-01-01T00:00:00Z}"
		}
	}
	for _, g := range p.lapsed {
		grants = append(grants, "{grant: "+g+", until: 2020-01-01T00:00:00Z}")
	}
	mode := ""
	if p.lenient {
		mode = ", mode: audit"
	}
	return fmt.Sprintf("  - {name: %[1]s, identities: [{nkey: '{{nkey %[2]q}}'}], roles: [of-%[1]s], subscribe: [%[3]s], kv: {read: [%[4]s], write: [%[5]s]}, objects: {read: [%[6]s]}, consumers: [%[7]s], admin: [%[9]s]%[8]s}\n",
		p.name, p.name, strings.Join(grants, ", "), strings.Join(p.buckets, ", "), strings.Join(p.writes, ", "), strings.Join(p.objects, ", "), strings.Join(p.shares, ", "), mode, strings.Join(p.admin, ", "))
}
