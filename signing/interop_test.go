package signing

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// stockKey is a key as a stock DSSE library wants it. merkle makes it one of alg
// merkle-ed25519: DSSE leaves the algorithm to the key.
type stockKey struct {
	key    keyring.Key
	merkle bool
}

var errStock = errors.New("signature refused")

func (k stockKey) KeyID() (string, error)   { return k.key.ID, nil }
func (k stockKey) Public() crypto.PublicKey { return k.key.Public() }

func (k stockKey) Verify(_ context.Context, pae, sig []byte) error {
	if !k.merkle {
		if !ed25519.Verify(k.key.Public(), pae, sig) {
			return errStock
		}
		return nil
	}
	return checkMaterial(sig, &k.key, append([]byte{leafPrefix}, pae...))
}

// stockVerify checks a dssematerial with the unmodified DSSE library and returns how
// many of its signatures the key made, and the body.
func stockVerify(t *testing.T, material string, key stockKey) (int, []byte, error) {
	t.Helper()
	text, err := base64.StdEncoding.DecodeString(material)
	if err != nil {
		t.Fatal(err)
	}
	var env dsse.Envelope
	if err := json.Unmarshal(text, &env); err != nil {
		t.Fatal(err)
	}
	v, err := dsse.NewEnvelopeVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	by, err := v.Verify(context.Background(), &env)
	body, decodeErr := env.DecodeB64Payload()
	if decodeErr != nil {
		t.Fatal(decodeErr)
	}
	return len(by), body, err
}

// Both envelopes verify with the unmodified verifier of go-securesystemslib: the
// producer's, and the expanded attestation of the broker. A batch needs a verifier of
// alg merkle-ed25519 beside it.
func TestStockVerifierAccepts(t *testing.T) {
	ring := producerRing(t)
	for _, n := range []int{1, 2, 32} {
		events := run(n)
		for i := range events {
			events[i] = unsigned(i)
		}
		p := testProducer(t, fillEvents)
		produce(t, p, testSubject, events...)
		admitted(t, events...)
		e := events[n/2]
		expanded, err := Expand(e, testSubject, ring)
		if err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			name, material, keyID string
			names                 string
		}{
			{"producer", string(e.Get(wire.AttrDSSE)), p.KeyID(), `["audience","expirytime"`},
			{"broker", expanded, testSigner(t, fillBroker).KeyID(), `["audience","authid","authtype","dssematerial","expirytime"`},
		} {
			key, ok := ring.ByID(tc.keyID)
			if !ok {
				t.Fatal("no key")
			}
			by, body, err := stockVerify(t, tc.material, stockKey{key, n > 1})
			if err != nil || by != 1 {
				t.Errorf("%s, batch of %d: %d signatures (%v)", tc.name, n, by, err)
			}
			if !strings.Contains(string(body), tc.names) {
				t.Errorf("%s, batch of %d: body %s has not the names %s", tc.name, n, body, tc.names)
			}
			// The same library refuses another key, and another algorithm of the same key.
			stranger, ok := ring.ByID(testProducer(t, fillOther).KeyID())
			if !ok {
				t.Fatal("no key")
			}
			if _, _, err := stockVerify(t, tc.material, stockKey{stranger, n > 1}); err == nil {
				t.Errorf("%s, batch of %d: another key: accepted", tc.name, n)
			}
			if n > 1 {
				if _, _, err := stockVerify(t, tc.material, stockKey{key, false}); err == nil {
					t.Errorf("%s, batch of %d: as a bare signature: accepted", tc.name, n)
				}
			}
		}
	}
}
