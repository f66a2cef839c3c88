package backup_test

import (
	"strings"
	"testing"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
)

// TestBackupHasNoSchedules: a backup is of what schedules have published, and not of them: where
// it is restored beside its origin, nothing publishes a second time.
func TestBackupHasNoSchedules(t *testing.T) {
	policy := strings.Replace(shop, "    publish: [orders.>, bills.>]\n", "    publish: [orders.>, bills.>]\n    headers: [Nats-Schedule-Cron]\n", 1)
	begin := func(dir string) *brokertest.Broker {
		return brokertest.New(t, brokertest.Options{Policy: policy, Change: quick, Dir: dir})
	}
	a := begin("")
	_, err := client.SchedulesOf(a.Client("app")).Put(t.Context(), client.Schedule{Name: "beat", Spec: "@every 1s", NATSSubject: "orders.beat", Event: client.NewEvent("t", nil)})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a firing", func() bool { return state(t, a, "ORDERS").Msgs > 0 })
	file := save(t, a)
	b := begin(sibling(t, a))
	if _, err := restore(t, b, file); err != nil {
		t.Fatal(err)
	}
	if state(t, b, "ORDERS").Msgs == 0 {
		t.Error("no event was restored")
	}
	if list, err := client.SchedulesOf(b.Client("app")).List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}
