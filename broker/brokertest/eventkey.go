package brokertest

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/signing/keyring"
)

// EventKey makes an event key of a principal (tenant/name), enters it into the
// keyring of the broker, and returns the file with its seed and its public half. It
// is valid from an hour ago for a day, unless a change says otherwise.
func (b *Broker) EventKey(principal string, changes ...func(*keyring.Key)) (file, id string) {
	b.tb.Helper()
	pair, err := nkeys.CreateUser()
	b.check(err)
	id, err = pair.PublicKey()
	b.check(err)
	seed, err := pair.Seed()
	b.check(err)
	file = filepath.Join(b.tb.TempDir(), "event.seed")
	b.check(os.WriteFile(file, seed, 0o600))
	now := time.Now()
	key := keyring.Key{
		ID: id, Alg: keyring.AlgEd25519, Role: keyring.RoleProducer, Principal: principal,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
	}
	for _, change := range changes {
		change(&key)
	}
	b.ChangeKeyring(func(keys []keyring.Key) []keyring.Key { return append(keys, key) })
	return file, id
}

// ChangeKeyring puts a new version of the keyring in force.
func (b *Broker) ChangeKeyring(change func([]keyring.Key) []keyring.Key) {
	b.tb.Helper()
	root, err := os.ReadFile(b.State.RootSeed)
	b.check(err)
	doc, err := os.ReadFile(b.State.Keyring)
	b.check(err)
	ring, err := keyring.Parse(doc, b.State.Root, time.Now())
	b.check(err)
	next, err := keyring.New(ring.Version()+1, ring.Issued(), ring.Expires(), change(ring.Keys()))
	b.check(err)
	doc, err = next.Sign(root)
	b.check(err)
	// In one step: the broker watches the file.
	file := filepath.Join(b.State.Dir, "keyring.next")
	b.check(os.WriteFile(file, doc, 0o600)) //nolint:gosec // in the folder of the test
	b.check(os.Rename(file, b.State.Keyring))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b.check(b.Reload(ctx))
}

func (b *Broker) check(err error) {
	b.tb.Helper()
	if err != nil {
		b.tb.Fatal(err)
	}
}
