package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
)

const oncePolicy = `tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 64MiB}
kv: [{bucket: seen, maxBytes: 1MiB, ttl: 1h}, {bucket: endless, maxBytes: 1MiB}, {bucket: short, maxBytes: 1MiB, ttl: 20s}, {bucket: tiny, maxBytes: 64KiB, ttl: 1h}]
principals:
  - {name: checkout, identities: [{nkey: '{{nkey "checkout"}}'}], publish: [orders.>], sources: [/shop/*], kv: {write: [tiny]}}
  - {name: intruder, identities: [{nkey: '{{nkey "intruder"}}'}], publish: [orders.>], sources: [/shop/*]}
  - {name: billing, identities: [{nkey: '{{nkey "billing"}}'}], subscribe: [orders.>], kv: {read: [seen, endless, short, tiny], write: [seen, endless, short, tiny]}}
  - {name: poor, identities: [{nkey: '{{nkey "poor"}}'}], subscribe: [orders.>]}
  - {name: root, identities: [{nkey: '{{nkey "root"}}'}], admin: [keys]}
`

// times counts what was handled.
type times struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *times) add(d *client.Delivery) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[string(d.Event.Data)]++
	return c.n[string(d.Event.Data)]
}

func once(t *testing.T, c *client.Client, seen client.Seen, h client.Handler) client.Handler {
	t.Helper()
	out, err := client.Once(within(t, time.Minute), c, seen, h)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func readOrders(t *testing.T, c *client.Client, h client.Handler, opts ...client.SubOption) *client.Subscription {
	t.Helper()
	s, err := c.Subscribe(within(t, time.Minute), "orders.>", h, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func publishData(t *testing.T, c *client.Client, data string) {
	t.Helper()
	if _, err := c.Publish(within(t, time.Minute), "orders.x", &client.Event{ID: data, Type: "t", Data: []byte(data)}); err != nil {
		t.Fatal(err)
	}
}

// TestOnce: what was handled is not handled again, however it comes: delivered again, by
// another consumer, to another worker at the same time.
func TestOnce(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: oncePolicy})
	pub, c := b.Client("checkout"), b.Client("billing")
	const n = 60
	for i := range n {
		publishData(t, pub, fmt.Sprint(i))
	}
	count := times{n: map[string]int{}}
	acked := make(chan string, 4*n)
	seen := client.Seen{Bucket: "seen", ByEvent: true}
	for _, name := range []string{"a", "b"} {
		// Each has every event, and again after it was handled.
		h := once(t, c, seen, func(_ context.Context, d *client.Delivery) error {
			count.add(d)
			return nil
		})
		s := readOrders(t, c, func(ctx context.Context, d *client.Delivery) error {
			if err := h(ctx, d); err != nil {
				return err
			}
			if d.NumDelivered == 1 {
				return client.Retry(time.Millisecond)
			}
			acked <- string(d.Event.Data)
			return nil
		}, client.Durable(name), client.Concurrency(8))
		defer s.Stop()
	}
	for range 2 * n {
		next(t, acked)
	}
	count.mu.Lock()
	defer count.mu.Unlock()
	for i := range n {
		if got := count.n[fmt.Sprint(i)]; got != 1 {
			t.Errorf("event %d was handled %d times", i, got)
		}
	}
}

// TestOnceIsOfThePrincipal: two principals may publish under one source. What one of them
// names like an event of the other is another event, and does not stand in its way.
func TestOnceIsOfThePrincipal(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: oncePolicy})
	c := b.Client("billing")
	got := make(chan string, 9)
	h := once(t, c, client.Seen{Bucket: "seen", ByEvent: true}, func(_ context.Context, d *client.Delivery) error {
		got <- d.Principal + " " + d.Event.ID + " " + string(d.Event.Data)
		return nil
	})
	for _, e := range []struct{ who, id, data string }{
		{"intruder", "order-1", "junk"}, {"checkout", "order-1", "the order"}, {"checkout", "end", ""},
	} {
		if _, err := b.Client(e.who).Publish(within(t, time.Minute), "orders.x", &client.Event{ID: e.id, Source: "/shop/checkout", Type: "t", Data: []byte(e.data)}); err != nil {
			t.Fatal(err)
		}
	}
	s := readOrders(t, c, h)
	defer s.Stop()
	for _, want := range []string{"shop/intruder order-1 junk", "shop/checkout order-1 the order", "shop/checkout end "} {
		if e := next(t, got); e != want {
			t.Errorf("handled %q, want %q", e, want)
		}
	}
}

// Each of principal, source and id tells events apart, and where one ends and the next begins.
func TestEventKeyTellsApart(t *testing.T) {
	seen := map[string][3]string{}
	for _, e := range [][3]string{
		{"shop/a", "/b", "c"},
		{"shop/z", "/b", "c"},
		{"shop/a", "/z", "c"},
		{"shop/a", "/b", "z"},
		{"shop/a/", "b", "c"},
		{"shop/a", "/bc", ""},
		{"shop/a", "/b1:c", ""},
		{"shop/a2:/b", "", "c"},
		{"", "shop/a/b", "c"},
	} {
		d := &client.Delivery{Principal: e[0], Event: &client.Event{Source: e[1], ID: e[2]}}
		key := client.EventKey(d)
		if was, twice := seen[key]; twice {
			t.Errorf("%q and %q have one key", e, was)
		}
		seen[key] = e
		d.NATSSubject, d.Stream, d.Sequence, d.Redrives = "orders.x", "ORDERS", 7, 1 // it came another way
		if client.EventKey(d) != key {
			t.Errorf("%q has another key when it comes another way", e)
		}
	}
}

// TestOnceFailed: an event whose handler failed is not remembered, and what the handler
// wants done with it is done.
func TestOnceFailed(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: oncePolicy})
	pub, c := b.Client("checkout"), b.Client("billing")
	got := make(chan string, 99)
	count := times{n: map[string]int{}}
	h := once(t, c, client.Seen{Bucket: "seen"}, func(_ context.Context, d *client.Delivery) error {
		n := count.add(d)
		got <- fmt.Sprint(string(d.Event.Data), n)
		switch {
		case string(d.Event.Data) == "rejected":
			return client.Reject("never")
		case string(d.Event.Data) == "nak" && n == 1:
			return d.Nak(time.Millisecond)
		case n < 3:
			return client.Retry(time.Millisecond)
		}
		return nil
	})
	s := readOrders(t, c, h, client.Durable("d"))
	defer s.Stop()
	for _, data := range []string{"rejected", "nak", "retried", "last"} {
		publishData(t, pub, data)
	}
	want := map[string]bool{"rejected1": true, "nak1": true, "nak2": true, "nak3": true, "retried1": true, "retried2": true, "retried3": true, "last1": true, "last2": true, "last3": true}
	for len(want) > 0 {
		e := next(t, got)
		if !want[e] {
			t.Fatalf("%s, while %v is wanted", e, want)
		}
		delete(want, e)
	}
}

// TestOnceKilled: a worker dies in the middle of an event; another one gets it, after the
// mark of the dead one has run out, and only then.
func TestOnceKilled(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: oncePolicy})
	pub, first, second := b.Client("checkout"), b.Client("billing"), b.Client("billing")
	seen := client.Seen{Bucket: "seen", Hold: 2 * time.Second}
	began := make(chan struct{})
	opts := []client.SubOption{client.Durable("d"), client.AckWait(time.Second)}
	s := readOrders(t, first, once(t, first, seen, func(ctx context.Context, _ *client.Delivery) error {
		close(began)
		<-ctx.Done()
		return ctx.Err()
	}), opts...)
	publishData(t, pub, "1")
	next(t, began)
	first.Close()
	next(t, s.Closed())
	got := make(chan *client.Delivery, 9)
	s2 := readOrders(t, second, once(t, second, seen, func(_ context.Context, d *client.Delivery) error { got <- d; return nil }), opts...)
	defer s2.Stop()
	if d := next(t, got); string(d.Event.Data) != "1" || d.NumDelivered < 2 {
		t.Errorf("delivery %d of %s", d.NumDelivered, d.Event.Data)
	}
	publishData(t, pub, "2")
	if d := next(t, got); string(d.Event.Data) != "2" {
		t.Errorf("then %s, delivery %d", d.Event.Data, d.NumDelivered)
	}
}

// TestOnceTaken: a worker that was cut off for longer than its mark holds learns that, and
// leaves the event to who took it over.
func TestOnceTaken(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: oncePolicy})
	link, err := brokertest.NewProxy(b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(link.Close)
	pub, first, second := b.Client("checkout"), connectVia(t, b, link.Addr(), "billing"), b.Client("billing")
	seen := client.Seen{Bucket: "seen", Hold: client.MinHold, ByEvent: true}
	began, ended := make(chan struct{}), make(chan error, 1)
	h := once(t, first, seen, func(ctx context.Context, _ *client.Delivery) error {
		close(began)
		<-ctx.Done()
		return nil
	})
	s := readOrders(t, first, func(ctx context.Context, d *client.Delivery) error {
		err := h(ctx, d)
		ended <- err
		return err
	}, client.Durable("a"))
	publishData(t, pub, "1")
	next(t, began)
	link.Set(brokertest.Link{Cut: true})
	got := make(chan *client.Delivery, 9)
	s2 := readOrders(t, second, once(t, second, seen, func(_ context.Context, d *client.Delivery) error { got <- d; return nil }), client.Durable("b"))
	defer s2.Stop()
	next(t, got) // after the mark has run out
	link.Set(brokertest.Link{})
	if err := next(t, ended); !errors.Is(err, client.ErrTaken) {
		t.Errorf("the first ends with %v", err)
	}
	s.Stop()
	next(t, s.Closed())
}

func TestOnceRefuses(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: oncePolicy})
	c, ctx := b.Client("billing"), within(t, time.Minute)
	none := func(context.Context, *client.Delivery) error { return nil }
	for _, tt := range []struct {
		name string
		c    *client.Client
		seen client.Seen
		h    client.Handler
		want error
	}{
		{"no handler", c, client.Seen{Bucket: "seen"}, nil, client.ErrInvalidOption},
		{"no bucket", c, client.Seen{}, none, client.ErrInvalidOption},
		{"no ttl", c, client.Seen{Bucket: "endless"}, none, client.ErrInvalidOption},
		{"hold over the ttl", c, client.Seen{Bucket: "short"}, none, client.ErrInvalidOption},
		{"hold", c, client.Seen{Bucket: "seen", Hold: time.Millisecond}, none, client.ErrInvalidOption},
		{"set", c, client.Seen{Bucket: "seen", Set: "a.b"}, none, client.ErrInvalidOption},
		{"no such bucket", c, client.Seen{Bucket: "nowhere"}, none, client.ErrDenied},
		{"not granted", b.Client("poor"), client.Seen{Bucket: "seen"}, none, client.ErrDenied},
	} {
		if _, err := client.Once(ctx, tt.c, tt.seen, tt.h); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	// Where nothing can be remembered, nothing is handled.
	js, err := b.NATS("billing").JetStream()
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue("tiny")
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1024, 0} {
		for i := 0; err == nil; i++ {
			_, err = kv.Put(fmt.Sprintf("%d-%d", size, i), make([]byte, size))
		}
		err = nil
	}
	told := make(chan error, 9)
	h := once(t, c, client.Seen{Bucket: "tiny"}, func(context.Context, *client.Delivery) error {
		t.Error("an event was handled that could not be marked")
		return nil
	})
	s := readOrders(t, c, func(ctx context.Context, d *client.Delivery) error {
		err := h(ctx, d)
		told <- err
		return client.Reject("enough")
	})
	defer s.Stop()
	publishData(t, b.Client("checkout"), "1")
	if err := next(t, told); err == nil {
		t.Error("a full bucket is no error")
	}
}

// TestOncePanics: where a middleware catches what the handler panics with, the mark is not kept
// for the rest of the process.
func TestOncePanics(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: oncePolicy})
	c := b.Client("billing")
	got := make(chan uint64, 9)
	h := once(t, c, client.Seen{Bucket: "seen", Hold: client.MinHold}, func(_ context.Context, d *client.Delivery) error {
		if got <- d.NumDelivered; d.NumDelivered == 1 {
			panic("poison")
		}
		return nil
	})
	s := readOrders(t, c, func(ctx context.Context, d *client.Delivery) (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = client.Retry(time.Millisecond)
			}
		}()
		return h(ctx, d)
	}, client.Durable("d"))
	defer s.Stop()
	publishData(t, b.Client("checkout"), "1")
	if next(t, got) != 1 || next(t, got) == 1 {
		t.Error("the first delivery came twice")
	}
}

// TestOnceNotRemembered: what was handled is not handled again because its mark cannot be
// written, and that is said.
func TestOnceNotRemembered(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: oncePolicy})
	js, err := b.NATS("billing").JetStream()
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue("seen")
	if err != nil {
		t.Fatal(err)
	}
	told, ended := make(chan error, 9), make(chan error, 9)
	c := b.Client("billing", client.WithErrorHandler(func(err error) { told <- err }))
	h := once(t, c, client.Seen{Bucket: "seen", ByEvent: true}, func(_ context.Context, d *client.Delivery) error {
		_, err := kv.Put("once."+client.EventKey(d), []byte("somebody else's"))
		return err
	})
	s := readOrders(t, c, func(ctx context.Context, d *client.Delivery) error {
		err := h(ctx, d)
		ended <- err
		return err
	}, client.Durable("d"))
	defer s.Stop()
	publishData(t, b.Client("checkout"), "1")
	if err := next(t, ended); err != nil {
		t.Errorf("it was handled, and comes again for %v", err)
	}
	if err := next(t, told); err == nil || !strings.Contains(err.Error(), "not remembered") {
		t.Errorf("told %v", err)
	}
}
