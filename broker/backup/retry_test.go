package backup_test

import (
	"context"
	"errors"
	"testing"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
)

// TestBackupHasRetryQueues: what is redriven and not yet read is in a backup, and comes back
// with the durable that reads it.
func TestBackupHasRetryQueues(t *testing.T) {
	a := start(t, "")
	fill(t, a)
	api := admin.New(a.Client("boss"))
	fail := func(context.Context, *client.Delivery) error { return client.Permanent(errors.New("no")) }
	sub, err := a.Client("app").Subscribe(t.Context(), "bills.>", fail, client.Durable("pay"))
	if err != nil {
		t.Fatal(err)
	}
	var letter uint64
	waitFor(t, "a dead letter of the consumer", func() bool {
		list, err := api.DLQList(t.Context(), admin.DLQQuery{DLQFilter: admin.DLQFilter{Stage: "consumer"}})
		if err != nil {
			t.Fatal(err)
		}
		if len(list.Entries) > 0 {
			letter = list.Entries[0].Seq
		}
		return letter > 0
	})
	sub.Stop()
	<-sub.Closed()
	page, err := admin.DLQOf(api).Redrive(t.Context(), admin.RedriveRequest{Seq: letter})
	if err != nil || page.Letters[0].Verdict != admin.VerdictRedriven {
		t.Fatalf("%+v %v", page, err)
	}
	file := save(t, a)
	b := start(t, sibling(t, a))
	if _, err := restore(t, b, file); err != nil {
		t.Fatal(err)
	}
	got := make(chan int, 1)
	again, err := b.Client("app").Subscribe(t.Context(), "bills.>", func(_ context.Context, d *client.Delivery) error { got <- d.Redrives; return nil }, client.Durable("pay"))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Stop()
	if n := <-got; n != 1 {
		t.Errorf("redrives %d", n)
	}
}
