package signing

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/signing/keyring"
)

// TestNodeToken: only the key that the keyring gives a node makes a token for it.
func TestNodeToken(t *testing.T) {
	now := time.Now()
	good, revoked, producer, foreign := testSigner(t, 21), testSigner(t, 22), testSigner(t, 23), testSigner(t, 24)
	key := func(s *Signer, role, node string) keyring.Key {
		return keyring.Key{
			ID: s.KeyID(), Alg: keyring.AlgEd25519, Role: role, Principal: node,
			NotBefore: now.Add(-time.Hour).Truncate(time.Second), NotAfter: now.Add(time.Hour).Truncate(time.Second),
		}
	}
	gone := key(revoked, keyring.RoleBroker, "n2")
	gone.RevokedAt = now.Add(-time.Minute).Truncate(time.Second)
	ring, err := keyring.New(1, now.Add(-time.Hour), now.Add(time.Hour), []keyring.Key{
		key(good, keyring.RoleBroker, "n1"), gone, key(producer, keyring.RoleBroker, "other"),
	})
	if err != nil {
		t.Fatal(err)
	}
	token := NodeToken(good, "prod", "n1")
	if err := VerifyNodeToken(token, "prod", "n1", ring, now); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ token, cluster, node, why string }{
		"another cluster":   {token, "lab", "n1", `belongs to the cluster "prod", this is "lab"`},
		"renamed cluster":   {strings.Replace(token, ".prod.", ".lab.", 1), "lab", "n1", "signature does not match"},
		"another node":      {token, "prod", "n2", "gives its key to"},
		"revoked":           {NodeToken(revoked, "prod", "n2"), "prod", "n2", "not valid now"},
		"not in the ring":   {NodeToken(foreign, "prod", "n1"), "prod", "n1", "not in the keyring"},
		"key of another":    {NodeToken(producer, "prod", "n1"), "prod", "n1", "gives its key to"},
		"signature changed": {token[:len(token)-4] + "AAAA", "prod", "n1", "signature does not match"},
		"empty":             {"", "prod", "n1", "shows no token"},
		"a password":        {"hunter2", "prod", "n1", "shows no token"},
		"one part more":     {token + ".x", "prod", "n1", "shows no token"},
		"cut":               {token[:len(token)-1], "prod", "n1", "signature does not match"},
	} {
		err := VerifyNodeToken(c.token, c.cluster, c.node, ring, now)
		if !errors.Is(err, ErrNodeToken) || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: got %v, want %q", name, err, c.why)
		}
	}
	if err := VerifyNodeToken(token, "prod", "n1", ring, now.Add(2*time.Hour)); !errors.Is(err, ErrNodeToken) {
		t.Errorf("after the key's end: %v", err)
	}
}

// FuzzNodeToken: another node's text is refused or is, byte for byte, the token that
// the key makes.
func FuzzNodeToken(f *testing.F) {
	now := time.Now()
	s := testSigner(f, 21)
	ring, err := keyring.New(1, now.Add(-time.Hour), now.Add(time.Hour), []keyring.Key{{
		ID: s.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "n1",
		NotBefore: now.Add(-time.Hour).Truncate(time.Second), NotAfter: now.Add(time.Hour).Truncate(time.Second),
	}})
	if err != nil {
		f.Fatal(err)
	}
	good := NodeToken(s, "prod", "n1")
	for _, seed := range []string{good, good + "=", good + "\n", good[:len(good)-1], strings.ToUpper(good), "...", "signet-node.prod.N.A", ""} {
		f.Add(seed)
	}
	if err := VerifyNodeToken(good, "prod", "n1", ring, now); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token string) {
		switch err := VerifyNodeToken(token, "prod", "n1", ring, now); {
		case err == nil && token != good:
			t.Errorf("accepted %q", token)
		case err != nil && !errors.Is(err, ErrNodeToken):
			t.Errorf("%q: got %v, want ErrNodeToken", token, err)
		}
	})
}

// TestNodeTokenOfAnEndedKey: a node that has gone over to its next key keeps its token;
// one whose keys have all ended, or whose old key is revoked, does not.
func TestNodeTokenOfAnEndedKey(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	old, next := testSigner(t, 31), testSigner(t, 32)
	of := func(s *Signer, from, until time.Time) keyring.Key {
		return keyring.Key{ID: s.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "n1", NotBefore: from, NotAfter: until}
	}
	ended := of(old, now.Add(-2*time.Hour), now)
	revoked, other := ended, of(next, now.Add(-time.Hour), now.Add(time.Hour))
	revoked.RevokedAt = now.Add(-time.Hour)
	notYet := of(old, now.Add(time.Minute), now.Add(time.Hour))
	elsewhere := other
	elsewhere.Principal = "n2"
	for _, c := range []struct {
		name string
		keys []keyring.Key
		ok   bool
	}{
		{"a next key is good", []keyring.Key{ended, other}, true},
		{"no other key", []keyring.Key{ended}, false},
		{"the good one is of another node", []keyring.Key{ended, elsewhere}, false},
		{"revoked", []keyring.Key{revoked, other}, false},
		{"not valid yet", []keyring.Key{notYet, other}, false},
	} {
		ring, err := keyring.New(1, now.Add(-time.Hour), now.Add(time.Hour), c.keys)
		if err != nil {
			t.Fatal(err)
		}
		if err := VerifyNodeToken(NodeToken(old, "prod", "n1"), "prod", "n1", ring, now); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
