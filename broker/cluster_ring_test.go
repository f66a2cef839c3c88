package broker_test

import (
	"bytes"
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/signing/keyring"
)

// TestClusterKeyringReachesAll: a node that was away has the newest keyring before it
// lets anybody in; two keyrings of one version do not pass for the same; without a quorum
// a revocation is in force in seconds while a reload waits, and the node stops in seconds.
func TestClusterKeyringReachesAll(t *testing.T) {
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: strings.Replace(clusterPolicy, "dlq]", "dlq, keys]", 1)})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	keys := newClusterKeys(t, c)
	node := func(i int) *broker.Broker { return c.Nodes[i].Broker }
	everywhere := func(want bool) {
		t.Helper()
		eventually(t, "the keyring is the same everywhere", func() bool { return broker.RingEverywhere(ctx, node(0)) == want })
	}
	keys.give(ctx, t, 0, 1, 2)
	everywhere(true)

	// The same version with other content at the other two.
	id := must(must(nkeys.CreateAccount())(t).PublicKey())(t)
	version := keys.version + 1
	docs := [][]byte{ringOfNodes(t, keys, version)}
	keys.keys = append(keys.keys, keyring.Key{
		ID: id, Alg: keyring.AlgEd25519, Role: keyring.RoleProducer, Principal: "shop/writer", NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	})
	docs = append(docs, ringOfNodes(t, keys, version))
	for i, n := range c.Nodes {
		check(t, os.WriteFile(n.State.Keyring, docs[min(i, 1)], 0o600))
	}
	for _, n := range c.Nodes {
		check(t, n.Reload(ctx))
	}
	if bytes.Equal(docs[0], docs[1]) || broker.RingVersion(node(0)) != version || broker.RingVersion(node(1)) != version {
		t.Fatalf("versions %d and %d, want %d", broker.RingVersion(node(0)), broker.RingVersion(node(1)), version)
	}
	everywhere(false)
	keys.version = version
	keys.give(ctx, t, 0, 1, 2)
	everywhere(true)

	// n3 is away while a keyring is pushed. What it has of before is older.
	c.Stop(2)
	api := admin.New(c.Nodes[0].Client("root"))
	keys.version++
	put := must(api.PutKeys(ctx, ringOfNodes(t, keys, keys.version)))(t)
	if !slices.Equal(put.InForce, []string{"n1", "n2"}) || !slices.Equal(put.Waiting, []string{"n3"}) || !put.Kept || put.Faults["n3"] == "" {
		t.Errorf("put: %+v", put)
	}
	c.Start(2)
	if v := broker.RingVersion(node(2)); v != keys.version {
		t.Errorf("n3 started with version %d, want %d", v, keys.version)
	}

	// Two nodes go, and the third one reloads a policy that it can bring to no quorum.
	c.Stop(2)
	c.Stop(1)
	text := string(must(os.ReadFile(c.Nodes[0].State.Policy))(t))
	check(t, os.WriteFile(c.Nodes[0].State.Policy, []byte(edit(t, text, "maxBytes: 64MiB", "maxBytes: 65MiB")), 0o600))
	reloaded := make(chan error, 1)
	go func() { reloaded <- node(0).Reload(context.WithoutCancel(ctx)) }()
	eventually(t, "the reload is at work", func() bool { return broker.Reloading(node(0)) })
	keys.version++
	began := time.Now()
	put = must(api.PutKeys(ctx, ringOfNodes(t, keys, keys.version)))(t)
	if took := time.Since(began); took > waitsForNobody {
		t.Errorf("a push took %s", took)
	}
	if !slices.Equal(put.InForce, []string{"n1"}) || put.Kept || broker.RingVersion(node(0)) != keys.version {
		t.Errorf("put without a quorum: %+v, version %d", put, broker.RingVersion(node(0)))
	}
	select {
	case err := <-reloaded:
		t.Fatalf("the reload waited for nothing: %v", err)
	default:
	}
	began = time.Now()
	c.Stop(0)
	if took := time.Since(began); took > waitsForNobody {
		t.Errorf("the stop took %s", took)
	}
	if err := <-reloaded; err == nil {
		t.Error("a reload without a quorum went well")
	}
}

// waitsForNobody bounds what must not wait for a reload, which takes minutes, on a
// machine that is busy: half a minute of time-outs are in it.
const waitsForNobody = 45 * time.Second

func ringOfNodes(t *testing.T, k *clusterKeys, version uint64) []byte {
	t.Helper()
	ring := must(keyring.New(version, time.Now().Add(-time.Minute), time.Now().Add(time.Hour), k.keys))(t)
	return must(ring.Sign(k.root))(t)
}
