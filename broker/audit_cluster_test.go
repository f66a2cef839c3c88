package broker_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/auditlog"
)

// TestClusterTrailIsPruned: every node prunes its own chain to its part of the tenant's
// share, the others' word for it verifies at each of them, and a node that is silent leaves
// the trail unproved.
func TestClusterTrailIsPruned(t *testing.T) {
	policy := strings.Replace(auditPolicy, "deadLetter: {maxBytes: 4MiB}\n", "deadLetter: {maxBytes: 4MiB}\naudit: {maxBytes: 1MiB}\n", 1)
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: policy, Change: quickDrain})
	const events = 1000 // read at each node, with a record of about 500 bytes each
	writer := connect(t, c.Nodes[0], "writer")
	js := writer.js(t)
	var acks []jetstream.PubAckFuture
	for range events {
		acks = append(acks, must(js.PublishMsgAsync(&nats.Msg{Subject: "orders.secret", Data: []byte(secretPayload)}))(t))
	}
	for _, a := range acks {
		select {
		case <-a.Ok():
		case err := <-a.Err():
			t.Fatal(err)
		case <-time.After(time.Minute):
			t.Fatal("no answer")
		}
	}
	for _, n := range c.Nodes {
		readAll(t, n, events)
	}
	end := time.Now().Add(4 * time.Minute) // the nodes count one another once a minute
	for {
		tr := audited(t, c.Nodes[0], "auditor", false)
		nodes := map[string]bool{}
		for _, r := range tr.find(func(r *auditlog.Record) bool { return r.Kind == auditlog.KindPruned && r.Rule == auditlog.PrunedSize }) {
			nodes[r.Node] = true
		}
		if len(nodes) == 3 && len(tr.raw) <= 1<<20 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d bytes are there, and %v have pruned", len(tr.raw), nodes)
		}
		<-time.After(100 * time.Millisecond)
	}
	for i, n := range c.Nodes {
		settled(t, n)
		tr := audited(t, n, "auditor", false)
		if !tr.report.Proved() || len(tr.report.Chains) != 3 {
			t.Fatalf("asked at node %d: %+v", i+1, tr.report)
		}
		for _, ch := range tr.report.Chains {
			if ch.Pruned == 0 || ch.Vouched == 0 {
				t.Errorf("asked at node %d: %+v", i+1, ch)
			}
		}
	}
	c.Stop(2)
	eventually(t, "a node is silent", func() bool {
		seals := must(admin.New(c.Nodes[0].Client("auditor")).AuditSeals(within(t), false))(t)
		return seals.Silent["n3"] != ""
	})
	if r := audited(t, c.Nodes[0], "auditor", false).report; !r.OK || r.Proved() || len(r.Open) != 1 || r.Open[0].Node != "n3" {
		t.Errorf("with a silent node: %+v", r)
	}
}

// readAll reads n events of the stream ORDERS at a node.
func readAll(t *testing.T, b *brokertest.Broker, n int) {
	t.Helper()
	reader := connect(t, b, "reader")
	defer reader.Close()
	consumer := must(reader.js(t).CreateConsumer(within(t), "ORDERS", jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: "orders.secret"}))(t)
	for got := 0; got < n; {
		batch := must(consumer.Fetch(200, jetstream.FetchMaxWait(10*time.Second)))(t)
		had := got
		for m := range batch.Messages() {
			check(t, m.Ack())
			got++
		}
		if got == had {
			t.Fatalf("read %d of %d: %v", got, n, batch.Error())
		}
	}
}

// TestNoReceiptWhereAnotherNodeDoesNotSync: a receipt speaks for a majority of the copies,
// so every node must sync.
func TestNoReceiptWhereAnotherNodeDoesNotSync(t *testing.T) {
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: auditPolicy, Change: func(cfg *broker.Config) {
		quickDrain(cfg)
		if cfg.Name == "n3" {
			cfg.Storage.Durability = broker.DurabilityUnsafeLazy
		}
	}})
	for _, n := range c.Nodes[:2] {
		_, err := n.Client("writer").Publish(within(t), "orders.a", &client.Event{Type: "t"}, client.WithSignedAck())
		if !errors.Is(err, client.ErrDenied) || !strings.Contains(err.Error(), "n3") {
			t.Errorf("got %v", err)
		}
		must(n.Client("writer").Publish(within(t), "orders.a", &client.Event{Type: "t"}))(t)
	}
}
