package acl_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

func TestPermissions(t *testing.T) {
	s := compile(t, shop)
	always := []string{
		"$JS.ACK.>", "$JS.API.CONSUMER.CREATE.>", "$JS.API.CONSUMER.DELETE.*.*", "$JS.API.CONSUMER.DURABLE.CREATE.*.*",
		"$JS.API.CONSUMER.INFO.*.*", "$JS.API.CONSUMER.MSG.NEXT.*.*", "$JS.API.CONSUMER.RESET.*.*",
		"$JS.API.CONSUMER.UNPIN.*.*", "$JS.API.DIRECT.GET.>", "$JS.API.INFO", "$JS.API.STREAM.INFO.*",
		"$JS.API.STREAM.MSG.GET.*", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.PURGE.*", "$JS.FC.>", "$SIGNET.API.keys.certify.*", "$SIGNET.API.keys.ring.*",
		"$SYS.REQ.USER.INFO", "_INBOX.>", "_R_.>",
	}
	for _, tt := range []struct {
		who                string
		publish, subscribe []string
	}{
		{
			"checkout",
			[]string{"orders.*.created", "orders.*.paid", "rpc.inventory.reserve", "rpc.*.health", "$KV.carts.>"},
			[]string{"_INBOX.S.>"},
		},
		{
			"billing",
			[]string{"$O.invoices.>", "$SRV.>"},
			[]string{
				"_INBOX.S.>", "orders.*.paid", "payments.>", "rpc.billing.*", "rpc.invoicing.render",
				"$SRV.PING", "$SRV.PING.billing", "$SRV.PING.billing.*", "$SRV.PING.invoicing", "$SRV.PING.invoicing.*",
				"$SRV.INFO", "$SRV.INFO.billing", "$SRV.INFO.billing.*", "$SRV.INFO.invoicing", "$SRV.INFO.invoicing.*",
				"$SRV.STATS", "$SRV.STATS.billing", "$SRV.STATS.billing.*", "$SRV.STATS.invoicing", "$SRV.STATS.invoicing.*",
			},
		},
		{
			"auditor",
			[]string{
				"orders.>", "payments.*.settled", "telemetry.>", "$SIGNET.API.streams.>", "$SIGNET.API.consumers.>",
				"$SIGNET.API.policy.>", "$JS.API.STREAM.LIST", "$JS.API.STREAM.MSG.DELETE.*", "$JS.API.CONSUMER.NAMES.*",
				"$JS.API.CONSUMER.LIST.*", "$JS.API.CONSUMER.PAUSE.*.*",
			},
			[]string{"_INBOX.S.>", "orders.>", "payments.*.settled", "telemetry.>"},
		},
	} {
		publish, subscribe := acl.Permissions(s.Principal("shop", tt.who), "S")
		want := slices.Concat(always, tt.publish)
		for _, list := range [][]string{publish, subscribe, want, tt.subscribe} {
			slices.Sort(list)
		}
		if !slices.Equal(publish, want) {
			t.Errorf("%s publish:\n got %q\nwant %q", tt.who, publish, want)
		}
		if !slices.Equal(subscribe, tt.subscribe) {
			t.Errorf("%s subscribe:\n got %q\nwant %q", tt.who, subscribe, tt.subscribe)
		}
	}
}

// TestSecondLockStaysShut: whatever the grants, no allow list reaches these.
func TestSecondLockStaysShut(t *testing.T) {
	s := compile(t, shop)
	for _, p := range s.Tenant("shop").Principals() {
		publish, subscribe := acl.Permissions(p, "S")
		for _, subject := range []string{
			"$SYS.REQ.SERVER.PING", "$JS.API.STREAM.DELETE.ORDERS", "$JS.API.STREAM.UPDATE.ORDERS", "$JS.API.STREAM.RESTORE.ORDERS",
			"$JS.API.STREAM.SNAPSHOT.ORDERS", "$JS.API.META.LEADER.STEPDOWN", "$JS.API.ACCOUNT.PURGE.shop", "$JS.EVENT.ADVISORY.X",
			"$SIGNET.DLQ.schema.x", "$NRG.x", "$JSC.x", "$GR.x", "_GR_.x",
		} {
			if anyMatch(publish, subject) {
				t.Errorf("%s may publish %s", p.FullName(), subject)
			}
		}
		for _, subject := range []string{
			"_INBOX.other.x", "$JS.API.INFO", "$JS.ACK.ORDERS.c.1.1.1.1.0", "$KV.carts.x", "$O.invoices.C.x", "rpc.inventory.reserve",
			"$SIGNET.API.policy.apply", "$SIGNET.DLQ.schema.x", "$SYS.ACCOUNT.shop.CONNECT", "_R_.x", "$JS.EVENT.ADVISORY.X",
		} {
			if anyMatch(subscribe, subject) {
				t.Errorf("%s may subscribe to %s", p.FullName(), subject)
			}
		}
		for _, pattern := range slices.Concat(publish, subscribe) {
			if err := wire.CheckRawSubject(pattern, true); err != nil {
				t.Errorf("%s: %q: %v", p.FullName(), pattern, err)
			}
		}
	}
}

func TestExplain(t *testing.T) {
	s := compile(t, shop)
	for _, tt := range []struct {
		who, verb, subject string
		want               string
	}{
		{"checkout", "publish", "orders.eu.paid", `ALLOWED: shop/checkout may publish "orders.eu.paid"
  rule: role order-writer/publish[1] (shop.yaml:10:33)`},
		{"checkout", "publish", "orders.eu.shipped", `DENIED: shop/checkout may not publish "orders.eu.shipped"
  rule: default-deny/publish
  nearest grant: orders.*.created (shop.yaml:10:15)
  fix: add "orders.eu.shipped" to publish of principal checkout (shop.yaml:14:11) or of one of its roles`},
		{"checkout", "publish", "order.eu.created", `DENIED: shop/checkout may not publish "order.eu.created"
  rule: default-deny/undeclared
  nearest grant: orders.*.created (shop.yaml:10:15)
  fix: declare "order.eu.created" under streams or ephemeral of tenant shop`},
		{"checkout", "publish", "$KV.prices.x", `DENIED: shop/checkout may not publish "$KV.prices.x"
  rule: default-deny/kv-write
  fix: add "prices" to kv.write of principal checkout (shop.yaml:14:11)`},
		{"auditor", "subscribe", ">", `DENIED: shop/auditor may not subscribe ">"
  rule: default-deny/wildcard-first
  fix: name the first token: a wildcard there would also match rpc, inbox and system subjects`},
		{"nobody", "publish", "orders.a", `DENIED: shop/nobody may not publish "orders.a"
  rule: principal disabled
  fix: remove disabled: true from principal nobody`},
		{"checkout", "publish", "orders..x", `DENIED: shop/checkout may not publish "orders..x"
  rule: grammar
  nearest grant: orders.*.created (shop.yaml:10:15)
  fix: wire: empty subject or token`},
		{"checkout", "fly", "x", `DENIED: shop/checkout may not fly "x"
  rule: unknown verb
  fix: use one of: ` + strings.Join(acl.Verbs, ", ")},
		{"checkout", "publish", "$SIGNET.API.keys.ring", `ALLOWED: shop/checkout may publish "$SIGNET.API.keys.ring"
  rule: keyring`},
		{"checkout", "connect", "", `ALLOWED: shop/checkout may connect ""
  rule: identities`},
	} {
		e := acl.Explain(s.Principal("shop", tt.who), tt.verb, tt.subject)
		if got := e.String(); got != tt.want {
			t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
		}
		if w := e.Wire(); w.File != e.At.File || w.Line != e.At.Line || w.Fix != e.Fix || w.Nearest != e.Nearest {
			t.Errorf("Wire() = %+v of %+v", w, e)
		}
	}
}

// TestExplainAgrees: can-i never says something else than the decision.
func TestExplainAgrees(t *testing.T) {
	s := compile(t, shop)
	for _, p := range s.Tenant("shop").Principals() {
		if p.Disabled {
			continue
		}
		for _, verb := range acl.Verbs {
			if verb == "connect" {
				continue
			}
			for _, what := range []string{
				"orders.eu.paid", "orders.x", "telemetry.x", "inventory.reserve", "billing.refund", "carts", "prices", "invoices",
				"policy", "keys", "KV-Operation", "/legacy", "com.shop.order.x", "ORDERS.billing",
			} {
				got := acl.Explain(p, verb, what)
				want := ask(p, verb, what)
				if verb == "publish" && acl.Classify(p.Tenant, what) == acl.ClassDenied {
					want.Allowed = false
				}
				if verb == "subscribe" && wire.CheckFilter(what) != nil {
					want.Allowed = false
				}
				if got.Allowed != want.Allowed {
					t.Errorf("Explain(%s, %s, %s) = %v, want %v", p.FullName(), verb, what, got.Allowed, want.Allowed)
				}
				if !got.Allowed && got.Fix == "" {
					t.Errorf("Explain(%s, %s, %s) has no fix", p.FullName(), verb, what)
				}
			}
		}
	}
}

// tenThousand has 10,000 publish grants, one in ten with a wildcard.
func tenThousand(t testing.TB) *policy.Principal {
	var b strings.Builder
	b.WriteString("tenant: t\nstreams: [{name: A, subjects: [orders.>], maxBytes: 1GiB}]\nprincipals:\n  - name: p\n    publish:\n")
	for i := range 10_000 {
		if i%10 == 0 {
			fmt.Fprintf(&b, "      - orders.region%d.*.created\n", i)
		} else {
			fmt.Fprintf(&b, "      - orders.region%d.shop.created\n", i)
		}
	}
	return compile(t, b.String()).Principal("t", "p")
}

func TestPublishAllocates(t *testing.T) {
	p := tenThousand(t)
	for _, subject := range []string{"orders.region5001.shop.created", "orders.region5000.shop.created", "orders.region5001.x.created", "x"} {
		if n := testing.AllocsPerRun(100, func() { acl.Publish(p, subject); acl.Subscribe(p, subject) }); n != 0 {
			t.Errorf("%s: %v allocations, want 0", subject, n)
		}
		if n := testing.AllocsPerRun(100, func() { acl.Classify(p.Tenant, subject); p.Tenant.Binding(subject) }); n != 0 {
			t.Errorf("classify %s: %v allocations, want 0", subject, n)
		}
	}
}

func BenchmarkPublish(b *testing.B) {
	p := tenThousand(b)
	for _, bb := range []struct{ name, subject string }{
		{"literal", "orders.region5001.shop.created"},
		{"wildcard", "orders.region5000.shop.created"},
		{"denied", "orders.region5001.shop.paid"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				acl.Publish(p, bb.subject)
			}
		})
	}
}

// BenchmarkPublishSpread walks all grants, so that the tables do not stay in cache.
func BenchmarkPublishSpread(b *testing.B) {
	p := tenThousand(b)
	subjects := make([]string, 0, 10_000)
	for _, g := range p.Grants.Publish.All() {
		subjects = append(subjects, strings.Replace(g.Pattern, "*", "x", 1))
	}
	i := 0
	for b.Loop() {
		acl.Publish(p, subjects[i])
		if i += 37; i >= len(subjects) {
			i -= len(subjects)
		}
	}
}

func BenchmarkClassify(b *testing.B) {
	t := compile(b, shop).Tenant("shop")
	for b.Loop() {
		acl.Classify(t, "orders.eu.created")
	}
}
