package identity

import (
	"context"
	"encoding/base64"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

var _ Authenticator = Nkey

// Nkey is the Authenticator of the nkey challenge: the client proves that it holds
// the seed of a user nkey (U...) of the policy by signing the nonce. A connection
// that presents any other credential beside the nkey is refused, and so is one
// that presents only another.
func Nkey(_ context.Context, set *policy.Set, c *Credentials) (*policy.Principal, *wire.Refusal) {
	other := c.JWT != "" || c.AuthToken != "" || c.User != "" || c.Pass != ""
	switch {
	case c.NkeyPublic == "" && c.Signature == "" && !other:
		return nil, required()
	case other:
		return nil, failed("a JWT, token, user or password was presented: present an nkey and its signature alone")
	case !signedNonce(c):
		return nil, failed("the signature is not that of the nonce by the presented nkey: check that the client signs with the seed of this public key")
	case set == nil:
		return nil, failed("no policy is loaded")
	}
	// Only now is the policy asked: whoever does not hold the seed learns nothing,
	// not even from the time it took.
	p := set.ByNkey(c.NkeyPublic)
	switch {
	case p == nil:
		return nil, failed("no principal has this nkey: add it under identities of a principal")
	case p.Disabled:
		return nil, failed("the principal " + p.FullName() + " is disabled in the policy")
	}
	return p, nil
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
