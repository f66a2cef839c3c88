package broker_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/brokertest"
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
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	js := must(jetstream.New(c.NATS("writer")))(t)
	info := must(js.Stream(ctx, "ORDERS"))(t).CachedInfo()
	if info.Config.Replicas != 3 {
		t.Errorf("%d copies", info.Config.Replicas)
	}
	writer := c.Client("writer")
	publish := func(from, to int) {
		t.Helper()
		brokertest.PublishNumbers(ctx, t, writer, "orders.a", from, to)
	}
	publish(0, 100)
	read := func(n *brokertest.Broker, want int) {
		t.Helper()
		brokertest.CheckNumbers(ctx, t, n.Client("reader"), "orders.>", want)
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
