package main

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// An event that only its producer has signed proves neither publication nor time: it
// passes when that is asked for, and never with a revoked key or a broker's attributes.
func TestVerifyOfProducerOnly(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	for name, c := range map[string]struct {
		add     string // attribute put on afterwards
		revoked bool
		only    bool
		want    string // in the reason; empty: it passes
	}{
		"not asked for":            {want: "NOT attested"},
		"asked for":                {only: true},
		"authid":                   {only: true, add: wire.AttrAuthID, want: "it has authid"},
		"authtype":                 {only: true, add: wire.AttrAuthType, want: "it has authtype"},
		"attestationmaterial":      {only: true, add: wire.AttrExpanded, want: "malformed"},
		"revoked after that":       {only: true, revoked: true, want: "was revoked"},
		"revoked, and not asked":   {revoked: true, want: "was revoked"},
		"changed after it":         {only: true, add: "zone", want: "were changed"},
		"changed, and not claimed": {add: "zone", want: "were changed"},
	} {
		pair, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		seed, _ := pair.Seed()
		producer, err := signing.NewProducer(seed)
		if err != nil {
			t.Fatal(err)
		}
		key := keyring.Key{
			ID: producer.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleProducer, Principal: "shop/checkout",
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		}
		if c.revoked {
			key.RevokedAt = now.Add(time.Minute)
		}
		ring, err := keyring.New(1, now.Add(-time.Hour), now.Add(time.Hour), []keyring.Key{key})
		if err != nil {
			t.Fatal(err)
		}
		e := &cloudevent.Event{
			ID: []byte("1"), Source: []byte("/shop/checkout"), Type: []byte("t"), ContentType: []byte("text/plain"),
			Time: []byte(now.Format(time.RFC3339)), Data: []byte("x"),
		}
		e.SetExt([]byte(wire.AttrRecordedTime), signing.AppendRecordedTime(nil, now))
		if err := producer.Sign(e, "orders.x"); err != nil {
			t.Fatal(err)
		}
		e.SetExt([]byte(wire.AttrNATSSubject), []byte("orders.x"))
		if c.add != "" {
			e.SetExt([]byte(c.add), []byte("user"))
		}
		held := func() *keyring.Ring { return ring }
		v := &checker{verifier: signing.NewVerifier(held), producers: signing.NewProducerVerifier(held), ring: ring, want: producerDemand{alone: c.only}}
		p := v.check(1, cloudevent.AppendJSON(nil, e))
		if p.OK != (c.want == "") || !strings.Contains(p.Reason, c.want) {
			t.Errorf("%s: ok %v, %q; want %q", name, p.OK, p.Reason, c.want)
		}
		if p.OK && (!p.Bare || p.Principal != "" || p.Producer != "shop/checkout") {
			t.Errorf("%s: what is said of it: %+v", name, p)
		}
	}
}
