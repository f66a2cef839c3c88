package broker_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// TestClusterKeysSpread: a keyring that is pushed at one node is in force and on disk at
// all that are up; a node that was down gets it when it is back, whoever of the others
// is left to ask; a keyring that came as a file to one node, without a quorum, comes to
// the others; a node that is cut off loses its routes.
func TestClusterKeysSpread(t *testing.T) {
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: strings.Replace(clusterPolicy, "dlq]", "dlq, keys]", 1)})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r := newRootHolder(t, filepath.Join(filepath.Dir(filepath.Dir(c.Nodes[0].State.Dir)), "keys", "root.seed"), c.Nodes[0].State)
	issue := func() []byte {
		t.Helper()
		return r.next(t, func(c *keyring.Change) error { return c.Issue(producerKey(t, time.Hour)) })
	}
	has := func(node int, doc []byte) {
		t.Helper()
		eventually(t, nodeName(node)+" has the keyring", func() bool {
			file, err := os.ReadFile(c.Nodes[node].State.Keyring)
			return err == nil && bytes.Equal(file, doc) && broker.RingVersion(c.Nodes[node].Broker) == r.ring.Version()
		})
	}
	c.Stop(2)
	doc := issue()
	put := must(admin.New(c.Nodes[0].Client("root")).PutKeys(ctx, doc))(t)
	if !slices.Equal(put.InForce, []string{"n1", "n2"}) || !slices.Equal(put.Waiting, []string{"n3"}) {
		t.Errorf("put: %+v", put)
	}
	has(0, doc)
	has(1, doc)
	c.Start(2)
	has(2, doc)

	// n3 alone has no quorum. It takes a keyring, and brings it to who comes back.
	c.Stop(0)
	c.Stop(1)
	doc = issue()
	check(t, os.WriteFile(c.Nodes[2].State.Keyring, doc, 0o600))
	eventually(t, "a node without a quorum takes it", func() bool { return c.Nodes[2].Reload(ctx) == nil })
	has(2, doc)
	c.Start(0)
	has(0, doc)
	c.Start(1)
	has(1, doc)

	// The stolen key of n3: pushed at n1, it is out of the cluster.
	stolen := r.keyOf(t, "n3")
	doc = r.next(t, func(c *keyring.Change) error { return c.Revoke(stolen.ID, time.Now()) })
	api := admin.New(c.Nodes[0].Client("root"))
	if _, err := api.PutKeys(ctx, doc); err == nil || !strings.Contains(err.Error(), "--cut-off n3") {
		t.Errorf("a push that cuts n3 off: %v", err)
	}
	must(api.PutKeys(ctx, doc, "n3"))(t)
	for i := range 2 {
		has(i, doc)
		eventually(t, "n3 is out", func() bool { return slices.Equal(broker.Missing(c.Nodes[i].Broker), []string{"n3"}) })
	}
	brokertest.PublishNumbers(ctx, t, c.Nodes[0].Client("writer"), "orders.a", 0, 5)
}

// TestReaderFollowsThePush: a reader that is connected takes a keyring that is pushed
// without a reconnect, remembers it over a restart, and refuses an older one then.
func TestReaderFollowsThePush(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	api := admin.New(b.Client("root"))
	r := newRootHolder(t, b.State.RootSeed, b.State)
	before := must(os.ReadFile(b.State.Keyring))(t)
	memory := filepath.Join(t.TempDir(), "ring.json")
	lost := make(chan struct{}, 1)
	b.Client("wide", client.WithKeyringMemory(memory), client.WithStateHandler(func(connected bool, _ error) {
		if !connected {
			lost <- struct{}{}
		}
	}))
	var doc []byte
	for range 3 {
		doc = r.next(t, func(c *keyring.Change) error { return c.Issue(producerKey(t, time.Hour)) })
		began := time.Now()
		must(api.PutKeys(ctx, doc))(t)
		eventually(t, "the reader has it", func() bool { return bytes.Equal(must(os.ReadFile(memory))(t), doc) })
		t.Logf("the reader had it after %s", time.Since(began))
	}
	select {
	case <-lost:
		t.Error("it lost its connection")
	default:
	}
	// Somebody gives the next run an older keyring, signed by the right root.
	old := filepath.Join(t.TempDir(), "old.json")
	check(t, os.WriteFile(old, before, 0o600))
	connect := func(opts ...client.Option) error {
		c, err := client.Connect(ctx, b.URL(), append([]client.Option{
			client.WithNkeySeedFile(b.Cred("wide")), client.WithTLSRoots(b.State.CA), client.WithRoot(r.pub),
		}, opts...)...)
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := connect(client.WithKeyringMemory(memory), client.WithKeyringFile(old)); err == nil || !strings.Contains(err.Error(), "older than the one in use") {
		t.Errorf("an older keyring after a restart: %v", err)
	}
	check(t, connect(client.WithKeyringMemory(memory)))
	check(t, connect(client.WithKeyringFile(old))) // only the memory knows better
	check(t, os.WriteFile(memory, []byte("{}"), 0o600))
	if err := connect(client.WithKeyringMemory(memory)); err == nil || !strings.Contains(err.Error(), "if it is damaged") {
		t.Errorf("a damaged memory: %v", err)
	}
	_, otherRoot := newPair(t, nkeys.CreateOperator)
	check(t, os.WriteFile(memory, must(r.ring.Sign(otherRoot))(t), 0o600))
	if err := connect(client.WithKeyringMemory(memory)); err == nil {
		t.Error("a memory of another root was taken")
	}
}

// TestClusterEventKeyTurnsAndIsRevoked: a producer goes over to another event key under load,
// and nothing is refused. The old key is revoked at one node: in seconds no node takes what it
// signs, nothing of the new one is refused, and what it signed before stays good.
func TestClusterEventKeyTurnsAndIsRevoked(t *testing.T) {
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: strings.Replace(clusterPolicy, "dlq]", "dlq, keys]", 1)})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r := newRootHolder(t, filepath.Join(filepath.Dir(filepath.Dir(c.Nodes[0].State.Dir)), "keys", "root.seed"), c.Nodes[0].State)
	api := admin.New(c.Nodes[0].Client("root"))
	push := func(change func(*keyring.Change) error) {
		t.Helper()
		if put := must(api.PutKeys(ctx, r.next(t, change)))(t); len(put.InForce) != 3 {
			t.Fatalf("in force at %v only", put.InForce)
		}
	}
	writers := func(seed []byte) (all []*client.Client) {
		for _, n := range c.Nodes {
			all = append(all, n.Client("writer", client.WithEventKey(seed)))
		}
		return all
	}
	reader := func(o client.Option) *client.Client { return c.Nodes[2].Client("reader", o) }

	old := producerKey(t, time.Hour)
	var oldSeed []byte
	old.ID, oldSeed = newPair(t, nkeys.CreateAccount)
	push(func(c *keyring.Change) error { return c.Issue(old) })
	first := startLoad(t, "old", writers(oldSeed), reader)
	eventually(t, "events by the old key", func() bool { return first.attestedBy(old.ID) > 5 })

	id, seed := newPair(t, nkeys.CreateAccount)
	now := time.Now()
	push(func(c *keyring.Change) error {
		return c.Rotate(old.ID, id, now.Add(-time.Minute), now.Add(time.Hour), now.Add(10*time.Minute))
	})
	second := startLoad(t, "new", writers(seed), reader)
	eventually(t, "events by both keys", func() bool { return second.attestedBy(id) > 5 && second.attestedBy(old.ID) > 5 })
	first.finish(t)

	// What it signed in the second of the revocation would be in doubt.
	until := time.Now().Truncate(time.Second).Add(time.Second)
	eventually(t, "the next second", func() bool { return !time.Now().Before(until) })
	thieves := writers(oldSeed)
	start := time.Now()
	push(func(c *keyring.Change) error { return c.Revoke(old.ID, start) })
	for i, thief := range thieves {
		for {
			var refused *client.Error
			_, err := thief.Publish(ctx, "orders.a", &client.Event{Data: []byte("x")}, client.WithoutRetry())
			if errors.As(err, &refused) && refused.Code == int(wire.CodeProducerKeyNotValid) {
				break
			}
			if took := time.Since(start); took > revokedWithin {
				t.Fatalf("%s takes events of a revoked key after %s: %v", nodeName(i), took, err)
			}
		}
	}
	t.Logf("refused at all nodes %s after the push", time.Since(start))
	count := second.attestedBy(id)
	eventually(t, "the new key goes on", func() bool { return second.attestedBy(id) > count+5 })
	second.finish(t)

	good := first.attestedBy(old.ID)
	var invalid, had atomic.Int64
	fresh := c.Nodes[1].Client("reader", client.WithInvalidHandler(func(client.InvalidEvent) { invalid.Add(1) }))
	sub := must(fresh.Subscribe(ctx, "orders.>", func(_ context.Context, d *client.Delivery) error {
		if d.Producer.KeyID == old.ID {
			had.Add(1)
		}
		return nil
	}, client.FromStart(), client.RequireProducer("shop/writer")))(t)
	defer sub.Stop()
	eventually(t, "what the revoked key signed before", func() bool { return had.Load() >= int64(good) })
	if n := invalid.Load(); n != 0 {
		t.Errorf("%d events that were stored before the revocation do not verify", n)
	}
}
