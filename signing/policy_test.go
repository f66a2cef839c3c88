package signing_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// policySigner returns a signer and a ring that has its key, with changes.
func policySigner(t testing.TB, change func(*keyring.Key)) (*signing.Signer, *keyring.Ring) {
	t.Helper()
	pair, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	s, err := signing.NewSigner(seed)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	k := keyring.Key{ID: s.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RolePolicy, Principal: "shop/root", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	if change != nil {
		change(&k)
	}
	ring, err := keyring.New(1, now.Add(-time.Hour), now.Add(time.Hour), []keyring.Key{k})
	if err != nil {
		t.Fatal(err)
	}
	return s, ring
}

func version() signing.PolicyVersion {
	return signing.PolicyVersion{
		Version: 3, Broker: "bus", Digest: "d1", Before: "d0", By: "shop/root", Time: time.Now().UTC().Truncate(time.Second), Note: "why", Files: []byte("files"),
	}
}

func TestPolicyVersion(t *testing.T) {
	s, ring := policySigner(t, nil)
	doc, err := s.SignPolicy(version())
	if err != nil {
		t.Fatal(err)
	}
	v, key, err := signing.VerifyPolicy(doc, ring)
	if err != nil || v.Version != 3 || string(v.Files) != "files" || v.Note != "why" || key.ID != s.KeyID() {
		t.Fatalf("got %+v, %v", v, err)
	}
	if peeked, err := signing.PeekPolicy(doc); err != nil || peeked.Digest != "d1" {
		t.Errorf("got %+v, %v", peeked, err)
	}
	for i := range doc {
		bad := append([]byte(nil), doc...)
		bad[i] ^= 1
		if v, _, err := signing.VerifyPolicy(bad, ring); err == nil {
			t.Fatalf("byte %d flipped: accepted %+v", i, v)
		}
	}
	if _, err := s.SignStatement(signing.PolicyType, []byte("{}")); err != nil {
		t.Fatal(err)
	}
}

func TestPolicyVersionRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		key    func(*keyring.Key)
		change func(*signing.PolicyVersion)
		want   error
	}{
		{"another principal", func(k *keyring.Key) { k.Principal = "shop/other" }, nil, signing.ErrKeyNotValid},
		{"a producer's key", func(k *keyring.Key) { k.Role = keyring.RoleProducer }, nil, signing.ErrKeyNotValid},
		{"a node's key", func(k *keyring.Key) { k.Role = keyring.RoleBroker }, nil, signing.ErrKeyNotValid},
		{"before the key", nil, func(v *signing.PolicyVersion) { v.Time = v.Time.Add(-2 * time.Hour) }, signing.ErrKeyNotValid},
		{"after the key", nil, func(v *signing.PolicyVersion) { v.Time = v.Time.Add(2 * time.Hour) }, signing.ErrKeyNotValid},
		{"after it was revoked", func(k *keyring.Key) { k.RevokedAt = time.Now().Add(-time.Minute) }, nil, signing.ErrKeyNotValid},
	} {
		s, ring := policySigner(t, tt.key)
		v := version()
		if tt.change != nil {
			tt.change(&v)
		}
		doc, err := s.SignPolicy(v)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := signing.VerifyPolicy(doc, ring); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	s, _ := policySigner(t, nil)
	for name, change := range map[string]func(*signing.PolicyVersion){
		"no version":           func(v *signing.PolicyVersion) { v.Version = 0 },
		"no broker":            func(v *signing.PolicyVersion) { v.Broker = "" },
		"no before":            func(v *signing.PolicyVersion) { v.Before = "" },
		"by nobody":            func(v *signing.PolicyVersion) { v.By = "root" },
		"files without digest": func(v *signing.PolicyVersion) { v.Digest = "" },
		"digest without files": func(v *signing.PolicyVersion) { v.Files = nil },
		"a long note":          func(v *signing.PolicyVersion) { v.Note = strings.Repeat("x", signing.MaxPolicyNoteBytes+1) },
		"a note of two lines":  func(v *signing.PolicyVersion) { v.Note = "a\nb" },
		"no time":              func(v *signing.PolicyVersion) { v.Time = time.Time{} },
		"too large":            func(v *signing.PolicyVersion) { v.Files = make([]byte, signing.MaxPolicyBytes) },
	} {
		v := version()
		change(&v)
		if _, err := s.SignPolicy(v); !errors.Is(err, signing.ErrPolicy) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzPolicyVersion(f *testing.F) {
	s, ring := policySigner(f, nil)
	doc, err := s.SignPolicy(version())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Add([]byte(`{"payloadType":"application/vnd.signet.policy.v1+json","payload":"e30=","signatures":[{"keyid":"A","sig":"AA=="}]}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		peeked, err := signing.PeekPolicy(doc)
		v, _, verr := signing.VerifyPolicy(doc, ring)
		if verr == nil && (err != nil || peeked.Version != v.Version || peeked.Digest != v.Digest) {
			t.Fatalf("verified %+v, peeked %+v, %v", v, peeked, err)
		}
		if err == nil {
			if _, err := s.SignPolicy(*peeked); err != nil && len(doc) < signing.MaxPolicyBytes-1024 {
				t.Fatalf("what was read cannot be signed: %v", err)
			}
		}
	})
}
