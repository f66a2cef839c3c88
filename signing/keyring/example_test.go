package keyring_test

import (
	"fmt"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/signing/keyring"
)

// The owner of the root key publishes a ring; a reader that pins the root takes it.
func Example() {
	root, _ := nkeys.CreateOperator()
	rootSeed, _ := root.Seed()
	rootPublic, _ := root.PublicKey()
	node, _ := nkeys.CreateServer()
	nodePublic, _ := node.PublicKey()

	now := time.Now()
	ring, err := keyring.New(1, now, now.AddDate(0, 1, 0), []keyring.Key{{
		ID: nodePublic, Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "node-1",
		NotBefore: now, NotAfter: now.AddDate(0, 1, 0),
	}})
	if err != nil {
		panic(err)
	}
	doc, err := ring.Sign(rootSeed)
	if err != nil {
		panic(err)
	}

	var inUse *keyring.Ring
	got, err := keyring.Parse(doc, rootPublic, now)
	if err == nil {
		err = got.Replaces(inUse)
	}
	fmt.Println(got.Version(), len(got.Keys()), err)
	_, err = keyring.Parse(doc, rootPublic, now.AddDate(0, 1, 0))
	fmt.Println(err != nil)
	// Output:
	// 1 1 <nil>
	// true
}
