package broker_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/signing/keyring"
)

// clusterKeys is the keyring of a cluster under a root that the test holds.
type clusterKeys struct {
	c       *brokertest.Cluster
	root    []byte
	version uint64
	keys    []keyring.Key
}

func nodeName(i int) string { return fmt.Sprintf("n%d", i+1) }

func newClusterKeys(t *testing.T, c *brokertest.Cluster) *clusterKeys {
	t.Helper()
	k := &clusterKeys{c: c, version: uint64(time.Now().Unix()) + 10}
	k.root = trimmed(t, filepath.Join(filepath.Dir(filepath.Dir(c.Nodes[0].State.Dir)), "keys", "root.seed"))
	for i, n := range c.Nodes {
		k.add(t, i, must(nkeys.FromSeed(trimmed(t, n.State.NodeSeed)))(t))
	}
	return k
}

func (k *clusterKeys) add(t *testing.T, node int, pair nkeys.KeyPair) {
	t.Helper()
	now := time.Now()
	k.keys = append(k.keys, keyring.Key{
		ID: must(pair.PublicKey())(t), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: nodeName(node),
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	})
}

// renew gives the node another key, which the ring has from the next give on.
func (k *clusterKeys) renew(t *testing.T, node int) {
	t.Helper()
	pair := must(nkeys.CreateServer())(t)
	k.add(t, node, pair)
	check(t, os.WriteFile(k.c.Nodes[node].State.NodeSeed, must(pair.Seed())(t), 0o600))
}

// revoke revokes every key of the node that there is.
func (k *clusterKeys) revoke(node int) {
	for i := range k.keys {
		if k.keys[i].Principal == nodeName(node) {
			k.keys[i].RevokedAt = time.Now()
		}
	}
}

// give writes a new version of the ring for the nodes, and has them read it.
func (k *clusterKeys) give(ctx context.Context, t *testing.T, to ...int) {
	t.Helper()
	k.version++
	ring := must(keyring.New(k.version, time.Now().Add(-time.Minute), time.Now().Add(time.Hour), k.keys))(t)
	doc := must(ring.Sign(k.root))(t)
	for _, i := range to {
		check(t, os.WriteFile(k.c.Nodes[i].State.Keyring, doc, 0o600))
		check(t, k.c.Nodes[i].Reload(ctx))
	}
}

// TestClusterKeysTurn: a node gets a new key without a restart; a node whose key is
// revoked is out of the cluster at the reload of the others, whoever had dialled whom,
// and stays out; with a new key it is back.
func TestClusterKeysTurn(t *testing.T) {
	log := newLogWatch()
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: clusterPolicy, Log: log})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	keys := newClusterKeys(t, c)
	js := must(jetstream.New(c.Nodes[0].NATS("writer")))(t)
	// Refused for as long as the stream has no leader.
	publish := func() {
		t.Helper()
		eventually(t, "a publish", func() bool {
			_, err := js.PublishMsg(ctx, &nats.Msg{Subject: "orders.a", Data: []byte("x")})
			return err == nil
		})
	}
	sees := func(node int, missing ...string) {
		t.Helper()
		eventually(t, fmt.Sprintf("n%d misses %v", node+1, missing), func() bool { return slices.Equal(broker.Missing(c.Nodes[node].Broker), missing) })
	}
	whole := func() {
		t.Helper()
		for i := range c.Nodes {
			sees(i)
		}
		publish()
	}
	whole()

	keys.renew(t, 2)
	keys.give(ctx, t, 0, 1, 2)
	whole()

	keys.revoke(2)
	keys.give(ctx, t, 0, 1)
	sees(0, "n3")
	sees(1, "n3")
	sees(2, "n1", "n2")
	publish()
	// It goes on dialling, and is turned away each time.
	log.wait(ctx, t, `no valid key of node \"n3\"`)
	sees(0, "n3")
	sees(1, "n3")

	keys.renew(t, 2)
	keys.give(ctx, t, 0, 1, 2)
	whole()

	// A key that ends at a time closes the routes soon after, without a reload.
	for i := range keys.keys {
		if k := &keys.keys[i]; k.Principal == "n3" && k.RevokedAt.IsZero() {
			k.NotAfter = time.Now().Add(2 * time.Second)
		}
	}
	keys.give(ctx, t, 0, 1)
	for i := range 2 {
		eventually(t, "the key has run out", func() bool {
			broker.RecheckNodes(c.Nodes[i].Broker)
			return slices.Equal(broker.Missing(c.Nodes[i].Broker), []string{"n3"})
		})
	}
	publish()
}
