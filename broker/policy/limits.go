package policy

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/signetbus/signet/internal/wire"
)

// Per says who shares what a limit counts.
type Per uint8

const (
	// PerPrincipal counts for each principal that uses the limit, over all its connections.
	PerPrincipal Per = iota
	// PerTenant counts for all principals of the tenant together; nobody names the limit.
	PerTenant
)

// String returns the word of the policy.
func (p Per) String() string {
	if p == PerTenant {
		return "tenant"
	}
	return "principal"
}

// Limit bounds what principals do: rates, which map one to one to ratelimit.Limit, and
// how many of something they may have at once. The zero value of a field is no bound.
type Limit struct {
	Name     string
	Per      Per
	Messages float64       // publishes per second
	Bytes    float64       // of header and payload, per second
	Calls    float64       // RPC calls per second, beside Messages, which counts them too
	Burst    time.Duration // of the rates; default 1 s
	Wait     bool          // exceed: wait
	Match    string        // only subjects that match; empty is every subject
	Types    []string      // only events of these types, exact or with a trailing *; nil is everything

	InFlight      int // publishes without an acknowledgement, at one node
	Connections   int // at one node
	Subscriptions int // at one node, over all connections; inboxes of a client library count
	Consumers     int // consumers that the principal has made and that are still there
	Payload       ByteSize

	Mode Mode
	At   Position
}

// Rated reports whether the limit counts publishes or their bytes.
func (l *Limit) Rated() bool { return l.Messages > 0 || l.Bytes > 0 }

// LimitUse is a limit that applies to a principal.
type LimitUse struct {
	Limit
	Rule  string // "limit writer"
	Spare *Count // of what ModeAudit has let through
}

// Applies reports whether the limit counts a publish on the literal subject.
func (l *LimitUse) Applies(subject string) bool {
	return l.Match == "" || wire.Match(l.Match, subject)
}

// AppliesToType reports whether the limit counts events of the type. It does not retain it,
// and does not allocate.
func (l *LimitUse) AppliesToType(eventType []byte) bool {
	if len(l.Types) == 0 {
		return true
	}
	for _, t := range l.Types {
		prefix, open := strings.CutSuffix(t, "*")
		if string(eventType) == t || open && len(eventType) >= len(prefix) && string(eventType[:len(prefix)]) == prefix {
			return true
		}
	}
	return false
}

// String says what the limit is, in the words of the policy: "limit writer: messages 500/s,
// burst 1s".
func (l *LimitUse) String() string { return l.Rule + ": " + l.text() }

func (l *Limit) text() string {
	var words []string
	say := func(there bool, key, value string) {
		if there {
			words = append(words, key+" "+value)
		}
	}
	say(l.Messages > 0, "messages", rateText(l.Messages, false))
	say(l.Bytes > 0, "bytes", rateText(l.Bytes, true))
	say(l.Calls > 0, "calls", rateText(l.Calls, false))
	say(l.Rated() || l.Calls > 0, "burst", l.Burst.String())
	say(l.InFlight > 0, "inFlight", strconv.Itoa(l.InFlight))
	say(l.Connections > 0, "connections", strconv.Itoa(l.Connections))
	say(l.Subscriptions > 0, "subscriptions", strconv.Itoa(l.Subscriptions))
	say(l.Consumers > 0, "consumers", strconv.Itoa(l.Consumers))
	say(l.Payload > 0, "payload", l.Payload.String())
	say(l.Match != "", "match", l.Match)
	say(len(l.Types) > 0, "types", strings.Join(l.Types, " "))
	say(l.Per == PerTenant, "per", l.Per.String())
	say(l.Wait, "exceed", "wait")
	say(l.Mode != ModeEnforce, "mode", l.Mode.String())
	return strings.Join(words, ", ")
}

func rateText(rate float64, bytes bool) string {
	unit, per := "/s", rate
	switch {
	case rate == math.Trunc(rate):
	case rate*60 == math.Trunc(rate*60):
		unit, per = "/m", rate*60
	default:
		unit, per = "/h", math.Round(rate*3600)
	}
	if bytes {
		return ByteSize(per).String() + unit
	}
	return strconv.FormatFloat(per, 'f', -1, 64) + unit
}

// LimitTexts says which limits a publish of p on the literal subject has to pass, the
// quota of its tenant last; with an empty subject, all limits of p.
func (p *Principal) LimitTexts(subject string) []string {
	var out []string
	for i := range p.Limits {
		if l := &p.Limits[i]; l.Mode != ModeOff && (subject == "" || l.Applies(subject)) {
			out = append(out, l.String())
		}
	}
	if q := p.Tenant.Quota.Rate; q != nil && q.Mode != ModeOff {
		out = append(out, q.String())
	}
	return out
}

// Least returns the lowest bound that the limits of p set to one count, and the limit that
// sets it; 0 for none. A limit in ModeAudit sets none.
func (p *Principal) Least(of func(*Limit) int) (most int, by *LimitUse) {
	for i := range p.Limits {
		l := &p.Limits[i]
		if n := of(&l.Limit); n > 0 && l.Mode == ModeEnforce && (most == 0 || n < most) {
			most, by = n, l
		}
	}
	return most, by
}

// SpareOver counts, in each limit of p in ModeAudit, that a count has gone to n, if that is
// more than it sets.
func (p *Principal) SpareOver(of func(*Limit) int, n int) {
	for i := range p.Limits {
		l := &p.Limits[i]
		if most := of(&l.Limit); most > 0 && l.Mode == ModeAudit && n > most {
			l.Spare.Add()
		}
	}
}

// maxCount is the largest number under inFlight, connections, subscriptions and consumers.
const maxCount = 1_000_000

func (r *docReader) limit(name string, key, n ast.Node) {
	what := "limit " + name
	if _, err := checkName(plainName, "limit")(name); err != nil {
		r.fault(key, "%v", err)
		what = "limit"
	}
	l := Limit{Name: name, Burst: DefaultBurst, At: r.at(key)}
	nodes := map[string]ast.Node{}
	count := func(key string, to *int) func(ast.Node) {
		return func(n ast.Node) { *to = r.number(n, key, maxCount) }
	}
	fs := fields{
		"per":           func(n ast.Node) { l.Per = readPer(r, n) },
		"messages":      r.rate("messages", &l.Messages, false),
		"bytes":         r.rate("bytes", &l.Bytes, true),
		"calls":         r.rate("calls", &l.Calls, false),
		"burst":         r.duration("burst", &l.Burst, 0),
		"match":         func(n ast.Node) { l.Match = parsed(&r.reader, n, "match", checkFilter) },
		"types":         func(n ast.Node) { l.Types = readTypes(r, n) },
		"mode":          func(n ast.Node) { l.Mode = r.mode(n) },
		"exceed":        func(n ast.Node) { l.Wait = r.exceed(n) },
		"inFlight":      count("inFlight", &l.InFlight),
		"connections":   count("connections", &l.Connections),
		"subscriptions": count("subscriptions", &l.Subscriptions),
		"consumers":     count("consumers", &l.Consumers),
		"payload":       func(n ast.Node) { l.Payload = r.size(n, "payload", 1) },
	}
	for key, read := range fs {
		fs[key] = func(n ast.Node) {
			nodes[key] = n
			read(n)
		}
	}
	if r.object(n, what, fs) != nil {
		limitShape(r, what, key, &l, nodes)
	}
	r.doc.limits = append(r.doc.limits, l)
}

// limitShape faults what does not go together. nodes are the values by their keys.
func limitShape(r *docReader, what string, key ast.Node, l *Limit, nodes map[string]ast.Node) {
	has := func(keys ...string) (first string) {
		for _, k := range keys {
			if nodes[k] != nil {
				return k
			}
		}
		return ""
	}
	fault := func(of string, format string, args ...any) {
		r.fault(nodes[of], "%s: %s: %s", what, of, fmt.Sprintf(format, args...))
	}
	rated, counted := has("messages", "bytes", "calls"), has("inFlight", "connections", "subscriptions", "consumers")
	if rated == "" && counted == "" && has("payload") == "" {
		r.fault(key, "%s: nothing is limited: give messages, bytes, calls, inFlight, connections, subscriptions, consumers or payload", what)
		return
	}
	if l.Burst > maxBurst {
		fault("burst", "at most %s", maxBurst)
	}
	for _, k := range []string{"burst", "exceed"} {
		if has(k) != "" && rated == "" {
			fault(k, "is of a rate: give messages, bytes or calls")
		}
	}
	if k := has("inFlight", "connections", "subscriptions", "consumers", "payload"); k != "" && l.Per == PerTenant {
		fault(k, "counts per principal; a limit per tenant has messages, bytes and calls, and quota has the connections of a tenant")
	}
	if k := has("match", "types"); k != "" && counted != "" {
		fault(counted, "has no subject and no type: put it into a limit without %s", k)
	}
	if k := has("calls", "payload"); k != "" && has("types") != "" {
		fault(k, "is judged before the type is known: put it into a limit without types")
	}
	if has("calls") != "" && l.Match != "" && !wire.Overlap(l.Match, wire.PrefixRPC+">") {
		fault("match", "%q meets no call: calls are on rpc.SERVICE.ENDPOINT", l.Match)
	}
}

func readPer(r *docReader, n ast.Node) Per {
	v, ok := r.text(n, "per")
	switch {
	case v == PerTenant.String():
		return PerTenant
	case ok && v != PerPrincipal.String():
		r.fault(n, "per: principal or tenant is wanted, not %q", v)
	}
	return PerPrincipal
}

func readTypes(r *docReader, n ast.Node) []string {
	var list []string
	for _, w := range r.words(n, "types", checkPrefixPattern) {
		list = append(list, w.text)
	}
	if seq, ok := n.(*ast.SequenceNode); ok && len(seq.Values) == 0 {
		r.fault(n, "types: at least one is wanted")
	}
	return list
}

// limitWords reads the value of limit: one name, or a list of them.
func limitWords(r *docReader, n ast.Node) []word {
	check := checkName(plainName, "limit")
	if _, ok := n.(*ast.SequenceNode); ok {
		return r.words(n, "limit", check)
	}
	if s := parsed(&r.reader, n, "limit", check); s != "" {
		return []word{{s, r.at(n)}}
	}
	return nil
}

// checkLimits faults names of limits that are not there, or that nobody names.
func (m *merged) checkLimits(names []word, f *faults) {
	for _, w := range names {
		switch l := m.limits[w.text]; {
		case l == nil:
			f.add(w.at, "unknown limit %q%s", w.text, suggest(w.text, slices.Sorted(maps.Keys(m.limits)), "limits"))
		case l.Per == PerTenant:
			f.add(w.at, "limit %q is per tenant: it holds for every principal, leave its name out here", w.text)
		}
	}
}

// compileLimits gives p the limits that are named for it, those of every principal of the
// tenant, and those that the tenant shares.
func compileLimits(set *Set, t *Tenant, m *merged, p *Principal, named []word) {
	add := func(l *Limit) {
		if l != nil && !slices.ContainsFunc(p.Limits, func(u LimitUse) bool { return u.Name == l.Name }) {
			rule := "limit " + l.Name
			p.Limits = append(p.Limits, LimitUse{Limit: *l, Rule: rule, Spare: set.counts.of(t.Name, rule, "")})
		}
	}
	for _, w := range slices.Concat(named, m.limitAll) {
		add(m.limits[w.text])
	}
	for _, l := range m.limits {
		if l.Per == PerTenant {
			add(l)
		}
	}
	slices.SortFunc(p.Limits, func(a, b LimitUse) int { return strings.Compare(a.Name, b.Name) })
}
