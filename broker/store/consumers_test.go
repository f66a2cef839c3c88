package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/internal/wire"
)

func TestConsumers(t *testing.T) {
	r := applied(t, shop)
	ctx := testContext(t)
	stream, err := r.js("shop").Stream(ctx, "ORDERS")
	if err != nil {
		t.Fatal(err)
	}
	// More than two pages of the server's 256.
	const many = 600
	const stays = time.Hour // by default the first go after 5 s without interest, before the last are made
	for i := range many {
		cfg := jetstream.ConsumerConfig{
			Name: fmt.Sprintf("c%03d", i), FilterSubject: "orders.eu.>",
			Metadata: map[string]string{wire.MetaOwner: "shop/checkout"}, MemoryStorage: true, InactiveThreshold: stays,
		}
		if _, err := stream.CreateConsumer(ctx, cfg); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Name: "two", FilterSubjects: []string{"orders.a", "orders.b"}, InactiveThreshold: stays}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.CreatePushConsumer(ctx, jetstream.ConsumerConfig{Name: "whole", DeliverSubject: "x.y", InactiveThreshold: stays}); err != nil {
		t.Fatal(err)
	}
	list, err := r.store.Consumers(ctx, "shop", "ORDERS")
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != many+2 {
		t.Fatalf("%d consumers, want %d", len(list), many+2)
	}
	for i, c := range list[:many] {
		if c.Name != fmt.Sprintf("c%03d", i) || c.Owner != "shop/checkout" || !slices.Equal(c.Filters, []string{"orders.eu.>"}) || c.Push {
			t.Fatalf("consumer %d: %+v", i, c)
		}
	}
	if c := list[many]; c.Name != "two" || c.Owner != "" || !slices.Equal(c.Filters, []string{"orders.a", "orders.b"}) {
		t.Errorf("%+v", c)
	}
	if c := list[many+1]; c.Name != "whole" || len(c.Filters) != 0 || !c.Push || c.Stream != "ORDERS" {
		t.Errorf("%+v", c)
	}

	if err := r.store.DeleteConsumer(ctx, "shop", "ORDERS", "two"); err != nil {
		t.Fatal(err)
	}
	for _, gone := range [][2]string{{"ORDERS", "two"}, {"NONE", "two"}, {"ORDERS", "a.b"}} {
		if err := r.store.DeleteConsumer(ctx, "shop", gone[0], gone[1]); err != nil {
			t.Errorf("delete %v: %v", gone, err)
		}
	}
	if list, err := r.store.Consumers(ctx, "shop", "ORDERS"); err != nil || len(list) != many+1 {
		t.Errorf("%d consumers, %v", len(list), err)
	}
	for _, none := range []string{"BILLS", "NONE", "a.b"} {
		if list, err := r.store.Consumers(ctx, "shop", none); err != nil || len(list) != 0 {
			t.Errorf("%s: %v, %v", none, list, err)
		}
	}
}

// TestConsumersWhileSomeGo: what is there all the time is listed, whatever goes
// between two pages.
func TestConsumersWhileSomeGo(t *testing.T) {
	r := applied(t, shop)
	ctx := testContext(t)
	stream, err := r.js("shop").Stream(ctx, "ORDERS")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 520 {
		if _, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Name: fmt.Sprintf("c%03d", i), MemoryStorage: true}); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() {
		for i := range 200 {
			if err := stream.DeleteConsumer(ctx, fmt.Sprintf("c%03d", i)); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for busy := true; busy; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			busy = false
		default:
		}
		list, err := r.store.Consumers(ctx, "shop", "ORDERS")
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]bool{}
		for _, c := range list {
			have[c.Name] = true
		}
		for i := 200; i < 520; i++ {
			if name := fmt.Sprintf("c%03d", i); !have[name] {
				t.Fatalf("%s is missing among %d", name, len(list))
			}
		}
	}
}
