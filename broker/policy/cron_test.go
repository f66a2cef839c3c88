package policy

import (
	"testing"
	"time"
)

// TestSchedulesNeedAStore: the right brings a stream with it, so the store changes with the first
// who has it, and not with the last who loses it.
func TestSchedulesNeedAStore(t *testing.T) {
	with := func(principals string) *Set {
		return compileAt(t, "tenant: shop\nstreams: [{name: A, subjects: [a.>], maxBytes: 1MiB}]\nprincipals: ["+principals+"]\n", time.Now(), nil)
	}
	none, one, off, other := with("{name: p, headers: [Nats-TTL]}"), with("{name: p, headers: [Nats-Schedule-Cron]}"),
		with("{name: p, disabled: true, headers: [Nats-Schedule-Cron]}"), with("{name: q, headers: [Nats-Schedule-Cron]}")
	if Schedules(none.Tenant("shop")) || !Schedules(one.Tenant("shop")) || !Schedules(off.Tenant("shop")) {
		t.Error("who has the right")
	}
	if SameStores(one, none) {
		t.Error("the first who has the right needs a stream")
	}
	if !SameStores(none, one) || !SameStores(off, one) || !SameStores(other, one) || !SameStores(one, one) {
		t.Error("a right that is taken away or moves needs nothing")
	}
}
