package broker_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
)

// TestClusterRedrive: every verb works at every node, redrives of the same letters at all
// nodes at once bring each event once, and one that is there while a node is away goes on.
func TestClusterRedrive(t *testing.T) {
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: clusterPolicy})
	got := &readers{}
	sub, err := c.Nodes[2].Client("reader").Subscribe(within(t), "orders.>", got.handle, client.Durable("billing"))
	check(t, err)
	t.Cleanup(sub.Stop)
	writer := c.Client("writer")
	const n = 12
	for i := range n {
		r, err := writer.Publish(within(t), "orders.a", client.NewEvent("t", fmt.Appendf(nil, `{"n":%d}`, i)))
		check(t, err)
		failedLetter(t, c.Nodes[i%3], "ORDERS", r.Sequence, "billing", "shop/reader")
	}
	eventually(t, "the events", func() bool { return len(got.all()) >= n })
	q := admin.RedriveRequest{DLQFilter: admin.DLQFilter{Consumer: "billing", Where: []string{"/n"}}, Limit: 2}
	for _, node := range c.Nodes {
		dry := q
		dry.DryRun, dry.Limit = true, 0
		page, err := admin.DLQOf(admin.New(node.Client("root"))).Redrive(within(t), dry)
		check(t, err)
		if len(page.Letters) != n || page.Letters[0].Verdict != admin.VerdictWould {
			t.Fatalf("%+v", page)
		}
	}
	c.Stop(0)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var all sync.WaitGroup
	for _, node := range c.Nodes[1:] {
		api := admin.DLQOf(admin.New(node.Client("root")))
		all.Go(func() {
			for at := q; ; {
				page, err := api.Redrive(ctx, at)
				switch {
				case ctx.Err() != nil:
					t.Errorf("%v: %v", ctx.Err(), err)
					return
				case err != nil: // no leader yet: to ask again is harmless
					continue
				case page.Stopped == "" && !page.More:
					return
				}
				at.DLQ, at.Cursor, at.UpTo = page.DLQ, page.Cursor, page.UpTo
			}
		})
	}
	all.Wait()
	c.Start(0)
	// A delivery may get lost with the node, and come again: what is stored twice is
	// delivered for the first time twice.
	came, first := map[uint64]int{}, map[uint64]int{}
	eventually(t, "every event again", func() bool {
		clear(came)
		clear(first)
		for _, d := range got.all() {
			if d.Redrives == 0 {
				continue
			}
			if came[d.Sequence]++; d.NumDelivered == 1 {
				first[d.Sequence]++
			}
		}
		return len(came) == n
	})
	api := admin.New(c.Nodes[0].Client("root"))
	eventually(t, "no letter and no queue left", func() bool {
		st, err := api.Status(ctx)
		return err == nil && st.DeadLetters.Messages == 0 && st.DeadLetters.Queued == 0
	})
	for seq, times := range first {
		if times > 1 {
			t.Errorf("event %d was stored %d times", seq, times)
		}
	}
}
