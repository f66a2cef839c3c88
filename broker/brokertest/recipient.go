package brokertest

import (
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/signing/keyring"
)

// RecipientKey makes a recipient key of a principal (tenant/name) for subjects, enters
// it into the keyring of the broker, and returns the file with its seed and its public
// half. It is valid from an hour ago for a day.
func (b *Broker) RecipientKey(principal string, subjects ...string) (file, id string) {
	b.tb.Helper()
	pair, err := nkeys.CreateCurveKeys()
	b.check(err)
	id, err = pair.PublicKey()
	b.check(err)
	seed, err := pair.Seed()
	b.check(err)
	file = filepath.Join(b.tb.TempDir(), "recipient.seed")
	b.check(os.WriteFile(file, seed, 0o600))
	now := time.Now()
	b.ChangeKeyring(func(keys []keyring.Key) []keyring.Key {
		return append(keys, keyring.Key{
			ID: id, Alg: keyring.AlgX25519, Role: keyring.RoleRecipient, Principal: principal, Subjects: subjects,
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		})
	})
	return file, id
}
