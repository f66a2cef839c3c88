package acl_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

const shop = `tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 1GiB}
  - {name: PAYMENTS, subjects: [payments.*.settled], maxBytes: 1GiB}
ephemeral: [telemetry.>]
kv: [{bucket: carts, maxBytes: 1MiB}, {bucket: prices, maxBytes: 1MiB}]
objects: [{bucket: invoices, maxBytes: 1MiB}]
roles:
  order-writer:
    publish: [orders.*.created, orders.*.paid]
    sources: [/shop/web*, /legacy]
    types: [com.shop.order.*]
principals:
  - name: checkout
    identities: [{nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4}]
    roles: [order-writer]
    call: [inventory.reserve, "*.health"]
    kv: {read: [prices], write: [carts]}
    objects: {read: [invoices]}
    headers: [KV-Operation]
  - name: billing
    subscribe: [orders.*.paid, payments.>]
    serve: [billing.*, invoicing.render]
    objects: {write: [invoices]}
    consumers: [ORDERS.billing, PAYMENTS.*]
    discover: true
  - {name: auditor, publish: [">"], subscribe: [">"], admin: [streams, consumers, policy]}
  - {name: nobody, disabled: true, publish: [orders.>]}
`

func compile(t testing.TB, src string) *policy.Set {
	t.Helper()
	b, err := policy.Parse("shop.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	s, err := policy.Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDecisions(t *testing.T) {
	s := compile(t, shop)
	for _, tt := range []struct {
		who, verb, what string
		rule            string // of the answer; "default-deny/..." is denied
	}{
		{"checkout", "publish", "orders.eu.created", "role order-writer/publish[0]"},
		{"checkout", "publish", "orders.eu.paid", "role order-writer/publish[1]"},
		{"checkout", "publish", "orders.eu.shipped", "default-deny/publish"},
		{"checkout", "publish", "orders.eu.x.created", "default-deny/publish"},
		{"checkout", "publish", "orders", "default-deny/publish"},
		{"billing", "publish", "orders.eu.paid", "default-deny/publish"},
		{"auditor", "publish", "orders.eu.paid", "principal auditor/publish[0]"},
		{"auditor", "publish", "rpc.billing.refund", "default-deny/publish"},
		{"auditor", "publish", "_INBOX.a.b", "default-deny/publish"},
		{"auditor", "publish", "$KV.carts.x", "default-deny/publish"},
		{"auditor", "publish", "$JS.API.STREAM.DELETE.ORDERS", "default-deny/publish"},
		{"auditor", "publish", "", "default-deny/publish"},

		{"billing", "subscribe", "orders.*.paid", "principal billing/subscribe[0]"},
		{"billing", "subscribe", "orders.eu.paid", "principal billing/subscribe[0]"},
		{"billing", "subscribe", "payments.*.>", "principal billing/subscribe[1]"},
		{"billing", "subscribe", "orders.*.*", "default-deny/subscribe"},
		{"billing", "subscribe", "orders.>", "default-deny/subscribe"},
		{"billing", "subscribe", "orders.*.paid.>", "default-deny/subscribe"},
		{"billing", "subscribe", ">", "default-deny/wildcard-first"},
		{"auditor", "subscribe", ">", "default-deny/wildcard-first"},
		{"auditor", "subscribe", "*.eu.paid", "default-deny/wildcard-first"},
		{"auditor", "subscribe", "orders.>", "principal auditor/subscribe[0]"},
		{"auditor", "subscribe", "_INBOX.>", "default-deny/subscribe"},
		{"auditor", "subscribe", "rpc.>", "default-deny/subscribe"},
		{"auditor", "subscribe", "$JS.EVENT.>", "default-deny/subscribe"},

		{"checkout", "call", "inventory.reserve", "principal checkout/call[0]"},
		{"checkout", "call", "rpc.inventory.reserve", "principal checkout/call[0]"},
		{"checkout", "call", "billing.health", "principal checkout/call[1]"},
		{"checkout", "call", "inventory.release", "default-deny/call"},
		{"billing", "serve", "billing.*", "principal billing/serve[0]"},
		{"billing", "serve", "rpc.billing.refund", "principal billing/serve[0]"},
		{"billing", "serve", "billing.>", "default-deny/serve"},
		{"billing", "serve", "invoicing.*", "default-deny/serve"},
		{"billing", "discover", "", "principal billing/discover"},
		{"checkout", "discover", "", "default-deny/discover"},

		{"checkout", "kv-read", "prices", "principal checkout/kv.read[0]"},
		{"checkout", "kv-read", "carts", "default-deny/kv-read"},
		{"checkout", "kv-write", "carts", "principal checkout/kv.write[0]"},
		{"checkout", "kv-write", "prices", "default-deny/kv-write"},
		{"checkout", "object-read", "invoices", "principal checkout/objects.read[0]"},
		{"checkout", "object-write", "invoices", "default-deny/object-write"},
		{"billing", "object-write", "invoices", "principal billing/objects.write[0]"},
		{"auditor", "admin", "policy", "principal auditor/admin[2]"},
		{"auditor", "admin", "keys", "default-deny/admin"},

		{"checkout", "header", "KV-Operation", "principal checkout/headers[0]"},
		{"checkout", "header", "kv-operation", "default-deny/header"},
		{"checkout", "source", "/shop/checkout", "default-source"},
		{"checkout", "source", "/shop/web-7", "role order-writer/sources[0]"},
		{"checkout", "source", "/legacy", "role order-writer/sources[1]"},
		{"checkout", "source", "/shop/billing", "default-deny/source"},
		{"checkout", "type", "com.shop.order.created", "role order-writer/types[0]"},
		{"checkout", "type", "com.shop.refund", "default-deny/type"},
		{"billing", "type", "anything", "default-type"},
		{"billing", "consumer", "ORDERS.billing", "principal billing/consumers[0]"},
		{"billing", "consumer", "PAYMENTS.any", "principal billing/consumers[1]"},
		{"billing", "consumer", "ORDERS.other", "default-deny/consumer"},
	} {
		d := ask(s.Principal("shop", tt.who), tt.verb, tt.what)
		if want := !strings.HasPrefix(tt.rule, "default-deny/"); d.Rule != tt.rule || d.Allowed != want {
			t.Errorf("%s %s %q: got %v by %q, want %v by %q", tt.who, tt.verb, tt.what, d.Allowed, d.Rule, want, tt.rule)
		}
	}
}

func ask(p *policy.Principal, verb, what string) acl.Decision {
	one := map[string]func(*policy.Principal, string) acl.Decision{
		"publish": acl.Publish, "subscribe": acl.Subscribe, "call": acl.Call, "serve": acl.Serve,
		"kv-read": acl.KVRead, "kv-write": acl.KVWrite, "object-read": acl.ObjectRead, "object-write": acl.ObjectWrite,
		"admin": acl.Admin, "header": acl.Header, "source": acl.Source, "type": acl.Type,
	}
	switch verb {
	case "discover":
		return acl.Discover(p)
	case "consumer":
		stream, consumer, _ := strings.Cut(what, ".")
		return acl.Consumer(p, stream, consumer)
	}
	return one[verb](p, what)
}

func TestServiceSubject(t *testing.T) {
	s := compile(t, shop)
	billing, checkout := s.Principal("shop", "billing"), s.Principal("shop", "checkout")
	for _, tt := range []struct {
		filter string
		want   bool
	}{
		{"$SRV.PING", true},
		{"$SRV.INFO.billing", true},
		{"$SRV.STATS.billing.abc123", true},
		{"$SRV.STATS.invoicing", true},
		{"$SRV.STATS.other", false},
		{"$SRV.STATS.billing.a.b", false},
		{"$SRV.PING.", false},
		{"$SRV.PING.billing.", false},
		{"$SRV.PING.*", false},
		{"$SRV.>", false},
		{"$SRV.RESET.billing", false},
		{"$SRV", false},
	} {
		if got := acl.ServiceSubject(billing, tt.filter).Allowed; got != tt.want {
			t.Errorf("ServiceSubject(%s) = %v, want %v", tt.filter, got, tt.want)
		}
		if acl.ServiceSubject(checkout, tt.filter).Allowed {
			t.Errorf("%s allowed for a principal that serves nothing", tt.filter)
		}
	}
}

func TestClassify(t *testing.T) {
	tenant := compile(t, shop).Tenant("shop")
	for _, tt := range []struct {
		subject string
		want    acl.Class
	}{
		{"orders.eu.created", acl.ClassEvent},
		{"payments.eu.settled", acl.ClassEvent},
		{"payments.eu.failed", acl.ClassDenied},
		{"telemetry.cpu", acl.ClassEphemeral},
		{"orders", acl.ClassDenied},
		{"", acl.ClassDenied},
		{"rpc.billing.refund", acl.ClassRPC},
		{"rpc.billing", acl.ClassDenied},
		{"rpc", acl.ClassDenied},
		{"rpcs.billing.refund", acl.ClassDenied},
		{"$KV.carts.a.b", acl.ClassKV},
		{"$KV.carts", acl.ClassDenied},
		{"$KV.carts.", acl.ClassDenied},
		{"$O.invoices.C.x", acl.ClassObject},
		{"$O.invoices.M.x", acl.ClassObject},
		{"$O.invoices.X.x", acl.ClassDenied},
		{"$O.invoices", acl.ClassDenied},
		{"$SRV.PING", acl.ClassService},
		{"$SRV.", acl.ClassDenied},
		{"$JS.API.INFO", acl.ClassJSAPI},
		{"$SYS.REQ.USER.INFO", acl.ClassJSAPI},
		{"$SYS.REQ.ACCOUNT.INFO", acl.ClassDenied},
		{"$JS.hub.API.INFO", acl.ClassDenied},
		{"$JS.EVENT.ADVISORY.X", acl.ClassDenied},
		{"$JS.ACK.ORDERS.c.1.1.1.1.0", acl.ClassJSAck},
		{"$JS.FC.ORDERS.c.x", acl.ClassJSFC},
		{"$JSC.R.x", acl.ClassDenied},
		{"$NRG.V.x", acl.ClassDenied},
		{"_INBOX.a.b", acl.ClassInbox},
		{"_INBOX.", acl.ClassDenied},
		{"_R_.x", acl.ClassRouted},
		{"_GR_.x", acl.ClassDenied},
		{"$SIGNET.API.policy.can-i", acl.ClassAdmin},
		{"$SIGNET.API.policy", acl.ClassDenied},
		{"$SIGNET.DLQ.schema.checkout", acl.ClassDenied},
	} {
		if got := acl.Classify(tenant, tt.subject); got != tt.want {
			t.Errorf("Classify(%q) = %v, want %v", tt.subject, got, tt.want)
		}
	}
}

// drawFilter draws from a small alphabet, so that filters meet often.
func drawFilter(t *rapid.T, label string, wildcards bool) string {
	words := []string{"a", "b", "rpc", "_x"}
	if wildcards {
		words = append(words, "*", "*")
	}
	tokens := rapid.SliceOfN(rapid.SampledFrom(words), 1, 4).Draw(t, label)
	if wildcards && rapid.IntRange(0, 3).Draw(t, label+" tail") == 0 {
		tokens[len(tokens)-1] = ">"
	}
	return strings.Join(tokens, ".")
}

func grantable(pattern string) bool {
	first, _, _ := strings.Cut(pattern, ".")
	return first != "rpc" && first[0] != '_'
}

// TestModel compares the decisions with a naive reading of random grants, and the
// second lock with the first: whatever acl allows, Permissions lets through.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) []string {
			return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return drawFilter(t, label, true) }).Filter(grantable), 0, 8).Draw(t, label+"s")
		}
		publish, subscribe := draw("publish"), draw("subscribe")
		src := fmt.Sprintf("tenant: t\nstreams: [{name: A, subjects: [a.>, a], maxBytes: 1MiB}]\nephemeral: [b.>, b]\n"+
			"principals:\n  - {name: p, publish: [%s], subscribe: [%s]}\n", quoted(publish), quoted(subscribe))
		b, err := policy.Parse("p.yaml", []byte(src))
		if err != nil {
			t.Fatalf("%v in\n%s", err, src)
		}
		s, err := policy.Compile(b)
		if err != nil {
			t.Fatal(err)
		}
		p := s.Principal("t", "p")
		pubs, subs := acl.Permissions(p, "SESSION")

		subject := drawFilter(t, "subject", false)
		d := acl.Publish(p, subject)
		want := grantable(subject) && anyMatch(publish, subject)
		if d.Allowed != want {
			t.Fatalf("Publish(%s) = %+v, want %v with %v", subject, d, want, publish)
		}
		declared := grantable(subject)
		if d.Allowed && declared && !wire.SubsetOfAny(subject, pubs) {
			t.Fatalf("%s is allowed, but the second lock %v is not open", subject, pubs)
		}

		filter := drawFilter(t, "filter", true)
		d = acl.Subscribe(p, filter)
		want = grantable(filter) && filter[0] != '*' && filter[0] != '>' && wire.SubsetOfAny(filter, subscribe)
		if d.Allowed != want {
			t.Fatalf("Subscribe(%s) = %+v, want %v with %v", filter, d, want, subscribe)
		}
		if !d.Allowed {
			return
		}
		if !wire.Subset(filter, d.Nearest.Pattern) {
			t.Fatalf("Subscribe(%s) names %s, which does not cover it", filter, d.Nearest.Pattern)
		}
		if !wire.SubsetOfAny(filter, subs) {
			t.Fatalf("%s is allowed, but the second lock %v is not open", filter, subs)
		}
		for range 20 {
			if seen := drawFilter(t, "seen", false); wire.Match(filter, seen) && !anyMatch(subscribe, seen) {
				t.Fatalf("a subscription to %s shows %s, which no grant covers: %v", filter, seen, subscribe)
			}
		}
	})
}

func quoted(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(out, ", ")
}

func anyMatch(patterns []string, subject string) bool {
	for _, p := range patterns {
		if wire.Match(p, subject) {
			return true
		}
	}
	return false
}
