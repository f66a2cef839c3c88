package broker

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/signing/keyring"
)

// The event key of one principal must not be the connection key of any other.
func TestConnectionKeysAmongProducers(t *testing.T) {
	now := time.Now()
	newKey := func() (user, account string) {
		pair, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		user, _ = pair.PublicKey()
		raw, err := nkeys.Decode(nkeys.PrefixByteUser, []byte(user))
		if err != nil {
			t.Fatal(err)
		}
		a, err := nkeys.Encode(nkeys.PrefixByteAccount, raw)
		if err != nil {
			t.Fatal(err)
		}
		return user, string(a)
	}
	aUser, _ := newKey()
	bUser, bAccount := newKey()
	free, _ := newKey()
	bundle, err := policy.Parse("p.yaml", fmt.Appendf(nil, "tenant: shop\nprincipals:\n  - {name: a, identities: [{nkey: %s}]}\n  - {name: b, identities: [{nkey: %s}]}\n", aUser, bUser))
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Compile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	var keys []keyring.Key
	for _, id := range []string{aUser, bAccount, free} {
		keys = append(keys, keyring.Key{
			ID: id, Alg: keyring.AlgEd25519, Role: keyring.RoleProducer, Principal: "shop/c", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		})
	}
	ring, err := keyring.New(1, now.Add(-time.Hour), now.Add(time.Hour), keys)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{aUser: "shop/a", bAccount: "shop/b"}
	if got := connectionKeys(&material{policy: set, ring: ring}); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
