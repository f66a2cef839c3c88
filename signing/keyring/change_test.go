package keyring

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
)

func nodeKeyOf(t *testing.T, n byte, principal string, from, until time.Time) Key {
	t.Helper()
	return Key{ID: public(t, seed(t, nkeys.PrefixByteServer, n)), Alg: AlgEd25519, Role: RoleBroker, Principal: principal, NotBefore: from, NotAfter: until}
}

func TestChange(t *testing.T) {
	now := day1.Add(time.Hour)
	first := nodeKeyOf(t, 21, "n1", day1, day1.AddDate(1, 0, 0))
	ring, err := New(7, day1, day1.AddDate(1, 0, 0), []Key{first})
	if err != nil {
		t.Fatal(err)
	}
	next := public(t, seed(t, nkeys.PrefixByteServer, 22))
	c := ring.Change(now)
	if err := c.Rotate(first.ID, next, now.Add(30*time.Minute), now.AddDate(2, 0, 0), now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	turned, err := c.Ring(now.AddDate(1, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(turned.Replaces(ring), turned.Keeps(ring, now)); err != nil {
		t.Errorf("a rotation: %v", err)
	}
	was, _ := turned.ByID(first.ID)
	is, ok := turned.ByID(next)
	if !ok || is.Principal != "n1" || is.Role != RoleBroker || !was.NotAfter.Equal(now.Add(time.Hour)) || !is.NotBefore.Before(was.NotAfter) {
		t.Errorf("rotated: %+v, %+v", was, is)
	}
	// At no instant of the change is there none that may sign.
	for at := now; at.Before(now.Add(2 * time.Hour)); at = at.Add(time.Minute) {
		if !was.ValidAt(at) && !is.ValidAt(at) {
			t.Fatalf("no key at %s", at)
		}
	}
	// Pushed when the old key has ended: what it signed in between would be lost.
	if err := turned.Keeps(ring, now.Add(time.Hour)); !errors.Is(err, ErrBreaks) {
		t.Errorf("an end that is over: %v", err)
	}

	c = turned.Change(now)
	if err := c.Revoke(first.ID, now); err != nil {
		t.Fatal(err)
	}
	if err := c.Revoke(first.ID, now.Add(time.Minute)); !errors.Is(err, ErrInvalid) {
		t.Errorf("a revocation moved to a later time: %v", err)
	}
	if err := c.Revoke(first.ID, now.Add(-time.Minute)); err != nil {
		t.Errorf("a revocation moved to an earlier time: %v", err)
	}
	revoked, err := c.Ring(now.AddDate(1, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(revoked.Replaces(turned), revoked.Keeps(turned, now)); err != nil {
		t.Errorf("a revocation: %v", err)
	}
	if err := turned.Keeps(revoked, now); !errors.Is(err, ErrBreaks) {
		t.Errorf("a revocation undone: %v", err)
	}
}

func TestChangeRefuses(t *testing.T) {
	now := day1.Add(time.Hour)
	good := nodeKeyOf(t, 21, "n1", day1, day1.AddDate(1, 0, 0))
	gone := nodeKeyOf(t, 22, "n1", day1, now)
	bad := nodeKeyOf(t, 23, "n1", day1, day1.AddDate(1, 0, 0))
	bad.RevokedAt = now.Add(-time.Minute)
	ring, err := New(7, day1, day1.AddDate(1, 0, 0), []Key{good, gone, bad})
	if err != nil {
		t.Fatal(err)
	}
	next := public(t, seed(t, nkeys.PrefixByteServer, 24))
	rotate := func(id, to string, from, end time.Time) error {
		return ring.Change(now).Rotate(id, to, from, now.AddDate(1, 0, 0), end)
	}
	for _, tt := range []struct {
		name string
		err  error
		want error
	}{
		{"issue twice", ring.Change(now).Issue(good), ErrKeyHeld},
		{"rotate to a held key", rotate(good.ID, gone.ID, now, now.Add(time.Hour)), ErrKeyHeld},
		{"rotate an unknown key", rotate(next, next, now, now.Add(time.Hour)), ErrNoKey},
		{"rotate an ended key", rotate(gone.ID, next, now, now.Add(time.Hour)), ErrInvalid},
		{"rotate a revoked key", rotate(bad.ID, next, now, now.Add(time.Hour)), ErrInvalid},
		{"a gap", rotate(good.ID, next, now.Add(2*time.Hour), now.Add(time.Hour)), ErrInvalid},
		{"end now", rotate(good.ID, next, now.Add(-time.Hour), now), ErrInvalid},
		{"begins after the old key's own end", rotate(good.ID, next, day1.AddDate(2, 0, 0), day1.AddDate(3, 0, 0)), ErrInvalid},
		{"revoke an unknown key", ring.Change(now).Revoke(next, now), ErrNoKey},
	} {
		if !errors.Is(tt.err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, tt.err, tt.want)
		}
	}
}

func TestKeeps(t *testing.T) {
	now := day1.Add(time.Hour)
	base := nodeKeyOf(t, 21, "n1", day1, day1.AddDate(1, 0, 0))
	base.RevokedAt = now
	old, err := New(7, day1, day1.AddDate(1, 0, 0), []Key{base})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		edit func(k *Key)
		want bool
	}{
		{"the same", func(*Key) {}, false},
		{"revoked earlier", func(k *Key) { k.RevokedAt = day1 }, false},
		{"ends later", func(k *Key) { k.NotAfter = k.NotAfter.AddDate(1, 0, 0) }, false},
		{"ends sooner, in the future", func(k *Key) { k.NotAfter = now.Add(time.Minute) }, false},
		{"ends sooner, in the past", func(k *Key) { k.NotAfter = now }, true},
		{"begins later", func(k *Key) { k.NotBefore = now.Add(-time.Minute) }, true},
		{"not revoked", func(k *Key) { k.RevokedAt = time.Time{} }, true},
		{"revoked later", func(k *Key) { k.RevokedAt = now.Add(time.Second) }, true},
		{"another holder", func(k *Key) { k.Principal = "n2" }, true},
		{"gone", func(k *Key) { k.ID = public(t, seed(t, nkeys.PrefixByteServer, 22)) }, true},
	} {
		k := base
		tt.edit(&k)
		r, err := New(8, day1, day1.AddDate(1, 0, 0), []Key{k})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Keeps(old, now); errors.Is(err, ErrBreaks) != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if err := old.Keeps(nil, now); err != nil {
		t.Error(err)
	}
}
