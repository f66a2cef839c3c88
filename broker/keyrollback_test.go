package broker_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// health is what the status says of one part.
func health(t testing.TB, api *admin.API, part string) admin.HealthPart {
	t.Helper()
	st := must(api.Status(within(t)))(t)
	for _, h := range st.Health {
		if h.Part == part {
			return h
		}
	}
	t.Fatalf("the status says nothing of %s: %+v", part, st.Health)
	return admin.HealthPart{}
}

// fileOK is what the metric says of the keyring's file.
func fileOK(t testing.TB, b *brokertest.Broker) string {
	t.Helper()
	_, text := probe(t, b, "/metrics")
	_, after, _ := strings.Cut(text, "\nsignet_keyring_file_ok ")
	value, _, _ := strings.Cut(after, "\n")
	return value
}

// TestOlderKeyringFileAtStart: an older keyring file that was put back while the broker
// was down does not bring a revoked key back: what the node held decides, and else the
// stream, before anybody is let in.
func TestOlderKeyringFileAtStart(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T, b *brokertest.Broker)
		down    func(t *testing.T, b *brokertest.Broker)
		logged  string
		fileOK  bool // it was brought up to date
	}{
		{"held and kept", func(*testing.T, *brokertest.Broker) {}, func(*testing.T, *brokertest.Broker) {}, "is not what counts", false},
		{"held alone", func(t *testing.T, b *brokertest.Broker) {
			check(t, must(jetstream.New(must(b.Inside(wire.BrokerAccount))(t)))(t).DeleteStream(within(t), store.StreamKeys))
		}, func(*testing.T, *brokertest.Broker) {}, "is not what counts", false},
		{"kept alone", func(*testing.T, *brokertest.Broker) {}, func(t *testing.T, b *brokertest.Broker) {
			check(t, os.Remove(broker.HeldKeyring(b.Broker)))
		}, "has an older keyring than there is", true},
		{"kept, and what was held is damaged", func(*testing.T, *brokertest.Broker) {}, func(t *testing.T, b *brokertest.Broker) {
			check(t, os.WriteFile(broker.HeldKeyring(b.Broker), []byte("damaged"), 0o600))
		}, "has an older keyring than there is", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBroker(t)
			api := admin.New(b.Client("root"))
			r := newRootHolder(t, b.State.RootSeed, b.State)
			p := producerKey(t, time.Hour)
			next := func(change func(c *keyring.Change) error) (doc []byte) {
				r.ring, doc = r.sign(t, 365*24*time.Hour, change) // a start renews one that ends soon
				must(api.PutKeys(within(t), doc))(t)
				return doc
			}
			stolen := next(func(c *keyring.Change) error { return c.Issue(p) })
			next(func(c *keyring.Change) error { return c.Revoke(p.ID, p.NotBefore) })
			tt.prepare(t, b)
			stop(t, b)
			tt.down(t, b)
			check(t, os.WriteFile(b.State.Keyring, stolen, 0o600))

			log := newLogWatch()
			b = brokertest.New(t, brokertest.Options{Policy: shopPolicy, Dir: b.State.Dir, Change: quickDrain, Log: log})
			if v := broker.RingVersion(b.Broker); v != r.ring.Version() {
				t.Errorf("started with version %d, want %d", v, r.ring.Version())
			}
			log.wait(within(t), t, tt.logged)
			if h := health(t, admin.New(b.Client("root")), "keyring-file"); h.OK != tt.fileOK || !h.OK && !strings.Contains(h.Detail, "look for who did") {
				t.Errorf("health: %+v", h)
			}
			held := must(os.ReadFile(broker.HeldKeyring(b.Broker)))(t)
			if ring := must(keyring.Parse(held, b.State.Root, time.Now()))(t); ring.Version() != r.ring.Version() {
				t.Errorf("held for the next start: version %d", ring.Version())
			}
		})
	}
}

// TestOlderKeyringFileDoesNotBlockReload: an older keyring file that is put back while
// the broker runs changes nothing, is told, and keeps no policy from coming into force.
func TestOlderKeyringFileDoesNotBlockReload(t *testing.T) {
	log := newLogWatch()
	b := newBroker(t, func(o *brokertest.Options) { o.Log = log })
	ctx := within(t)
	api := admin.New(b.Client("root"))
	old := must(os.ReadFile(b.State.Keyring))(t)
	r := newRootHolder(t, b.State.RootSeed, b.State)
	doc := r.next(t, func(c *keyring.Change) error { return c.Issue(producerKey(t, time.Hour)) })
	must(api.PutKeys(ctx, doc))(t)

	check(t, os.WriteFile(b.State.Keyring, old, 0o600))
	narrow := connect(t, b, "narrow")
	narrow.denied(t, "orders.us.x", "x", wire.CodePublishDenied)
	reload(t, b, edit(t, shopPolicy, "publish: [orders.eu.>], subscribe: [orders.eu.>, telemetry.eu.>]", "publish: [orders.eu.>, orders.us.>], subscribe: [orders.eu.>]"))
	narrow.publish(t, "orders.us.x", "granted")
	if v := broker.RingVersion(b.Broker); v != r.ring.Version() {
		t.Errorf("version %d is in force, want %d", v, r.ring.Version())
	}
	log.wait(ctx, t, "is passed over, the keyring in force stays")
	if h := health(t, api, "keyring-file"); h.OK || !strings.Contains(h.Detail, "in force is") {
		t.Errorf("health: %+v", h)
	}
	if h := health(t, api, "reload"); !h.OK {
		t.Errorf("health: %+v", h)
	}
	if v := fileOK(t, b); v != "0" {
		t.Errorf("signet_keyring_file_ok is %v", v)
	}
	// Pushed once more, the file is what it was.
	must(api.PutKeys(ctx, doc))(t)
	if got := must(os.ReadFile(b.State.Keyring))(t); !bytes.Equal(got, doc) {
		t.Error("the file is still the older one")
	}
	eventually(t, "all is well", func() bool {
		return health(t, api, "keyring-file").OK && fileOK(t, b) == "1"
	})
}

// TestRevocationDoesNotWaitForReload: a pushed keyring is in force while a reload waits
// for the rest of the cluster, and the reload does not take it back.
func TestRevocationDoesNotWaitForReload(t *testing.T) {
	b := newBroker(t)
	api := admin.New(b.Client("root"))
	r := newRootHolder(t, b.State.RootSeed, b.State)
	end := broker.HoldReload(b.Broker)
	defer func() {
		if end != nil {
			end()
		}
	}()
	put := must(api.PutKeys(within(t), r.next(t, func(c *keyring.Change) error { return c.Issue(producerKey(t, time.Hour)) })))(t)
	if len(put.InForce) != 1 || !put.Kept || broker.RingVersion(b.Broker) != r.ring.Version() {
		t.Errorf("put: %+v", put)
	}
	end()
	end = nil
	check(t, b.Reload(within(t)))
	if v := broker.RingVersion(b.Broker); v != r.ring.Version() {
		t.Errorf("version %d after the reload, want %d", v, r.ring.Version())
	}
}

// TestPushAgain: to push the same keyring twice is harmless, also one that cuts a node
// off, which is so after the first time.
func TestPushAgain(t *testing.T) {
	b := newBroker(t)
	api := admin.New(b.Client("root"))
	r := newRootHolder(t, b.State.RootSeed, b.State)
	node := r.keyOf(t, "test")
	doc := r.next(t, func(c *keyring.Change) error { return c.Revoke(node.ID, time.Now()) })
	for range 2 {
		put, err := api.PutKeys(within(t), doc, "test")
		if err != nil || put.Version != r.ring.Version() || len(put.InForce) != 1 || !put.Kept {
			t.Fatalf("%+v, %v", put, err)
		}
	}
}

// TestHostileRings: what a holder of the grant to push, or a root holder's mistake, could
// stop the keyring with is refused, and says so.
func TestHostileRings(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	api := admin.New(b.Client("root"))
	r := newRootHolder(t, b.State.RootSeed, b.State)
	now := time.Now()
	before := broker.RingVersion(b.Broker)
	doc := func(version uint64, expires time.Time) []byte {
		return must(must(keyring.New(version, now.Add(-time.Minute), expires, r.ring.Keys()))(t).Sign(r.seed))(t)
	}
	year := now.AddDate(1, 0, 0)
	for _, tt := range []struct {
		name, want string
		doc        []byte
	}{
		{"the highest version, after which there is none", "a version is the time of signing", doc(keyring.MaxVersion, year)},
		{"a version of a day from now", "a version is the time of signing", doc(uint64(now.Add(24*time.Hour).Unix()), year)},
		{"one that ends in a minute", "sign one that lasts longer", doc(before+1, now.Add(time.Minute))},
	} {
		if _, err := api.PutKeys(ctx, tt.doc); !errors.Is(err, client.ErrConflict) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	// Too large for anybody, past the SDK's own check.
	if _, err := api.PutKeys(ctx, make([]byte, keyring.MaxDocumentBytes+1)); !errors.Is(err, client.ErrTooLarge) {
		t.Errorf("over the limit: %v", err)
	}
	body := must(adminapi.EncodeRequest(adminapi.KeysPutRequest{Document: bytes.Repeat([]byte(" "), keyring.MaxDocumentBytes+1)}))(t)
	m := must(b.NATS("root").Request(adminapi.SubjectKeysPut, body, patience))(t)
	if text := string(m.Data); !strings.Contains(text, "524289 bytes, limit 524288") {
		t.Errorf("over the limit: %s", text)
	}
	if v := broker.RingVersion(b.Broker); v != before {
		t.Errorf("version %d is in force, want %d", v, before)
	}
	// A small step is taken, and one that is after it.
	for v := before + 1; v <= before+2; v++ {
		must(api.PutKeys(ctx, doc(v, year)))(t)
	}
}

// TestLargeKeyring: readers get a keyring of almost the largest size, however little
// clients may send; who pushes one is told that it does not fit.
func TestLargeKeyring(t *testing.T) {
	b := newBroker(t, func(o *brokertest.Options) {
		o.Change = func(c *broker.Config) {
			quickDrain(c)
			c.Gate.MaxPayload = 64 << 10
		}
	})
	r := newRootHolder(t, b.State.RootSeed, b.State)
	doc := r.next(t, func(c *keyring.Change) error {
		for range 2000 {
			id, _ := newPair(t, nkeys.CreateAccount)
			k := keyring.Key{
				ID: id, Alg: keyring.AlgEd25519, Role: keyring.RoleProducer, Principal: "shop/writer",
				NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			}
			if err := c.Issue(k); err != nil {
				return err
			}
		}
		return nil
	})
	if len(doc) < keyring.MaxDocumentBytes*4/5 {
		t.Fatalf("%d bytes are not near the limit of %d", len(doc), keyring.MaxDocumentBytes)
	}
	_, err := admin.New(b.Client("root")).PutKeys(within(t), doc)
	if !errors.Is(err, client.ErrTooLarge) || !strings.Contains(err.Error(), "gate.maxPayload") {
		t.Errorf("a push that does not fit: %v", err)
	}
	check(t, os.WriteFile(b.State.Keyring, doc, 0o600))
	check(t, b.Reload(within(t)))
	if v := ringAt(t, b.NATS("wide")); v != r.ring.Version() {
		t.Errorf("a reader got version %d, want %d", v, r.ring.Version())
	}
	b.Client("wide") // fails the test if it cannot read the keyring
	if list, err := admin.New(b.Client("root")).Keys(within(t)); err != nil || len(list.Keys) != len(r.ring.Keys()) {
		t.Errorf("the list of its keys: %v", err)
	}
	eventually(t, "the stream has it", func() bool {
		broker.SyncRing(within(t), b.Broker)
		kept, err := broker.KeptRing(within(t), b.Broker)
		return err == nil && bytes.Equal(kept, doc)
	})
}
