package signing_test

import (
	"fmt"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// A broker attests a batch, a reader verifies one of its events.
func Example() {
	pair, _ := nkeys.CreateServer()
	seed, _ := pair.Seed()
	signer, err := signing.NewSigner(seed)
	if err != nil {
		panic(err)
	}
	now := time.Now()

	// The broker.
	var batch signing.Batch
	events := make([]*cloudevent.Event, 3)
	for i := range events {
		e := &cloudevent.Event{
			ID: fmt.Appendf(nil, "order-%d", i), Source: []byte("/shop/checkout"),
			Type: []byte("order.created"), Data: []byte(`{"amount":12.5}`),
		}
		e.SetExt([]byte("authid"), []byte("shop/checkout"))
		e.SetExt([]byte("authtype"), []byte("service_account"))
		e.SetExt([]byte("recordedtime"), signing.AppendRecordedTime(nil, now))
		events[i] = e
		if batch.Add(e, []byte("orders.eu.created")) < 0 {
			panic("the event cannot be attested: refuse it")
		}
	}
	batch.Sign(signer)
	for i, e := range events {
		e.SetExt([]byte("attestation"), batch.AppendAttestation(nil, i))
	}

	// The reader.
	ring, err := keyring.New(1, now, now.Add(time.Hour), []keyring.Key{{
		ID: signer.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "node-1",
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
	}})
	if err != nil {
		panic(err)
	}
	verifier := signing.NewVerifier(func() *keyring.Ring { return ring })
	got, err := verifier.Verify(events[1], "orders.eu.created")
	fmt.Println(got.Principal, got.NATSSubject, got.Batch, err)
	_, err = verifier.Verify(events[1], "orders.us.created")
	fmt.Println(err)
	// Output:
	// shop/checkout orders.eu.created 3 <nil>
	// signing: signature does not match the event
}
