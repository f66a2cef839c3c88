package client_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
)

const e2ePolicy = `tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 64MiB}
ephemeral: [telemetry.>]
limits:
  slow: {messages: 5/s, burst: 1s, exceed: reject}
roles:
  writer: {publish: [orders.created, orders.paid, telemetry.>]}
  reader: {subscribe: [orders.>, telemetry.>]}
principals:
  - {name: checkout, identities: [{nkey: '{{nkey "checkout"}}'}], roles: [writer]}
  - {name: billing, identities: [{nkey: '{{nkey "billing"}}'}], roles: [reader]}
  - {name: throttled, identities: [{nkey: '{{nkey "throttled"}}'}], roles: [writer], limit: slow}
  - {name: root, identities: [{nkey: '{{nkey "root"}}'}], admin: [keys, status, policy, dlq, refusals]}
`

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func next[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing came")
	}
	panic("unreachable")
}

func TestEndToEnd(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: e2ePolicy})
	pub, sub := b.Client("checkout"), b.Client("billing")

	t.Run("publish and durable", func(t *testing.T) { e2eDurable(t, pub, sub) })
	t.Run("duplicate", func(t *testing.T) {
		ctx := within(t, time.Minute)
		ev := &client.Event{ID: "same", Type: "t"}
		first, err := pub.Publish(ctx, "orders.paid", ev)
		if err != nil {
			t.Fatal(err)
		}
		again, err := pub.Publish(ctx, "orders.paid", ev)
		if err != nil || !again.Duplicate || again.Sequence != first.Sequence {
			t.Fatalf("again = %+v, %v; first = %+v", again, err, first)
		}
	})
	t.Run("denied", func(t *testing.T) {
		ctx := within(t, time.Minute)
		_, err := sub.Publish(ctx, "orders.created", client.NewEvent("t", nil))
		var e *client.Error
		if !errors.Is(err, client.ErrDenied) || !errors.As(err, &e) || e.Code != 40101 || e.Ref == "" || e.Principal != "shop/billing" {
			t.Errorf("publish: %+v", err)
		}
		none := func(context.Context, *client.Delivery) error { return nil }
		if _, err := pub.Subscribe(ctx, "orders.>", none); !errors.Is(err, client.ErrDenied) {
			t.Errorf("subscribe: %v", err)
		}
		if _, err := pub.SubscribeLive(ctx, "telemetry.>", none); !errors.Is(err, client.ErrDenied) {
			t.Errorf("subscribe live: %v", err)
		}
		if _, err := admin.New(pub).Status(ctx); !errors.Is(err, client.ErrDenied) {
			t.Errorf("status: %v", err)
		}
	})
	t.Run("rate limit", func(t *testing.T) { e2eRateLimit(t, b.Client("throttled", client.WithRetry(client.RetryPolicy{}))) })
	t.Run("live", func(t *testing.T) {
		ctx := within(t, time.Minute)
		got := make(chan *client.Delivery, 1)
		s, err := sub.SubscribeLive(ctx, "telemetry.*", func(_ context.Context, d *client.Delivery) error { got <- d; return nil })
		if err != nil {
			t.Fatal(err)
		}
		if err := pub.PublishLive(ctx, "telemetry.cpu", client.NewEvent("t", []byte("9"))); err != nil {
			t.Fatal(err)
		}
		if d := next(t, got); d.Principal != "shop/checkout" || string(d.Event.Data) != "9" {
			t.Errorf("delivery = %+v", d)
		}
		s.Drain()
		next(t, s.Closed())
	})
	t.Run("admin", func(t *testing.T) {
		ctx := within(t, time.Minute)
		a := admin.New(b.Client("root"))
		if st, err := a.Status(ctx); err != nil || st.Server.Version == "" {
			t.Errorf("status = %+v, %v", st, err)
		}
		if can, err := a.CanI(ctx, admin.CanIRequest{Verb: "publish", Subject: "orders.created", Principal: "billing"}); err != nil || can.Allowed {
			t.Errorf("can-i = %+v, %v", can, err)
		}
		if list, err := a.Refusals(ctx, admin.RefusalsQuery{}, time.Second); err != nil || len(list.Entries) == 0 {
			t.Errorf("refusals = %+v, %v", list, err)
		}
	})
}

func e2eDurable(t *testing.T, pub, sub *client.Client) {
	ctx := within(t, 30*time.Second)
	const n = 500
	var futures []*client.Future
	for i := range n {
		ev := &client.Event{ID: fmt.Sprint(i), Type: "com.example.order", Data: fmt.Append(nil, i)}
		f, err := pub.PublishAsync(ctx, "orders.created", ev)
		if err != nil {
			t.Fatal(err)
		}
		futures = append(futures, f)
	}
	for i, f := range futures {
		if ack, err := f.Wait(ctx); err != nil || ack.Sequence != uint64(i+1) {
			t.Fatalf("ack %d = %+v, %v", i, ack, err)
		}
	}
	for _, opts := range [][]client.SubOption{{client.Durable("billing")}, {client.Ordered()}, {client.FromSequence(1), client.SubMaxInFlight(3)}} {
		got := make(chan *client.Delivery, n)
		s, err := sub.Subscribe(ctx, "orders.created", func(_ context.Context, d *client.Delivery) error { got <- d; return nil }, opts...)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if d := next(t, got); d.Sequence != uint64(i+1) || string(d.Event.Data) != fmt.Sprint(i) || d.Principal != "shop/checkout" {
				t.Fatalf("delivery %d = %+v", i, d)
			}
		}
		s.Drain()
		next(t, s.Closed())
		if st := s.Stats(); st.Invalid != 0 || st.Delivered != n || st.Restarts != 0 || s.Err() != nil {
			t.Errorf("stats = %+v, %v", st, s.Err())
		}
	}
}

func e2eRateLimit(t *testing.T, c *client.Client) {
	ctx := within(t, time.Minute)
	var waiting []*client.Future
	for range 100 { // all at once, so that the bucket cannot fill up again meanwhile
		p, err := c.PublishAsync(ctx, "orders.created", client.NewEvent("t", nil))
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, p)
	}
	for _, p := range waiting {
		_, err := p.Wait(ctx)
		if err == nil {
			continue
		}
		var e *client.Error
		if !errors.Is(err, client.ErrRateLimited) || !errors.As(err, &e) || e.RetryAfter <= 0 {
			t.Fatalf("error = %+v", err)
		}
		return
	}
	t.Fatal("the limit never held")
}
