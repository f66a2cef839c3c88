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

// A key of a node has leaked. The owner of the root key revokes it in the ring in force,
// with everything that it may have signed since the leak; the ring goes to all brokers.
// In the same way a ring takes in the keys of another cluster, for a restore.
func ExampleRing_Sign() {
	root, _ := nkeys.CreateOperator()
	rootSeed, _ := root.Seed() // of keys/root.seed
	rootPublic, _ := root.PublicKey()
	inForce, leaked := ringOf(rootSeed, "node-1", "node-2") // of keys/keyring.json

	now := time.Now()
	ring, err := keyring.Parse(inForce, rootPublic, now)
	if err != nil {
		panic(err)
	}
	keys := ring.Keys() // all of them: what a key has signed verifies while the key is in the ring
	for i := range keys {
		if keys[i].ID == leaked {
			keys[i].RevokedAt = now.Add(-time.Hour)
		}
	}
	next, err := keyring.New(max(uint64(now.Unix()), ring.Version()+1), now, ring.Expires(), keys)
	if err != nil {
		panic(err)
	}
	doc, err := next.Sign(rootSeed) // write it to keys/keyring.json of every node
	if err != nil {
		panic(err)
	}

	got, err := keyring.Parse(doc, rootPublic, now)
	if err == nil {
		err = got.Replaces(ring)
	}
	key, _ := got.ByID(leaked)
	fmt.Println(len(got.Keys()), key.ValidAt(now), key.ValidAt(now.Add(-2*time.Hour)), err)
	// Output: 2 false true <nil>
}

// ringOf makes a ring for nodes and returns it with the key of the first.
func ringOf(rootSeed []byte, nodes ...string) (doc []byte, first string) {
	now := time.Now()
	keys := make([]keyring.Key, len(nodes))
	for i, name := range nodes {
		node, _ := nkeys.CreateServer()
		id, _ := node.PublicKey()
		keys[i] = keyring.Key{
			ID: id, Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: name,
			NotBefore: now.AddDate(0, -1, 0), NotAfter: now.AddDate(1, 0, 0),
		}
	}
	ring, err := keyring.New(1, now.AddDate(0, -1, 0), now.AddDate(1, 0, 0), keys)
	if err != nil {
		panic(err)
	}
	doc, err = ring.Sign(rootSeed)
	if err != nil {
		panic(err)
	}
	return doc, keys[0].ID
}
