package client

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/nats-io/nkeys"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// BenchmarkVerify is what one delivery costs between nats.go and the handler:
// decode, verify (batches of 32), convert. 256 B of data.
func BenchmarkVerify(b *testing.B) {
	kp, err := nkeys.CreatePair(nkeys.PrefixByteServer)
	if err != nil {
		b.Fatal(err)
	}
	seed, _ := kp.Seed()
	public, _ := kp.PublicKey()
	signer, err := signing.NewSigner(seed)
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	ring, err := keyring.New(1, now, now.Add(time.Hour), []keyring.Key{{
		ID: public, Alg: "ed25519", Role: "broker", Principal: "n", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}})
	if err != nil {
		b.Fatal(err)
	}
	var batch signing.Batch
	events := make([]*cloudevent.Event, 1024)
	for i := range events {
		e := &cloudevent.Event{ID: []byte(NewID()), Source: []byte("/shop/checkout"), Type: []byte("com.example.order"), ContentType: []byte("application/json"), Time: []byte("2026-01-02T03:04:05Z"), Data: make([]byte, 256)}
		e.SetExt([]byte("authid"), []byte("shop/checkout"))
		e.SetExt([]byte("authtype"), []byte(wire.DefaultAuthType))
		e.SetExt([]byte("recordedtime"), signing.AppendRecordedTime(nil, now))
		batch.Add(e, []byte("orders.created"))
		events[i] = e
	}
	batch.Sign(signer)
	msgs := make([]*nats.Msg, len(events))
	for i, e := range events {
		e.SetExt([]byte("attestation"), batch.AppendAttestation(nil, i))
		msgs[i] = &nats.Msg{Subject: "orders.created", Header: headerOf(e), Data: e.Data}
	}
	s := &Subscription{client: &Client{verifier: signing.NewVerifier(func() *keyring.Ring { return ring })}, filter: "orders.>", life: ending{ctx: context.Background()}}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, _, err := s.verify(msgs[i%len(msgs)], time.Time{}); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkOutgoing is what one publish costs before nats.go.
func BenchmarkOutgoing(b *testing.B) {
	ev := &Event{Source: "/shop/checkout", Type: "com.example.order", DataContentType: ContentTypeJSON, Data: make([]byte, 256)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := outgoing("orders.created", NewID(), ev, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}
