package broker_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/signing/keyring"
)

// TestClusterEncryption: a recipient that is pushed at one node reads at a second what
// was encrypted to it at the third, and nothing more after its revocation was pushed.
func TestClusterEncryption(t *testing.T) {
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: strings.Replace(cryptPolicy, "principals:\n",
		"principals:\n  - {name: root, identities: [{nkey: {{nkey \"root\"}}}], admin: [keys]}\n", 1)})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r := newRootHolder(t, filepath.Join(filepath.Dir(filepath.Dir(c.Nodes[0].State.Dir)), "keys", "root.seed"), c.Nodes[0].State)
	recipient := func(principal string) (file, id string) {
		t.Helper()
		pair := must(nkeys.CreateCurveKeys())(t)
		id = must(pair.PublicKey())(t)
		file = filepath.Join(t.TempDir(), "recipient.seed")
		check(t, os.WriteFile(file, must(pair.Seed())(t), 0o600))
		doc := r.next(t, func(c *keyring.Change) error {
			return c.Issue(keyring.Key{
				ID: id, Alg: keyring.AlgX25519, Role: keyring.RoleRecipient, Principal: principal, Subjects: []string{"orders.>"},
				NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			})
		})
		must(admin.New(c.Nodes[0].Client("root")).PutKeys(ctx, doc))(t)
		return file, id
	}
	doctorSeed, _ := recipient("shop/doctor")
	_, nurse := recipient("shop/nurse")
	clinic := c.Nodes[2].Client("clinic", client.WithEncryption(client.Encryption{}))
	in := newInbox()
	doctor := c.Nodes[1].Client("doctor", in.option(), client.WithDecryption(client.Decryption{SeedFiles: []string{doctorSeed}}))
	must(doctor.Subscribe(ctx, "orders.>", in.handle, client.Durable("d")))(t)
	send := func(data string) *client.Delivery {
		t.Helper()
		eventually(t, "a publish", func() bool {
			_, err := clinic.Publish(ctx, "orders.x", &client.Event{ID: data, Type: "t", Data: []byte(data)})
			return err == nil
		})
		d := in.next(ctx, t)
		if string(d.Event.Data) != data {
			t.Fatalf("got %q, want %q", d.Event.Data, data)
		}
		return d
	}
	before := send("one").KeyID
	must(admin.New(c.Nodes[1].Client("root")).PutKeys(ctx, r.next(t, func(c *keyring.Change) error { return c.Revoke(nurse, time.Now()) })))(t)
	n := 0
	eventually(t, "the producer has the revocation", func() bool {
		n++
		d := send("after" + strings.Repeat("+", n))
		rec := recordOf(ctx, t, c.Nodes[0], d.KeyID)
		return d.KeyID != before && !slices.Contains(recipientsOf(rec), nurse)
	})
}
