package client_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
)

// TestClusterKeyed: the nodes of a cluster stop one after the other while two instances of a
// group work, so that each partition's consumer changes its leader: order and one handler
// at a time hold, and nothing is left out.
func TestClusterKeyed(t *testing.T) {
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: keyedPolicy})
	cfg := client.Keyed{Group: "cluster", Bucket: "groups", Partitions: 2, Lease: client.MinLease}
	const keys, perKey = 6, 60
	l := newLedger()
	instances := []*instance{l.start(t, c, cfg), l.start(t, c, cfg)}
	var publishing sync.WaitGroup
	var published atomic.Int64
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%d published; %s", published.Load(), standing(c, cfg))
		}
	})
	pub := c.Client("checkout")
	publishing.Go(func() {
		for n := 1; n <= perKey; n++ {
			for k := range keys {
				ev := keyedEvent(fmt.Sprint("k", k), n)
				ev.ID = fmt.Sprint(k, "-", n)
				if err := publishSurely(within(t, 4*time.Minute), pub, ev); err != nil {
					t.Error(err)
					return
				}
				published.Add(1)
			}
		}
	})
	for node := range 3 {
		reach(t, l, (node+1)*keys*perKey/5)
		c.Stop(node)
		reach(t, l, (node+1)*keys*perKey/5+keys)
		c.Start(node)
	}
	publishing.Wait()
	reach(t, l, keys*perKey)
	for _, i := range instances {
		if err := i.s.Err(); err != nil {
			t.Error(err)
		}
		t.Logf("%+v", i.s.Stats())
		i.s.Stop()
	}
	for _, i := range instances {
		next(t, i.s.Closed())
	}
	done, dups, faults := l.counts()
	t.Logf("%d events, %d handled twice", done, dups)
	if done != keys*perKey || len(faults) > 0 {
		t.Errorf("%d of %d; %v", done, keys*perKey, faults)
	}
}

// standing is what the broker says of the consumers of a group.
func standing(c *brokertest.Cluster, cfg client.Keyed) string {
	out := ""
	js, err := c.NATS("billing").JetStream()
	for p := 0; err == nil && p < cfg.Partitions; p++ {
		name := fmt.Sprintf("%s-%d-%d", cfg.Group, cfg.Partitions, p)
		info, err := js.ConsumerInfo("ORDERS", name)
		if err != nil {
			return out + err.Error()
		}
		out += fmt.Sprintf("%s: delivered %+v, floor %+v, %d not settled, %d not delivered, %d pulls; ",
			name, info.Delivered, info.AckFloor, info.NumAckPending, info.NumPending, info.NumWaiting)
	}
	return out
}

// publishSurely publishes again, with the same id, as long as that can help: what a node
// had when it stopped is not answered.
func publishSurely(ctx context.Context, c *client.Client, ev *client.Event) error {
	for {
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := c.Publish(try, "orders.x", ev)
		cancel()
		if err == nil || ctx.Err() != nil || !client.Retryable(err) && !errors.Is(err, client.ErrOutcomeUnknown) {
			return err
		}
		<-time.After(50 * time.Millisecond) // no node leads at this moment
	}
}
