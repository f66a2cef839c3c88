package broker_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
)

// TestRedriveLoopIsQuarantined: an event that fails each time is one dead letter after each
// redrive, of where it failed first, counted, and left alone after the third. Then its
// handler is mended, and it is redriven by force.
func TestRedriveLoopIsQuarantined(t *testing.T) {
	b := redriveBroker(t)
	api := admin.New(b.Client("root"))
	var mu sync.Mutex
	var came []int // redrives, delivery by delivery
	mended := false
	sub, err := b.Client("payer").Subscribe(within(t), "orders.eu.>", func(_ context.Context, d *client.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		came = append(came, d.Redrives)
		if mended {
			return nil
		}
		return client.Permanent(errors.New("cannot"))
	}, client.Durable("billing"), client.InStream("ORDERS"))
	check(t, err)
	t.Cleanup(sub.Stop)
	seq := publishOrders(t, b, 1)[0]
	letter := func(redrives int) uint64 {
		t.Helper()
		var last admin.DeadLetter
		eventually(t, "the dead letter", func() bool {
			list, err := api.DLQList(within(t), admin.DLQQuery{DLQFilter: admin.DLQFilter{Consumer: "billing", Stream: "ORDERS", Subject: "orders.eu.x"}})
			check(t, err)
			if len(list.Entries) != 1 {
				return false
			}
			last = list.Entries[0]
			return last.Redrives == redrives
		})
		if last.StreamSeq != seq || last.Principal != "shop/payer" || last.By != "shop/payer" || last.Stored.IsZero() || last.Attempts < 1 ||
			len(last.Deliveries) == 0 || last.Deliveries[0].Attempt != 1 || last.Deliveries[0].At.IsZero() {
			t.Errorf("%+v", last)
		}
		return last.Seq
	}
	for i := range 3 {
		if v := redriveOne(t, api, admin.RedriveRequest{Seq: letter(i)}); v.Verdict != admin.VerdictRedriven || v.Count != i+1 {
			t.Fatalf("redrive %d: %+v", i+1, v)
		}
	}
	n := letter(3)
	if v := redriveOne(t, api, admin.RedriveRequest{Seq: n}); v.Verdict != admin.VerdictQuarantined {
		t.Fatalf("%+v", v)
	}
	mu.Lock()
	mended = true
	mu.Unlock()
	if v := redriveOne(t, api, admin.RedriveRequest{Seq: n, Force: true}); v.Verdict != admin.VerdictRedriven || v.Count != 4 {
		t.Fatalf("%+v", v)
	}
	eventually(t, "it is done", func() bool {
		st, err := api.Status(within(t))
		return err == nil && st.DeadLetters.Messages == 0 && st.DeadLetters.Queued == 0
	})
	mu.Lock()
	defer mu.Unlock()
	if last := came[len(came)-1]; last != 4 {
		t.Errorf("it came as %v", came)
	}
}
