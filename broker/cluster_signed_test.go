package broker_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// TestClusterSignedReplayOfWorkAtAnotherLeader: a copy of a work queue that was there when
// an event came knows it after it was acknowledged, and when that copy leads: no node that
// takes over stores it again.
func TestClusterSignedReplayOfWorkAtAnotherLeader(t *testing.T) {
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: workPolicy + "  - {name: root, identities: [{nkey: '{{nkey \"root\"}}'}], admin: [keys]}\n"})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r := newRootHolder(t, filepath.Join(filepath.Dir(filepath.Dir(c.Nodes[0].State.Dir)), "keys", "root.seed"), c.Nodes[0].State)
	key := producerKey(t, time.Hour)
	var seed []byte
	key.ID, seed = newPair(t, nkeys.CreateAccount)
	put := must(admin.New(c.Nodes[0].Client("root")).PutKeys(ctx, r.next(t, func(c *keyring.Change) error { return c.Issue(key) })))(t)
	if len(put.InForce) != 3 {
		t.Fatalf("the keyring is in force at %v only", put.InForce)
	}
	nodes := holders(ctx, t, c, "WORK") // the leader first
	stays := c.Nodes[nodes[1]]
	first := must(stays.Client("writer", client.WithEventKey(seed)).Publish(ctx, "work.pay", &client.Event{Type: "t", ID: "1", Data: []byte("once")}))(t)
	got := make(chan *client.Delivery, 1)
	sub := must(stays.Client("worker").Subscribe(ctx, "work.>", func(_ context.Context, d *client.Delivery) error { got <- d; return nil },
		client.RequireProducer("shop/writer"), client.Durable("w")))(t)
	var captured *client.Event
	select {
	case d := <-got:
		captured = d.Attested()
	case <-ctx.Done():
		t.Fatal("the event did not come")
	}
	sub.Drain()
	<-sub.Closed()
	for _, name := range []string{wire.AttrAttestation, wire.AttrAuthID, wire.AttrAuthType} {
		delete(captured.Extensions, name)
	}
	nc := stays.NATS("writer")
	eventually(t, "the event is gone", func() bool {
		s, err := must(jetstream.New(nc))(t).Stream(ctx, "WORK")
		return err == nil && s.CachedInfo().State.Msgs == 0
	})
	replicasCurrent(ctx, t, nc, "WORK")
	c.Stop(nodes[0])
	eventually(t, "another node leads", func() bool { return holders(ctx, t, c, "WORK")[0] != nodes[0] })
	again := must(stays.Client("writer").Publish(ctx, "work.pay", captured))(t)
	if !again.Duplicate || again.Sequence != first.Sequence {
		t.Errorf("the same event again: %+v, the first was %+v", again, first)
	}
}
