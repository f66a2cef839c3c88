package broker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// rootHolder makes versions of the keyring, as the commands do.
type rootHolder struct {
	seed []byte
	pub  string
	ring *keyring.Ring // the last version
}

func newRootHolder(t testing.TB, seedFile string, st *broker.State) *rootHolder {
	t.Helper()
	r := &rootHolder{seed: trimmed(t, seedFile), pub: st.Root}
	r.ring = must(keyring.Parse(must(os.ReadFile(st.Keyring))(t), r.pub, time.Now()))(t)
	return r
}

// sign makes the next version and does not keep it.
func (r *rootHolder) sign(t testing.TB, life time.Duration, change func(*keyring.Change) error) (*keyring.Ring, []byte) {
	t.Helper()
	c := r.ring.Change(time.Now())
	check(t, change(c))
	ring := must(c.Ring(time.Now().Add(life)))(t)
	return ring, must(ring.Sign(r.seed))(t)
}

func (r *rootHolder) next(t testing.TB, change func(*keyring.Change) error) []byte {
	t.Helper()
	ring, doc := r.sign(t, time.Hour, change)
	r.ring = ring
	return doc
}

func (r *rootHolder) keyOf(t testing.TB, principal string) keyring.Key {
	t.Helper()
	for _, k := range r.ring.Keys() {
		if k.Principal == principal && k.ValidAt(time.Now()) {
			return k
		}
	}
	t.Fatalf("no key of %s", principal)
	return keyring.Key{}
}

func newPair(t testing.TB, create func() (nkeys.KeyPair, error)) (id string, seed []byte) {
	t.Helper()
	pair := must(create())(t)
	return must(pair.PublicKey())(t), must(pair.Seed())(t)
}

func producerKey(t testing.TB, life time.Duration) keyring.Key {
	t.Helper()
	id, _ := newPair(t, nkeys.CreateAccount)
	return keyring.Key{
		ID: id, Alg: keyring.AlgEd25519, Role: keyring.RoleProducer, Principal: "shop/writer",
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life),
	}
}

// ringAt returns the version that a reader of the node is given.
func ringAt(t testing.TB, nc *nats.Conn) uint64 {
	t.Helper()
	m := must(nc.Request(adminapi.SubjectKeysRing, nil, patience))(t)
	var a adminapi.KeyRing
	check(t, adminapi.DecodeAnswer(m.Data, &a))
	return a.Version
}

// TestKeysPush: a keyring that is pushed is in force, on disk and with a reader that
// waits; one that must not be is refused with the reason, and changes nothing.
func TestKeysPush(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	api := admin.New(b.Client("root"))
	r := newRootHolder(t, b.State.RootSeed, b.State)
	wide := b.NATS("wide")
	waits := must(wide.SubscribeSync(nats.NewInbox()))(t)
	check(t, wide.PublishRequest(adminapi.SubjectKeysRing, waits.Subject, fmt.Appendf(nil, `{"after":%d,"waitMs":300000}`, r.ring.Version())))
	check(t, wide.Flush())

	old := r.ring
	doc := r.next(t, func(c *keyring.Change) error { return c.Issue(producerKey(t, time.Hour)) })
	put := must(api.PutKeys(ctx, doc))(t)
	if put.Version != r.ring.Version() || len(put.InForce) != 1 || len(put.Waiting) != 0 {
		t.Errorf("put: %+v", put)
	}
	var told adminapi.KeyRing
	check(t, adminapi.DecodeAnswer(must(waits.NextMsg(patience))(t).Data, &told))
	if told.Version != r.ring.Version() || !bytes.Equal(told.Document, doc) {
		t.Errorf("the reader that waited got version %d", told.Version)
	}
	onDisk := func() bool { return bytes.Equal(must(os.ReadFile(b.State.Keyring))(t), doc) }
	if !onDisk() {
		t.Error("it is not on disk")
	}
	if kept, err := broker.KeptRing(ctx, b.Broker); err != nil || !bytes.Equal(kept, doc) {
		t.Errorf("the stream does not have it: %v", err)
	}
	if again := must(api.PutKeys(ctx, doc))(t); again.Version != put.Version {
		t.Errorf("pushed once more: %+v", again)
	}

	node := r.keyOf(t, "test")
	_, otherSeed := newPair(t, nkeys.CreateOperator)
	none := func(*keyring.Change) error { return nil }
	signed := func(life time.Duration, change func(*keyring.Change) error) []byte {
		_, doc := r.sign(t, life, change)
		return doc
	}
	ring, _ := r.sign(t, time.Hour, none)
	fresh := func(version uint64, issued, expires time.Time, keys []keyring.Key) []byte {
		return must(must(keyring.New(version, issued, expires, keys))(t).Sign(r.seed))(t)
	}
	now := time.Now()
	for _, tt := range []struct {
		name, want string
		doc        []byte
		cutOff     []string
	}{
		{"another root", "not signed by the root key", must(ring.Sign(otherSeed))(t), nil},
		{"an older version", "older than the one in use", must(old.Sign(r.seed))(t), nil},
		{"the same version with other keys", "older than the one in use", fresh(r.ring.Version(), now, now.Add(time.Hour), old.Keys()), nil},
		{"expired", "has expired", fresh(r.ring.Version()+1, now.Add(-2*time.Hour), now.Add(-time.Hour), r.ring.Keys()), nil},
		{"signed by a clock an hour ahead", "set the clock that is wrong", fresh(r.ring.Version()+1, now.Add(time.Hour), now.Add(2*time.Hour), r.ring.Keys()), nil},
		{"a key is gone", "is gone", fresh(r.ring.Version()+1, now, now.Add(time.Hour), old.Keys()), nil},
		{"a clock an hour behind ends a key in the past", "which is over", signed(time.Hour, func(c *keyring.Change) error {
			late := r.ring.Change(now.Add(-time.Hour))
			*c = *late
			id, _ := newPair(t, nkeys.CreateServer)
			return c.Rotate(node.ID, id, now.Add(-time.Hour), now.Add(time.Hour), now.Add(-30*time.Minute))
		}), nil},
		{"the node's key is revoked", "--cut-off test", signed(time.Hour, func(c *keyring.Change) error { return c.Revoke(node.ID, now) }), nil},
		{"a node that loses no key", "is no node, or loses no key", signed(time.Hour, none), []string{"test"}},
		{"no keyring", "encoding", []byte("{}"), nil},
	} {
		_, err := api.PutKeys(ctx, tt.doc, tt.cutOff...)
		if !errors.Is(err, client.ErrConflict) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if v := ringAt(t, wide); v != r.ring.Version() || !onDisk() {
		t.Errorf("version %d after refusals, want %d", v, r.ring.Version())
	}
	if _, err := admin.New(b.Client("wide")).PutKeys(ctx, doc); !errors.Is(err, client.ErrDenied) {
		t.Errorf("without the grant: %v", err)
	}
}

// TestRevocationOnTheBus: what was recorded before the revocation stays good for a
// reader that is connected and for a new one, what was recorded after it does not; the
// node attests nothing any more, and does with a new key.
func TestRevocationOnTheBus(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	api := admin.New(b.Client("root"))
	r := newRootHolder(t, b.State.RootSeed, b.State)
	node := r.keyOf(t, "test")
	writer := b.Client("writer")
	must(writer.Publish(ctx, "orders.a", &client.Event{Data: []byte("before")}))(t)
	second := time.Now().Truncate(time.Second).Add(time.Second)
	eventually(t, "the next second", func() bool { return !time.Now().Before(second) })
	must(writer.Publish(ctx, "orders.a", &client.Event{Data: []byte("after")}))(t)

	live := b.Client("wide", client.WithInvalidHandler(func(client.InvalidEvent) {}))
	doc := r.next(t, func(c *keyring.Change) error { return c.Revoke(node.ID, second) })
	must(api.PutKeys(ctx, doc, "test"))(t)
	read := func(c *client.Client) (string, uint64) {
		t.Helper()
		var got atomic.Pointer[string]
		sub := must(c.Subscribe(ctx, "orders.>", func(_ context.Context, d *client.Delivery) error {
			s := string(d.Event.Data)
			got.Store(&s)
			return nil
		}, client.FromStart()))(t)
		defer sub.Stop()
		eventually(t, "both events are judged", func() bool { s := sub.Stats(); return s.Delivered+s.Invalid == 2 })
		return *got.Load(), sub.Stats().Invalid
	}
	var why error
	fresh := b.Client("wide", client.WithInvalidHandler(func(i client.InvalidEvent) { why = i.Err }))
	for _, c := range []*client.Client{fresh, live} {
		if got, invalid := read(c); got != "before" || invalid != 1 {
			t.Errorf("read %q, %d refused", got, invalid)
		}
	}
	if !errors.Is(why, signing.ErrKeyNotValid) {
		t.Errorf("refused for %v", why)
	}
	// It serves, and attests nothing.
	var refused *client.Error
	if _, err := writer.Publish(ctx, "orders.a", &client.Event{Data: []byte("x")}, client.WithoutRetry()); !errors.As(err, &refused) || refused.Rule != "attestation-key" {
		t.Errorf("a publish to a node whose key is revoked: %v", err)
	}
	// A new key, and it attests again without a restart.
	id, seed := newPair(t, nkeys.CreateServer)
	doc = r.next(t, func(c *keyring.Change) error {
		return c.Issue(keyring.Key{ID: id, Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "test", NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)})
	})
	must(api.PutKeys(ctx, doc))(t)
	check(t, os.WriteFile(nextSeed(b.State), seed, 0o600))
	eventually(t, "it attests with the new key", func() bool {
		_, err := writer.Publish(ctx, "orders.a", &client.Event{Data: []byte("again")}, client.WithoutRetry())
		return err == nil
	})
	eventually(t, "the new seed takes the place of the old", func() bool {
		return bytes.Equal(trimmed(t, b.State.NodeSeed), seed)
	})
}

func nextSeed(st *broker.State) string {
	return filepath.Join(filepath.Dir(st.NodeSeed), "node.next.seed")
}

// TestPushesAtTheSameTime: of two keyrings of one version one is kept, and the other is
// refused for what it is.
func TestPushesAtTheSameTime(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	r := newRootHolder(t, b.State.RootSeed, b.State)
	issue := func(c *keyring.Change) error { return c.Issue(producerKey(t, time.Hour)) }
	now := time.Now()
	var docs [2][]byte
	for i := range docs {
		c := r.ring.Change(now)
		check(t, issue(c))
		docs[i] = must(must(c.Ring(now.Add(time.Hour)))(t).Sign(r.seed))(t)
	}
	var errs [2]error
	var wg sync.WaitGroup
	for i := range docs {
		api := admin.New(b.Client("root"))
		wg.Go(func() { _, errs[i] = api.PutKeys(ctx, docs[i]) })
	}
	wg.Wait()
	winner := 0
	if errs[0] != nil {
		winner = 1
	}
	if errs[winner] != nil || !errors.Is(errs[1-winner], client.ErrConflict) {
		t.Fatalf("%v, %v: want one of them refused", errs[0], errs[1])
	}
	if kept := must(broker.KeptRing(ctx, b.Broker))(t); !bytes.Equal(kept, docs[winner]) || !bytes.Equal(must(os.ReadFile(b.State.Keyring))(t), docs[winner]) {
		t.Error("the one that was refused is kept")
	}
}

// load publishes and reads at the same time, until stop; every event is verified.
type load struct {
	sent    atomic.Int64
	refused atomic.Int64
	mu      sync.Mutex
	first   error
	seen    map[string]bool // event ids
	keys    map[string]int  // events by key, of the node and of the producer
	invalid []error
	sub     *client.Subscription
	stop    context.CancelFunc
	wg      sync.WaitGroup
}

// startLoad begins one; name is part of the ids of its events, so that two of them do not make
// the same ones.
func startLoad(t testing.TB, name string, writers []*client.Client, connect func(client.Option) *client.Client) *load {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	l := &load{seen: map[string]bool{}, keys: map[string]int{}, stop: stop}
	t.Cleanup(stop)
	reader := connect(client.WithInvalidHandler(func(i client.InvalidEvent) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.invalid = append(l.invalid, i.Err)
	}))
	l.sub = must(reader.Subscribe(ctx, "orders.>", func(_ context.Context, d *client.Delivery) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.seen[d.Event.ID] = true
		l.keys[d.Attestation.KeyID]++
		if d.Producer.KeyID != "" {
			l.keys[d.Producer.KeyID]++
		}
		return nil
	}, client.FromStart()))(t)
	for w, c := range writers {
		for g := range 2 {
			l.wg.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					// Not the context of the loop: a publish that was begun is finished. Without retries,
					// which would hide that a node refused for a moment.
					e := &client.Event{ID: fmt.Sprintf("%s-%d-%d-%d", name, w, g, i), Data: []byte("x")}
					_, err := c.Publish(context.WithoutCancel(ctx), "orders.a", e, client.WithoutRetry())
					if l.sent.Add(1); err == nil {
						continue
					}
					l.refused.Add(1)
					l.mu.Lock()
					if l.first == nil {
						l.first = err
					}
					l.mu.Unlock()
				}
			})
		}
	}
	return l
}

// attestedBy is how many events a node has attested, or a producer signed, with the key.
func (l *load) attestedBy(key string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.keys[key]
}

// finish checks that nothing was refused, lost or not to be verified.
func (l *load) finish(t testing.TB) {
	t.Helper()
	l.end(t)
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.refused.Load(); n != 0 {
		t.Errorf("%d of %d refused, first: %v", n, l.sent.Load(), l.first)
	}
	if len(l.invalid) != 0 {
		t.Errorf("%d did not verify, first: %v", len(l.invalid), l.invalid[0])
	}
	t.Logf("%d events, by key %v", len(l.seen), l.keys)
}

func (l *load) end(t testing.TB) {
	t.Helper()
	done := make(chan struct{})
	l.stop()
	go func() { l.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-within(t).Done():
		t.Fatal("the writers hang")
	}
	eventually(t, "every event is read", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return int64(len(l.seen)) >= l.sent.Load()-l.refused.Load()
	})
}

// rotate puts a next key beside that of the node, which is due in a second while the old
// one lasts that long.
func (r *rootHolder) rotate(t testing.TB, node string, lasts time.Duration) (doc []byte, id string, seed []byte) {
	t.Helper()
	return r.rotateFrom(t, node, time.Now().Add(time.Second-policy.ReplayPast), lasts)
}

// rotateFrom is rotate to a key that is good from then on.
func (r *rootHolder) rotateFrom(t testing.TB, node string, from time.Time, lasts time.Duration) (doc []byte, id string, seed []byte) {
	t.Helper()
	id, seed = newPair(t, nkeys.CreateServer)
	old, now := r.keyOf(t, node), time.Now()
	return r.next(t, func(c *keyring.Change) error {
		return c.Rotate(old.ID, id, from, now.Add(time.Hour), now.Add(lasts))
	}), id, seed
}

// TestNodeKeyTurnsUnderLoad: a node goes over to its next key while events are published
// and read; none is refused, lost or not to be verified.
func TestNodeKeyTurnsUnderLoad(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	api := admin.New(b.Client("root"))
	r := newRootHolder(t, b.State.RootSeed, b.State)
	old := r.keyOf(t, "test").ID
	l := startLoad(t, "load", []*client.Client{b.Client("writer")}, func(o client.Option) *client.Client { return b.Client("wide", o) })
	eventually(t, "events by the old key", func() bool { return l.attestedBy(old) > 20 })

	doc, id, seed := r.rotate(t, "test", 10*time.Minute)
	// The seed may come before the keyring that has its key.
	check(t, os.WriteFile(nextSeed(b.State), seed, 0o600))
	check(t, b.Reload(ctx))
	if l.attestedBy(id) != 0 {
		t.Error("a key that is not in the keyring attests")
	}
	must(api.PutKeys(ctx, doc))(t)
	eventually(t, "events by the new key", func() bool { return l.attestedBy(id) > 20 })
	l.finish(t)
}

// TestClusterNodeKeyTurnsUnderLoad: the same with three nodes, of which each goes over.
// A node does so only when all of them have the keyring.
func TestClusterNodeKeyTurnsUnderLoad(t *testing.T) {
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: strings.Replace(clusterPolicy, "dlq]", "dlq, keys]", 1)})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r := newRootHolder(t, filepath.Join(filepath.Dir(filepath.Dir(c.Nodes[0].State.Dir)), "keys", "root.seed"), c.Nodes[0].State)
	api := admin.New(c.Nodes[0].Client("root"))
	var writers []*client.Client
	for _, n := range c.Nodes {
		writers = append(writers, n.Client("writer"))
	}
	l := startLoad(t, "load", writers, func(o client.Option) *client.Client { return c.Nodes[2].Client("reader", o) })
	for i, n := range c.Nodes {
		old := r.keyOf(t, nodeName(i)).ID
		eventually(t, "events by the old key", func() bool { return l.attestedBy(old) > 5 })
		doc, id, seed := r.rotate(t, nodeName(i), 10*time.Minute)
		put := must(api.PutKeys(ctx, doc))(t)
		if len(put.InForce) != 3 {
			t.Errorf("in force at %v only", put.InForce)
		}
		check(t, os.WriteFile(nextSeed(n.State), seed, 0o600))
		eventually(t, "events by the new key of "+nodeName(i), func() bool { return l.attestedBy(id) > 5 })
	}
	l.finish(t)
}
