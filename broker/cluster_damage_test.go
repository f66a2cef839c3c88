package broker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
)

// TestClusterHealsDamage: a node with a damaged copy sets it aside and fetches it
// again, but only while the others have it all; until then it does not start, and
// nobody is ever served a hole.
func TestClusterHealsDamage(t *testing.T) {
	bit := func(t *testing.T, state string) { flipBit(t, state, "shop", "ORDERS") }
	key := func(t *testing.T, state string) {
		check(t, os.Remove(filepath.Join(state, "jetstream", "shop", "streams", "ORDERS", "msgs", "1.key")))
	}
	for i, harm := range []func(*testing.T, string){bit, bit, key} {
		t.Run(atRest[i].name, func(t *testing.T) {
			if i > 0 {
				t.Parallel() // it waits, mostly
			}
			clusterHealsDamage(t, atRest[i].set, harm)
		})
	}
}

func clusterHealsDamage(t *testing.T, set func(*brokertest.Options), harm func(t *testing.T, state string)) {
	o := brokertest.Options{Policy: smallBlocks(t)}
	set(&o)
	c := brokertest.NewCluster(t, 3, o)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	const events = 100
	js := must(jetstream.New(c.NATS("writer")))(t)
	for i := range events {
		if _, err := js.Publish(ctx, "orders.eu.x", fmt.Appendf(bytes.Repeat([]byte("x"), 200), "%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	replicasCurrent(ctx, t, c.NATS("writer"), "ORDERS")
	c.Stop(1)
	harm(t, storeOf(t, c.Nodes[1]))
	// Another one is away: what is left elsewhere is one copy, so the damaged one stays.
	c.Stop(2)
	again := make(chan error, 1)
	go func() { again <- c.TryStart(1) }()
	if err := <-again; !errors.Is(err, broker.ErrDamaged) {
		t.Fatalf("with one whole copy left: %v", err)
	}
	c.Start(2)
	replicasExcept(ctx, t, c, "n2")
	c.Start(1)
	replicasCurrent(ctx, t, c.NATS("writer"), "ORDERS")
	if m := metric(t, c.Nodes[1], "signet_integrity_quarantined"); m == "0" {
		t.Error("nothing was set aside")
	}
	if kept := must(filepath.Glob(filepath.Join(storeOf(t, c.Nodes[1]), "quarantine", "*")))(t); len(kept) == 0 {
		t.Error("the damaged copy is gone")
	}
	// The node leads and serves all of it.
	c.Stop(0)
	brokertest.ReadBack(ctx, t, c.Nodes[1].Client("wide"), "orders.eu.>", events)
}

// replicasExcept waits until all nodes but one have everything.
func replicasExcept(ctx context.Context, t *testing.T, c *brokertest.Cluster, node string) {
	t.Helper()
	js := must(jetstream.New(c.NATS("writer")))(t)
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		if s, err := js.Stream(ctx, "ORDERS"); err == nil {
			good := 0
			for _, r := range s.CachedInfo().Cluster.Replicas {
				if r.Name != node && r.Current && !r.Offline {
					good++
				}
			}
			if s.CachedInfo().Cluster.Leader != "" && good > 0 {
				return
			}
		}
		select {
		case <-ctx.Done():
			t.Fatal("the other nodes are not current")
		case <-poll.C:
		}
	}
}
