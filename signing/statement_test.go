package signing

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/signing/keyring"
)

const statementType = "application/vnd.signet.test.v1+json"

// statementRig is a signer and a ring that has its key, and a producer's.
func statementRig(t *testing.T) (*Signer, *keyring.Ring) {
	t.Helper()
	kp, err := nkeys.CreateServer()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := kp.Seed()
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSigner(seed)
	if err != nil {
		t.Fatal(err)
	}
	from := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	ring, err := keyring.New(1, from, from.AddDate(1, 0, 0), []keyring.Key{
		{ID: s.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "node", NotBefore: from, NotAfter: from.AddDate(20, 0, 0)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, ring
}

func TestStatementRoundTrip(t *testing.T) {
	s, ring := statementRig(t)
	doc, err := s.SignStatement(statementType, []byte(`{"a":1}`))
	if err != nil {
		t.Fatal(err)
	}
	payload, key, err := VerifyStatement(doc, statementType, ring)
	if err != nil || string(payload) != `{"a":1}` || key.ID != s.KeyID() {
		t.Fatalf("%q %s %v", payload, key.ID, err)
	}
	for i := range doc {
		bad := bytes.Clone(doc)
		bad[i] ^= 1
		if _, _, err := VerifyStatement(bad, statementType, ring); err == nil {
			t.Fatalf("byte %d changed and nobody saw it: %s", i, bad)
		}
	}
}

// A signature of one kind must never pass for one of another.
func TestStatementTypesAreSeparate(t *testing.T) {
	s, ring := statementRig(t)
	doc, err := s.SignStatement(statementType, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := VerifyStatement(doc, "application/vnd.signet.other.v1+json", ring); !errors.Is(err, ErrStatement) {
		t.Errorf("as another statement: %v", err)
	}
	for _, typ := range []string{PayloadType, keyring.PayloadType, "text/plain", ""} {
		if _, err := s.SignStatement(typ, []byte("x")); !errors.Is(err, ErrStatement) {
			t.Errorf("signed as %q: %v", typ, err)
		}
		if _, _, err := VerifyStatement(doc, typ, ring); !errors.Is(err, ErrStatement) {
			t.Errorf("verified as %q: %v", typ, err)
		}
	}
	if _, _, err := VerifyStatement(doc, statementType, nil); !errors.Is(err, ErrNoKeyring) {
		t.Errorf("without a keyring: %v", err)
	}
	_, other := statementRig(t)
	if _, _, err := VerifyStatement(doc, statementType, other); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("under another keyring: %v", err)
	}
}
