package broker_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
)

const clusterPolicy = `
tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 64MiB}
kv: [{bucket: prices, maxBytes: 1MiB}]
principals:
  - {name: writer, identities: [{nkey: {{nkey "writer"}}}], publish: [orders.>]}
  - {name: reader, identities: [{nkey: {{nkey "reader"}}}], subscribe: [orders.>]}
  - {name: root, identities: [{nkey: {{nkey "root"}}}], admin: [status, streams, consumers, refusals, dlq]}
`

// TestClusterKeepsThreeCopies: three nodes, events with three copies, read and
// verified at every node; a node goes, everything goes on; it comes back.
func TestClusterKeepsThreeCopies(t *testing.T) {
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: clusterPolicy})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	js := must(jetstream.New(c.NATS("writer")))(t)
	info := must(js.Stream(ctx, "ORDERS"))(t).CachedInfo()
	if info.Config.Replicas != 3 {
		t.Errorf("%d copies", info.Config.Replicas)
	}
	publish := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			if _, err := js.PublishMsg(ctx, &nats.Msg{Subject: "orders.a", Data: fmt.Append(nil, i)}, jetstream.WithRetryAttempts(20)); err != nil {
				t.Fatalf("event %d: %v", i, err)
			}
		}
	}
	publish(0, 100)
	read := func(n *brokertest.Broker, want int) {
		t.Helper()
		got := 0
		done := make(chan struct{})
		sub, err := n.Client("reader").Subscribe(ctx, "orders.>", func(_ context.Context, d *client.Delivery) error {
			if string(d.Event.Data) != fmt.Sprint(got) {
				t.Errorf("event %d is %s", got, d.Event.Data)
			}
			if got++; got == want {
				close(done)
			}
			return nil
		}, client.FromStart())
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Stop()
		select {
		case <-done:
		case <-ctx.Done():
			t.Fatalf("%d of %d events", got, want)
		}
	}
	for _, n := range c.Nodes {
		read(n, 100)
	}
	c.Stop(1)
	publish(100, 200)
	c.Start(1)
	publish(200, 250)
	for _, n := range c.Nodes {
		read(n, 250)
	}
}
