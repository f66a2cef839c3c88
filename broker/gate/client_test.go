package gate

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/signetbus/signet/internal/wire"
)

func TestTLSModes(t *testing.T) {
	for _, mode := range []Handshake{HandshakeAuto, HandshakeFirst, HandshakeInfo} {
		t.Run(string(mode), func(t *testing.T) {
			var roots *x509.CertPool
			w := newWorld(t, tlsOption(t, mode, &roots))
			w.roots = roots
			var clients []*nats.Conn
			if mode != HandshakeFirst {
				clients = append(clients, w.connect("writer"))
			}
			if mode != HandshakeInfo {
				clients = append(clients, w.connect("writer", nats.TLSHandshakeFirst()))
			}
			for _, nc := range clients {
				js, err := jetstream.New(nc)
				check(t, err)
				ack, err := js.Publish(w.ctx(), "orders.eu.created", []byte("{}"))
				check(t, err)
				if ack.Stream != "ORDERS" || ack.Sequence == 0 {
					t.Errorf("ack %+v", ack)
				}
			}
		})
	}
}

func TestCorePubSub(t *testing.T) {
	w := newWorld(t)
	r, p := w.connect("reader"), w.connect("writer")
	sub, err := r.SubscribeSync("telemetry.*.cpu")
	check(t, err)
	check(t, r.Flush())
	check(t, p.Publish("telemetry.a.cpu", []byte("42")))
	m, err := sub.NextMsg(testTimeout)
	check(t, err)
	if string(m.Data) != "42" || m.Header.Get("ce-source") != "/shop/writer" || m.Header.Get("ce-attestation") == "" {
		t.Errorf("got %q %v", m.Data, m.Header)
	}
	check(t, sub.AutoUnsubscribe(3))
	check(t, r.Flush())
	for range 5 {
		check(t, p.Publish("telemetry.a.cpu", []byte("43")))
	}
	for range 2 {
		_, err = sub.NextMsg(testTimeout)
		check(t, err)
	}
	if _, err = sub.NextMsg(testTimeout); !errors.Is(err, nats.ErrMaxMessages) && !errors.Is(err, nats.ErrBadSubscription) {
		t.Errorf("after the limit: %v", err)
	}
}

func TestPublishSyncAndAsync(t *testing.T) {
	w := newWorld(t)
	js := w.jetstream("writer")
	const n = 5000
	payload := bytes.Repeat([]byte("x"), 256)
	for range n {
		_, err := js.PublishAsync("orders.eu.created", payload, jetstream.WithStallWait(testTimeout))
		check(t, err)
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(testTimeout):
		t.Fatalf("%d publishes without an ack", js.PublishAsyncPending())
	}
	s, err := w.js.Stream(w.ctx(), "ORDERS")
	check(t, err)
	if got := s.CachedInfo().State.Msgs; got != n {
		t.Errorf("stored %d of %d", got, n)
	}
	_, err = js.Publish(w.ctx(), "payments.made", payload)
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != jetstream.ErrorCode(wire.CodePublishDenied) {
		t.Errorf("a denied publish: %v", err)
	}
	big := bytes.Repeat([]byte("y"), 1<<20)
	_, err = js.Publish(w.ctx(), "orders.eu.big", big)
	check(t, err)
}

func TestConsumers(t *testing.T) {
	w := newWorld(t)
	ctx := w.ctx()
	pub, read := w.jetstream("writer"), w.jetstream("reader")
	const n = 300
	for i := range n {
		_, err := pub.PublishAsync("orders.eu.created", []byte(fmt.Sprint(i)))
		check(t, err)
	}
	<-pub.PublishAsyncComplete()
	t.Run("pull", func(t *testing.T) {
		c, err := read.CreateOrUpdateConsumer(ctx, "ORDERS", jetstream.ConsumerConfig{Durable: "pull", FilterSubject: "orders.>", AckPolicy: jetstream.AckExplicitPolicy})
		check(t, err)
		batch, err := c.Fetch(100)
		check(t, err)
		got := 0
		for m := range batch.Messages() {
			check(t, m.DoubleAck(ctx))
			got++
		}
		check(t, batch.Error())
		if got != 100 {
			t.Errorf("fetched %d", got)
		}
		it, err := c.Messages()
		check(t, err)
		for range n - 100 {
			m, err := it.Next()
			check(t, err)
			check(t, m.Ack())
		}
		it.Stop()
	})
	t.Run("ordered", func(t *testing.T) {
		c, err := read.OrderedConsumer(ctx, "ORDERS", jetstream.OrderedConsumerConfig{FilterSubjects: []string{"orders.eu.created"}})
		check(t, err)
		it, err := c.Messages()
		check(t, err)
		for i := range n {
			m, err := it.Next()
			check(t, err)
			if string(m.Data()) != fmt.Sprint(i) {
				t.Fatalf("message %d is %q", i, m.Data())
			}
		}
		it.Stop()
	})
	t.Run("outside", func(t *testing.T) {
		_, err := w.jetstream("narrow").CreateConsumer(ctx, "ORDERS", jetstream.ConsumerConfig{FilterSubject: "orders.us.created"})
		var api *jetstream.APIError
		if !errors.As(err, &api) || api.ErrorCode != jetstream.ErrorCode(wire.CodeFilterDenied) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("foreign", func(t *testing.T) {
		nc := w.connect("narrow")
		sub, err := nc.SubscribeSync(nats.NewInbox())
		check(t, err)
		check(t, nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.ORDERS.pull", sub.Subject, []byte(`{"batch":1,"expires":1000000000}`)))
		m, err := sub.NextMsg(testTimeout)
		check(t, err)
		if m.Header.Get("Status") != "400" || !strings.Contains(m.Header.Get("Description"), "ConsumerNotOwned") {
			t.Errorf("got %v", m.Header)
		}
	})
}

func TestBuckets(t *testing.T) {
	w := newWorld(t)
	ctx := w.ctx()
	js := w.jetstream("buckets")
	kv, err := js.KeyValue(ctx, "CONFIG")
	check(t, err)
	watch, err := kv.Watch(ctx, "app.*")
	check(t, err)
	defer func() { check(t, watch.Stop()) }()
	if u := <-watch.Updates(); u != nil {
		t.Fatalf("an update in an empty bucket: %v", u)
	}
	rev, err := kv.Create(ctx, "app.color", []byte("red"))
	check(t, err)
	_, err = kv.Update(ctx, "app.color", []byte("blue"), rev)
	check(t, err)
	if _, err = kv.Update(ctx, "app.color", []byte("green"), rev); err == nil {
		t.Error("an update of an old revision passed")
	}
	for _, want := range []string{"red", "blue"} {
		if u := <-watch.Updates(); string(u.Value()) != want {
			t.Errorf("watched %q, want %q", u.Value(), want)
		}
	}
	e, err := kv.Get(ctx, "app.color")
	check(t, err)
	if string(e.Value()) != "blue" {
		t.Errorf("got %q", e.Value())
	}
	check(t, kv.Purge(ctx, "app.color"))
	obs, err := js.ObjectStore(ctx, "FILES")
	check(t, err)
	data := bytes.Repeat([]byte("0123456789abcdef"), 40000)
	_, err = obs.PutBytes(ctx, "big", data)
	check(t, err)
	back, err := obs.GetBytes(ctx, "big")
	check(t, err)
	if !bytes.Equal(back, data) {
		t.Error("the object came back changed")
	}
	if _, err := w.jetstream("writer").KeyValue(ctx, "CONFIG"); err == nil {
		t.Error("a principal without a grant opened the bucket")
	}
}

func TestMicroService(t *testing.T) {
	w := newWorld(t)
	serve, call := w.connect("server"), w.connect("caller")
	svc, err := micro.AddService(serve, micro.Config{Name: "billing", Version: "1.0.0"})
	check(t, err)
	defer func() { check(t, svc.Stop()) }()
	check(t, svc.AddEndpoint("charge", micro.HandlerFunc(func(r micro.Request) {
		if string(r.Data()) == "fail" {
			_ = r.Error("402", "no money", nil)
			return
		}
		_ = r.Respond(append([]byte("charged "), r.Data()...))
	}), micro.WithEndpointSubject("rpc.billing.charge")))
	check(t, serve.Flush())
	m, err := call.Request("rpc.billing.charge", []byte("10"), testTimeout)
	check(t, err)
	if string(m.Data) != "charged 10" {
		t.Errorf("got %q", m.Data)
	}
	m, err = call.Request("rpc.billing.charge", []byte("fail"), testTimeout)
	check(t, err)
	if m.Header.Get(micro.ErrorCodeHeader) != "402" {
		t.Errorf("got %v", m.Header)
	}
	if m, err = call.Request("$SRV.INFO.billing", nil, testTimeout); err != nil || !strings.Contains(string(m.Data), "charge") {
		t.Errorf("info: %v %v", m, err)
	}
	m, err = call.Request("rpc.billing.refund", nil, testTimeout)
	if err != nil || !strings.Contains(string(m.Data), "CallDenied") {
		t.Errorf("a call without a grant: %v %v", m, err)
	}
	old := w.connect("caller", nats.UseOldRequestStyle())
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
		_, err = old.RequestWithContext(ctx, "rpc.billing.charge", []byte("1"))
		check(t, err)
		_, err = old.RequestWithContext(ctx, "rpc.billing.refund", []byte("1"))
		check(t, err)
		cancel()
	}
}
