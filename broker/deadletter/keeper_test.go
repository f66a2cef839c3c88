package deadletter

import (
	"errors"
	"testing"
	"time"
)

// TestKeeperIsBounded: what is taken is bounded in number, in bytes and for each tenant, and
// what is not taken is counted where it stays with its consumer.
func TestKeeperIsBounded(t *testing.T) {
	take := func(k *Keeper, n int, f Failure) (taken int) {
		for range n {
			if one := f; k.Take(&one) {
				taken++
			}
		}
		return taken
	}
	k := NewKeeper(KeeperConfig{})
	if n := take(k, keeperQueue, Failure{Tenant: "loud"}); n != keeperShare {
		t.Errorf("one tenant has %d places, want %d", n, keeperShare)
	}
	if n := take(k, 10, Failure{Tenant: "quiet"}); n != 10 {
		t.Errorf("beside it another has %d of 10", n)
	}
	if s := k.Stats(); s.Shed != keeperQueue-keeperShare || s.Waiting != keeperShare+10 {
		t.Errorf("stats %+v", s)
	}
	if n := take(k, 1, Failure{Tenant: "loud", Deliver: func() {}}); n != 0 || k.Stats().Shed != keeperQueue-keeperShare {
		t.Errorf("a delivery that goes on was counted as left behind: %d, %+v", n, k.Stats())
	}
	k = NewKeeper(KeeperConfig{})
	if n := take(k, 10, Failure{Tenant: "large", Size: keeperBytes / 4}); n != 4 {
		t.Errorf("took %d quarters of the bytes", n)
	}
	if err := k.Start(t.Context()); !errors.Is(err, ErrStore) {
		t.Errorf("start without a store: %v", err)
	}
	if err := k.Shutdown(t.Context()); err != nil || k.Take(&Failure{}) {
		t.Errorf("shut down: %v, or still taking", err)
	}
}

// TestExpired: an event is expired by its own attribute alone.
func TestExpired(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for block, want := range map[string]bool{
		"": false,
		"NATS/1.0\r\nce-expirytime: 2026-11-23T11:59:59Z\r\n\r\n":              true,
		"NATS/1.0\r\nce-id: 1\r\nce-expirytime:2026-11-23T11:59:59.5Z\r\n\r\n": true,
		"NATS/1.0\r\nce-expirytime: 2026-11-23T12:00:01Z\r\n\r\n":              false,
		"NATS/1.0\r\nce-expirytime: soon\r\n\r\n":                              false,
		"NATS/1.0\r\nx: ce-expirytime: 2026-11-23T11:59:59Z\r\n\r\n":           false,
	} {
		if got := expired([]byte(block), now); got != want {
			t.Errorf("%q: %v", block, got)
		}
	}
}
