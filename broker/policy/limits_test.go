package policy

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func limitsSet(t *testing.T, changes ...string) *Set {
	t.Helper()
	text, err := os.ReadFile("testdata/limits/limits.yaml")
	if err != nil {
		t.Fatal(err)
	}
	b, err := Parse("limits.yaml", []byte(strings.NewReplacer(changes...).Replace(string(text))))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestLimitsOfPrincipals: who has which limits, in the words of the policy.
func TestLimitsOfPrincipals(t *testing.T) {
	s := limitsSet(t)
	const (
		europe = "limit europe: messages 100/m, burst 1s, match orders.eu.>"
		hot    = "limit hot: messages 2000/s, burst 1s, match orders.*.created, per tenant"
		paid   = "limit paid: messages 7/h, bytes 1MiB/m, burst 1s, types order.paid com.acme.paid.*, per tenant"
		polite = "limit polite: inFlight 1000, connections 20, subscriptions 500, consumers 10"
		writer = "limit writer: messages 500/s, bytes 5MiB/s, burst 2s, exceed wait"
		quota  = "quota shop: messages 5000/s, burst 1s"
	)
	for _, tt := range []struct {
		principal, subject string
		want               []string
	}{
		{"checkout", "", []string{europe, hot, paid, polite, writer, quota}},
		{"checkout", "orders.eu.created", []string{europe, hot, paid, polite, writer, quota}},
		{"checkout", "orders.us.paid", []string{paid, polite, writer, quota}},
		{"billing", "rpc.inventory.reserve", []string{
			"limit callers: messages 1000/s, calls 50/s, burst 1s, match rpc.inventory.>", paid, polite, quota,
		}},
		{"plain", "orders.us.paid", []string{paid, polite, "limit small: payload 64KiB, match orders.>, mode audit", quota}},
	} {
		if got := s.Principal("shop", tt.principal).LimitTexts(tt.subject); !slices.Equal(got, tt.want) {
			t.Errorf("%s on %q:\n%s\nwant:\n%s", tt.principal, tt.subject, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
		}
	}
}

// TestPriorities: a principal's own word holds, then the highest of its roles.
func TestPriorities(t *testing.T) {
	s := limitsSet(t)
	for name, want := range map[string]Priority{"checkout": PriorityHigh, "batch": PriorityLow, "billing": PriorityLow, "plain": PriorityNormal} {
		if got := s.Principal("shop", name).Priority; got != want {
			t.Errorf("%s has priority %s, want %s", name, got, want)
		}
	}
	if !s.HasHigh() || !s.Tenant("shop").HasHigh() {
		t.Error("somebody has priority high, and nobody knows")
	}
	if limitsSet(t, "high", "normal").HasHigh() {
		t.Error("nobody has priority high, and somebody is said to")
	}
	// A role whose time is over gives no priority.
	if got := limitsSet(t, "roles: [writer, reader]", "roles: [{role: writer, until: '2020-01-01T00:00:00Z'}, reader]").Principal("shop", "checkout").Priority; got != PriorityLow {
		t.Errorf("after its role has lapsed, checkout has priority %s", got)
	}
}

// TestCompareLimits: plan and diff tell what changes about limits and priorities, once.
func TestCompareLimits(t *testing.T) {
	now := limitsSet(t, "per: tenant, match: orders.*.created, messages: 2000/s", "per: tenant, match: orders.*.created, messages: 3000/s",
		"types: [order.paid, com.acme.paid.*]", "types: [order.paid]", "limit: callers", "limit: [callers, europe]", "priority: low}\n  - {name: billing", "priority: normal}\n  - {name: billing")
	var got []string
	for _, c := range Compare(limitsSet(t), now) {
		got = append(got, c.String())
	}
	want := []string{
		"tenant shop changes limit hot: messages 2000/s, burst 1s, match orders.*.created, per tenant -> messages 3000/s, burst 1s, match orders.*.created, per tenant",
		"tenant shop changes limit paid: messages 7/h, bytes 1MiB/m, burst 1s, types order.paid com.acme.paid.*, per tenant -> messages 7/h, bytes 1MiB/m, burst 1s, types order.paid, per tenant",
		"shop/batch changes priority: low -> normal",
		"shop/billing changes limits: callers, polite -> callers, europe, polite",
	}
	for i := range got {
		got[i], _, _ = strings.Cut(got[i], " (")
		got[i] = strings.ReplaceAll(got[i], " : ", ": ")
	}
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestAppliesToType(t *testing.T) {
	l := &LimitUse{Limit: Limit{Types: []string{"order.paid", "com.acme.*"}}}
	for eventType, want := range map[string]bool{"order.paid": true, "order.paid.x": false, "com.acme.": true, "com.acme.x": true, "com.acme": false, "": false} {
		if l.AppliesToType([]byte(eventType)) != want {
			t.Errorf("%q: %v, want %v", eventType, !want, want)
		}
	}
}
