package policy

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func compileAt(t testing.TB, src string, now time.Time, counts *Counts) *Set {
	t.Helper()
	b, err := Parse("p.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	s, err := CompileAt(b, now, counts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const templates = `tenant: shop
streams: [{name: ORDERS, subjects: [orders.>], maxBytes: 1MiB}]
ephemeral: [telemetry.>]
roles:
  own:
    publish: ["orders.{principal}.created", "telemetry.{tenant}.{principal}-probe"]
    subscribe: ["orders.{principal}.>"]
    serve: ["{principal}.*"]
    call: ["{principal}.health"]
    sources: ["/{tenant}/units/{principal}*"]
    types: ["com.{tenant}.{principal}.*"]
    consumers: ["ORDERS.{principal}-tail"]
principals:
  - {name: east, roles: [own]}
  - {name: west, roles: [own]}
`

// TestTemplates: a role is filled in for each principal that has it, and for no other.
func TestTemplates(t *testing.T) {
	s := compileAt(t, templates, time.Now(), nil)
	for _, tt := range []struct {
		name  string
		grant func(g *Grants) *Grant
	}{
		{"publish", func(g *Grants) *Grant { return g.Publish.Covers("orders.east.created") }},
		{"publish inside a token", func(g *Grants) *Grant { return g.Publish.Covers("telemetry.shop.east-probe") }},
		{"subscribe", func(g *Grants) *Grant { return g.Subscribe.Covers("orders.east.*") }},
		{"serve", func(g *Grants) *Grant { return g.Serve.Covers("east.reserve") }},
		{"call", func(g *Grants) *Grant { return g.Call.Covers("east.health") }},
		{"source", func(g *Grants) *Grant { return g.Sources.Match("/shop/units/east-1") }},
		{"type", func(g *Grants) *Grant { return g.Types.Match("com.shop.east.created") }},
		{"consumer", func(g *Grants) *Grant { return g.Consumers.Covers("ORDERS.east-tail") }},
	} {
		east, west := s.Principal("shop", "east"), s.Principal("shop", "west")
		if g := tt.grant(&east.Grants); g == nil || !strings.HasPrefix(g.Rule, "role own/") {
			t.Errorf("%s: east has %v", tt.name, g)
		}
		if g := tt.grant(&west.Grants); g != nil {
			t.Errorf("%s: west has the grant of east: %v", tt.name, g)
		}
	}
	if got := s.Principal("shop", "east").PublishPatterns(); !slices.Contains(got, "orders.east.created") {
		t.Errorf("the second lock has %q", got)
	}
}

// TestTemplateFaults: what a name makes of a template is checked as if it were written
// out, so that nobody is called into rights.
func TestTemplateFaults(t *testing.T) {
	long := strings.Repeat("x", 63)
	for _, tt := range []struct{ name, src, want string }{
		{
			"a principal called rpc", "ephemeral: [a.>]\nroles: {r: {publish: ['{principal}.>']}}\nprincipals: [{name: rpc, roles: [r]}]",
			`principal rpc: role r/publish[0] {principal}.> (p.yaml:3:23) cannot be filled in: "rpc.>": rpc subjects are granted by call and serve`,
		},
		{
			"too long", "ephemeral: [a.>]\nroles: {r: {publish: ['" + strings.Repeat("{principal}", 5) + ".>']}}\nprincipals: [{name: " + long + ", roles: [r]}]",
			"cannot be filled in",
		},
		{
			"own grants of a principal", "ephemeral: [a.>]\nprincipals: [{name: rpc, publish: ['{principal}.>']}]", "cannot be filled in",
		},
		{"another word", "ephemeral: [a.>]\nroles: {r: {publish: ['a.{user}']}}", `"a.{user}": the templates are {principal} and {tenant}`},
		{"an open brace", "ephemeral: [a.>]\nroles: {r: {publish: ['a.{principal']}}", "the templates are"},
		{"not in headers", "roles: {r: {headers: ['{principal}']}}", `"{principal}" is not a header name`},
		{"not in buckets", "kv: [{bucket: east, maxBytes: 1MiB}]\nroles: {r: {kv: {read: ['{principal}']}}}", `"{principal}" is not a bucket name`},
		{"not in streams", "streams: [{name: O, subjects: ['{tenant}.>'], maxBytes: 1MiB}]", "subjects[0]"},
		{"without quotes", "ephemeral: [a.>]\nroles: {r: {publish: [a.{principal}.x]}}", "a pattern with a template stands in quotes"},
		{"reaches nothing", "ephemeral: [a.>]\nroles: {r: {publish: ['b.{principal}']}}", "no stream or ephemeral subject"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("p.yaml", []byte("tenant: shop\n"+tt.src+"\n"))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

const lapsing = `tenant: shop
ephemeral: [a.>]
roles:
  reader: {subscribe: [a.x, {grant: a.y, until: 2026-03-01T00:00:00Z}]}
principals:
  - {name: one, roles: [{role: reader, until: 2026-02-01T00:00:00+01:00}], publish: [a.x]}
  - {name: two, roles: [reader], until: 2026-04-01T00:00:00Z}
`

// TestUntil: grants, roles and principals end at their moment and not before it, and the
// set says when it must be compiled anew.
func TestUntil(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, tt := range []struct {
		now, next    string
		lapsed       int
		oneX, oneY   bool
		twoX, twoY   bool
		twoIsAllowed bool
	}{
		{"2026-01-01T00:00:00Z", "2026-01-31T23:00:00Z", 0, true, true, true, true, true},
		{"2026-01-31T22:59:59.999Z", "2026-01-31T23:00:00Z", 0, true, true, true, true, true},
		{"2026-01-31T23:00:00Z", "2026-03-01T00:00:00Z", 2, false, false, true, true, true},
		{"2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z", 3, false, false, true, false, true},
		{"2026-04-01T00:00:00Z", "", 4, false, false, true, false, false},
	} {
		s := compileAt(t, lapsing, at(tt.now), nil)
		next := ""
		if n := s.NextLapse(); !n.IsZero() {
			next = n.Format(time.RFC3339)
		}
		one, two := s.Principal("shop", "one"), s.Principal("shop", "two")
		x, y := one.Grants.Subscribe.Covers("a.x") != nil, one.Grants.Subscribe.Covers("a.y") != nil
		x2, y2 := two.Grants.Subscribe.Covers("a.x") != nil, two.Grants.Subscribe.Covers("a.y") != nil
		if next != tt.next || s.Lapsed() != tt.lapsed || x != tt.oneX || y != tt.oneY || x2 != tt.twoX || y2 != tt.twoY || two.Disabled == tt.twoIsAllowed {
			t.Errorf("%s: next %s, lapsed %d, one %v %v, two %v %v disabled %v; want %+v", tt.now, next, s.Lapsed(), x, y, x2, y2, two.Disabled, tt)
		}
		if one.Grants.Publish.Covers("a.x") == nil {
			t.Errorf("%s: a grant without a time has lapsed", tt.now)
		}
	}
	for _, bad := range []string{"tomorrow", "2026-02-30T00:00:00Z", "2026-02-01", "2026-02-01T00:00:00", "0001-01-01T00:00:00Z"} {
		if _, err := Parse("p.yaml", []byte("tenant: shop\nprincipals: [{name: p, until: '"+bad+"'}]\n")); err == nil {
			t.Errorf("until %s is taken", bad)
		}
	}
	if _, err := Parse("p.yaml", []byte("tenant: shop\nephemeral: [a.>]\nprincipals: [{name: p, publish: [{grant: a.x}]}]\n")); err == nil || !strings.Contains(err.Error(), "until is missing") {
		t.Errorf("a mapping without until: %v", err)
	}
}

// TestQuota: a quota that the declarations are beyond is a fault, and its rate is there
// for admission.
func TestQuota(t *testing.T) {
	const doc = "tenant: shop\nstreams: [{name: O, subjects: [o.>], maxBytes: 1MiB}]\nquota: "
	s := compileAt(t, doc+"{messages: 10/s, exceed: wait, connections: 7, storage: 97MiB}\n", time.Now(), nil)
	q := s.Tenant("shop").Quota
	if q.Rate == nil || q.Rate.Messages != 10 || !q.Rate.Wait || q.Rate.Rule != "quota shop" || q.Connections != 7 || q.Storage != 97*MiB {
		t.Errorf("got %+v", q)
	}
	for _, tt := range []struct{ quota, want string }{
		{"{storage: 96MiB}", "reserve 97MiB, storage is 96MiB"}, // 1 MiB, 64 of dead letters, 32 of audit
		{"{burst: 2s}", "quota: burst without messages or bytes"},
		{"{mode: audit}", "quota: mode without messages or bytes"},
		{"{connections: 0}", "a whole number from 1"},
		{"{messages: 10/s, burst: 2h}", "burst is at most"},
		{"{connections: 1}\n---\ntenant: shop\nquota: {connections: 2}", "quota is declared twice, first at p.yaml:3:8"},
	} {
		if _, err := Parse("p.yaml", []byte(doc+tt.quota+"\n")); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.quota, err, tt.want)
		}
	}
}

// TestModes: the mode of a principal is its own, else that of its tenant, else enforce;
// and off is a word here, not a boolean.
func TestModes(t *testing.T) {
	s := compileAt(t, `tenant: shop
mode: audit
ephemeral: [a.>]
streams: [{name: O, subjects: [o.>], maxBytes: 1MiB}]
limits: {l: {messages: 1/s, mode: off}}
subjects: [{match: o.x, contentType: text/plain, mode: audit}]
principals:
  - {name: as-tenant, limit: l}
  - {name: strict, mode: enforce}
  - {name: open, mode: off}
---
tenant: other
principals: [{name: p}]
`, time.Now(), nil)
	for who, want := range map[string]Mode{"shop/as-tenant": ModeAudit, "shop/strict": ModeEnforce, "shop/open": ModeOff, "other/p": ModeEnforce} {
		p := s.PrincipalByFullName(who)
		if p.Mode != want {
			t.Errorf("%s: %s, want %s", who, p.Mode, want)
		}
		if wide := slices.Contains(p.SubscribePatterns(), "o.>"); wide != (want != ModeEnforce) {
			t.Errorf("%s: the second lock has %q", who, p.SubscribePatterns())
		}
	}
	if l := s.Principal("shop", "as-tenant").Limits[0]; l.Mode != ModeOff {
		t.Errorf("limit: %s", l.Mode)
	}
	if b := s.Tenant("shop").Binding("o.x"); b.Mode != ModeAudit || b.Spare == nil {
		t.Errorf("subject rule: %+v", b)
	}
	if _, err := Parse("p.yaml", []byte("tenant: shop\nmode: shadow\n")); err == nil || !strings.Contains(err.Error(), `enforce, audit or off is wanted, not "shadow"`) {
		t.Errorf("got %v", err)
	}
}

// TestCounts: the count of a rule outlives a change of policy that leaves the rule as it
// is, is one for all principals of a role, and goes with the rule.
func TestCounts(t *testing.T) {
	counts := NewCounts()
	s := compileAt(t, templates, time.Now(), counts)
	counts.Forget()
	s.Principal("shop", "east").Grants.Publish.Covers("orders.east.created").Used.Add()
	s.Principal("shop", "west").Grants.Publish.Covers("orders.west.created").Used.Add()
	again := compileAt(t, strings.Replace(templates, "- {name: west", "- {name: south", 1), time.Now(), counts)
	counts.Forget()
	if n := again.Principal("shop", "south").Grants.Publish.Covers("orders.south.created").Used.Load(); n != 2 {
		t.Errorf("got %d, want the 2 of before", n)
	}
	before := len(counts.live)
	compileAt(t, "tenant: shop\nephemeral: [a.>]\nprincipals: [{name: p, publish: [a.x]}]\n", time.Now(), counts)
	counts.Forget()
	if len(counts.live) >= before || len(counts.live) != 1 {
		t.Errorf("%d counts are left of %d, want that of the one grant", len(counts.live), before)
	}
}
