package attack_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/gate"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/attack"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// operator is who applies policies in the policy of `signet dev`.
const operator = "demo/operator"

// policySigner enters a key of the role policy into the keyring.
func policySigner(t *testing.T, b *brokertest.Broker) *signing.Signer {
	t.Helper()
	pair, err := nkeys.CreateAccount()
	check(t, err)
	public, err := pair.PublicKey()
	check(t, err)
	seed, err := pair.Seed()
	check(t, err)
	s, err := signing.NewSigner(seed)
	check(t, err)
	b.ChangeKeyring(func(keys []keyring.Key) []keyring.Key {
		return append(keys, keyring.Key{
			ID: public, Alg: keyring.AlgEd25519, Role: keyring.RolePolicy, Principal: operator, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		})
	})
	return s
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func filesOf(t *testing.T, b *brokertest.Broker) []policy.File {
	t.Helper()
	_, files, err := policy.LoadFiles([]string{b.State.Policy})
	check(t, err)
	return files
}

// TestBrokerRefuses: against the broker of `signet dev` every attack is refused, by the
// control that it is on, and the policy is as it was; twice, since the streams of the first
// run are there at the second.
func TestBrokerRefuses(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := t.TempDir()
	b := brokertest.New(t, brokertest.Options{Dir: dir, Change: func(c *broker.Config) {
		c.Authentication.Enrolment.CA = filepath.Join(dir, "ca")
		c.Gate.ConnectionRate, c.Gate.FailedLogins = gate.DefaultPerIPRate, gate.DefaultFailedLogins
	}})
	before := b.Policy().Digest()
	c := b.Client("operator")
	signer := policySigner(t, b)
	for round := range 2 {
		s := attack.NewStage(admin.PolicyOf(admin.New(c)), signer, operator)
		check(t, s.SetUp(ctx, filesOf(t, b), time.Minute))
		attacks := attack.List()
		if round > 0 {
			var err error
			attacks, err = attack.Pick([]int{1, 14, 28, 51})
			check(t, err)
		}
		r, err := s.Open(ctx, b.URL(), b.TLS())
		check(t, err)
		results := attack.Run(ctx, r, attacks, nil)
		r.Close()
		check(t, s.TearDown(ctx))
		refused := 0
		for _, res := range results {
			if res.Verdict != attack.Refused {
				t.Errorf("%d %s: %s %s %s", res.Number, res.Name, res.Verdict, res.Code, res.Detail)
				continue
			}
			refused++
		}
		t.Logf("round %d: %d of %d attacks were refused", round+1, refused, len(results))
		if got := b.Policy().Digest(); got != before {
			t.Errorf("the policy in force is %s, was %s", got, before)
		}
	}
	if _, err := os.Stat(b.State.Policy); err != nil {
		t.Error(err)
	}
}
