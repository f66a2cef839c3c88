package broker_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// TestPushKeepsRevocation: a push is judged by what the stream KEYS has, too. A revocation
// that was pushed at another node, and has not come to this one, is not undone by a newer
// ring that was made without it.
func TestPushKeepsRevocation(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	api := admin.New(b.Client("root"))
	r := newRootHolder(t, b.State.RootSeed, b.State)
	p := producerKey(t, time.Hour)
	must(api.PutKeys(ctx, r.next(t, func(c *keyring.Change) error { return c.Issue(p) })))(t)
	base := r.ring
	revoked := r.next(t, func(c *keyring.Change) error { return c.Revoke(p.ID, p.NotBefore) })
	must(must(b.Inside(wire.BrokerAccount))(t).Request("keys.ring", revoked, 5*time.Second))(t)

	c := base.Change(time.Now().Add(3 * time.Second)) // its version is the higher one
	check(t, c.Issue(producerKey(t, time.Hour)))
	ring := must(c.Ring(time.Now().Add(time.Hour)))(t)
	if ring.Version() <= r.ring.Version() {
		t.Fatalf("version %d, want more than %d", ring.Version(), r.ring.Version())
	}
	if _, err := api.PutKeys(ctx, must(ring.Sign(r.seed))(t)); !errors.Is(err, client.ErrConflict) {
		t.Errorf("a keyring without the revocation: %v, want %v", err, client.ErrConflict)
	}
	if kept := must(broker.KeptRing(ctx, b.Broker))(t); !bytes.Equal(kept, revoked) {
		t.Error("the stream KEYS lost the revocation")
	}
}
