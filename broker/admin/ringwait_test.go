package admin

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// TestRingWaiters: readers that wait are bounded, in all and per principal; each is
// answered by one only; after the end nobody waits.
func TestRingWaiters(t *testing.T) {
	var w ringWaiters
	add := func(principal string, wait time.Duration, late func(*ringWaiter)) (*ringWaiter, bool) {
		return w.add(&call{Principal: principal, msg: &nats.Msg{}}, wait, late)
	}
	never := func(*ringWaiter) { t.Error("a waiter was late after an hour") }
	for i := range maxRingWaitsEach {
		if _, ok := add("shop/a", time.Hour, never); !ok {
			t.Fatalf("the reader %d was turned away", i)
		}
	}
	if _, ok := add("shop/a", time.Hour, never); ok {
		t.Error("one principal may have them all")
	}
	x, ok := add("shop/b", time.Hour, never)
	if !ok {
		t.Fatal("another principal was turned away")
	}
	if !w.take(x) || w.take(x) {
		t.Error("a waiter is taken once")
	}
	for i := range maxRingWaiters - maxRingWaitsEach {
		if _, ok := add("shop/b", time.Hour, never); !ok {
			t.Fatalf("the reader %d of the other was turned away", i)
		}
	}
	if _, ok := add("shop/c", time.Hour, never); ok {
		t.Error("more wait than may in all")
	}
	if n := len(w.takeAll(false)); n != maxRingWaiters || len(w.all) != 0 || len(w.of) != 0 {
		t.Errorf("%d taken, %d left of %d principals", n, len(w.all), len(w.of))
	}
	late := make(chan *ringWaiter, 1)
	x, _ = add("shop/a", time.Millisecond, func(x *ringWaiter) { late <- x })
	select {
	case got := <-late:
		if got != x || w.take(x) {
			t.Error("the one that is late is taken")
		}
	case <-time.After(time.Minute):
		t.Fatal("nobody is late")
	}
	w.takeAll(true)
	if _, ok := add("shop/a", time.Hour, never); ok {
		t.Error("somebody waits after the end")
	}
}
