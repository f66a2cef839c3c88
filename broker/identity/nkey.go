package identity

import (
	"encoding/base64"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Nkey is the Authenticator of a broker that trusts nobody else's word: the client
// proves that it holds the seed of a user nkey (U...) of the policy by signing the
// nonce. A connection that presents anything beside it is refused.
var Nkey Authenticator = (&Trust{nkeys: true}).Authenticate

// nkey checks the nkey challenge.
func (t *Trust) nkey(set *policy.Set, c *Credentials) (Login, *wire.Refusal) {
	if !signedNonce(c) {
		return Login{}, failed("the signature is not that of the nonce by the presented nkey: check that the client signs with the seed of this public key")
	}
	// Only now is the policy asked: whoever does not hold the seed learns nothing,
	// not even from the time it took.
	p, refusal := admissible(set.ByNkey(c.NkeyPublic), "nkey", c.NkeyPublic)
	return Login{Principal: p, Method: MethodNkey, Name: c.NkeyPublic}, refusal
}

// signedNonce checks the signature as nats-server does: base64url without padding,
// else standard base64, over the text of the nonce.
func signedNonce(c *Credentials) bool {
	if len(c.Nonce) != nonceChars || !nkeys.IsValidPublicUserKey(c.NkeyPublic) {
		return false
	}
	sig, err := base64.RawURLEncoding.Strict().DecodeString(c.Signature)
	if err != nil {
		if sig, err = base64.StdEncoding.Strict().DecodeString(c.Signature); err != nil {
			return false
		}
	}
	key, err := nkeys.FromPublicKey(c.NkeyPublic)
	return err == nil && key.Verify([]byte(c.Nonce), sig) == nil
}
