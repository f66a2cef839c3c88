package acl_test

import (
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/policy"
)

// TestModeSparesEventsOnly: a mode other than enforce opens the declared events of the
// tenant and nothing else of it.
func TestModeSparesEventsOnly(t *testing.T) {
	s := compile(t, strings.Replace(shop, "  - {name: nobody, disabled: true", "  - {name: shadow, mode: audit, types: [x]}\n  - {name: open, mode: \"off\"}\n  - {name: nobody, disabled: true", 1))
	shadow, open := s.Principal("shop", "shadow"), s.Principal("shop", "open")
	for _, tt := range []struct {
		verb, what string
		want       bool
	}{
		{"publish", "orders.eu.created", true},
		{"publish", "telemetry.x", true},
		{"publish", "undeclared.x", false},
		{"publish", "rpc.billing.refund", false},
		{"publish", "_INBOX.a.b", false},
		{"subscribe", "orders.>", true},
		{"subscribe", "payments.*.settled", true},
		{"subscribe", "payments.>", false}, // wider than what is declared
		{"subscribe", ">", false},
		{"subscribe", "$KV.carts.>", false},
		{"source", "/shop/billing", true},
		{"type", "whatever", true},
		{"call", "inventory.reserve", false},
		{"serve", "billing.refund", false},
		{"discover", "", false},
		{"header", "Nats-TTL", false},
		{"kv-read", "carts", false},
		{"kv-write", "carts", false},
		{"object-read", "invoices", false},
		{"admin", "policy", false},
		{"consumer", "ORDERS.billing", false},
	} {
		for _, p := range []*policy.Principal{shadow, open} {
			if e := acl.Explain(p, tt.verb, tt.what); e.Allowed != tt.want {
				t.Errorf("%s %s %s: %+v, want %v", p.Name, tt.verb, tt.what, e, tt.want)
			}
		}
	}
	if n := shadow.Spare.Load(); n != 0 {
		t.Errorf("questions count: %d", n)
	}
	d := acl.Publish(shadow, "orders.eu.created")
	if d.Rule != "mode-audit/publish" || d.Spared != shadow.Spare || d.Nearest != nil {
		t.Errorf("got %+v", d)
	}
	if d := acl.Publish(open, "orders.eu.created"); d.Rule != "mode-off/publish" || d.Spared != nil {
		t.Errorf("got %+v", d)
	}
}

// TestExplainLapsed: a denial because a grant has ended says so, and where it stands.
func TestExplainLapsed(t *testing.T) {
	b, err := policy.Parse("p.yaml", []byte(`tenant: shop
ephemeral: [a.>]
roles: {r: {publish: ["a.{principal}.*"], call: [svc.x]}}
principals: [{name: p, roles: [{role: r, until: 2026-01-01T00:00:00Z}]}, {name: q, until: 2026-01-01T00:00:00Z}]
`))
	if err != nil {
		t.Fatal(err)
	}
	s, err := policy.CompileAt(b, time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range [][2]string{{"publish", "a.p.x"}, {"call", "rpc.svc.x"}} {
		e := acl.Explain(s.Principal("shop", "p"), q[0], q[1])
		if e.Allowed || e.At.Line != 3 || !strings.Contains(e.Fix, "has lapsed at 2026-01-01T00:00:00Z") {
			t.Errorf("%v: %+v", q, e)
		}
	}
	if e := acl.Explain(s.Principal("shop", "p"), "publish", "a.q.x"); strings.Contains(e.Fix, "lapsed") {
		t.Errorf("it would not have covered this: %+v", e)
	}
	if e := acl.Explain(s.Principal("shop", "q"), "publish", "a.q.x"); e.Allowed || !strings.Contains(e.Fix, "2026-01-01") {
		t.Errorf("got %+v", e)
	}
}

// TestUseCountsTheLine: a decision counts the line of the policy that it rests on.
func TestUseCountsTheLine(t *testing.T) {
	s := compile(t, shop)
	p := s.Principal("shop", "checkout")
	d := acl.Publish(p, "orders.eu.paid").Use()
	if n := d.Nearest.Used.Load(); n != 1 || d.Nearest.Pattern != "orders.*.paid" {
		t.Errorf("%d uses of %s", n, d.Nearest.Pattern)
	}
	denied := acl.Publish(p, "orders.eu.shipped").Use()
	if denied.Nearest == nil || denied.Nearest.Used.Load() != 0 {
		t.Errorf("a denial counts as use of the nearest grant: %+v", denied.Nearest)
	}
}
