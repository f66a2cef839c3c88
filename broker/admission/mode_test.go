package admission

import (
	"strings"
	"testing"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

const modePolicy = `
tenant: shop
quota: {messages: 4/s, burst: 1s}
streams: [{name: ORDERS, subjects: [orders.>], maxBytes: 1MiB}]
schemas: [{name: order, version: 1, text: '{"type":"object","required":["id"]}'}]
subjects:
  - {match: orders.audit, schema: order, maxPayload: 20, mode: audit}
  - {match: orders.off, schema: order, maxPayload: 1, require: producer, mode: off}
  - {match: orders.signed, require: producer, mode: audit}
  - {match: orders.text, contentType: text/plain, mode: audit}
  - {match: orders.strict, schema: order}
limits:
  quiet: {messages: 1/s, burst: 1s, match: orders.limited, mode: audit}
  none: {messages: 1/s, burst: 1s, match: orders.unlimited, mode: off}
roles: {r: {limit: none}}
principals:
  - {name: checkout, identities: [{nkey: %s}], publish: [orders.>], limit: quiet, roles: [r]}
  - {name: shadow, mode: audit, types: [com.acme.*], publish: [orders.strict]}
`

// TestModesOfRules: what audit and off let through is stored as if nothing were the
// matter, and what audit lets through is counted.
func TestModesOfRules(t *testing.T) {
	for _, tt := range []struct {
		name, subject, payload string
		lines                  []string
		want                   wire.Code // 0 is admitted
		spared                 uint64    // by the rule of the subject
	}{
		{"audit, good", "orders.audit", `{"id":1}`, nil, 0, 0},
		{"audit, schema", "orders.audit", `{}`, nil, 0, 1},
		{"audit, size and schema", "orders.audit", `{"x":"0123456789012345"}`, nil, 0, 2},
		{"off, everything", "orders.off", `{}`, nil, 0, 0},
		{"audit, unsigned", "orders.signed", `{}`, nil, 0, 1},
		{"audit, media type", "orders.text", `x`, []string{"Content-Type: image/png"}, 0, 1},
		{"audit does not open other rules", "orders.strict", `{}`, nil, wire.CodeSchemaViolation, 0},
		{"audit does not open the form", "orders.audit", `{}`, []string{"ce-id: 1", "ce-ID: 2"}, wire.CodeHeaderDuplicate, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixtureOf(t, modePolicy)
			r, frame := f.one(tt.subject, tt.payload, tt.lines...)
			if code(r) != tt.want || (frame != "") != (tt.want == 0) {
				t.Fatalf("got %v and %q, want %d", r, frame, tt.want)
			}
			if n := f.session.p.Tenant.Binding(tt.subject).Spare.Load(); n != tt.spared {
				t.Errorf("%d counted, want %d", n, tt.spared)
			}
		})
	}
}

func code(r *wire.Refusal) wire.Code {
	if r == nil {
		return 0
	}
	return r.Code
}

// TestModesOfLimits: a limit in audit counts what it would have refused.
func TestModesOfLimits(t *testing.T) {
	f := newFixtureOf(t, strings.Replace(modePolicy, "messages: 4/s", "messages: 300/s", 1))
	for range 4 {
		for _, subject := range []string{"orders.limited", "orders.unlimited"} {
			if r, _ := f.one(subject, "x"); r != nil {
				t.Fatalf("%s: %v", subject, r)
			}
		}
	}
	for _, l := range f.session.p.Limits {
		want := uint64(0)
		if l.Mode == policy.ModeAudit {
			want = 3 // the first has room
		}
		if n := l.Spare.Load(); n != want {
			t.Errorf("limit %s: %d counted, want %d", l.Name, n, want)
		}
	}
}

// TestQuotaIsOfTheTenant: principals of a tenant share its quota, whichever of them
// spends it, and what the limit of a principal refuses takes nothing from it.
func TestQuotaIsOfTheTenant(t *testing.T) {
	f := newFixtureOf(t, strings.Replace(modePolicy, "match: orders.limited, mode: audit", "match: orders.limited", 1))
	if r, _ := f.one("orders.limited", "x"); r != nil {
		t.Fatal(r)
	}
	for range 5 { // refused by the limit: the quota is as it was
		if r, _ := f.one("orders.limited", "x"); code(r) != wire.CodeRateLimited || r.Rule != "limit quiet" {
			t.Fatalf("got %v", r)
		}
	}
	other := f.chain.Session(f.session.p.Tenant.Principals()[1])
	other.Begin(start)
	for i := range 4 {
		r := other.Publish(&Publish{Subject: []byte("orders.b"), Header: block("ce-id: 1", "ce-type: com.acme.x", "ce-source: /shop/shadow", "ce-specversion: 1.0"), Payload: []byte("x")})
		switch {
		case i < 3 && r != nil:
			t.Fatalf("publish %d: %v", i, r)
		case i == 3 && (code(r) != wire.CodeRateLimited || r.Rule != "quota shop" || r.RetryAfter <= 0):
			t.Fatalf("got %v, want the quota", r)
		}
	}
	if r, _ := f.one("orders.c", "x"); code(r) != wire.CodeRateLimited || r.Rule != "quota shop" {
		t.Errorf("got %v, want the quota for the other principal too", r)
	}
}

// TestModeOfPrincipal: a principal without grants in audit publishes what the tenant
// declares, and each publish counts.
func TestModeOfPrincipal(t *testing.T) {
	f := newFixtureOf(t, strings.Replace(modePolicy, "messages: 4/s", "messages: 300/s", 1))
	shadow := f.session.p.Tenant.Principals()[1]
	s := f.chain.Session(shadow)
	s.Begin(start)
	send := func(subject string, lines ...string) *wire.Refusal {
		return s.Publish(&Publish{Subject: []byte(subject), Header: block(lines...), Payload: []byte(`{"id":1}`)})
	}
	granted := []string{"ce-specversion: 1.0", "ce-id: 1", "ce-source: /shop/shadow", "ce-type: com.acme.x"}
	if r := send("orders.strict", granted...); r != nil || shadow.Spare.Load() != 0 {
		t.Fatalf("a grant counts as spared: %v, %d", r, shadow.Spare.Load())
	}
	for i := range 3 {
		if r := send("orders.new", granted...); r != nil || shadow.Spare.Load() != uint64(i+1) {
			t.Fatalf("publish %d: %v, %d counted", i, r, shadow.Spare.Load())
		}
	}
	for i := range 2 { // a type and a source that are not granted, on a subject that is
		if r := send("orders.strict", "ce-specversion: 1.0", "ce-id: 1", "ce-source: /else", "ce-type: com.else"); r != nil || shadow.Spare.Load() != uint64(3+2*(i+1)) {
			t.Fatalf("publish %d: %v, %d counted", i, r, shadow.Spare.Load())
		}
	}
	for _, subject := range []string{"undeclared.x", "rpc.billing.refund", "$KV.config.x", "$SIGNET.API.dlq.ls"} {
		if r := send(subject); r == nil {
			t.Errorf("%s: let in", subject)
		}
	}
}

// TestJudge: a Judge says what admission would do, and leaves no trace.
func TestJudge(t *testing.T) {
	f := newFixtureOf(t, modePolicy)
	p, shadow := f.session.p, f.session.p.Tenant.Principals()[1]
	j := NewJudge(f.chain.cfg.Validator, 256)
	for _, tt := range []struct {
		name, who, subject, event string
		allowed                   bool
		verb, says                string
	}{
		{"payload", "checkout", "orders.strict", `{"id":1}`, true, "publish", ""},
		{"event", "checkout", "orders.strict", `{"specversion":"1.0","id":"1","source":"/shop/checkout","type":"t","data":{"id":1}}`, true, "publish", ""},
		{"schema", "checkout", "orders.strict", `{"specversion":"1.0","id":"1","source":"/shop/checkout","type":"t","data":{}}`, false, "publish", "chema"},
		{"source", "checkout", "orders.strict", `{"specversion":"1.0","id":"1","source":"/x","type":"t","data":{"id":1}}`, false, "source", "sources"},
		{"subject", "checkout", "other.x", `{"id":1}`, false, "publish", "declare"},
		{"size", "checkout", "orders.any", strings.Repeat("x", 257), false, "publish", "large"},
		{"malformed", "checkout", "orders.any", `{"specversion":"9","id":1}`, false, "publish", ""},
		{"mode audit", "shadow", "orders.any", `{"specversion":"1.0","id":"1","source":"/x","type":"t"}`, true, "publish", ""},
		{"signature in audit", "checkout", "orders.signed", `{}`, true, "publish", ""},
	} {
		who := p
		if tt.who == "shadow" {
			who = shadow
		}
		e, violations := j.CanPublish(who, tt.subject, []byte(tt.event), start)
		if e.Allowed != tt.allowed || e.Verb != tt.verb || !strings.Contains(e.Fix, tt.says) || (tt.name == "schema") != (len(violations) > 0) {
			t.Errorf("%s: %+v %v", tt.name, e, violations)
		}
	}
	for _, b := range p.Tenant.Bindings {
		if b.Spare.Load() != 0 {
			t.Errorf("%s: %d counted", b.Rule, b.Spare.Load())
		}
	}
	if shadow.Spare.Load() != 0 || p.Grants.Publish.All()[0].Used.Load() != 0 {
		t.Error("the judge counts")
	}
}
