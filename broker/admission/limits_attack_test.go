package admission

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/signetbus/signet/internal/wire"
)

// TestPlanIsOnePublish: what holds for a plan and for its target counts it once, in whatever
// the two have in common, and what holds for one of them alone counts it too.
func TestPlanIsOnePublish(t *testing.T) {
	plan := []string{"Nats-Schedule: @at 2100-01-01T00:00:00Z", "Nats-Schedule-Target: orders.later", "ce-type: order.paid"}
	for name, tt := range map[string]struct {
		was, is string
		pass    int
		rule    string
	}{
		"every subject":             {"slow: {messages: 4/s, burst: 1s, match: orders.slow.>}", "slow: {messages: 4/s, burst: 1s}", 4, "limit slow"},
		"every subject, one a time": {"slow: {messages: 4/s, burst: 1s, match: orders.slow.>}", "slow: {messages: 4/s, burst: 0s}", 1, "limit slow"},
		"the tenant":                {"limit: polite\n", "limit: polite\nquota: {messages: 3/m, burst: 1m}\n", 3, "quota shop"},
		"a type on every subject":   {"types: [order.paid, com.acme.*], ", "types: [order.paid], ", 2, "limit paid"},
		"a type where it waits":     {"types: [order.paid, com.acme.*], ", "types: [order.paid], match: orders.plan, ", 2, "limit paid"},
		"a type on the target":      {"types: [order.paid, com.acme.*], ", "types: [order.paid], match: orders.later, ", 2, "limit paid"},
	} {
		t.Run(name, func(t *testing.T) {
			text := limitsPolicy
			if tt.rule != "limit paid" {
				text = strings.Replace(text, "paid: {per: tenant, types: [order.paid, com.acme.*]", "paid: {per: tenant, types: [none]", 1)
			}
			changed := strings.Replace(text, tt.was, tt.is, 1)
			if changed == text {
				t.Fatalf("the policy has no %q", tt.was)
			}
			f := newFixtureOf(t, changed)
			f.admits(tt.pass, "orders.plan", plan...)
			_ = f.limited(tt.rule, "orders.plan", plan...)
		})
	}
}

// TestTypesAreNotKept: clients choose the types of their events, so nothing may be kept by
// them: not where the event is refused, and not in a connection that stays.
func TestTypesAreNotKept(t *testing.T) {
	f := newFixtureOf(t, strings.Replace(limitsPolicy, "messages: 2/m", "messages: 1000/s", 1))
	heap := func() uint64 {
		var m runtime.MemStats
		for range 2 { // what is pooled goes with the second
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const size, count = 256 << 10, 64
	filler := strings.Repeat("x", size)
	before := heap()
	for i := range count {
		r, _ := f.one("orders.a", fmt.Sprintf(`{"specversion":"1.0","id":"1","source":"/shop/checkout","type":"com.acme.%d%s"}`, i, filler), "Content-Type: application/cloudevents+json")
		if code(r) != wire.CodeEventMalformed {
			t.Fatalf("a type of %d bytes: %v", size, r)
		}
	}
	if after := heap(); after > before+size*count/4 {
		t.Errorf("%d KiB are kept of %d types of %d KiB", (after-before)>>10, count, size>>10)
	}
	runtime.KeepAlive(f)
}
