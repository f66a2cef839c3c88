package broker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/internal/auditlog"
)

// TestTrailIsPruned: a tenant whose share of the stream was full goes on, and its trail
// verifies.
func TestTrailIsPruned(t *testing.T) {
	policy := strings.Replace(auditPolicy, "deadLetter: {maxBytes: 4MiB}\n", "deadLetter: {maxBytes: 4MiB}\naudit: {maxBytes: 1MiB}\n", 1)
	b := brokertest.New(t, brokertest.Options{Policy: policy, Change: quickDrain})
	fillTrail(t, b, 3000)
	var tr *tailOf
	pruned := func() []auditlog.Record {
		tr = audited(t, b, "auditor", false)
		return tr.find(func(r *auditlog.Record) bool { return r.Kind == auditlog.KindPruned && r.Rule == auditlog.PrunedSize })
	}
	end := time.Now().Add(time.Minute)
	for len(pruned()) == 0 || len(tr.raw) > 1<<20*85/100 || tr.records[0].Seq == 1 { // or read while it was pruned
		if time.Now().After(end) {
			t.Fatalf("%d bytes are there and %d pruned records", len(tr.raw), len(pruned()))
		}
		<-time.After(100 * time.Millisecond)
	}
	if !tr.report.OK || tr.records[0].Seq == 1 || tr.report.Chains[0].Pruned != tr.records[0].Seq-1 {
		t.Fatalf("from record %d: %+v", tr.records[0].Seq, tr.report)
	}
}

// fillTrail has so many events read, with a record of about 500 bytes for each.
func fillTrail(t *testing.T, b *brokertest.Broker, events int) {
	t.Helper()
	writer, reader := connect(t, b, "writer"), connect(t, b, "reader")
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
	consumer := must(reader.js(t).CreateConsumer(within(t), "ORDERS", jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: "orders.secret"}))(t)
	for got := 0; got < events; {
		batch := must(consumer.Fetch(200, jetstream.FetchMaxWait(10*time.Second)))(t)
		n := got
		for m := range batch.Messages() {
			check(t, m.Ack())
			got++
		}
		if got == n {
			t.Fatalf("read %d of %d: %v", got, events, batch.Error())
		}
	}
}
