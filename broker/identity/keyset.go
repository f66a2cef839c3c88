package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// Limits of a key set.
const (
	MaxKeySetBytes = 256 << 10
	maxKeys        = 64
)

// ErrKeySet: a text is no set of public keys for signatures.
var ErrKeySet = errors.New("identity: not a set of public signature keys (JWKS)")

// Algorithms are those that a broker may be told to take. All are asymmetric: who can
// check a token must not be able to make one.
var Algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// KeySet are the public keys of an issuer. Immutable.
type KeySet struct {
	keys   []jose.JSONWebKey
	prints map[string]bool // thumbprints of keys
}

// KeySource has the keys of one issuer. Its methods are safe for concurrent use.
type KeySource interface {
	// Keys returns the keys in force, nil while there are none.
	Keys() *KeySet
	// Refresh is called when a token names a key that Keys does not have. It returns the
	// keys after an attempt to fetch newer ones, or at once when there was one lately: a
	// stranger can call it with any token. ctx bounds the wait.
	Refresh(ctx context.Context) *KeySet
}

// StaticKeys is a KeySource of keys that do not change by themselves.
type StaticKeys struct{ Set *KeySet }

// Keys implements KeySource.
func (s StaticKeys) Keys() *KeySet { return s.Set }

// Refresh implements KeySource: there is nothing newer.
func (s StaticKeys) Refresh(context.Context) *KeySet { return s.Set }

// ParseKeySet reads a JWKS document. Keys that cannot verify signatures are left out:
// symmetric and private ones, keys for encryption, RSA keys under 2048 bits, and kinds
// that are not known here.
//
// Error: ErrKeySet, also where no key is left.
func ParseKeySet(doc []byte) (*KeySet, error) {
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if len(doc) > MaxKeySetBytes {
		return nil, fmt.Errorf("%w: it is over %d bytes", ErrKeySet, MaxKeySetBytes)
	}
	if err := json.Unmarshal(doc, &raw); err != nil {
		return nil, fmt.Errorf("%w: it is not JSON with a list named keys", ErrKeySet)
	}
	if len(raw.Keys) > maxKeys {
		return nil, fmt.Errorf("%w: it has %d keys, at most %d are taken", ErrKeySet, len(raw.Keys), maxKeys)
	}
	s := &KeySet{prints: make(map[string]bool)}
	for _, one := range raw.Keys {
		var k jose.JSONWebKey
		if json.Unmarshal(one, &k) != nil || !k.Valid() || !k.IsPublic() || k.Use != "" && k.Use != "sig" || !verifies(k.Key) {
			continue
		}
		print, err := k.Thumbprint(crypto.SHA256)
		if err != nil {
			continue
		}
		s.keys = append(s.keys, k)
		s.prints[string(print)] = true
	}
	if len(s.keys) == 0 {
		return nil, fmt.Errorf("%w: none of its %d keys is a public key for signatures", ErrKeySet, len(raw.Keys))
	}
	return s, nil
}

func verifies(key any) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() >= minRSABits && k.N.BitLen() <= maxRSABits
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

// Len is how many keys there are.
func (s *KeySet) Len() int {
	if s == nil {
		return 0
	}
	return len(s.keys)
}

// Lacks reports whether a key of old is not in s any more.
func (s *KeySet) Lacks(old *KeySet) bool {
	if old == nil {
		return false
	}
	for p := range old.prints {
		if s == nil || !s.prints[p] {
			return true
		}
	}
	return false
}

// candidates returns the keys that may have signed a token with these headers. A token
// that names no key may be by any of a single one.
func (s *KeySet) candidates(kid, alg string) []jose.JSONWebKey {
	if s == nil || kid == "" && len(s.keys) > 1 {
		return nil
	}
	var out []jose.JSONWebKey
	for _, k := range s.keys {
		if (kid == "" || k.KeyID == kid) && (k.Algorithm == "" || k.Algorithm == alg) && suits(k.Key, alg) {
			out = append(out, k)
		}
	}
	return out
}

// suits reports whether the algorithm is one of the kind of key.
func suits(key any, alg string) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return alg[0] == 'R' || alg[0] == 'P'
	case *ecdsa.PublicKey:
		return alg == map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[k.Curve.Params().BitSize]
	case ed25519.PublicKey:
		return alg == "EdDSA"
	}
	return false
}

// joseAlgorithms turns names that CheckAlgorithm took into those of the library.
func joseAlgorithms(names []string) []jose.SignatureAlgorithm {
	out := make([]jose.SignatureAlgorithm, 0, len(names))
	for _, n := range names {
		if slices.Contains(Algorithms, n) {
			out = append(out, jose.SignatureAlgorithm(n))
		}
	}
	return out
}
