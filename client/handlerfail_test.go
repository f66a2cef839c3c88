package client_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/dlq"
)

// TestHandlerLetters: the dead letter of a handler says whether it failed or judged, in its
// words and no others, and has the bytes of the event.
func TestHandlerLetters(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: keyedPolicy})
	handle := func(_ context.Context, d *client.Delivery) error {
		switch string(d.Event.Data) {
		case "failed":
			return fmt.Errorf("order 7: %w", client.Permanent(errors.New("no such table")))
		case "judged":
			return fmt.Errorf("order 8: %w", client.Reject("amount is negative"))
		}
		return d.Term("by hand")
	}
	readOrders(t, b.Client("billing"), handle, client.Durable("d"))
	for _, data := range []string{"failed", "judged", "other"} {
		publishData(t, b.Client("checkout"), data)
	}
	want := map[string][2]string{
		"failed": {string(dlq.ReasonHandler), "order 7: no such table"},
		"judged": {string(dlq.ReasonTerminated), "order 8: amount is negative"},
		"other":  {string(dlq.ReasonTerminated), "by hand"},
	}
	for letter, err := range client.DeadLetters(within(t, time.Minute), b.Client("root"), client.DeadLetterQuery{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		r := letter.Record
		if got := [2]string{string(r.Reason), r.Detail}; got != want[string(r.Payload)] {
			t.Errorf("%s: %q, want %q", r.Payload, got, want[string(r.Payload)])
		}
		if delete(want, string(r.Payload)); len(want) == 0 {
			return
		}
	}
	t.Errorf("no letter came of %v", want)
}

// TestKeyedDrain: what runs when a client drains is settled, and nothing is taken for lost.
func TestKeyedDrain(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: keyedPolicy})
	ctx := within(t, time.Minute)
	c := b.Client("billing")
	began, goOn, drained := make(chan struct{}, 9), make(chan struct{}), make(chan error, 1)
	s, err := c.SubscribeKeyed(ctx, "orders.>", func(ctx context.Context, _ *client.Delivery) error {
		began <- struct{}{}
		select {
		case <-goOn:
		case <-ctx.Done():
		}
		return ctx.Err()
	}, client.Keyed{Group: "drain", Bucket: "groups"})
	if err != nil {
		t.Fatal(err)
	}
	publishData(t, b.Client("checkout"), "1")
	next(t, began)
	go func() { drained <- c.Drain(ctx) }()
	// The subscriptions of the partitions that are idle have ended: the drain is under way.
	for s.Partitions() == client.DefaultPartitions {
		if ctx.Err() != nil {
			t.Fatal("the idle partitions do not end")
		}
		<-time.After(10 * time.Millisecond)
	}
	close(goOn)
	if err := next(t, drained); err != nil {
		t.Error(err)
	}
	next(t, s.Closed())
	if st := s.Stats(); st != (client.KeyedStats{Delivered: 1, Taken: client.DefaultPartitions}) {
		t.Errorf("%+v", st)
	}
}
